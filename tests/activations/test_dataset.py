import json

import pytest
import torch

import bae_lens
from bae_lens.activations.dataset import ActivationDataset


def vectors(samples=100, d=6, seed=0):
    return torch.randn(samples, d, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def saved(tmp_path):
    bae_lens.save_activations(tmp_path / "acts", vectors().split(17), metadata={"hook_name": "h"}, shard_vectors=30)
    return tmp_path / "acts"


def test_vectors_come_back_by_place_and_in_order(saved):
    dataset = ActivationDataset(saved)
    assert (len(dataset), dataset.d_in, dataset.metadata) == (100, 6, {"hook_name": "h"})
    assert len(list(saved.glob("shard-*"))) == 4
    index = torch.tensor([99, 0, 29, 30, 30, 61, 89, 90])
    assert torch.equal(dataset.rows(index), vectors()[index])
    assert torch.equal(torch.cat(list(dataset.chunks(7))), vectors())
    dataset.verify()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_dtype_is_kept(tmp_path, dtype):
    dataset = bae_lens.save_activations(tmp_path / "acts", [vectors().to(dtype)])
    assert torch.equal(dataset.rows(torch.arange(100)), vectors().to(dtype))


def test_a_shard_that_is_cut_short_altered_or_missing_is_named(saved):
    shard = saved / "shard-00002.safetensors"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"shard-00002.safetensors was altered"):
        ActivationDataset(saved).verify()
    shard.write_bytes(content[:-100])
    with pytest.raises(ValueError, match=r"shard-00002.safetensors cannot be read"):
        ActivationDataset(saved)
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=r"shard-00002.safetensors is missing"):
        ActivationDataset(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format="parquet"), "of another format"),
        (lambda m: m.update(d_in=7), "its manifest says"),
        (lambda m: m.pop("shards"), "not a whole manifest"),
        (lambda m: m["shards"][0].update(file="../shard-00000.safetensors"), "outside it"),
        (lambda m: m["shards"].clear(), "not a whole manifest"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(saved, change, message):
    manifest = json.loads((saved / "manifest.json").read_text())
    change(manifest)
    (saved / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=message):
        ActivationDataset(saved)


def test_a_directory_without_activations_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no activations"):
        ActivationDataset(tmp_path)


def test_what_cannot_be_saved_leaves_nothing(tmp_path):
    for chunks, message in (([], "no vectors"), ([vectors(), vectors(d=5)], "width|size"), ([vectors() / 0], "infinite")):
        with pytest.raises((ValueError, RuntimeError), match=message):
            bae_lens.save_activations(tmp_path / "acts", chunks, shard_vectors=100)
        assert not list(tmp_path.iterdir())
