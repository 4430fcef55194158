"""docs/activations.md: what it shows runs as it stands, and its commands are taken."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bae_lens.cli import main

PAGE = (Path(__file__).parents[2] / "docs" / "activations.md").read_text(encoding="utf-8")


def test_the_example_of_the_page_runs_as_it_stands(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    result = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "acts" / "manifest.json").is_file()


def test_the_options_of_the_page_are_known(capsys):
    known = set()
    for command in ("harvest", "train"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        known |= set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))
    named = set(re.findall(r"--[a-z][a-z-]*", PAGE.replace("torchrun --nproc-per-node", "").split("## What it costs")[0]))
    assert named <= known
    lines = re.findall(r"^bae-lens .*?(?<!\\)$", PAGE, re.DOTALL | re.MULTILINE)
    assert [shlex.split(line.replace("\\\n", " "))[1] for line in lines] == ["harvest", "train"]
