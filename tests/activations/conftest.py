"""A model as harvesting to disk reads it, and harvests with it that are small and of many shards."""

import pytest
from harvests import HOOKS, TEXT

from bae_lens.activations.harvest_disk import harvest_to_disk
from bae_lens.activations.hugging_face import load_hugging_face
from bae_lens.demo import demo_model_dir


@pytest.fixture(scope="module")
def hugging_face():
    return load_hugging_face(demo_model_dir())


@pytest.fixture
def harvest(hugging_face, tmp_path):
    def run(name="acts", text=TEXT, hooks=HOOKS, **options):
        options = {"context_size": 32, "batch_tokens": 256, "shard_bytes": 100_000, "progress": False, **options}
        return harvest_to_disk(hugging_face, text, hooks=hooks, out=tmp_path / name, **options)

    return run
