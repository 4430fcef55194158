"""Floors of dependencies, and what is installed here, are past the versions whose advisories are known."""

import importlib.metadata
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
FIXED = {
    "aiohttp": "3.13.3",  # CVE-2025-69223
    "certifi": "2024.7.4",  # CVE-2024-39689
    "filelock": "3.20.3",  # CVE-2025-68146, CVE-2026-22701
    "fonttools": "4.60.2",  # CVE-2025-66034
    "h11": "0.16.0",  # CVE-2025-43859
    "idna": "3.7",  # CVE-2024-3651
    "jinja2": "3.1.6",  # CVE-2025-27516
    "nltk": "3.9.3",  # CVE-2025-14009
    "numpy": "1.22.2",  # CVE-2021-41495
    "pillow": "12.1.1",  # CVE-2026-25990
    "protobuf": "6.33.5",  # CVE-2026-0994
    "psutil": "5.6.6",  # CVE-2019-18874
    "pyarrow": "23.0.1",  # CVE-2023-47248, CVE-2026-25087
    "pyyaml": "5.4",  # CVE-2020-14343
    "requests": "2.32.4",  # CVE-2024-47081
    "scikit-learn": "1.5.0",  # CVE-2024-5206
    "scipy": "1.10.0",  # CVE-2023-25399
    "sentencepiece": "0.2.1",  # CVE-2026-1260
    "setuptools": "78.1.1",  # CVE-2025-47273
    "torch": "2.10.0",  # CVE-2025-32434, CVE-2026-24747
    "tornado": "6.5.0",  # CVE-2025-47287
    "tqdm": "4.66.3",  # CVE-2024-34062
    "transformers": "5.0.0",  # CVE-2025-14920 and others of its conversion scripts, CVE-2026-1839
    "urllib3": "2.6.3",  # CVE-2025-66418, CVE-2026-21441
    "werkzeug": "3.1.6",  # CVE-2026-27199
}
"""The first version without each package's advisories, as known when this was written (docs/security.md); `make audit` asks for
those of today."""


def requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"].values()
    lines = [*project["build-system"]["requires"], *project["project"]["dependencies"], *(r for extra in extras for r in extra)]
    return [Requirement(line) for line in lines]


def floor(requirement: Requirement) -> Version | None:
    floors = [Version(s.version) for s in requirement.specifier if s.operator in (">=", "==", "~=")]
    return max(floors, default=None)


@pytest.mark.parametrize("requirement", requirements(), ids=lambda r: r.name)
def test_every_dependency_has_a_floor_without_known_advisories(requirement):
    assert floor(requirement) is not None, f"{requirement.name} has no floor"
    fixed = FIXED.get(requirement.name.lower())
    assert fixed is None or floor(requirement) >= Version(fixed), f"{requirement} allows versions before {fixed}"


def test_what_parses_files_of_others_has_a_floor_of_its_own():
    assert {"torch", "transformers", "datasets", "pyarrow", "safetensors", "tqdm"} <= {r.name for r in requirements()}


@pytest.mark.parametrize("name", FIXED)
def test_what_is_installed_is_past_its_advisories(name):
    try:
        installed = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return  # what is not installed cannot be attacked
    assert Version(installed) >= Version(FIXED[name])


def test_make_audit_asks_for_advisories():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "\naudit: $(READY)\n\t$(BIN)/pip-audit" in makefile
    assert "pip-audit" in {r.name for r in requirements()}
