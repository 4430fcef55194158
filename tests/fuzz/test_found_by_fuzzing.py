"""Defects that fuzzing found, each by itself."""

import pytest
import torch

import bae_lens
from bae_lens.activations.epochs import epoch


@pytest.mark.parametrize("config", [bae_lens.BAEConfig, bae_lens.TrainingBAEConfig])
@pytest.mark.parametrize("metadata", [None, {}, "x"])
def test_metadata_that_are_none_are_refused_by_name(config, metadata):
    """SAELens wrote to them: AttributeError: 'NoneType' object has no attribute 'training_architecture'."""
    with pytest.raises(TypeError, match=r"metadata must be SAELens' SAEMetadata"):
        config(d_in=4, d_sae=8, metadata=metadata)


def test_a_minibatch_of_nothing_is_refused(tmp_path):
    """It was PyTorch's: split_size can only be 0 if dimension size is 0."""
    data = bae_lens.save_activations(tmp_path / "acts", [torch.randn(40, 4)])
    for batch_size in (0, -1):
        with pytest.raises(ValueError, match="a minibatch has at least 1 vector"):
            next(epoch(data, batch_size, generator=torch.Generator()))
