"""Blocks through several processes."""

import pytest
import torch

import bae_lens
from bae_lens.codec import CodecSettings, compress


def test_the_bytes_are_the_same_whatever_the_number_of_processes_and_threads(make_kind, acts, tmp_path):
    bae, settings = make_kind("refined"), CodecSettings(block_vectors=30, norm_bits=8)
    compress(bae, acts, tmp_path / "one.baez", settings, progress=False)
    compress(bae, acts, tmp_path / "two.baez", settings, processes=2, progress=False)
    torch.set_num_threads(2)
    try:
        compress(bae, acts, tmp_path / "threads.baez", settings, progress=False)
    finally:
        torch.set_num_threads(1)
    assert (tmp_path / "two.baez").read_bytes() == (tmp_path / "one.baez").read_bytes()
    assert (tmp_path / "threads.baez").read_bytes() == (tmp_path / "one.baez").read_bytes()


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("plain", {"target_fvu": 0.1, "fit_vectors": 500}),
        ("powers", {"norm_bits": 16}),
        ("nested", {"mode": "index", "norm_bits": 8}),
    ],
    ids=str,
)
def test_decoding_gives_the_same_bits_whatever_the_number_of_threads(write, vectors, kind, settings):
    data = vectors.repeat(12, 1) * torch.linspace(0.8, 1.2, 12 * len(vectors)).unsqueeze(1)
    path = write(kind, data=data, block_vectors=1500, **settings).path
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            with bae_lens.codec.open(path) as z:
                found.append((z[:], z.codes(slice(None)), z.block(1).vectors))
        finally:
            torch.set_num_threads(1)
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


def test_processes_are_at_least_one(make_kind, vectors, tmp_path):
    with pytest.raises(ValueError, match="at least one process"):
        compress(make_kind("plain"), vectors, tmp_path / "a.baez", processes=0, progress=False)
