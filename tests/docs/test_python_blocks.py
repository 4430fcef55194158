"""Every Python block of README and docs runs as it stands; a page's blocks run one after the other, in one namespace.

What a page takes as given (a model, a BAE, activations on disk) is a small real one of each, on the embedded Llama.
"""

from pathlib import Path

import pytest
import torch
from pages import PAGES, ROOT, blocks
from transformer_lens import HookedTransformer

import bae_lens
from bae_lens.demo import demo_model_dir
from bae_lens.demo.corpus import python_docs
from bae_lens.intervene import metrics
from bae_lens.training.config import with_changes

HOOK = "blocks.1.hook_resid_pre"
PYTHON = {page.relative_to(ROOT).as_posix(): [b for b in blocks(page) if b.language == "python"] for page in PAGES}
SLOW = {"docs/codec.md", "docs/distilled_encoder.md", "docs/comsem.md"}
"""These train for a while, or start processes."""


@pytest.fixture(scope="module")
def given(models, tmp_path_factory):
    """What pages take as given, and a directory with acts/ and runs/l5, where they run."""
    place = tmp_path_factory.mktemp("docs")
    text = [piece for document in python_docs().train[:20] for piece in document.split("\n\n")][:300]
    harvester = bae_lens.load_for_harvest(demo_model_dir(), [HOOK])
    bae_lens.harvest_to_disk(harvester, text, hooks=[HOOK], out=place / "acts", tokens=8000, progress=False)
    dataset = bae_lens.ActivationDataset(place / "acts", hook=HOOK)
    recipe = bae_lens.recipes.recommended(dataset.d_in, steps=60)
    bae = bae_lens.train(dataset, recipe, metadata=dataset.metadata, progress=False).bae
    bae_lens.save(bae, place / "runs" / "l5")
    sentences = [" ".join(document.split())[:150] for document in text[:6]]
    names = {
        "bae_lens": bae_lens,
        "model": models(HookedTransformer),
        "bae": bae,
        "d_in": 16,
        "prompts": sentences[:2],
        "one": sentences[0],
        "other": sentences[0],
        "metrics": metrics,
        "prompt_0shot": "text: " + sentences[2],
        "prompts_0shot": ["text: " + sentence for sentence in sentences[2:4]],
        "prompts_8shot": [f"text: {sentences[0]} label: yes text: {sentence}" for sentence in sentences[2:4]],
        "with_changes": with_changes,
        "recommended": bae_lens.recipes.recommended,
        "x": torch.randn(2048, 16, generator=torch.Generator().manual_seed(0)),
    }
    return place, names


@pytest.fixture
def as_before():
    """Surrogates that a page registers are gone after it."""
    known = dict(bae_lens.SURROGATES)
    yield
    bae_lens.SURROGATES.clear()
    bae_lens.SURROGATES.update(known)


def run(page, names):
    for block in PYTHON[page]:
        code = compile("\n" * block.line + block.text, str(ROOT / page), "exec")  # an error names the page's own line
        exec(code, names)


def pages(slow):
    return [page for page, found in PYTHON.items() if found and (page in SLOW) == slow]


@pytest.mark.parametrize("page", pages(slow=False))
def test_the_examples_of_a_page_run_as_they_stand(page, given, as_before, tmp_path, monkeypatch):
    place, names = given
    for name in ("acts", "runs"):
        if page != "docs/activations.md":  # that one makes its own
            (tmp_path / name).symlink_to(place / name)
    monkeypatch.chdir(tmp_path)
    run(page, dict(names))


@pytest.mark.slow
@pytest.mark.parametrize("page", pages(slow=True))
def test_the_longer_examples_of_a_page_run_as_they_stand(page, given, as_before, tmp_path, monkeypatch):
    place, names = given
    (tmp_path / "acts").symlink_to(place / "acts")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "l5").symlink_to(place / "runs" / "l5")
    monkeypatch.chdir(tmp_path)
    more = {}
    if page == "docs/comsem.md":
        more = comsem_given(names)
    run(page, {**names, **more})


def comsem_given(names):
    """A text in sentences with its activations, and a server that answers as OpenAI's do."""
    from bae_lens import comsem

    model = names["model"]
    windows = comsem.sentence_windows(model.tokenizer, python_docs().held_out, 64, sentences=300)
    return {"sae": names["bae"], "windows": windows, "activations": bae_lens.harvest(model, windows, HOOK, progress=False)}


def test_a_page_without_examples_is_none_that_should_have_some():
    assert {"README.md", "docs/activations.md", "docs/codec.md", "docs/effects.md"} <= {
        p for p, found in PYTHON.items() if found
    }
    assert Path(demo_model_dir()).is_dir()
