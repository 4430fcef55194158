import pytest
import torch
from sae_lens import GatedSAE, JumpReLUSAE, StandardSAE, TopKSAE, TopKTrainingSAE, TopKTrainingSAEConfig

import bae_lens
from bae_lens.compare.baselines import (
    Baseline,
    batchtopk,
    gated,
    jumprelu,
    matryoshka,
    standard,
    start_from_data,
    topk,
    train_baseline,
)

KINDS = [
    (standard(0.1), StandardSAE),
    (topk(6), TopKSAE),
    (batchtopk(6), JumpReLUSAE),
    (jumprelu(0.1), JumpReLUSAE),
    (gated(0.1), GatedSAE),
    (matryoshka(6), JumpReLUSAE),
]


@pytest.mark.parametrize(("baseline", "kind"), KINDS)
def test_saelens_saes_learn_from_raw_activations_and_take_raw_activations(vectors, baseline, kind):
    trainer = bae_lens.TrainerConfig(steps=150, batch_size=64)
    x = 5 * vectors + 2
    sae = train_baseline(baseline, x, 256, trainer, {"hook_name": "blocks.1.hook_resid_pre"})
    assert isinstance(sae, kind)
    assert sae.cfg.metadata.hook_name == "blocks.1.hook_resid_pre"
    fvu = (sae(x) - x).pow(2).sum() / (x - x.mean(0)).pow(2).sum()
    assert fvu < 0.5
    l0 = (sae.encode(x) > 0).sum(1).float()
    if baseline.architecture == "topk":
        assert l0.max() <= 6
    if baseline.architecture == "batchtopk":
        assert l0.mean() == pytest.approx(6, rel=0.3)
        assert l0.max() > 6


@pytest.mark.parametrize(
    ("make", "weak", "strong"),
    [(jumprelu, 0.01, 10.0), (standard, 0.01, 3.0), (gated, 0.01, 3.0), (batchtopk, 12, 2), (matryoshka, 12, 2)],
)
def test_a_stronger_setting_is_sparser(vectors, make, weak, strong):
    trainer = bae_lens.TrainerConfig(steps=200, batch_size=64, learning_rate=2e-2)  # a threshold moves by at most that a step
    many, few = (
        (train_baseline(make(value), vectors, 64, trainer).encode(vectors) > 0).sum(1).float().mean()
        for value in (weak, strong)
    )
    assert few < 0.7 * many


def test_training_a_baseline_twice_gives_the_same_weights(vectors):
    trainer = bae_lens.TrainerConfig(steps=20, batch_size=64)
    for baseline, _ in KINDS:
        one, two = (train_baseline(baseline, vectors, 32, trainer).state_dict() for _ in range(2))
        assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        (Baseline("standrd", "k", 1), "did you mean 'standard'"),
        (topk(9), "k of topk must be from 1 to d_sae = 8, got 9"),
        (batchtopk(0.5), "k of batchtopk must be from 1 to d_sae = 8, got 0.5"),
        (jumprelu(-1.0), "l0_coefficient of jumprelu must be at least 0, got -1"),
        (matryoshka(9), "k of matryoshka_batchtopk must be from 1 to d_sae = 8, got 9"),
        (gated(-1.0), "l1_coefficient of gated must be at least 0, got -1"),
        (standard(float("nan")), "l1_coefficient of standard must be at least 0, got nan"),
    ],
)
def test_what_cannot_be_trained_is_refused(vectors, baseline, message):
    with pytest.raises(ValueError, match=message):
        train_baseline(baseline, vectors, 8, bae_lens.TrainerConfig(steps=1, batch_size=64))


def test_an_sae_without_features_is_refused(vectors):
    with pytest.raises(ValueError, match="at least one feature, got d_sae = 0"):
        train_baseline(standard(), vectors, 0, bae_lens.TrainerConfig(steps=1, batch_size=64))


def test_activations_that_cannot_be_trained_on_are_refused(vectors):
    trainer = bae_lens.TrainerConfig(steps=1, batch_size=64)
    with pytest.raises(ValueError, match="63 vectors are fewer than one batch of 64"):
        train_baseline(topk(2), vectors[:63], 8, trainer)
    with pytest.raises(ValueError, match="all equal"):
        train_baseline(topk(2), torch.ones(64, 8), 8, trainer)


def test_a_matryoshka_sae_of_too_few_features_to_nest_is_refused(vectors):
    with pytest.raises(ValueError, match="at least 8 features to nest, got d_sae = 4"):
        train_baseline(matryoshka(2), vectors, 4, bae_lens.TrainerConfig(steps=1, batch_size=64))


def test_the_narrowest_nest_of_a_matryoshka_sae_reconstructs_better_alone_than_a_batchtopk_saes_first_features(vectors):
    trainer = bae_lens.TrainerConfig(steps=300, batch_size=64)

    def error_of_first_features(baseline):
        sae = train_baseline(baseline, vectors, 64, trainer)
        features = sae.encode(vectors)
        features[:, 8:] = 0
        return (sae.decode(features) - vectors).pow(2).sum()

    assert error_of_first_features(matryoshka(6)) < 0.8 * error_of_first_features(batchtopk(6))


def test_a_start_from_data_puts_encoder_and_decoder_at_directions_of_vectors():
    data = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=5, d_sae=16, k=2))
    lengths = sae.W_dec.detach().norm(dim=1)
    start_from_data(sae, data)
    cosines = torch.nn.functional.cosine_similarity(sae.W_enc.detach().T[:, None], data[None], dim=2).max(1).values
    assert cosines == pytest.approx(torch.ones(16), abs=1e-6)
    torch.testing.assert_close(sae.W_enc.detach().norm(dim=0), torch.ones(16))
    torch.testing.assert_close(sae.W_dec.detach(), sae.W_enc.detach().T * lengths[:, None])
