"""Of tests that harvest to disk: what is harvested, and how two harvests are compared."""

import torch

from bae_lens.activations.dataset import ActivationDataset

TEXT = [f"Return the number of items in list {n}, or raise an error. " * (1 + n % 5) for n in range(30)] + ["A."]
HOOKS = ["blocks.1.hook_resid_pre", "blocks.3.hook_resid_post"]


def in_order(dataset):
    """All vectors by document, then place; those of a second half of a document lie between those of its first."""
    key = dataset.documents * 10**6 + dataset.positions
    return dataset.tensor()[key.argsort(stable=True)]


def same(one, two, hook=HOOKS[0]):
    one, two = ActivationDataset(one, hook), ActivationDataset(two, hook)
    return torch.equal(one.tensor(), two.tensor()) and torch.equal(one.tokens, two.tokens)
