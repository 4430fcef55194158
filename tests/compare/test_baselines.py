import pytest
import torch
from sae_lens import StandardSAE, TopKSAE

import bae_lens
from bae_lens.compare.baselines import Baseline, standard, topk, train_baseline


@pytest.mark.parametrize(("baseline", "kind"), [(standard(0.1), StandardSAE), (topk(6), TopKSAE)])
def test_saelens_saes_learn_from_raw_activations_and_take_raw_activations(vectors, baseline, kind):
    trainer = bae_lens.TrainerConfig(steps=150, batch_size=64)
    x = 5 * vectors + 2
    sae = train_baseline(baseline, x, 256, trainer, {"hook_name": "blocks.1.hook_resid_pre"})
    assert isinstance(sae, kind)
    assert sae.cfg.metadata.hook_name == "blocks.1.hook_resid_pre"
    fvu = (sae(x) - x).pow(2).sum() / (x - x.mean(0)).pow(2).sum()
    assert fvu < 0.5
    if baseline.architecture == "topk":
        assert (sae.encode(x) > 0).sum(1).max() <= 6


def test_training_a_baseline_twice_gives_the_same_weights(vectors):
    trainer = bae_lens.TrainerConfig(steps=20, batch_size=64)
    one, two = (train_baseline(topk(4), vectors, 32, trainer) for _ in range(2))
    assert torch.equal(one.W_enc, two.W_enc)


def test_an_unknown_baseline_names_its_neighbours(vectors):
    with pytest.raises(ValueError, match="did you mean 'standard'"):
        train_baseline(Baseline("standrd", "k", 1), vectors, 8, bae_lens.TrainerConfig(steps=1))
