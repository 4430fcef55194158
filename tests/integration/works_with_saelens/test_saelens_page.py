"""The page docs/works_with_saelens.md: each test of this folder is a row."""

import subprocess
import sys
from pathlib import Path


def test_the_page_has_a_row_for_each_test_of_this_folder():
    """The page is generated from the files of this folder and up to date."""
    root = Path(__file__).parents[3]
    script = root / "docs" / "make_works_with_saelens.py"
    made = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True).stdout
    assert made == (root / "docs" / "works_with_saelens.md").read_text(encoding="utf-8")
