"""The site: built with every warning an error; nothing in it is fetched from elsewhere, and formulas need no script."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


class Loader(yaml.SafeLoader):
    """Of mkdocs.yml, whose own tags are no matter here."""


Loader.add_multi_constructor("", lambda loader, suffix, node: None)
SETTINGS = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)


def pages_of(nav):
    for entry in nav:
        value = next(iter(entry.values())) if isinstance(entry, dict) else entry
        yield from pages_of(value) if isinstance(value, list) else [value]


def test_every_page_is_in_the_navigation_and_warnings_are_errors():
    assert SETTINGS["strict"] is True
    listed = set(pages_of(SETTINGS["nav"]))
    written = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    written |= {f"tutorials/{path.stem}.md" for path in (ROOT / "tutorials").glob("[0-9]_*.ipynb")}
    assert listed == written


def test_every_formula_can_be_converted():
    from latex2mathml.converter import convert

    for path in (ROOT / "docs").glob("*.md"):
        text = re.sub(r"```.*?```|`[^`]*`", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        for display, inline in re.findall(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", text, re.DOTALL):
            assert "<math" in convert(display or inline)


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_fetches_nothing(tmp_path):
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert built.returncode == 0, built.stderr[-3000:]
    pages = sorted(tmp_path.rglob("*.html"))
    assert len(pages) > 35
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r'<(?:script|img|link)[^>]+(?:src|href)="(?:https?:)?//(?!example)[^"]+"[^>]*>', text), page.name
        assert "arithmatex" not in text, f"{page.name}: a formula was not converted"
    concepts = (tmp_path / "concepts.html").read_text(encoding="utf-8")
    assert concepts.count("<math") > 30
    reference = (tmp_path / "api" / "intervene.html").read_text(encoding="utf-8")
    assert 'id="bae_lens.steer"' in reference
    assert "bae-lens doctor" in (tmp_path / "api" / "commands.html").read_text(encoding="utf-8")
    assert "burstiness" in (tmp_path / "tutorials" / "1_attach_and_look.html").read_text(encoding="utf-8")
