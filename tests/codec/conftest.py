"""BAEs of every kind of code, and small files of theirs."""

from typing import NamedTuple

import pytest
import torch

import bae_lens
from bae_lens.codec import CodecSettings, compress

HOOK = "blocks.1.hook_resid_pre"
KINDS = {
    "plain": {},
    "powers": {"bits_per_feature": 3},
    "nested": {"bits_per_feature": 4, "code": "nested"},
    "refined": {"bits_per_feature": 4, "code": "nested", "refine_weight": 0.05, "refine_from": 6},
}


class Written(NamedTuple):
    path: object
    bae: object
    vectors: object
    summary: object


@pytest.fixture
def make_kind(make_bae, vectors):
    def make(kind, **fields):
        bae = make_bae(**KINDS[kind], **fields)
        bae.estimate_prior(vectors)
        return bae

    return make


@pytest.fixture
def write(make_kind, vectors, tmp_path):
    """A file of the embedded model's vectors, in blocks of 50."""

    def write(kind="plain", name="acts.baez", data=vectors, **settings):
        bae = make_kind(kind)
        path = tmp_path / name
        summary = compress(bae, data, path, CodecSettings(**{"block_vectors": 50, **settings}), progress=False)
        return Written(path, bae, data, summary)

    return write


@pytest.fixture
def acts(vectors, tmp_path):
    """The vectors on disk, in shards that are no multiples of a block."""
    return bae_lens.save_activations(
        tmp_path / "acts", [vectors], metadata={"hook_name": HOOK, "of": "a test"}, shard_vectors=70
    )


def levels_of(bae, x):
    """Levels of the code of each feature, by the BAE's own functions."""
    features = bae.encode(x) / bae.act_scale
    return (features * bae.top_level).round().to(torch.int16)
