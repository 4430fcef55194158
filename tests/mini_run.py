"""A reproduction that is as small as every stage allows: real models, text, trainings and files, in CPU seconds."""

import os
from pathlib import Path

import pytest
from filelock import FileLock

from bae_lens.demo import demo_model_dir
from bae_lens.reproduce.bench import Bench
from bae_lens.reproduce.job import run_reproduce

MINI = {
    "about": "as small as can be, for tests",
    "layers": [1],
    "every": 4,
    "processes": 1,
    "synthetic": {"d": 16, "samples": 1024, "r": [2], "steps": 100, "every": 50},
    "world": {
        "fillers": 1,
        "steps": 10,
        "examples": 40,
        "lines": 80,
        "dictionary_steps": 10,
        "hook": "blocks.1.hook_resid_mid",
    },
    "harvest": {"tokens": 8000, "context_size": 64, "seed": 0},
    "positions": {"positions": [1, 2, 4], "characters": 60, "tokens": 2100},
    "entropy": {"steps": 5, "documents": 700},
    "icl": {"shots": [0, 1, 2], "prompts": 660, "scored": 32, "steps": 5, "hooks": ["blocks.1.hook_resid_pre"]},
    "two-tokens": {"r": [1, 2], "sequences": 700, "tokens": [10, 300], "steps": 5},
    "rate-distortion": {"recipes": ["recommended"], "weights": [0.1], "steps": 10, "tokens": 3000},
    "compare": {
        "methods": ["bae", "relu_paper", "topk_paper"],
        "steps": 40,
        "tries": 1,
        "seeds": 1,
        "tokens": 3000,
        "held_out_tokens": 900,
        "refine": False,
    },
    "transcoder": {"steps": 10, "seeds": 1},
    "comsem": {
        "methods": ["bae", "relu_paper"],
        "tokens": 400,
        "features": tuple(range(0, 512, 6)),
        "control": 2,
        "shuffled": 0,
    },
    "taskvec": {"strengths": [0.0, 1.0], "keep": 8, "samples": 16, "shots": 2, "random": 1},
    "steering": {"features": 1, "strengths": [0.0, 2.0], "windows": 4, "random": 1},
    "codec": {"methods": ["bae"], "known": 1000, "held_out": 500},
    "more-bit": {"bits": [1, 2, 3], "steps": 5, "named": False},
}


def documents(path: Path) -> Path:
    """This repository's own documentation, a line a document."""
    pages = sorted((Path(__file__).parent.parent / "docs").glob("*.md"))
    lines = [line for page in pages for line in page.read_text(encoding="utf-8").splitlines() if len(line) > 60]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def mini(tmp_path_factory):
    """The directory of one such reproduction, made once for all processes of a test run. It is to be read only."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with FileLock(base / "mini.lock"):
        if not (base / "mini" / "claims.json").is_file():
            bench = Bench(
                out=base / "mini",
                settings=MINI,
                model=str(demo_model_dir()),
                text=str(documents(base / "documents.txt")),
                say=lambda line: None,
            )
            found = run_reproduce(bench)
            assert not [one.reason for one in found.done if one.reason]
    return base / "mini"
