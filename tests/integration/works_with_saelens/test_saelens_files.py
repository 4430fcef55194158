"""A BAE on disk and on a hub, by SAELens: saved, loaded, uploaded, folded."""

import copy
import os
import subprocess
import sys

import pytest
import torch
from local_hub import local_hub
from sae_lens import (
    SAE,
)
from saelens_parts import training_config

import bae_lens

pytestmark = pytest.mark.parametrize("c", [1, 3])


def test_save_model_and_load_from_disk(bae, vectors, tmp_path, c):
    """Weights, prior, scales and configuration come back; another dtype can be asked for."""
    bae.save_model(tmp_path)
    back = SAE.load_from_disk(tmp_path)
    assert torch.equal(back(vectors), bae(vectors))
    assert torch.equal(back.prior, bae.prior)
    assert back.cfg.to_dict() == bae.cfg.to_dict()
    half = SAE.load_from_disk(tmp_path, dtype="bfloat16")
    assert half.prior.dtype == torch.float32
    assert (half.bits(vectors).float() != bae.bits(vectors)).float().mean() < 0.02


def test_save_inference_model_of_a_training_sae(vectors, tmp_path, c):
    """A `TrainingBAE` saves a `BAE`, which says how it was trained."""
    sae = bae_lens.TrainingBAE(training_config(c))
    sae.start_from(vectors)
    sae.save_inference_model(tmp_path)
    back = SAE.load_from_disk(tmp_path)
    assert isinstance(back, bae_lens.BAE)
    same = (back.bits(vectors) == sae.bits(vectors)).all(1)  # thresholds lie on samples, which may round either way
    assert same.float().mean() > 0.6
    torch.testing.assert_close(back(vectors)[same], sae(vectors)[same], atol=1e-3, rtol=1e-3)
    assert back.cfg.metadata.training_architecture_details["init"] == "data"


def test_from_pretrained_with_a_converter(bae, vectors, c):
    """A converter of the user's own gives configuration and weights."""

    def converter(repo_id, folder_name, device, force_download=False, cfg_overrides=None):
        return {**bae.cfg.to_dict(), **(cfg_overrides or {})}, dict(bae.state_dict()), None

    back = SAE.from_pretrained("someone/baes", "layer1", converter=converter)
    assert isinstance(back, bae_lens.BAE)
    assert torch.equal(back(vectors), bae(vectors))


def test_upload_to_and_loading_from_a_hub(bae, vectors, tmp_path, c):
    """`upload_saes_to_huggingface` and `SAE.from_pretrained`, against a hub on this machine."""
    bae.save_model(tmp_path / "bae")
    torch.save(vectors, tmp_path / "x.pt")
    script = f"""
import torch, bae_lens
from sae_lens import SAE, upload_saes_to_huggingface
bae = SAE.load_from_disk({str(tmp_path / "bae")!r})
upload_saes_to_huggingface({{"layer1": bae}}, "someone/baes", show_progress=False)
back = SAE.from_pretrained("someone/baes", "layer1")
x = torch.load({str(tmp_path / "x.pt")!r}, weights_only=True)
assert isinstance(back, bae_lens.BAE) and torch.equal(back(x), bae(x)) and torch.equal(back.prior, bae.prior)
"""
    with local_hub() as hub:
        environment = {
            **os.environ,
            "HF_ENDPOINT": hub.url,
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(tmp_path / "home"),
            "HF_TOKEN": "hf_of_no_use",
            "HF_HUB_DISABLE_XET": "1",
        }
        result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
        assert result.returncode == 0, result.stderr[-3000:]
        assert {"layer1/cfg.json", "layer1/sae_weights.safetensors"} <= set(hub.files["someone/baes"])


def test_fold_w_dec_norm(bae, vectors, tmp_path, c):
    """Exact: the norm goes into `act_scale`; also by `load_from_disk(fold_W_dec_norm=True)`."""
    bae.save_model(tmp_path)
    folded = SAE.load_from_disk(tmp_path, fold_W_dec_norm=True)
    torch.testing.assert_close(folded.W_dec.norm(dim=1), torch.ones(48))
    assert torch.equal(folded.bits(vectors), bae.bits(vectors))
    torch.testing.assert_close(folded(vectors), bae(vectors), atol=1e-5, rtol=1e-5)


def test_fold_activation_norm_scaling_factor(bae, vectors, c):
    """A BAE trained on scaled activations takes raw ones."""
    folded = copy.deepcopy(bae)
    folded.fold_activation_norm_scaling_factor(4.0)
    torch.testing.assert_close(folded(vectors / 4), bae(vectors) / 4, atol=1e-5, rtol=1e-5)


def test_fold_activation_whitening(bae, vectors, c):
    """A BAE trained on whitened activations takes raw ones."""
    torch.manual_seed(0)
    matrix = torch.randn(128, 128, dtype=torch.float64) / 11 + torch.eye(128, dtype=torch.float64)
    mean = torch.randn(128, dtype=torch.float64)
    folded = copy.deepcopy(bae)
    folded.fold_activation_whitening(mean, matrix, matrix.inverse())
    white = ((vectors.double() - mean) @ matrix).float()
    expected = bae(white).double() @ matrix.inverse() + mean
    same = (folded.bits(vectors) == bae.bits(white)).all(1)  # rounding may turn a pre-activation near 0
    assert same.float().mean() > 0.98
    torch.testing.assert_close(folded(vectors).double()[same], expected[same], atol=1e-3, rtol=1e-3)
