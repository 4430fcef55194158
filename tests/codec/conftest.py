"""BAEs of every kind of code, and small files of theirs."""

from typing import NamedTuple

import pytest
from kinds import KINDS

import bae_lens
from bae_lens.codec import CodecSettings, compress

HOOK = "blocks.1.hook_resid_pre"


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
