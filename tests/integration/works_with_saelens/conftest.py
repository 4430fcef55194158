"""A BAE of c bits a feature that SAELens knows the place of, the model that it belongs to, and text."""

import pytest
from datasets import Dataset
from embedded import HOOK
from sae_lens import HookedSAETransformer
from saelens_parts import PROMPT

from bae_lens.activations.harvest import activations_at
from bae_lens.demo.corpus import python_docs


@pytest.fixture
def bae(make_bae, vectors, c):
    bae = make_bae(c)
    bae.estimate_prior(vectors)
    bae.cfg.metadata.context_size = 32
    bae.cfg.metadata.prepend_bos = True
    bae.cfg.metadata.model_name = "tiny"
    return bae


@pytest.fixture
def saes_model(models):
    return models(HookedSAETransformer)


@pytest.fixture
def residual(saes_model):
    return activations_at(saes_model, saes_model.to_tokens(PROMPT), HOOK)


@pytest.fixture(scope="session")
def dataset():
    return Dataset.from_list([{"text": " ".join(text.split())[:1200]} for text in python_docs().train[:80]])
