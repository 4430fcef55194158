"""Activations on disk, of the embedded Llama, as `bae-lens harvest` writes them."""

import pytest
from transformer_lens import HookedTransformer

from bae_lens.activations.harvest_disk import harvest_to_disk
from bae_lens.demo import demo_model_dir

HOOKS = ["blocks.0.ln2.hook_normalized", "blocks.1.hook_resid_pre"]


@pytest.fixture(scope="session")
def acts(models, tmp_path_factory):
    """A directory of two hook points, eight short documents."""
    verbs = ["Return", "Remove", "Insert", "Count", "Copy", "Print", "Sort", "Reverse"]
    text = [f"{verb} the items in the list. If the list is empty, an error is raised. " * 6 for verb in verbs]
    path = tmp_path_factory.mktemp("activations") / "acts"
    model = models(HookedTransformer)
    harvest_to_disk(model, text, hooks=HOOKS, out=path, model_name=str(demo_model_dir()), progress=False)
    return path
