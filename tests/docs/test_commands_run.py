"""The commands that README and docs show run on the embedded default, one after the other, in a size of seconds."""

from pathlib import Path

import pytest
from pages import PAGES, ROOT, blocks, commands_in

from bae_lens.cli import main
from bae_lens.demo import demo_model_dir
from bae_lens.demo.corpus import python_docs

SHOWN = [
    ("README.md", "harvest", ["--tokens", "6000"]),
    ("README.md", "train", ["--steps", "40"]),
    ("docs/codec.md", "compress", []),
    ("docs/codec.md", "decompress", []),
    ("docs/effects.md", "steer", ["--windows", "4", "--random", "1", "--strength", "0,2"]),
    ("docs/comsem.md", "interpret", ["--sentences", "200", "--control", "4"]),
    ("docs/compare.md", "harvest", ["--tokens", "6000"]),
]
"""Page, command, and what makes it small. Each finds what those before it have made."""
MADE = {
    "harvest": "{out}/manifest.json",
    "train": "{out}/sae_weights.safetensors",
    "compress": "{out}",
    "decompress": "{out}/manifest.json",
    "steer": "{out}/results.json",
    "interpret": "runs/comsem/summary.json",
}


def shown(page, name):
    """The words of the first such command of a page."""
    path = next(path for path in PAGES if path.relative_to(ROOT).as_posix() == page)
    found = (words for block in blocks(path) if block.language == "sh" for words in commands_in(block))
    return next(words for words in found if words[:2] == ["bae-lens", name])


@pytest.mark.slow
def test_they_run_one_after_the_other_and_leave_what_they_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "\n".join(" ".join(document.split())[:300] for document in python_docs().train[:120])
    for name in ("stories.txt", "other.txt"):
        Path(name).write_text(text)
    llama = str(demo_model_dir())
    places = {"MODEL_DIR": llama, "story-llama/": llama, "TEXT_FILE": "stories.txt"}
    places |= {"runs/l5": "runs/l1", "runs/demo/bae": "runs/l1", "runs/rd/bae": "runs/l1"}
    for step, (page, name, small) in enumerate(SHOWN):
        words = [places.get(word, word) for word in shown(page, name)[1:]]
        if name == "harvest" and step:
            words[words.index("--out") + 1] = "others/"  # a harvest of other hook points is another one
        assert main([*words, *small]) == 0, (page, words)
        out = words[words.index("--out") + 1].rstrip("/") if "--out" in words else ""
        assert Path(MADE[name].format(out=out)).exists(), (page, words)
