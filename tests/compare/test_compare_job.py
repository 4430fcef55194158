import csv
import io
import json

import pytest
import torch

import bae_lens
from bae_lens.cells import CellDirectory
from bae_lens.cli import main
from bae_lens.compare.data import open_data
from bae_lens.compare.job import CompareOptions, load_cell, run_compare
from bae_lens.compare.report import write_comparison
from bae_lens.compare.results import Cell

HOOK = "blocks.1.hook_resid_pre"
METHODS = ["bae", "topk", "topk_paper", "pca"]
SMALL = {"methods": METHODS, "expansions": [0.5], "steps": 12, "tries": 2, "seeds": 2, "counted": 500, "tried": 256, "jobs": 1}


@pytest.fixture(scope="module")
def compared(acts, tmp_path_factory):
    """A small comparison: its data, options, results and what was said."""
    options = CompareOptions(out=tmp_path_factory.mktemp("compare") / "out", **SMALL)
    said = []
    data = open_data(acts, HOOK)
    return data, options, run_compare(data, options, said.append), said


def test_every_method_has_the_same_number_of_tries_and_seeds_of_the_nearest(compared):
    _, options, results, _ = compared
    for method in METHODS:
        mine = [result.cell for result in results if result.cell.method == method]
        assert len([cell for cell in mine if cell.seed == 0]) == 2
        assert len([cell for cell in mine if cell.seed == 1]) == (0 if method == "pca" else 1)
        tried = {
            result.cell.setting: result.figures.bits_fvu for result in results if result.cell in mine and result.cell.seed == 0
        }
        again = [cell.setting for cell in mine if cell.seed == 1]
        assert again in ([], [min(tried, key=lambda s: abs(torch.tensor(tried[s] / options.at[0]).log().item()))])


def test_the_sae_of_a_cell_is_kept_in_saelens_format_and_is_the_one_that_was_measured(compared):
    data, options, results, _ = compared
    result = next(result for result in results if result.cell.method == "topk")
    sae = load_cell(CellDirectory(options.out), result.cell)
    assert sae.cfg.metadata.hook_name == HOOK
    x = data.held_out
    fvu = ((sae(x) - x).double().pow(2).sum() / (x - x.mean(0)).double().pow(2).sum()).item()
    assert result.figures.fvu == pytest.approx(fvu, rel=1e-4)
    assert result.frequency is not None
    assert torch.allclose(result.frequency, (sae.encode(x) > 0).double().mean(0), atol=1e-6)


def test_a_second_run_makes_nothing_again_and_gives_the_same_results(compared):
    data, options, results, said = compared
    assert len(said) == len(results)
    again = []
    found = run_compare(data, options, again.append)
    assert again == []
    assert [one.to_dict() for one in found] == [one.to_dict() for one in results]


def test_a_killed_run_goes_on_with_the_cells_that_lack_to_the_same_figures(compared):
    data, options, results, _ = compared
    lost = next(result for result in results if result.cell.method == "topk_paper" and result.cell.seed == 0)
    CellDirectory(options.out).cell(lost.cell.name).unlink()
    said = []
    found = {result.cell: result for result in run_compare(data, options, said.append)}
    assert len(said) == 1
    assert found[lost.cell].figures == lost.figures


def test_other_activations_or_settings_are_refused_in_a_directory_that_holds_a_comparison(compared):
    data, options, _, _ = compared
    with pytest.raises(ValueError, match="holds another benchmark: settings.steps was 12 and is 13"):
        run_compare(data, CompareOptions(out=options.out, **{**SMALL, "steps": 13}))
    with pytest.raises(ValueError, match="holds another benchmark: settings.held_out"):
        run_compare(data._replace(held_out=data.held_out[1:]), options)


def test_the_report_says_tries_seeds_and_figures_in_markdown_csv_json_and_pictures(compared):
    data, options, results, _ = compared
    written = write_comparison(data, options, results)
    names = [
        "report.md",
        "results.csv",
        "results.json",
        "curves.png",
        "frequency.png",
        "magnitudes.png",
        "magnitudes.safetensors",
    ]
    assert [path.name for path in written] == names
    report = written[0].read_text()
    assert "Every method was given 2 tries with seed 0, of 12 steps" in report
    for heading in (
        "What is kept, and what it costs",
        "What the features are like",
        "Bits a token at an FVU",
        "What was tried",
    ):
        assert f"## {heading}" in report
    rows = list(csv.DictReader(io.StringIO(written[1].read_text())))
    assert [(row["method"], row["seed"]) for row in rows[:2]] == [("bae", "0"), ("bae", "1")]
    first = next(result for result in results if result.cell.method == "bae" and result.cell.seed == 1)
    assert float(rows[1]["fvu"]) == first.figures.fvu
    lines = json.loads(written[2].read_text())["lines"]
    assert [line["method"] for line in lines] == METHODS
    assert all(0 < line["stability"] <= 1 for line in lines if line["method"] != "pca")
    assert lines[1]["figures"][0]["refined_bits"] > 0
    assert lines[0]["figures"][0]["ce_from_zero"] is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ["topk", "standrd"]}, "unknown method 'standrd'; did you mean 'standard'"),
        ({"methods": []}, "no method is given"),
        ({"methods": ["topk", "topk"]}, "a method is given twice"),
        ({"at": [1.5]}, "FVUs over 0 and under 1, got 1.5"),
        ({"tries": 0}, "tries must be at least 1, got 0"),
        ({"expansions": []}, "the list of expansions is empty"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        CompareOptions(out=tmp_path / "out", **change)


def test_too_few_activations_or_features_are_refused_before_anything_is_trained(compared, tmp_path):
    data, *_ = compared
    with pytest.raises(ValueError, match="100 training vectors are fewer than one batch of 512"):
        run_compare(data._replace(train=data.train[:100]), CompareOptions(out=tmp_path / "few", **SMALL))
    narrow = {**SMALL, "methods": ["matryoshka"], "expansions": [0.03]}
    with pytest.raises(ValueError, match=r"matryoshka cannot be trained at x0\.03.*at least 8 features"):
        run_compare(data, CompareOptions(out=tmp_path / "narrow", **narrow))
    with pytest.raises(ValueError, match="held-out activations cannot be coded: the 9 vectors are all equal"):
        run_compare(data._replace(held_out=torch.ones(9, 128)), CompareOptions(out=tmp_path / "equal", **SMALL))


def test_the_command_trains_and_prints_the_report(acts, tmp_path, capsys):
    args = ["compare", "--activations", str(acts), "--hook", HOOK, "--with", "pca,topk_paper", "--out", str(tmp_path / "out")]
    assert (
        main([*args, "--steps", "3", "--tries", "1", "--seeds", "1", "--expansions", "0.5", "--jobs", "1", "--no-refine"]) == 0
    )
    out = capsys.readouterr().out
    assert "Every method was given 1 try with seed 0, of 3 steps" in out
    assert "| topk_paper " in out
    assert (tmp_path / "out/results.json").is_file()


def test_the_command_refuses_an_unknown_method_before_it_reads_anything(acts, tmp_path, capsys):
    args = ["compare", "--activations", str(acts), "--hook", HOOK, "--with", "topk,bea", "--out", str(tmp_path / "out")]
    assert main(args) == 2
    assert "unknown method 'bea'; did you mean 'bae'" in capsys.readouterr().err


def test_the_name_of_a_cell_is_read_back():
    cell = Cell(4.0, "relu_paper", 3.33e-9, 2)
    assert Cell.parse(cell.name) == cell
    with pytest.raises(ValueError, match="no cell is named"):
        Cell.parse("x4/topk")


@pytest.mark.slow
def test_processes_give_what_one_process_gives(compared, tmp_path):
    data, _, results, _ = compared
    found = run_compare(data, CompareOptions(out=tmp_path / "out", **{**SMALL, "methods": ["topk", "pca"], "jobs": 2}))
    expected = {one.cell: one.figures for one in results}
    assert found
    for one in found:
        assert one.figures.fvu == pytest.approx(expected[one.cell].fvu, rel=1e-4)


def test_a_failure_in_a_process_is_raised_and_ends_the_others(compared, tmp_path):
    assert bae_lens  # the processes import the package, which takes them seconds
    from bae_lens.compare.processes import run_in_processes

    with pytest.raises(ZeroDivisionError):
        run_in_processes(_divide, [1, 0], _nothing, 1, print)


def _divide(prepared, task, say):
    say(f"{1 / task}")


def _nothing():
    return None
