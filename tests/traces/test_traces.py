"""The traces at a tiny size, through their commands: what they write, that they go on, and what they refuse."""

import csv
import json
import math

import pytest
import torch

import bae_lens
from bae_lens.activations.dataset import ActivationDataset
from bae_lens.activations.harvest_disk import harvest_to_disk
from bae_lens.analyze.statistics import code_statistics
from bae_lens.cli import main
from bae_lens.demo import demo_model_dir
from bae_lens.demo.corpus import python_docs

HOOKS = ["blocks.1.hook_resid_pre", "blocks.3.hook_resid_post"]
TINY = ["--steps", "30", "--set", "batch_size=64", "--expansion", "0.5", "--processes", "1"]


def read_csv(path):
    return list(csv.DictReader(path.open()))


@pytest.fixture(scope="module")
def activations(models, tmp_path_factory):
    """Positions 1 to 9 of 400 texts at two hook points; some texts end before the last position."""
    from transformer_lens import HookedTransformer

    path = tmp_path_factory.mktemp("activations") / "acts"
    texts = [" ".join(text.split()[: 5 + i % 40]) for i, text in enumerate(python_docs().train[:400])]
    harvest_to_disk(
        models(HookedTransformer), texts, hooks=HOOKS, out=path, positions=range(1, 10), min_tokens=2, progress=False
    )
    return path


@pytest.fixture(scope="module")
def entropy_run(activations, tmp_path_factory):
    out = tmp_path_factory.mktemp("entropy") / "run"
    command = ["entropy", "--activations", str(activations), "--out", str(out), *TINY, "--keep"]
    assert main(command) == 0
    return out, command


def test_entropy_has_a_row_a_cell_with_its_fvu_and_draws_figure_3(entropy_run):
    out, _ = entropy_run
    rows = read_csv(out / "results.csv")
    cells = {(row["hook"], row["position"], row["bae"]) for row in rows}
    assert cells == {(h, str(p), b) for h in HOOKS for p in (1, 2, 4, 8) for b in ("of the cell", "of the layer")}
    assert all(0 < float(row["fvu"]) < 1.5 and float(row["entropy"]) >= 0 and float(row["held_out_tree"]) >= 0 for row in rows)
    assert (out / "positions.png").read_bytes().startswith(b"\x89PNG")
    page = (out / "positions.html").read_text()
    assert "plotly" in page
    assert "https://cdn.plot.ly" not in page.split("<body>")[1][:2000]
    found = json.loads((out / "results.json").read_text())
    assert found["failed"] == []
    assert len(found["rows"]) == len(rows)


def test_every_position_has_the_same_documents_those_that_reach_the_last_one(entropy_run, activations):
    dataset = ActivationDataset(activations, hook=HOOKS[0])
    reaching = len(dataset.documents[dataset.positions == 8].unique())
    assert {row["vectors"] for row in read_csv(entropy_run[0] / "results.csv")} == {str(reaching)}
    assert reaching < len(dataset.documents[dataset.positions == 1].unique())


def test_a_cells_figures_are_those_of_its_bae_on_its_vectors(entropy_run, activations):
    out, _ = entropy_run
    dataset = ActivationDataset(activations, hook=HOOKS[1])
    kept = dataset.documents[dataset.positions == 8].unique()
    x = dataset.select((torch.isin(dataset.documents, kept) & (dataset.positions == 4)).nonzero().squeeze(1)).tensor()
    for name, bae_of in (("position-4", "of the cell"), ("layer", "of the layer")):
        stats = code_statistics(bae_lens.load(out / "baes" / HOOKS[1] / name), x)
        (row,) = (
            row
            for row in read_csv(out / "results.csv")
            if (row["hook"], row["position"], row["bae"]) == (HOOKS[1], "4", bae_of)
        )
        assert float(row["fvu"]) == pytest.approx(stats.fvu, rel=1e-6)
        assert float(row["entropy"]) == pytest.approx(stats.entropy, rel=1e-6)


def test_entropy_goes_on_with_what_lacks_and_refuses_other_settings(entropy_run, capsys):
    out, command = entropy_run
    cell = out / "cells" / HOOKS[0] / "position-2.json"
    before = json.loads(cell.read_text())
    other = (out / "cells" / HOOKS[0] / "position-4.json").read_text()
    cell.unlink()
    assert main(command) == 0
    assert "9 of 10 cells are there already" in capsys.readouterr().out
    assert json.loads(cell.read_text())["rows"] == before["rows"]  # trained again to the same figures
    assert (out / "cells" / HOOKS[0] / "position-4.json").read_text() == other
    assert main([*command, "--steps", "31"]) == 2
    assert "recipe.trainer.steps was 30 and is 31" in capsys.readouterr().err
    assert main([*command, "--held-out", "0.3"]) == 2
    assert "settings.held_out was 0.2 and is 0.3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--positions", "1,12"], "holds no vectors at position 12"),
        (["--hooks", "blocks.1.hook_resid_post"], "no hook point 'blocks.1.hook_resid_post'; did you mean"),
        (["--by", "position"], "unknown --by 'position'"),
        (["--recipe", "recomended"], "did you mean 'recommended'"),
        (["--documents", "70"], "fewer than a batch of 64 are left"),
        (["--positions", "1,x"], "whole numbers between commas"),
    ],
)
def test_what_cannot_be_traced_is_refused_before_anything_is_trained(activations, tmp_path, capsys, options, message):
    command = ["entropy", "--activations", str(activations), "--out", str(tmp_path / "out"), *TINY, *options]
    if "1,x" in options:
        with pytest.raises(SystemExit):
            main(command)
    else:
        assert main(command) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "cells").exists()


def test_a_cell_whose_training_fails_is_reported_and_stops_no_other(activations, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["entropy", "--activations", str(activations), "--out", str(out), "--by", "layer", *TINY]
    assert main([*command, "--set", "batch_size=64", "learning_rate=1e30"]) == 1
    said = capsys.readouterr().out
    assert f"{HOOKS[0]}/layer failed, and the others go on: FloatingPointError" in said
    assert "2 cells failed" in said
    assert [failed["name"] for failed in json.loads((out / "results.json").read_text())["failed"]] == [
        f"{hook}/layer" for hook in HOOKS
    ]


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    path = tmp_path_factory.mktemp("task") / "films.txt"
    words = [("dull", "poor", "weak"), ("great", "fine", "bright")]
    lines = [f"{i % 2} the {words[i % 2][i % 3]} list number {i} of module {i % 7}" for i in range(200)]
    path.write_text("\n".join(lines))
    return path


def test_icl_traces_shots_by_layer_with_accuracy(task, tmp_path, capsys):
    out = tmp_path / "icl"
    command = ["icl", "--model", str(demo_model_dir()), "--task", str(task), "--labels", "0=negative,1=positive"]
    command += ["--hooks", "blocks.0.hook_resid_pre,blocks.2.hook_resid_pre", "--out", str(out), "--scored", "40", *TINY]
    assert main([*command, "--shots", "0,2"]) == 0
    assert main([*command, "--shots", "1"]) == 0  # adds to the same directory
    assert "cells are there already" not in capsys.readouterr().out
    rows = read_csv(out / "results.csv")
    assert [(row["hook"], row["shots"]) for row in rows] == [
        (f"blocks.{layer}.hook_resid_pre", shots) for layer in (0, 2) for shots in ("0", "1", "2")
    ]
    embedded = [row for row in rows if row["hook"].startswith("blocks.0")]
    assert {(row["entropy"], row["fvu"]) for row in embedded} == {("0", "0")}  # the last token is always ":"
    assert all(float(row["entropy"]) > 0 for row in rows if row["hook"].startswith("blocks.2"))
    accuracies = json.loads((out / "results.json").read_text())["accuracy"]
    assert [found["shots"] for found in accuracies] == [0, 1, 2]
    for found in accuracies:
        assert 0 <= found["low"] <= found["accuracy"] <= found["high"] <= 1
        assert (found["scored"], found["prompts"], found["too_long"]) == (40, 160, 0)
    for name in ("shots.png", "accuracy.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")


def test_icl_counts_prompts_that_are_too_long_and_refuses_where_none_fits(tmp_path, capsys):
    path = tmp_path / "long.tsv"
    path.write_text("".join(f"{'item ' * (30 if i % 2 else 2)}{i}\t{'yes' if i % 4 < 2 else 'no'}\n" for i in range(300)))
    command = ["icl", "--model", str(demo_model_dir()), "--task", str(path), "--hooks", "blocks.2.hook_resid_pre", *TINY]
    command += ["--scored", "5"]
    assert main([*command, "--shots", "6", "--out", str(tmp_path / "a")]) == 0
    said = capsys.readouterr().out
    (found,) = json.loads((tmp_path / "a" / "results.json").read_text())["accuracy"]
    assert found["too_long"] > 0
    assert found["too_long"] + found["prompts"] == 240
    assert f"6 shots: {found['too_long']} prompts are longer than the context and are left out" in said
    assert main([*command, "--shots", "60", "--out", str(tmp_path / "b")]) == 2
    assert "none of 240 prompts of 60 demonstrations fits the context of 256 tokens" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1 a\n1 b\n", "a task needs two classes"),
        ("1 a\nno label\n", "line 2: no label"),
        ("0 a\n1 b\n" * 30, "fewer than a batch"),
    ],
)
def test_icl_refuses_tasks_that_are_none(tmp_path, capsys, content, message):
    (tmp_path / "t.txt").write_text(content)
    command = ["icl", "--model", str(demo_model_dir()), "--task", str(tmp_path / "t.txt"), "--out", str(tmp_path / "out")]
    assert main([*command, *TINY]) == 2
    assert message in capsys.readouterr().err


def test_two_tokens_of_length_r_carry_r_bits_at_most(tmp_path):
    out = tmp_path / "two"
    command = ["two-tokens", "--model", str(demo_model_dir()), "--hook", "blocks.2.hook_resid_pre", "--r", "1,3"]
    command += ["--tokens", "7,9", "--sequences", "600", "--out", str(out), "--expansions", "0.25,0.5", *TINY, "--steps", "150"]
    assert main(command) == 0
    rows = read_csv(out / "results.csv")
    assert [(row["r"], row["features"]) for row in rows] == [("1", "32"), ("1", "64"), ("3", "32"), ("3", "64")]
    for row in rows:
        assert (
            float(row["held_out_joint"]) <= int(row["r"]) + 0.05
        )  # the joint is what r bounds; the marginal counts bits twice
    assert (out / "two_tokens.png").read_bytes().startswith(b"\x89PNG")


def test_two_tokens_refuses_what_no_model_takes(tmp_path, capsys):
    command = [
        "two-tokens",
        "--model",
        str(demo_model_dir()),
        "--hook",
        "blocks.2.hook_resid_pre",
        "--out",
        str(tmp_path / "t"),
    ]
    for options, message in (
        (["--r", "1000"], "longer than the model's context"),
        (["--tokens", "1,99999"], "the model's tokens are 0 to"),
        (["--tokens", "1,1"], "two tokens that differ"),
        (["--sequences", "20", "--set", "batch_size=64"], "fewer to train on than a batch of 64"),
    ):
        assert main([*command, "--r", "4", *options]) == 2
        assert message in capsys.readouterr().err


def test_rate_distortion_sweeps_weights_beside_pca_and_the_gaussian_bound(activations, tmp_path, capsys):
    out = tmp_path / "rd"
    command = ["rate-distortion", "--activations", str(activations), "--out", str(out), *TINY]
    assert main(command) == 2
    assert "say which one" in capsys.readouterr().err
    command += ["--hook", HOOKS[0], "--weights", "0.01,3"]
    assert main([*command, "--steps", "120"]) == 0
    rows = read_csv(out / "results.csv")
    baes = {row["weight"]: row for row in rows if row["code"].startswith("BAE")}
    assert float(baes["3.0"]["held_out_code_length"]) < float(baes["0.01"]["held_out_code_length"])
    assert float(baes["3.0"]["fvu"]) > float(baes["0.01"]["fvu"])
    pca = [(float(row["fvu"]), float(row["held_out_code_length"])) for row in rows if row["code"].startswith("PCA")]
    bound = {float(row["fvu"]): float(row["held_out_code_length"]) for row in rows if row["code"].startswith("bound")}
    assert len(pca) == 6
    assert all(math.isfinite(bits) for _, bits in pca)
    assert bound[0.03] > bound[0.1] > bound[0.4]
    assert (out / "rate_distortion.png").read_bytes().startswith(b"\x89PNG")
