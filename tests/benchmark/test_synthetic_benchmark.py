"""The synthetic directional benchmark at a tiny size: its cells, its command, its tables and pictures."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from bae_lens.analyze.truth import Found
from bae_lens.benchmark.hits import TracePoint, is_hit, steps_to_hit
from bae_lens.benchmark.synthetic import Cell, SyntheticOptions, cell_recipe, run_cell, run_synthetic
from bae_lens.benchmark.synthetic_table import markdown_table
from bae_lens.cli import main

TINY = ["--d", "16", "--samples", "1024", "--steps", "40", "--every", "20"]


def found(entropy=8.0, fvu=0.001, recovered=1.0):
    return Found(entropy=entropy, fvu=fvu, recovered=recovered, loss=fvu, live=8)


def trace(*points):
    return [TracePoint(100 * (i + 1), point) for i, point in enumerate(points)]


@pytest.mark.parametrize(
    ("point", "r", "hit"),
    [
        (found(), 8, True),
        (found(entropy=8.39), 8, True),
        (found(entropy=7.59), 8, False),
        (found(entropy=1.09), 1, True),
        (found(entropy=1.11), 1, False),
        (found(entropy=0.05), 0, True),
        (found(fvu=0.01), 8, False),
        (found(recovered=0.98), 8, False),
        (found(recovered=0.99), 8, True),
    ],
)
def test_a_hit_needs_entropy_reconstruction_and_the_true_bits(point, r, hit):
    assert is_hit(point, r) == hit


def test_steps_to_hit_are_those_from_which_it_holds_to_the_end():
    miss = found(entropy=9)
    assert steps_to_hit(trace(miss, found(), miss, found(), found()), 8) == 400
    assert steps_to_hit(trace(found(), found()), 8) == 100
    assert steps_to_hit(trace(found(), found(), miss), 8) is None
    assert steps_to_hit([], 8) is None


def options(tmp_path, **changes):
    small = {"d": 16, "samples": 1024, "steps": 40, "every": 20, "r": [0, 2], "entropy": "both"}
    return SyntheticOptions(out=tmp_path / "run", **{**small, **changes})


def test_a_cell_hits_a_small_truth_and_its_trace_ends_with_what_was_found(tmp_path):
    chosen = options(tmp_path, d=8, r=[2], samples=2048, steps=1200, every=300)
    cell = Cell("synthetic", 4.0, 2, True, 0)
    result = run_cell(cell, cell_recipe(cell, chosen), chosen)
    assert result.hit is not None
    assert [point.step for point in result.trace] == [300, 600, 900, 1200]
    assert result.trace[-1].found == result.found
    assert result.found.entropy == pytest.approx(2, abs=0.1)
    assert result.merged.bits == 2


def test_the_rank_is_not_visible_to_training(tmp_path):
    chosen = options(tmp_path, r=[0, 1, 16], recipes=["synthetic", "paper", "reference_code"])
    recipes = {}
    for cell in chosen.cells():
        recipes.setdefault(cell._replace(r=-1), []).append(cell_recipe(cell, chosen).to_dict())
    assert len(recipes) == 6
    assert all(recipe == same[0] for same in recipes.values() for recipe in same)


def test_without_entropy_both_weights_are_nought_and_the_papers_recipe_is_that_of_its_benchmark(tmp_path):
    chosen = options(tmp_path)
    off = cell_recipe(Cell("paper", 4.0, 2, False, 0), chosen)
    assert (off.sae.entropy_weight, off.sae.covariance_weight) == (0, 0)
    on = cell_recipe(Cell("paper", 4.0, 2, True, 0), chosen)
    assert (on.sae.entropy_weight, on.sae.covariance_weight) == (5e-7, 1e-6)


def test_the_command_writes_cells_tables_and_pictures_and_does_nothing_twice(tmp_path, capsys):
    command = ["synthetic", *TINY, "--r", "0", "2", "4", "--seeds", "0", "1", "--out", str(tmp_path / "run")]
    assert main(command) == 0
    assert "hits" in capsys.readouterr().out
    cells = sorted((tmp_path / "run" / "cells").iterdir())
    assert len(cells) == 12
    rows = list(csv.DictReader(io.StringIO((tmp_path / "run" / "results.csv").read_text())))
    assert len(rows) == 12
    assert {row["r"] for row in rows} == {"0", "2", "4"}
    assert (tmp_path / "run" / "table.md").read_text().count("\n| synthetic") == 6
    written = [cell.stat().st_mtime_ns for cell in cells]
    assert main([*command, "--expansion", "4", "1"]) == 0
    assert "12 of 24 cells are there already" in capsys.readouterr().out
    assert [cell.stat().st_mtime_ns for cell in cells] == written
    assert len(list((tmp_path / "run" / "cells").iterdir())) == 24
    for name in ("entropy.png", "dynamics-synthetic-4x.png", "dynamics-synthetic-1x.png"):
        assert has_colors(tmp_path / "run" / name, green=True, red=True)
    assert not [path for path in (tmp_path / "run").rglob(".*")]


def has_colors(path, green, red):
    """Whether a picture of some size holds pixels that are clearly green, and clearly red."""
    from matplotlib.image import imread

    pixels = torch.from_numpy(imread(path)[..., :3].copy())
    r, g = pixels[..., 0], pixels[..., 1]
    found_green, found_red = int((g - r > 0.2).sum()), int((r - g > 0.2).sum())
    return min(pixels.shape[:2]) > 300 and (found_green > 20) == green and (found_red > 20) == red


def test_a_picture_shows_only_what_was_trained(tmp_path):
    assert main(["synthetic", *TINY, "--r", "2", "--entropy", "with", "--out", str(tmp_path / "run")]) == 0
    assert has_colors(tmp_path / "run" / "entropy.png", green=True, red=False)


def test_a_killed_job_goes_on_with_the_cells_that_are_left(tmp_path):
    arguments = ["synthetic", *TINY, "--r", *map(str, range(1, 9)), "--entropy", "with", "--out", str(tmp_path / "run")]
    process = subprocess.Popen(
        [sys.executable, "-m", "bae_lens", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    cells = tmp_path / "run" / "cells"
    while not list(cells.glob("*.json")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    before = {path.name: path.read_bytes() for path in cells.glob("*.json")}
    assert 1 <= len(before) < 8
    assert all(json.loads(content)["trace"] for content in before.values())
    assert main(arguments) == 0
    assert len(list(cells.glob("*.json"))) == 8
    assert all((cells / name).read_bytes() == content for name, content in before.items())
    assert (tmp_path / "run" / "table.md").read_text().count("\n| synthetic") == 8


def test_the_same_cell_trained_twice_is_the_same(tmp_path):
    one, two = (run_synthetic(options(tmp_path / name, r=[2], entropy="with"), say=list)[0] for name in ("a", "b"))
    assert one._replace(seconds=0) == two._replace(seconds=0)


def test_results_come_back_from_their_files_as_they_were(tmp_path):
    chosen = options(tmp_path, r=[2], entropy="with")
    (first,) = run_synthetic(chosen, say=list)
    said = []
    (again,) = run_synthetic(chosen, said.append)
    assert again == first
    assert said == ["1 of 1 cells are there already"]


def test_the_table_counts_hits_over_seeds_and_shows_the_worst_of_them():
    from bae_lens.analyze.truth import Merged
    from bae_lens.benchmark.synthetic import CellResult

    cell = Cell("synthetic", 4.0, 8, True, 0)
    good = CellResult(cell, found(), Merged(8.0, 8), 900, [], 1.0, {})
    bad = CellResult(cell._replace(seed=1), found(9.0, 0.25, 0.875), Merged(8.0, 8), None, [], 1.0, {})
    row = markdown_table([good, bad]).splitlines()[2]
    for part in ("1 of 2", "8.50 [8.00, 9.00]", "8.00 [8.00, 8.00]", "88%", "0.25", "900 (at most 900)"):
        assert part in row


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--r", "17"], "r = 17 is larger than d = 16"),
        (["--r", "9", "--samples", "8"], "r = 9 is larger than samples = 8"),
        (["--r", "-1"], "r must be at least 0"),
        (["--recipes", "syntetic"], "unknown recipe 'syntetic'; did you mean 'synthetic'?"),
        (["--seeds"], "the list of seeds is empty"),
        (["--r"], "the list of r is empty"),
        (["--recipes"], "the list of recipes is empty"),
        (["--expansion"], "the list of expansion is empty"),
        (["--expansion", "0.01"], "leaves no feature"),
        (["--seeds", "-1"], "seed must be a whole number"),
        (["--entropy", "wiht"], "did you mean 'with'"),
        (["--r", "0", "--recipes", "recommended"], "all vectors are 0, and the recipe 'recommended' rescales"),
        (["--samples", "100"], "80 are trained on, fewer than one batch of 512"),
        (["--set", "surogate=clip"], "did you mean 'surrogate'"),
        (["--set", "learning_rate_schedule.decai=0.5"], "did you mean 'learning_rate_schedule.decay'"),
        (["--set", "surrogate"], "takes FIELD=VALUE"),
        (["--set", "batch_size=1"], "batch_size must be at least 2"),
        (["--out", "/sys/run"], "cannot write"),
    ],
)
def test_wrong_input_is_one_line_before_anything_is_written(arguments, message, tmp_path, capsys):
    assert main(["synthetic", *TINY, "--r", "2", "--out", str(tmp_path / "run"), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert not list(tmp_path.iterdir())


def test_a_directory_of_another_benchmark_or_other_settings_is_refused_with_the_fields_named(tmp_path, capsys):
    run = tmp_path / "run"
    command = ["synthetic", *TINY, "--r", "2", "--entropy", "with", "--out", str(run)]
    assert main(command) == 0
    assert main([*command, "--steps", "50", "--set", "learning_rate=0.001"]) == 2
    error = capsys.readouterr().err
    assert "settings.steps was 40 and is 50" in error
    assert "settings.changes.learning_rate was None and is 0.001" in error
    manifest = json.loads((run / "benchmark.json").read_text())
    (run / "benchmark.json").write_text(json.dumps({**manifest, "benchmark": "codes"}))
    assert main(command) == 2
    assert "benchmark was 'codes' and is 'synthetic'" in capsys.readouterr().err
    (run / "benchmark.json").unlink()
    assert main(command) == 2
    assert "already holds something" in capsys.readouterr().err


def test_cells_of_another_recipe_and_cells_that_are_not_whole_are_named(tmp_path, capsys):
    command = ["synthetic", *TINY, "--r", "2", "--entropy", "with", "--out", str(tmp_path / "run")]
    assert main(command) == 0
    (cell,) = (tmp_path / "run" / "cells").iterdir()
    value = json.loads(cell.read_text())
    value["recipe"]["sae"]["covariance_weight"] = 0.5
    cell.write_text(json.dumps(value))
    assert main(command) == 2
    assert "another recipe: sae.covariance_weight was 0.5 and is 0.002" in capsys.readouterr().err
    cell.write_text(cell.read_text()[:-40])
    assert main(command) == 2
    assert f"{cell.name} is not whole: remove it" in capsys.readouterr().err
