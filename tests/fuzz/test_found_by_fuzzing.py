"""Defects that fuzzing found, each by itself."""

import json
import re

import pytest
import torch
from embedded import HOOK

import bae_lens
from bae_lens import codec
from bae_lens.activations.epochs import epoch
from bae_lens.checks import seeded
from bae_lens.report.figures.entries import ENTRIES
from bae_lens.report.figures.gallery import draw_entry, names_of
from bae_lens.report.figures.results import find_results
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


@pytest.mark.parametrize("field", ["block_vectors", "fit_vectors", "packed", "bae_inside"])
@pytest.mark.parametrize("value", [1.5, float("nan"), "x"])
def test_a_setting_of_the_codec_that_is_of_another_kind_is_refused_by_its_name(field, value):
    """It was PyTorch's, or that of the header's JSON, once the vectors had been read."""
    with pytest.raises(TypeError, match=rf"{field} must be|Type-check"):
        codec.CodecSettings(**{field: value})


def test_the_codec_refuses_what_is_no_bae_no_vectors_no_settings_or_no_number(tmp_path):
    """It was an AttributeError: 'str' object has no attribute 'cfg'; or an OverflowError."""
    bae = bae_lens.train(torch.randn(64, 4), bae_lens.recipes.recommended(4, 2, steps=2, batch_size=8), progress=False).bae
    x, out = torch.randn(8, 4), tmp_path / "a.baez"
    for arguments, more, words in (
        (("x", x, out), {}, "takes a BAE"),
        ((bae, b"x", out), {}, "a tensor, or a dataset"),
        ((bae, x, out, "x"), {}, "settings are CodecSettings"),
        ((bae, x, out), {"processes": 2**40}, "processes must be"),
    ):
        with pytest.raises((TypeError, ValueError), match=f"{words}|Type-check"):
            codec.compress(*arguments, **more, progress=False)
    assert not out.exists()


def replaced(path, **values):
    """A JSON object's file with some of its values set anew, or taken out (None)."""
    found = json.loads(path.read_text()) | values
    path.write_text(json.dumps({name: value for name, value in found.items() if value is not None}))


@pytest.mark.parametrize(
    ("name", "cell", "values"),
    [
        ("figures_synthetic", "*.json", {"cell": []}),
        ("figures_synthetic", "*.json", {"trace": [3]}),
        ("figures_trace", "*.json", {"rows": 3}),
        ("figures_trace", "*.json", {"rows": [{"place": [], "figures": {}}]}),
        ("figures_trace", "*.json", {"rows": [{"place": {"hook": 3}, "figures": {"fvu": 0.5}}]}),
        ("figures_shots", "accuracy/0.json", {"accuracy": None}),
        ("figures_shots", "accuracy/0.json", {"accuracy": {"shots": "x"}}),
        ("figures_codec_table", "*.json", {"rows": None}),
        ("figures_codec_table", "*.json", {"rows": [[]]}),
        ("figures_more_bit", "*/*/*.json", {"features": None}),
        ("figures_more_bit", "*/*/*.json", {"x": 1}),
        ("compare_cells", "*/*/*/*.json", {"figures": []}),
        ("compare_cells", "*/*/*/*.json", {"figures": 3}),
    ],
)
def test_a_cell_that_is_not_whole_is_refused_by_its_name(name, cell, values, good_files, tmp_path):
    """It was a KeyError or an AttributeError, of the codec's table and of accuracies a TypeError too."""
    reader = good_files(name, tmp_path)
    replaced(next(tmp_path.glob(f"*/cells/{cell}")), **values)
    with pytest.raises(ValueError, match="is no whole cell: remove it"):
        reader.read(tmp_path)


@pytest.mark.parametrize("values", [{"place": None}, {"figures": 3}])
def test_a_cell_of_a_grid_that_is_not_whole_is_refused_by_its_name(values, good_files, tmp_path):
    """It was a KeyError: 'place'."""
    reader = good_files("grid", tmp_path)
    replaced(next((tmp_path / "grid" / "cells").rglob("*.json")), **values)
    with pytest.raises(ValueError, match="is no whole cell: remove it"):
        reader.read(tmp_path)


@pytest.mark.parametrize("settings", [None, [], 3, {}])
def test_a_manifest_of_a_comparison_without_its_hook_point_is_refused(settings, good_files, tmp_path):
    """It was a KeyError: 'hook_name'."""
    reader = good_files("figures_compare", tmp_path)
    replaced(tmp_path / "compare" / "benchmark.json", settings=settings)
    with pytest.raises(ValueError, match="is not whole, or of an older version"):
        reader.read(tmp_path)


@pytest.mark.parametrize("score", ["x", [], {}])
def test_a_score_that_is_no_number_is_refused_with_its_line(score, good_files, tmp_path):
    """It came as far as the report's page."""
    reader = good_files("reported", tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "features.jsonl").read_text().splitlines()]
    (tmp_path / "features.jsonl").write_text("\n".join(json.dumps(line | {"score": score}) for line in lines))
    with pytest.raises(ValueError, match="line 1: no whole feature"):
        reader.read(tmp_path)


def test_results_that_are_whole_and_say_nonsense_stop_no_figure(good_files, tmp_path):
    """It was a KeyError: 'weight', and there were no figures at all."""
    good_files("figures_rates", tmp_path)
    path = next((tmp_path / "rates" / "cells").glob("*.json"))
    rows = json.loads(path.read_text())["rows"]
    path.write_text(json.dumps({"rows": [row | {"place": {"hook": "x"}} for row in rows]}))
    found = find_results(tmp_path)
    shown = [draw_entry(entry, {found[0].kind: found}) for entry in ENTRIES if found[0].kind in entry.needs]
    assert shown
    assert all("its results are not whole" in one.reason for one in shown)


def test_a_figure_stays_in_its_directory_whatever_its_hook_point_is_called(good_files, tmp_path):
    """Scores of the hook point a/../../../evil were drawn into evil.png beside the directory."""
    for number, hook in enumerate(("a/../../../evil", "b")):
        place = tmp_path / "runs" / str(number)
        good_files("figures_comsem", place)
        replaced(place / "summary.json", settings={"study": {"sae": {"hook_name": hook, "architecture": "bae"}}})
    found = find_results(tmp_path / "runs")
    drawn = [one for entry in ENTRIES for one in draw_entry(entry, {"comsem": found}).drawn]
    names = [name for one in drawn for name in names_of(one)]
    assert "fig24-a-..-..-..-evil.png" in names
    assert all("/" not in name for name in names)


def test_a_home_of_nobody_is_a_directory_that_is_not_there():
    """It was a RuntimeError: Could not determine home directory."""
    with pytest.raises(FileNotFoundError):
        bae_lens.load("~nobody-of-this-name/bae")
