import csv
import json
import subprocess
import sys

import pytest
import torch
from embedded import HOOK

import bae_lens
from bae_lens import cli
from bae_lens.sweeps.steering import Point, SteeringSweep, measure_steering
from bae_lens.sweeps.strengths import random_directions
from bae_lens.sweeps.texts import text_windows

PROMPTS = ["Return the number of items in the list.", "Raised when a file is not open", "The module is not there", "If the"]
TEXT = ["An object that stands for a date and a time of the day.", "This is a new class"]
STRENGTHS = [0.0, 1.0, 3.0]


@pytest.fixture
def sweep(model, make_bae):
    return measure_steering(
        model, make_bae(), 5, strengths=STRENGTHS, prompts=PROMPTS, text=TEXT, top=3, random=2, progress=False
    )


def predictions(model, prompt, shift):
    """Probabilities after each token but BOS, with a vector added at every token, float64."""
    tokens = model.to_tokens(prompt)
    with torch.no_grad():
        logits = model.run_with_hooks(tokens, fwd_hooks=[(HOOK, lambda tensor, hook: tensor + shift)])
    return logits[0, 1:].double().softmax(-1), tokens[0]


def test_target_and_cost_are_those_of_the_steered_model(any_model, make_bae):
    bae = make_bae()
    found = measure_steering(
        any_model, bae, 5, strengths=STRENGTHS, prompts=PROMPTS, text=TEXT, top=3, random=1, progress=False
    )

    def probabilities(prompts, strength):
        rows = []
        for prompt in prompts:
            tokens = any_model.to_tokens(prompt)
            with torch.no_grad(), bae_lens.steer(any_model, bae, {5: strength}):
                rows.append(any_model(tokens)[0].double().softmax(-1)[1:])
        return rows

    rise = sum(torch.cat(probabilities(PROMPTS[::2], s)).mean(0) for s in STRENGTHS)
    rise = rise / 3 - torch.cat(probabilities(PROMPTS[::2], 0.0)).mean(0)
    targets = rise.topk(3).indices
    assert found.targets == [any_model.tokenizer.decode([i]) for i in targets]
    for point in found.points:
        wanted = torch.cat(probabilities(PROMPTS[1::2], point.strength)).mean(0)[targets].sum()
        assert point.probability == pytest.approx(wanted.item(), abs=1e-5)
        kl, nats = [], []
        for prompt, p, q in zip(TEXT, probabilities(TEXT, 0.0), probabilities(TEXT, point.strength), strict=True):
            kl.append((p * (p / q).log()).sum(-1))
            following = any_model.to_tokens(prompt)[0, 2:]
            rows = torch.arange(len(following))
            nats.append((p[:-1][rows, following] / q[:-1][rows, following]).log())
        assert point.kl == pytest.approx(torch.cat(kl).mean().item(), abs=1e-4)
        assert point.loss == pytest.approx(torch.cat(nats).mean().item(), abs=1e-4)
        assert point.own == point.probability


def test_random_directions_are_as_long_and_held_against_the_features_tokens_and_their_own(model, make_bae, sweep):
    row = make_bae().W_dec[5]
    direction = random_directions(row.norm().item(), 128, 2)[0]
    by_id = {model.tokenizer.decode([i]): i for i in range(model.cfg.d_vocab)}
    targets = [by_id[token] for token in sweep.targets]

    def mean(prompts, strength):
        return torch.cat([predictions(model, prompt, strength * direction)[0] for prompt in prompts]).mean(0)

    own = (sum(mean(PROMPTS[::2], s) for s in STRENGTHS) / 3 - mean(PROMPTS[::2], 0.0)).topk(3).indices
    for point in sweep.random[0]:
        assert point.probability == pytest.approx(mean(PROMPTS[1::2], point.strength)[targets].sum().item(), abs=1e-5)
        assert point.own == pytest.approx(mean(PROMPTS[1::2], point.strength)[own].sum().item(), abs=1e-5)
    assert len(sweep.random) == 2
    assert sweep.norm == pytest.approx(row.norm().item())


def test_strength_zero_costs_exactly_nothing(sweep):
    for points in [sweep.points, *sweep.random]:
        assert (points[0].strength, points[0].kl, points[0].loss) == (0.0, 0.0, 0.0)


def test_gains_and_rises_are_read_over_rising_strengths():
    def points(*values):
        return [Point(float(s), p, 2 * p, 0.0, 0.0) for s, p in enumerate(values)]

    sweep = SteeringSweep(0, HOOK, 1.0, ["a"], points(0.1, 0.2, 0.4)[::-1], [points(0.1, 0, 0.2), points(0.1, 0, 0.08)], 1, 1)
    assert sweep.rises()
    assert sweep.gain() == pytest.approx(0.3)
    assert sweep.random_gain() == pytest.approx(0.06)
    assert sweep.random_gain(own=True) == pytest.approx(0.12)
    assert not sweep._replace(points=points(0.1, 0.3, 0.3)).rises()


def test_targets_of_the_users_own_are_measured_on_all_prompts(model, make_bae):
    found = measure_steering(
        model, make_bae(), 5, strengths=[0, 1], prompts=PROMPTS[:1], text=TEXT, targets=[" the"], random=1, progress=False
    )
    p, _ = predictions(model, PROMPTS[0], make_bae().W_dec[5].detach())
    the = model.tokenizer(" the", add_special_tokens=False)["input_ids"][0]
    assert found.points[1].probability == pytest.approx(p.mean(0)[the].item(), abs=1e-5)
    assert found.targets == [" the"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"strengths": [1.0]}, ValueError, "at least two strengths"),
        ({"strengths": [0.0, float("nan")]}, ValueError, "must be a finite number"),
        ({"random": 0}, ValueError, "one random direction"),
        ({"prompts": PROMPTS[:1]}, ValueError, "one prompt is too few"),
        ({"text": []}, ValueError, "no prompt given"),
        ({"prompts": ["word " * 400, "a"]}, ValueError, "the model's context only 256"),
        ({"targets": ["two words"]}, ValueError, "tokens of this model"),
        ({"feature": 48}, IndexError, "feature 48 is out of range"),
    ],
)
def test_sweeps_that_make_no_sense_are_refused(model, make_bae, arguments, error, message):
    given = {"feature": 5, "strengths": STRENGTHS, "prompts": PROMPTS, "text": TEXT, "progress": False, **arguments}
    with pytest.raises(error, match=message):
        measure_steering(model, make_bae(), **given)


@pytest.fixture
def prompts_file(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(f"{prompt} {number}" * 6 for number in range(3) for prompt in PROMPTS))
    return path


def command(bae_dir, prompts_file, out, *more):
    files = ["--bae", str(bae_dir), "--prompts", str(prompts_file), "--text", str(prompts_file), "--out", str(out)]
    sizes = ["--windows", "4", "--context", "24", "--random", "1"]
    return ["steer", *files, "--feature", "5,7", "--strength", "0,2", *sizes, *more]


def test_the_command_writes_table_picture_and_notebook_lines_that_give_the_same_numbers(
    make_bae, prompts_file, tmp_path, capsys
):
    bae_lens.save(make_bae(), tmp_path / "bae")
    out = tmp_path / "steer"
    assert cli.main(command(tmp_path / "bae", prompts_file, out, "--json", str(tmp_path / "all.json"))) == 0
    printed = capsys.readouterr().out
    assert "The same in a notebook:" in printed
    found = json.loads((out / "results.json").read_text())
    assert [sweep["feature"] for sweep in found] == [5, 7]
    assert json.loads((tmp_path / "all.json").read_text()) == found
    rows = list(csv.DictReader((out / "results.csv").open()))
    assert [float(row["target"]) for row in rows] == [p["probability"] for sweep in found for p in sweep["points"]]
    assert (out / "steering.png").read_bytes().startswith(b"\x89PNG")
    ran = subprocess.run([sys.executable, out / "notebook.py"], capture_output=True, text=True, check=True)
    again = [eval(line, {"Point": Point}) for line in ran.stdout.splitlines() if line.startswith("Point(")]
    assert [p.probability for p in again] == pytest.approx([p["probability"] for p in found[0]["points"]], rel=1e-5)


def test_the_command_goes_on_with_the_features_that_lack(make_bae, prompts_file, tmp_path, capsys):
    bae_lens.save(make_bae(), tmp_path / "bae")
    arguments = command(tmp_path / "bae", prompts_file, tmp_path / "steer")
    assert cli.main(arguments) == 0
    cells = tmp_path / "steer" / "cells"
    kept = (cells / "feature5.json").stat().st_mtime_ns
    (cells / "feature7.json").unlink()
    assert cli.main(arguments) == 0
    assert (cells / "feature5.json").stat().st_mtime_ns == kept
    assert (cells / "feature7.json").is_file()
    assert cli.main([*arguments, "--top", "4"]) == 2
    assert "top was 10 and is 4" in capsys.readouterr().err


def test_the_command_refuses_an_sae_of_another_width(make_bae, prompts_file, tmp_path, capsys):
    bae_lens.save(make_bae(d_in=64), tmp_path / "bae")
    assert cli.main(command(tmp_path / "bae", prompts_file, tmp_path / "steer")) == 2
    assert "this SAE's d_in is 64" in capsys.readouterr().err
    assert not (tmp_path / "steer").exists()


def test_prompts_that_are_not_there_leave_no_directory_behind(make_bae, tmp_path, capsys):
    bae_lens.save(make_bae(), tmp_path / "bae")
    assert cli.main(command(tmp_path / "bae", tmp_path / "none.txt", tmp_path / "steer")) == 2
    assert "none.txt is not there: give a file" in capsys.readouterr().err
    assert not (tmp_path / "steer").exists()


def test_windows_are_the_first_of_a_file_and_fit_the_context(model, prompts_file):
    assert text_windows(model, prompts_file, 3, 16).tokens.shape == (3, 16)
    with pytest.raises(ValueError, match="windows of 300 tokens are longer than the model's context of 256"):
        text_windows(model, prompts_file, 3, 300)
    with pytest.raises(ValueError, match="at least one window"):
        text_windows(model, prompts_file, 0)
