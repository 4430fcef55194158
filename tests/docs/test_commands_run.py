"""The commands that README and docs show run on the embedded default, one after the other, in a size of seconds."""

from pathlib import Path
from typing import NamedTuple

import pytest
from pages import PAGES, ROOT, blocks, commands_in

from bae_lens.cli import main
from bae_lens.demo import demo_model_dir
from bae_lens.demo.corpus import python_docs

HOOK = "blocks.1.hook_resid_pre"


class Run(NamedTuple):
    """A command of a page. Each finds what those before it have made."""

    page: str
    begins: str
    """The words that tell it from others of its page, after `bae-lens`."""
    made: str = ""
    """A file that is there afterwards; none where the command prints and no more."""
    small: str = ""
    """What makes it small: options in place of its own."""
    acts: str = "acts/"
    """What it calls acts/."""


SHOWN = [
    Run("README.md", "demo", "out.json", "--steps 20 --tokens 3000 --out runs/demo"),
    Run("docs/comsem.md", "demo", "runs/named/bae/sae_weights.safetensors", "--steps 100 --tokens 3000 --out runs/named"),
    Run("README.md", "harvest", "acts/manifest.json", "--tokens 6000"),
    Run("README.md", "train", "runs/l1/sae_weights.safetensors", "--steps 40"),
    Run("docs/codec.md", "compress", "acts.baez"),
    Run("docs/codec.md", "decompress", "acts2/manifest.json"),
    Run("docs/codec.md", "more-bit", "runs/morebit/benchmark.json", "--bits 1,2 --steps 5"),
    Run("docs/effects.md", "steer", "runs/steer/results.json", "--windows 4 --random 1 --strength 0,2"),
    Run("docs/comsem.md", "interpret --bae", "runs/comsem/summary.json", "--sentences 200 --control 4"),
    Run(
        "docs/comsem.md",
        "interpret --model DIR --bae runs/l5 --text FILE --backend openai",
        small="--sentences 200 --control 4 --out runs/dry",
    ),
    Run("docs/compare.md", "harvest", "others/manifest.json", "--tokens 6000", "others/"),
    Run(
        "docs/compare.md",
        f"compare --activations acts/ --hook {HOOK} --with",
        "runs/compare/benchmark.json",
        "--steps 20 --tries 1 --seeds 1 --jobs 1 --tokens 3000 --held-out-tokens 900 --no-refine",
        "others/",
    ),
    Run(
        "docs/compare.md",
        f"compare --activations acts/ --hook {HOOK} --bae",
        "runs/as_they_are/results.json",
        "--tokens 3000 --held-out-tokens 900 --no-refine",
        "others/",
    ),
    Run(
        "docs/compare.md",
        "harvest --model MODEL_DIR --text TEXT_FILE --hooks blocks.0",
        "pairs/manifest.json",
        "--tokens 6000",
        "pairs/",
    ),
    Run("docs/compare.md", "transcoder", "runs/transcoder/benchmark.json", "--steps 5 --seeds 1", "pairs/"),
    Run("docs/traces.md", "harvest --model DIR", "places/manifest.json", "--positions 1,2 --tokens 1400", "places/"),
    Run(
        "docs/traces.md",
        "entropy --activations acts/ --by",
        "runs/entropy/benchmark.json",
        f"--hooks {HOOK} --documents 700 --steps 5 --processes 1",
        "places/",
    ),
    Run(
        "docs/traces.md",
        "icl --model DIR",
        "runs/icl/benchmark.json",
        f"--hooks {HOOK} --shots 0,1 --prompts 660 --scored 32 --steps 5 --processes 1",
    ),
    Run(
        "docs/traces.md",
        "two-tokens --model DIR",
        "runs/two-tokens/benchmark.json",
        "--r 1,2 --sequences 700 --tokens 10,300 --steps 5 --processes 1",
    ),
    Run(
        "docs/traces.md",
        "rate-distortion",
        "runs/rd/benchmark.json",
        "--weights 0.1 --steps 5 --processes 1",
        "others/",
    ),
    Run("docs/grid.md", "harvest", "grid/manifest.json", "--positions 1,2 --tokens 1400", "grid/"),
    Run(
        "docs/grid.md",
        "train-grid",
        "runs/grid/benchmark.json",
        f"--hooks {HOOK} --positions 1,2 --seeds 0 --steps 5 --processes 1",
        "grid/",
    ),
    Run(
        "docs/task_vectors.md",
        "taskvec",
        "runs/taskvec/results.json",
        "--strengths 0,1 --keep 8 --samples 16 --shots 2 --random 1",
    ),
    Run(
        "docs/synthetic_benchmark.md",
        "synthetic",
        "runs/synthetic/benchmark.json",
        "--r 2 --d 16 --samples 1024 --steps 100 --every 50 --out runs/synthetic",
    ),
    Run(
        "docs/synthetic_benchmark.md",
        "synthetic --r",
        "runs/more/benchmark.json",
        "--r 2 --expansion 1 --seeds 0 --d 16 --samples 1024 --steps 100 --every 50",
    ),
    Run(
        "docs/synthetic_benchmark.md",
        "synthetic --set",
        "runs/changed/benchmark.json",
        "--r 2 --d 16 --samples 1024 --steps 100 --every 50",
    ),
    Run(
        "docs/codes_benchmark.md",
        "bench-codes --model MODEL_DIR --text TEXT_FILE --hooks",
        "runs/codes/benchmark.json",
        "--kinds pca gaussian --tokens 3000 --steps 5 --out runs/codes",
    ),
    Run("docs/figures.md", "figures", "figures/index.html"),
    Run("docs/report.md", "report", "report.html", "--tokens 2000 --features 40"),
    Run("docs/scaling.md", "plan --d-in 2048"),
    Run("docs/scaling.md", "plan --model"),
    Run("docs/reproduce.md", "reproduce --size tiny", small="--dry-run"),
    Run("docs/reproduce.md", "reproduce --size small", small="--dry-run"),
    Run("docs/reproduce.md", "reproduce --size paper"),
    Run("docs/index.md", "doctor"),
]
OF_A_GPU = "asks for a GPU and a model from the network; the same command runs here on the embedded Llama"
BY_HAND = "a measurement of minutes to hours, whose page shows what it printed; tests/docs/test_pages.py checks its options"
LEFT_OUT = {
    "git clone": "it is this repository",
    "make ": "sets up an environment from the network; the checks that it runs are these",
    "pip install": "from the network",
    "jupyter lab": "opens a browser; tests/tutorials runs every notebook",
    "python tutorials/build.py": "tests/tutorials/test_tutorials.py runs the same for every notebook",
    "OMP_NUM_THREADS=1 .venv/bin/pytest": "it is a test",
    "python benchmarks/": BY_HAND,
    "BAE_LENS_TEST_DATA=DATA python benchmarks/": BY_HAND,
    "torchrun": "starts four processes; tests/training/test_distributed.py trains over processes",
    "bae-lens bench-codes": "hours at its own size, and a row of such a run; the one that is made small is above",
    "bae-lens plan --d-in 512 --tokens 1e6 --measure": "measures the machine; tests/capacity does too",
    "bae-lens interpret --model DIR --bae runs/l5 --text FILE --backend http": (
        "needs a language model; tests/comsem runs it against local servers"
    ),
    "bae-lens harvest --model meta-llama": OF_A_GPU,
    "bae-lens train --activations acts/ --hook blocks.5": OF_A_GPU,
    "bae-lens entropy --activations acts/ --device cuda": OF_A_GPU,
    "bae-lens icl --model meta-llama": OF_A_GPU,
    "bae-lens two-tokens --model meta-llama": OF_A_GPU,
}
"""Why the other commands are not run here, by how they begin."""


def all_shown():
    """Page and words of every command line of a shell block."""
    for path in PAGES:
        for block in (block for block in blocks(path) if block.language in ("sh", "console")):
            yield from ((block.page, words) for words in commands_in(block))


def find(run):
    """The words of the first such command of a page."""
    begins = ["bae-lens", *run.begins.split()]
    return next(words for page, words in all_shown() if page == run.page and " ".join(words).startswith(" ".join(begins)))


def test_every_command_that_is_shown_is_run_or_left_out_for_a_reason():
    runs = [(run.page, find(run)) for run in SHOWN]
    others = [" ".join(words) for page, words in all_shown() if (page, words) not in runs and words != ["bae-lens"]]
    assert [text for text in others if not text.startswith(tuple(LEFT_OUT))] == []
    assert [begins for begins in LEFT_OUT if not any(text.startswith(begins) for text in others)] == []
    for reason in LEFT_OUT.values():
        assert all((ROOT / word.strip(";,")).exists() for word in reason.split() if word.startswith("tests/")), reason


def prepare(llama):
    """Writes what the pages call by names of their own: texts, a task, and an SAE of SAELens; places by those names."""
    from sae_lens import StandardSAE, StandardSAEConfig

    lines = [" ".join(part.split())[:300] for document in python_docs().train for part in document.split("\n\n")]
    lines = [line for line in lines if len(line) > 60][:1500]
    for name in ("stories.txt", "other.txt", "text.txt", "books.txt"):
        Path(name).write_text("\n".join(lines))
    Path("sst2.train.txt").write_text("\n".join(f"{n % 2} {line[:60]}" for n, line in enumerate(lines)))
    sae = StandardSAE(StandardSAEConfig(d_in=128, d_sae=256))
    sae.cfg.metadata.hook_name, sae.cfg.metadata.model_name = HOOK, llama
    sae.save_model("saelens")
    places = {name: llama for name in ("MODEL_DIR", "DIR", "story-llama/", "llama/")}
    places |= {
        "TEXT_FILE": "stories.txt",
        "FILE": "stories.txt",
        "SAE_DIR": "saelens",
        "RELEASE:SAE_ID": "saelens",
        "runs/topk": "saelens",
    }
    return places | {name: "runs/l1" for name in ("runs/l5", "runs/l11", "runs/demo/bae", "runs/rd/bae")}


@pytest.mark.slow
def test_they_run_one_after_the_other_and_leave_what_they_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = prepare(str(demo_model_dir()))
    for run in SHOWN:
        words = [{**places, "acts/": run.acts}.get(word, word) for word in find(run)[1:]]
        assert main([*words, *run.small.split()]) == 0, run
        assert Path(run.made).exists(), run
