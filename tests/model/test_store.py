import pytest
import torch
from sae_lens import SAE, TopKSAE, TopKSAEConfig

import bae_lens
from bae_lens.model.bae import BAE


def topk(path, hook_name):
    sae = TopKSAE(TopKSAEConfig(d_in=8, d_sae=16, k=2))
    sae.cfg.metadata.hook_name = hook_name
    sae.save_model(path)
    return sae


def test_any_sae_loads_from_its_directory_as_its_own_class(make_bae, tmp_path):
    make_bae().save_model(tmp_path / "bae")
    saved = topk(tmp_path / "topk", "blocks.0.hook_resid_pre")
    assert isinstance(bae_lens.load_sae(tmp_path / "bae"), BAE)
    loaded = bae_lens.load_sae(tmp_path / "topk")
    assert isinstance(loaded, TopKSAE)
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded(x), saved(x))


def test_an_sae_without_a_hook_point_asks_for_it_and_never_guesses(tmp_path):
    topk(tmp_path / "topk", None)
    with pytest.raises(ValueError, match="does not say at which hook point"):
        bae_lens.load_sae(tmp_path / "topk")
    sae = bae_lens.load_sae(tmp_path / "topk", hook_name="blocks.1.hook_resid_pre")
    assert sae.cfg.metadata.hook_name == "blocks.1.hook_resid_pre"
    assert isinstance(sae, SAE)


def test_another_hook_point_than_the_saes_own_is_refused(make_bae, tmp_path):
    make_bae(hook_name="blocks.1.hook_resid_pre").save_model(tmp_path / "bae")
    with pytest.raises(ValueError, match=r"trained at blocks\.1\.hook_resid_pre, not at blocks\.0"):
        bae_lens.load_sae(tmp_path / "bae", hook_name="blocks.0.hook_resid_pre")


def test_what_is_neither_directory_nor_release_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="RELEASE:SAE_ID"):
        bae_lens.load_sae(tmp_path / "missing")
    tmp_path.joinpath("empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"cfg\.json"):
        bae_lens.load_sae(tmp_path / "empty")


def test_a_cut_file_is_named(make_bae, tmp_path):
    topk(tmp_path, "blocks.0.hook_resid_pre")
    weights = tmp_path / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(ValueError, match="sae_weights"):
        bae_lens.load_sae(tmp_path)
