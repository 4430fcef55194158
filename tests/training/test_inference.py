"""From a BAE in training to one that takes raw vectors: the same codes, refined under the same weight in other units."""

import json

import pytest
import torch
from sae_lens import SAE

import bae_lens
from bae_lens.objective.rate_distortion import COST_SAMPLES
from bae_lens.training.inference import to_inference

SCALE = 0.25


def vectors(samples=300, d=8, seed=1):
    """Far from normalised."""
    return 4 * torch.randn(samples, d, generator=torch.Generator().manual_seed(seed)) + 10


def training_bae(**fields):
    """Random weights for vectors (x - 10) / 4, with a prior that prices levels as inference does."""
    torch.manual_seed(0)
    own = {"code": "nested", "bits_per_feature": 4, "objective": "rate_distortion", "init": "data", "refine_from": 6}
    cfg = bae_lens.TrainingBAEConfig(d_in=8, d_sae=24, refine_weight=0.3, **{**own, **fields})
    sae = bae_lens.TrainingBAE(cfg)
    sae.W_enc.data.normal_(std=0.6)
    sae.W_dec.data.normal_(std=0.6)
    sae.b_enc.data.normal_(mean=-0.5, std=0.2)
    sae.b_dec.data.normal_(std=0.2)
    sae.set_normalization(torch.full((8,), 10.0), SCALE)
    levels = torch.rand(24, sae.cfg.bits_per_feature).cumprod(1)
    sae.prior.copy_(levels.flatten())
    sae.cfg.prior_samples = COST_SAMPLES
    return sae


def unrefined(sae, x):
    """The features that refining starts from."""
    return sae.start_levels(sae.encode_with_hidden_pre(x)[1]) / sae.top_level


@pytest.mark.parametrize("fields", [{}, {"code": "powers", "bits_per_feature": 1}, {"apply_b_dec_to_input": True}])
def test_the_saved_inference_bae_refines_under_the_same_weight_in_raw_units(tmp_path, fields):
    sae, x = training_bae(**fields), vectors()
    codes, x_hat = sae.encode(x), sae(x)
    assert (codes != unrefined(sae, x)).any(1).float().mean() > 0.5  # refining changes most of them
    sae.save_inference_model(tmp_path / "saved")
    assert sae.cfg.refine_weight == 0.3  # its own weight is still of normalised vectors
    assert torch.equal(sae.encode(x), codes)

    saved, made = SAE.load_from_disk(tmp_path / "saved"), to_inference(sae)
    assert json.loads((tmp_path / "saved" / "cfg.json").read_text())["refine_weight"] == pytest.approx(0.3 / SCALE**2)
    assert saved.cfg.refine_weight == made.cfg.refine_weight == pytest.approx(0.3 / SCALE**2)
    assert torch.equal(saved.encode(x), made.encode(x))
    assert torch.equal(saved(x), made(x))
    same = (made.encode(x) == codes).all(1)  # a move that is worth nothing may go either way when units change
    assert same.float().mean() > 0.99
    torch.testing.assert_close(made(x)[same], x_hat[same], atol=1e-3, rtol=1e-4)


def test_folding_the_normalisation_keeps_the_refined_codes(tmp_path):
    sae, x = training_bae(), vectors()
    codes, x_hat = sae.encode(x), sae(x)
    sae.fold_normalization()
    assert sae.cfg.refine_weight == pytest.approx(0.3 / SCALE**2)
    assert (sae.data_scale, sae.data_mean.abs().max()) == (1, 0)
    same = (sae.encode(x) == codes).all(1)
    assert same.float().mean() > 0.99
    torch.testing.assert_close(sae(x)[same], x_hat[same], atol=1e-3, rtol=1e-4)
    sae.save_inference_model(tmp_path / "saved")
    assert SAE.load_from_disk(tmp_path / "saved").cfg.refine_weight == pytest.approx(0.3 / SCALE**2)


def test_a_weight_in_the_wrong_units_would_give_other_codes():
    """What the two tests above would not notice if refining were at its end whatever the weight."""
    sae, x = training_bae(), vectors()
    codes, made = sae.encode(x), to_inference(sae)
    made.cfg.refine_weight = 0.3
    assert (made.encode(x) == codes).all(1).float().mean() < 0.5
