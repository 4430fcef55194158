import csv
import fcntl
import json
import os
import random

import pytest
import torch

import bae_lens
from bae_lens.activations.dataset import ActivationDataset
from bae_lens.analyze.statistics import code_statistics
from bae_lens.cli import main
from bae_lens.demo import demo_model_dir
from bae_lens.grid.job import train_grid
from bae_lens.grid.options import GridOptions, cells_of

HOOKS = ["blocks.0.hook_resid_pre", "blocks.1.hook_resid_pre"]
FIELDS = {"batch_size": 64, "checkpoint_every": 10}


@pytest.fixture(scope="module")
def acts(tmp_path_factory):
    """Of 120 short documents, two hook points at four positions."""
    out = tmp_path_factory.mktemp("acts") / "acts"
    text = out.with_name("text.txt")
    words = ["the", "list", "of", "items", "or", "a", "number", "that", "is", "not", "an", "error"]
    chosen = random.Random(0)
    text.write_text("\n".join(" ".join(chosen.choices(words, k=12)) for _ in range(120)))
    command = ["harvest", "--model", str(demo_model_dir()), "--text", str(text), "--hooks", *HOOKS]
    assert main([*command, "--positions", "1,2,3,4", "--context-size", "16", "--out", str(out)]) == 0
    return out


def options(acts, out, **changes):
    given = dict(positions=[3, 4], seeds=[0, 1], steps=20, expansion=0.25, changes=FIELDS, measured=500, processes=1)
    return GridOptions(activations=acts, out=out, **given | changes)


def written(out):
    return {path: path.stat().st_mtime_ns for path in out.rglob("*.json") if "cells" in path.parts}


@pytest.fixture(scope="module")
def grid(acts, tmp_path_factory):
    out = tmp_path_factory.mktemp("grid") / "grid"
    return out, train_grid(options(acts, out), say=lambda line: None)


def test_each_cell_is_the_bae_that_train_would_make_and_says_where_it_belongs(acts, grid):
    out, found = grid
    assert [cell["state"] for cell in found.cells] == ["done"] * 8
    assert found.failures == []
    for cell in found.cells[::3]:
        place = cell["place"]
        split = ActivationDataset(acts, place["hook"]).split(0.15, 0)
        train, held_out = (side.at([place["position"]]).tensor() for side in split)
        recipe = options(acts, out).recipe_of(train.shape[1], place["seed"], {})
        expected = bae_lens.train(train, recipe, progress=False).bae
        bae = bae_lens.load(out / cell["bae"])
        for name, tensor in bae.state_dict().items():
            torch.testing.assert_close(tensor, expected.state_dict()[name], atol=1e-4, rtol=0)
        assert bae.cfg.metadata.hook_name == place["hook"]
        assert bae.cfg.metadata.model_name == str(demo_model_dir())
        assert cell["figures"]["fvu"] == pytest.approx(code_statistics(bae, held_out).numbers()["fvu"])


def test_the_manifest_and_the_table_say_what_is_there(grid):
    out, found = grid
    assert json.loads((out / "grid.json").read_text())["cells"][: len(found.cells)] == found.cells
    rows = list(csv.DictReader((out / "grid.csv").open()))[: len(found.cells)]
    assert [row["bae"] for row in rows] == [cell["bae"] for cell in found.cells]
    assert float(rows[0]["fvu"]) == found.cells[0]["figures"]["fvu"]
    assert found.cells[0]["name"] == "blocks.0.hook_resid_pre/position=3,seed=0"
    assert not list(out.rglob("step-*"))  # what training would go on from is not kept, once it has ended


def test_a_grid_that_grows_makes_what_lacks_and_other_settings_are_refused(acts, grid):
    out, _ = grid
    before, said = written(out), []
    larger = train_grid(options(acts, out, seeds=[0, 1, 2], hooks=["blocks.0.*"]), say=said.append)
    assert said == ["4 of 6 cells are there already"]
    assert [cell["state"] for cell in larger.cells] == ["done"] * 6
    assert before.items() <= written(out).items()
    listed = json.loads((out / "grid.json").read_text())["cells"]
    assert [cell["state"] for cell in listed] == ["done"] * 10  # those of the first grid too
    with pytest.raises(ValueError, match=r"made with other settings: .*recipe\.trainer\.steps was 20 and is 30"):
        train_grid(options(acts, out, steps=30))
    with pytest.raises(ValueError, match=r"holds another benchmark: settings\.measured was 500 and is 400"):
        train_grid(options(acts, out, measured=400))


def test_one_bad_cell_is_reported_stops_no_other_and_is_tried_again(acts, tmp_path, capsys):
    weights = ["--entropy-weights", "0.1,1e39", "--seeds", "0", "--hooks", HOOKS[0], "--positions", "3,4"]
    command = ["train-grid", "--activations", str(acts), "--steps", "20", "--expansion", "0.25", "--processes", "1", *weights]
    command += ["--out", str(tmp_path / "grid"), "--set", "batch_size=64"]
    assert main(command) == 1
    printed = capsys.readouterr().out
    name = f"{HOOKS[0]}/position=4,seed=0,entropy_weight=1e+39"
    assert f"{name} failed, and the others go on: FloatingPointError: entropy_loss is inf" in printed
    assert "2 done, 2 failed, 0 left" in printed
    cells = {cell["name"]: cell for cell in json.loads((tmp_path / "grid" / "grid.json").read_text())["cells"]}
    assert cells[name]["state"] == "failed"
    assert "entropy_loss is inf at step" in cells[name]["reason"]
    assert main(command) == 1
    assert "2 of 4 cells are there already" in capsys.readouterr().out


def test_what_another_process_is_at_is_left_to_it_and_what_it_leaves_is_taken_up(acts, tmp_path, monkeypatch):
    given = options(acts, tmp_path / "grid", hooks=HOOKS[:1])
    train_grid(options(acts, tmp_path / "grid", hooks=HOOKS[:1], positions=[4]), say=lambda line: None)
    names = [cell.name for cell in cells_of(given)]
    lock = tmp_path / "grid" / ".locks" / f"{names[1]}.lock"
    lock.parent.mkdir(exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        monkeypatch.setenv("RANK", "1")
        monkeypatch.setenv("WORLD_SIZE", "2")  # it takes its share first, and then the other's too
        states = {cell["name"]: cell["state"] for cell in train_grid(given, say=lambda line: None).cells}
    assert states == {name: "left" if name == names[1] else "done" for name in names}
    monkeypatch.undo()
    assert {cell["state"] for cell in train_grid(given, say=lambda line: None).cells} == {"done"}


def test_ctrl_c_saves_the_cells_under_way_and_the_same_goes_on_to_the_same_bits(acts, grid, tmp_path, monkeypatch):
    import signal

    from bae_lens.training import together

    whole, _ = grid
    passed = together.stacked_pass

    def interrupted(sae, *arguments):
        if sae.cfg.prior_samples == 13 * 64:
            os.kill(os.getpid(), signal.SIGINT)
        return passed(sae, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(together, "stacked_pass", interrupted)
        with pytest.raises(KeyboardInterrupt, match="4 trainings were interrupted"):
            train_grid(options(acts, tmp_path / "grid", hooks=HOOKS[:1]))
    assert len(list((tmp_path / "grid").glob("baes/*/*/checkpoints/step-00000014"))) == 4
    found = train_grid(options(acts, tmp_path / "grid", hooks=HOOKS[:1]), say=lambda line: None)
    for cell in found.cells:
        for name in ("sae_weights.safetensors", "metrics.jsonl"):
            assert (tmp_path / "grid" / cell["bae"] / name).read_bytes() == (whole / cell["bae"] / name).read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hooks": ["blocks.0.hook_resid_prr"]}, "holds the hook points blocks.0.hook_resid_pre"),
        ({"positions": [3, 40]}, "no vectors at position 40"),
        ({"recipe": "recomended"}, "did you mean 'recommended'"),
        ({"over": {"entropy_wieght": [1, 2]}}, "did you mean 'entropy_weight'"),
        ({"over": {"entropy_weight": []}}, "entropy_weight takes a list of values"),
        ({"over": {"seed": [1]}}, "given with seeds"),
        ({"seeds": [1, 1]}, "seeds names 1 more than once"),
        ({"positions": []}, "positions takes a list"),
        ({"changes": {"batch_size": 512}}, "vectors to train on, fewer than a batch of 512"),
        ({"processes": 0}, "processes must be at least 1"),
        ({"together": 0}, "together must be at least 1"),
        ({"memory": 0.0}, "memory must be a positive number of GiB"),
        ({"held_out": 1.0}, "held out must be over 0"),
    ],
)
def test_wrong_options_are_said_before_anything_is_trained_or_written(acts, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        train_grid(options(acts, tmp_path / "grid", **changes))
    assert not (tmp_path / "grid").exists()


def test_a_directory_of_something_else_is_refused(acts, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="already holds something"):
        train_grid(options(acts, tmp_path))
    with pytest.raises(FileNotFoundError, match="no activations"):
        train_grid(options(tmp_path, tmp_path / "grid"))


def test_a_hook_point_of_a_manifest_leads_nowhere_outside_the_directory(tmp_path):
    bae_lens.save_activations(tmp_path / "acts", [torch.randn(400, 8)], metadata={"hook_name": "../../x"})
    found = train_grid(options(tmp_path / "acts", tmp_path / "grid", positions=None, expansion=2), say=lambda line: None)
    assert [cell["bae"] for cell in found.cells] == ["baes/_.___x/seed=0", "baes/_.___x/seed=1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["acts", "grid"]


@pytest.mark.slow  # four processes import torch
def test_several_processes_and_torchrun_make_the_same_grid(acts, grid, tmp_path):
    import subprocess
    import sys

    whole, _ = grid
    command = ["train-grid", "--activations", str(acts), "--positions", "3,4", "--seeds", "0,1", "--steps", "20"]
    command += ["--expansion", "0.25", "--measured", "500", "--set", "batch_size=64", "checkpoint_every=10"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "bae_lens"]
    subprocess.run([*torchrun, *command, "--out", str(tmp_path / "ranks")], check=True, capture_output=True)
    pool = [sys.executable, "-m", "bae_lens", *command, "--processes", "2", "--out", str(tmp_path / "pool")]
    subprocess.run(pool, check=True, capture_output=True)
    for place in ("ranks", "pool"):
        cells = json.loads((tmp_path / place / "grid.json").read_text())["cells"]
        assert [cell["state"] for cell in cells] == ["done"] * 8
        for cell in cells:
            one, two = (out / cell["bae"] / "sae_weights.safetensors" for out in (tmp_path / place, whole))
            assert one.read_bytes() == two.read_bytes()
