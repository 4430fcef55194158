"""The figures that the main job must reach on a real pretrained Llama, through public functions only."""

import pytest

import bae_lens
from bae_lens.analyze.fidelity import ablation_baseline, fidelity
from bae_lens.analyze.statistics import code_statistics

HOOK = "blocks.1.hook_resid_pre"


@pytest.fixture(scope="module")
def story(data_dir):
    model = bae_lens.load_model(data_dir / "story-llama")
    split = bae_lens.split_documents(bae_lens.read_documents(data_dir / "text" / "stories.generated.txt"))
    train, held_out = (bae_lens.tokenize(model.tokenizer, documents, 256) for documents in split)
    activations = [bae_lens.harvest(model, windows, HOOK, progress=False).vectors for windows in (train, held_out)]
    bae = bae_lens.train(activations[0], bae_lens.recipes.recommended(128), metadata={"hook_name": HOOK}, progress=False).bae
    return model, bae, held_out, *activations


def test_fvu_entropy_dead_and_dense_bits_reach_their_goals_on_held_out_stories(story):
    _, bae, _, _, held_out = story
    stats = code_statistics(bae, held_out)
    assert bae.cfg.d_sae == 512
    assert stats.fvu <= 0.115
    assert stats.entropy <= 128
    assert stats.dead <= 30
    assert stats.dense <= 20


def test_splicing_recovers_96_percent_of_the_loss_against_zero_ablation(story):
    model, bae, windows, train, _ = story
    baseline = ablation_baseline(model, windows, HOOK, train.mean(0))
    assert fidelity(model, bae, windows, baseline).recovered_from_zero >= 0.96
