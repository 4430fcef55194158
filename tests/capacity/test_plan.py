"""Capacity on paper: memory by part, step time by a roofline, and what makes fit what does not."""

import dataclasses
import json
import math

import pytest

from bae_lens.capacity.devices import DEVICES, device_of
from bae_lens.capacity.models import MODELS
from bae_lens.capacity.page import describe, verdict
from bae_lens.capacity.plan import FREE, Wanted, least_split, make_plan
from bae_lens.capacity.roofline import CodeShape, part_seconds, step_parts
from bae_lens.cli import main
from bae_lens.training.memory import training_bytes
from bae_lens.training.recipes import recommended


def wanted(**changes):
    return dataclasses.replace(Wanted(d_in=2048, tokens=8e6), **changes)


def test_a_steps_dense_products_are_six_of_two_n_d_width_less_the_inputs_gradient():
    """Forward and backward of two linear maps, of which the encoder's input has no gradient: 5 products."""
    sae = recommended(64, 4).sae
    parts = {part.name: part for part in step_parts(sae, 100, CodeShape(), sparse=False)}
    assert parts["encode"].operations == 2 * 2 * 100 * 64 * 256
    assert parts["decode"].operations == 3 * 2 * 100 * 64 * 256
    sparse = {part.name: part for part in step_parts(sae, 100, CodeShape(near=0.1, density=0.05), sparse=True)}
    assert sparse["encode"].operations == pytest.approx(1.1 * 2 * 100 * 64 * 256)
    assert sparse["decode"].operations == pytest.approx(0.2 * 2 * 100 * 64 * 256)


def test_adam_is_bound_by_memory_and_large_products_are_not():
    sae = recommended(2048, 4).sae
    device = DEVICES["h100"]
    for part in step_parts(sae, 8192, CodeShape(), sparse=False):
        by_memory = part.bytes / (0.9 * device.bandwidth)
        if part.name == "Adam":
            assert part_seconds(part, device) == by_memory == pytest.approx(28 * 2 * 2048 * 8192 / (0.9 * 3.35e12))
        if part.name == "encode":
            assert part_seconds(part, device) > 5 * by_memory


def test_the_steps_are_epochs_times_vectors_by_the_batch_and_hours_are_theirs():
    plan = make_plan(wanted(epochs=200))
    assert plan.steps == 200 * 8e6 / 512
    arithmetic = sum(seconds for name, seconds in plan.step.items() if name not in ("reading", "launches"))
    assert plan.step_seconds == max(arithmetic, plan.step["reading"], plan.step["launches"])
    assert plan.hours == pytest.approx(plan.step_seconds * plan.steps / 3600)
    assert plan.cost is None
    assert make_plan(wanted(price=2.5)).cost == pytest.approx(2.5 * plan.hours)


def test_steps_that_were_timed_on_an_h200_come_out():
    """docs/training_step.md and docs/grid.md, 2026-11-26."""
    large = make_plan(wanted(device="h200", tf32=True, batch_size=4096, disk_rate=1e12))
    assert large.step_seconds == pytest.approx(6.7e-3, rel=0.02)
    assert large.step["covariance"] == pytest.approx(2.47e-3, rel=0.02)
    small = make_plan(wanted(device="h200", d_in=128))
    assert small.step_seconds == pytest.approx(51.6 / 32 / 500, rel=0.02)


def test_a_slow_disk_makes_steps_as_long_as_reading_takes():
    slow = make_plan(wanted(disk_rate=1e6))
    assert slow.step_seconds == 512 * 2048 * 4 / 1e6
    assert make_plan(wanted(disk_rate=1e6, dtype="bf16")).step_seconds == slow.step_seconds / 2


def test_what_fits_one_device_is_trained_there_and_its_memory_is_the_trainers_own_estimate():
    plan = make_plan(wanted())
    assert (plan.split, plan.shards, plan.at_once) == (1, 1, 1)
    assert plan.memory.peak == training_bytes(recommended(2048, 4).sae, 512)
    assert "it fits" in verdict(plan)


def test_what_does_not_fit_is_split_over_the_fewest_devices_that_hold_it():
    big = wanted(d_in=8192, expansion=32, device="l4")
    plan = make_plan(big)
    room = FREE * DEVICES["l4"].memory
    assert plan.split > 1
    assert plan.whole.peak > room >= plan.memory.peak
    half = recommended(8192, 32 * 2 / plan.split).sae
    assert training_bytes(half, 512) > room  # half as many devices do not hold it
    assert f"Feature parallel over {plan.split} devices makes it fit, and only 1 are given" in verdict(plan)
    assert (
        make_plan(dataclasses.replace(big, gpus=plan.split, price=1)).cost == make_plan(dataclasses.replace(big, price=1)).cost
    )


def test_what_no_number_of_devices_holds_is_said_with_what_to_lower():
    plan = make_plan(wanted(d_in=8192, expansion=1e4, device="l4"))
    assert plan.split == 0 == least_split(plan.sae, plan.wanted, plan.device)
    assert "does not fit" in verdict(plan)
    assert "Lower the expansion" in verdict(plan)


def test_a_grid_spreads_its_baes_over_the_devices_and_takes_as_many_rounds():
    one = make_plan(wanted(tokens=262_144))
    grid = make_plan(wanted(tokens=262_144, layers=16, positions=11, gpus=8))
    assert (grid.baes, grid.at_once, grid.shards) == (176, 8, 1)
    assert grid.batched == 22
    assert grid.step["launches"] == pytest.approx(one.step["launches"] / 22)
    assert grid.hours * 3600 == pytest.approx(22 * grid.step_seconds * grid.steps)
    assert grid.step_seconds < one.step_seconds == one.step["launches"]
    assert "grid" in verdict(grid)
    assert grid.disk_activations == 176 * 262_144 * 2048 * 4 + 11 * 262_144 * 16


def test_data_parallel_splits_minibatches_and_pays_for_exchanging_gradients():
    one, eight = make_plan(wanted(batch_size=4096)), make_plan(wanted(batch_size=4096, gpus=8))
    assert eight.shards == 8
    assert eight.memory.codes == one.memory.codes / 8
    assert eight.memory.weights == one.memory.weights
    assert eight.step["exchange"] > 0 == one.step["exchange"]
    assert eight.step["encode"] == pytest.approx(one.step["encode"] / 8, rel=0.6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_in": 0}, "d_in must be a whole number of at least 1"),
        ({"tokens": math.nan}, "tokens must be a positive number"),
        ({"tokens": 100}, "100 vectors are fewer than one batch of 512"),
        ({"price": -1}, "price"),
        ({"dtype": "fp8"}, "unknown dtype 'fp8'; known are bf16, fp16, fp32"),
        ({"gpus": 0}, "gpus must be a whole number"),
        ({"epochs": -1}, "epochs must be a positive number"),
    ],
)
def test_a_plan_of_nonsense_is_refused_by_the_fields_name(changes, message):
    with pytest.raises(ValueError, match=message):
        wanted(**changes)


def test_an_unknown_device_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'h100'"):
        device_of("h10")


def test_every_device_names_its_source_and_no_rate_is_out_of_order():
    for device in DEVICES.values():
        assert device.source
        assert device.fp32 <= device.tf32 <= device.int8
        assert 1e9 < device.bandwidth < 1e13


@pytest.mark.parametrize("model", MODELS)
def test_the_command_plans_for_each_llama_and_writes_every_number(model, tmp_path, capsys):
    out = tmp_path / "plan.json"
    assert main(["plan", "--model", model, "--gpus", "8", "--price", "3", "--json", str(out)]) == 0
    shown = capsys.readouterr().out
    values = json.loads(out.read_text())
    assert f"d = {MODELS[model].d_model}" in shown
    assert f"{values['hours']:,.2f}" in shown
    assert values["baes"] == MODELS[model].layers
    assert sum(values["step"].values()) > 0


def test_one_table_compares_the_llamas(tmp_path, capsys):
    out = tmp_path / "plans.json"
    assert main(["plan", "--model", "all", "--price", "2", "--json", str(out)]) == 0
    shown, values = capsys.readouterr().out, json.loads(out.read_text())
    assert list(values) == list(MODELS)
    for name, shape in MODELS.items():
        row = next(line for line in shown.splitlines() if shape.title in line)
        assert f"{values[name]['cost']:,.0f}" in row


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give either --model"),
        (["--model", "llama-3.2-1b", "--d-in", "64"], "give either --model"),
        (["--model", "llama-3.2-2b"], "did you mean 'llama-3.2-"),
        (["--model", "llama-3.2-1b", "--layers", "17"], "has 16 layers, --layers asks for 17"),
        (["--d-in", "64", "--device", "tpu"], "unknown device 'tpu'"),
        (["--d-in", "64", "--expansion", "-1"], "expansion must be a positive number"),
    ],
)
def test_the_commands_errors_say_what_is_accepted(options, message, capsys):
    assert main(["plan", *options]) == 2
    assert message in capsys.readouterr().err


def test_measuring_this_machine_gives_rates_that_a_plan_takes(capsys):
    assert main(["plan", "--d-in", "128", "--tokens", "1e5", "--measure"]) == 0
    shown = capsys.readouterr().out
    assert "Measured on this CPU" in shown
    assert "GFLOP/s in fp32" in shown
    assert "the roofline says" in shown


def test_the_page_names_every_part_of_memory_and_of_a_step():
    page = describe(make_plan(wanted()))
    for part in ("weights", "gradients", "Adam's moments", "minibatch", "codes", "covariance", "activations on disk"):
        assert part in page
    for part in ("encode", "decode", "Adam", "covariance", "hours", "cost"):
        assert part in page
