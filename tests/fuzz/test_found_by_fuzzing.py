"""Defects that fuzzing found, each by itself."""

import json
import re

import pytest
import torch
from embedded import HOOK

import bae_lens
from bae_lens.activations.epochs import epoch
from bae_lens.checks import seeded
from bae_lens.training.recipes import RECIPES


@pytest.mark.parametrize("config", [bae_lens.BAEConfig, bae_lens.TrainingBAEConfig])
@pytest.mark.parametrize("metadata", [None, 1, "x"])
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


@pytest.mark.parametrize("config", [bae_lens.BAEConfig, bae_lens.TrainingBAEConfig])
def test_metadata_may_be_a_dictionary(config):
    assert config(d_in=4, d_sae=8, metadata={"hook_name": "x"}).metadata.hook_name == "x"


@pytest.mark.parametrize("shard_vectors", [0, -1, True, 1.5])
def test_a_shard_of_nothing_is_refused_and_does_not_go_on_for_ever(tmp_path, shard_vectors):
    with pytest.raises((ValueError, TypeError), match=r"at least 1|Type-check"):
        bae_lens.save_activations(tmp_path / "acts", [torch.randn(40, 4)], shard_vectors=shard_vectors)


@pytest.mark.parametrize("expansion", [float("inf"), float("-inf"), float("nan"), 0.0, 1e308])
@pytest.mark.parametrize("recipe", RECIPES)
def test_an_expansion_without_end_is_refused(recipe, expansion):
    """It was an OverflowError."""
    with pytest.raises(ValueError, match="leaves no feature at d_in = 4, or no end of them"):
        RECIPES[recipe](4, expansion)


@pytest.mark.parametrize(("d_in", "expansion"), [(2**40, b"x"), (4, "2"), ("4", 2.0), (4, None)])
def test_an_expansion_that_is_no_number_is_said(d_in, expansion):
    with pytest.raises(TypeError, match="expansion and d_in must be numbers|Type-check"):
        bae_lens.recipes.recommended(d_in, expansion)


@pytest.mark.parametrize("field", ["checkpoint_every", "seed", "steps", "log_every"])
def test_a_whole_number_without_end_is_refused_by_its_field(field):
    with pytest.raises(ValueError, match=field):
        bae_lens.TrainerConfig(**({"steps": 3} | {field: float("inf")}))


def test_epochs_without_end_are_refused():
    with pytest.raises(ValueError, match="have no end"):
        bae_lens.TrainerConfig(epochs=1e308).total_steps(10_000)


@pytest.mark.parametrize("seed", [True, 2**64, 0.5, None])
def test_a_seed_that_is_none_is_refused(seed):
    """It was a RuntimeError of PyTorch."""
    with pytest.raises((ValueError, TypeError), match=r"a seed is a whole number|Type-check"):
        seeded(seed)


@pytest.mark.parametrize("field", ["over", "changes"])
def test_a_grid_over_what_is_no_dictionary_is_refused(field, tmp_path):
    with pytest.raises(TypeError, match=f"{field} is a dictionary|Type-check"):
        bae_lens.GridOptions(activations=tmp_path, out=tmp_path / "out", **{field: 0.5})


def test_a_share_without_end_is_refused():
    with pytest.raises(ValueError, match="must be a number from 0 to 1, got inf"):
        bae_lens.split_documents(["a", "b"], float("inf"))


def test_several_prompts_are_refused_where_one_is_inspected(model, make_bae):
    """It was an AttributeError: 'tuple' object has no attribute 'shape'."""
    with pytest.raises(TypeError, match=r"one prompt at a time|Type-check"):
        bae_lens.inspect(model, make_bae(), ["a", "b"])


@pytest.mark.parametrize("altered", [{"data": {}}, {"data": 3}, {"prior_samples": None, "data": {"generator": "00"}}])
def test_a_checkpoint_whose_state_was_altered_is_named(altered, good_files, tmp_path):
    """It was a KeyError: 'generator'."""
    reader = good_files("interrupted_run", tmp_path)
    for state in (tmp_path / "run" / "checkpoints").glob("*/state.json"):
        state.write_text(json.dumps(json.loads(state.read_text()) | altered))
    with pytest.raises(ValueError, match=r"step-\d+: state.json was altered"):
        reader.read(tmp_path)


def test_an_unknown_device_is_refused_where_a_bae_is_configured():
    """It was a RuntimeError of torch, when the BAE was made."""
    with pytest.raises(ValueError, match="no such device: 'x'"):
        bae_lens.BAEConfig(d_in=4, d_sae=8, device="x")


def test_weights_that_no_memory_holds_are_a_memory_error():
    """It was a RuntimeError of torch's allocator."""
    with pytest.raises(MemoryError, match="no memory for a BAE of d_in=4, d_sae=8"):
        bae_lens.BAE(
            bae_lens.BAEConfig(d_in=4, d_sae=8, bits_per_feature=4, code="nested", refine_weight=0.1, encoder_hidden=2**40)
        )


def test_a_share_far_over_one_is_refused():
    """It was an OverflowError."""
    with pytest.raises(ValueError, match="a number from 0 to 1, got 1e"):
        bae_lens.split_documents(["a", "b"], held_out=1e308)


def test_a_token_below_zero_is_refused_where_a_prompt_is_inspected(model, make_bae):
    """It was an OverflowError of the tokenizer."""
    with pytest.raises(ValueError, match="tokens of the prompt are from 0 to"):
        bae_lens.inspect(model, make_bae(), torch.tensor([[1, -1]]), hook_name=HOOK)


def test_metadata_that_are_no_dictionary_leave_no_directory(tmp_path):
    """The directory stayed behind, and could not be read."""
    with pytest.raises(TypeError, match=r"metadata must be a dictionary|Type-check|type"):
        bae_lens.save_activations(tmp_path / "acts", [torch.ones(4, 2)], metadata=True)
    assert not (tmp_path / "acts").exists()


@pytest.mark.parametrize("tokens", ["1e308", "1e999", "-1"])
def test_counts_of_more_tokens_than_a_number_holds_are_refused(tokens, good_files, tmp_path):
    """It was an OverflowError."""
    reader = good_files("counts", tmp_path)
    described = next(tmp_path.rglob("*.json"))
    described.write_text(re.sub(r'"tokens": \d+', f'"tokens": {tokens}', described.read_text()))
    with pytest.raises(ValueError, match="does not describe counts|does not hold together"):
        reader.read(tmp_path)


@pytest.mark.parametrize("shape", [[0, 8], [4, 0], [5, 8], [2**63, 8], [4, 4]])
def test_cached_activations_of_no_width_are_refused(shape, good_files, tmp_path):
    """It was PyTorch's: shape '[-1, 0]' is invalid."""
    reader = good_files("saelens_cache", tmp_path)
    info = next(tmp_path.rglob("dataset_info.json"))
    described = json.loads(info.read_text())
    described["features"]["hook"]["shape"] = shape
    info.write_text(json.dumps(described))
    with pytest.raises(ValueError, match=r"numbers a vector|cannot be read|does not hold"):
        reader.read(tmp_path)


@pytest.mark.parametrize("bits", [0, -1, True, 1.5, [], None])
def test_the_synthetic_recipe_wants_a_whole_number_of_bits_a_feature(bits):
    """It was a ZeroDivisionError, or an OverflowError."""
    with pytest.raises((ValueError, TypeError), match=r"bits_per_feature must be a whole number|Type-check"):
        bae_lens.recipes.synthetic(4, 2, bits_per_feature=bits)


def test_hidden_units_that_no_memory_holds_are_a_memory_error():
    """It was the allocator's RuntimeError."""
    bae = bae_lens.train(torch.randn(64, 4), bae_lens.recipes.rate_distortion(4, 2, steps=4, batch_size=16, k=2)).bae
    with pytest.raises(MemoryError, match=r"hidden units take about .* GiB .* lower `hidden`"):
        bae_lens.distill_encoder(bae, torch.randn(64, 4), hidden=2**40, steps=1)
