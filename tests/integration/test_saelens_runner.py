"""A BAE trained by SAELens' runner ends where our trainer ends: the figure of benchmarks/saelens_runner.py."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_saelens_language_model_runner_ends_within_a_tenth_of_our_trainer(data_dir, tmp_path):
    script = ROOT / "benchmarks" / "saelens_runner.py"
    story = ["--model", str(data_dir / "story-llama"), "--text", str(data_dir / "text" / "stories.generated.txt")]
    subprocess.run([sys.executable, str(script), *story, "--json", str(tmp_path / "out.json")], check=True)
    found = json.loads((tmp_path / "out.json").read_text())
    for figure in ("fvu", "entropy"):
        assert found["saelens"][figure] == pytest.approx(found["own"][figure], rel=0.1)
