"""Promises that belong to no module: import cost, registration, the ledger of skips, files that a repository has."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def python(code, **environment):
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_importing_costs_at_most_three_tenths_of_a_second_over_sae_lens():
    # a collection of all that sae_lens has made takes as long, and falls into one import or another by chance
    code = "import gc, sae_lens, time; gc.disable(); t = time.process_time(); import bae_lens; print(time.process_time() - t)"
    assert min(float(python(code)) for _ in range(3)) <= 0.3


def test_importing_twice_or_after_a_reload_registers_once():
    code = "import importlib, bae_lens, sae_lens.registry as r; importlib.reload(bae_lens); print(r.get_sae_class('bae')[0])"
    assert "bae_lens.model.bae.BAE" in python(code)


def test_a_loader_that_does_not_import_the_package_says_which_architecture_it_misses(tmp_path):
    python(f"import bae_lens\nbae = bae_lens.BAE(bae_lens.BAEConfig(d_in=4, d_sae=8))\nbae.save_model({str(tmp_path)!r})")
    code = f"from sae_lens import SAE\ntry: SAE.load_from_disk({str(tmp_path)!r})\nexcept KeyError as error: print(error)"
    assert python(code).strip() == "'bae'"


def test_every_reason_to_skip_is_in_the_ledger():
    ledger = (ROOT / "tests" / "SKIPPED.md").read_text()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for line in path.read_text().splitlines():
            if re.search(r"^\s*(@pytest\.mark\.skip|pytest\.skip\()", line):
                assert "SKIPPED.md" in line, f"{path}: {line.strip()}"
    assert "BAE_LENS_TEST_DATA" in ledger


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "LICENSE",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "CITATION.cff",
        "constraints.txt",
        "Makefile",
        "bae_lens/py.typed",
    ],
)
def test_the_repository_has_what_it_promises(name):
    assert (ROOT / name).is_file()
