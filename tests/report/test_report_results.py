import json

import pytest

from bae_lens.report.results import curves_of, read_compare, read_comsem, read_entropy, read_run

FEATURE = {
    "feature": 3,
    "status": "scored",
    "reason": None,
    "phrase": "words",
    "score": 0.75,
    "interval": [0.4, 0.9],
    "shuffled": {"score": 0.125},
    "detection": {"balanced_accuracy": 0.8},
}
SEED = {"fvu": 0.1, "bits": 50.0, "bits_fvu": 0.11, "ce_from_zero": None, "ce_from_mean": None, "l0": 4.0}
SEED |= {"live": 10, "dead": 2, "dense": 1}


def comsem(directory, *rows):
    (directory / "features.jsonl").write_text(
        "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n"
    )
    return directory


def test_phrases_and_scores_are_read_by_feature(tmp_path):
    failed = {"feature": 5, "status": "failed", "reason": "no answer", "phrase": None, "score": None, "interval": None}
    found = read_comsem(comsem(tmp_path, FEATURE, failed), 8)
    assert found[3] == ("words", 0.75, 0.4, 0.9, "scored", None, 0.125, 0.8, None)
    assert (found[5].phrase, found[5].score, found[5].reason) == (None, None, "no answer")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([FEATURE, '{"feature": 4, "sta'], "line 2: no whole feature"),
        ([{**FEATURE, "feature": 8}], "line 1: feature 8, of 8 in this SAE: is it of another one"),
        ([{k: v for k, v in FEATURE.items() if k != "phrase"}], "line 1: no whole feature"),
        (["[]"], "line 1: no whole feature"),
    ],
)
def test_results_of_comsem_that_are_not_whole_are_refused_with_the_line(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        read_comsem(comsem(tmp_path, *rows), 8)


def test_a_comparison_is_read_with_the_mean_the_least_and_the_most(tmp_path):
    line = {"method": "bae", "width": "x4", "family": "bae", "setting": "0.1", "figures": [SEED, {**SEED, "fvu": 0.3}]}
    (tmp_path / "results.json").write_text(json.dumps({"at": [0.1], "lines": [line]}))
    (read,) = read_compare(tmp_path)["lines"]
    assert read["figures"]["fvu"] == pytest.approx([0.2, 0.1, 0.3])
    assert read["figures"]["ce_from_zero"] is None
    assert read["seeds"] == 2


def test_a_trace_is_read_with_the_fvu_of_each_entropy(tmp_path):
    place = {"bae": "of the layer", "hook": "blocks.0.hook_resid_pre", "position": 4}
    (tmp_path / "results.json").write_text(json.dumps({"rows": [{"place": place, "figures": {"entropy": 9.5, "fvu": 0.25}}]}))
    assert read_entropy(tmp_path) == [{**place, "entropy": 9.5, "fvu": 0.25}]


@pytest.mark.parametrize("read", [read_compare, read_entropy, lambda path: read_comsem(path, 8)])
def test_a_directory_of_something_else_is_refused_and_it_is_said_which_one_is_taken(tmp_path, read):
    with pytest.raises(FileNotFoundError, match=r"takes the directory that \w+ wrote"):
        read(tmp_path)


@pytest.mark.parametrize("read", [read_compare, read_entropy])
@pytest.mark.parametrize("content", ["{", "[]", '{"rows": [{"place": {}}], "lines": [{"method": 1}]}'])
def test_results_that_are_not_whole_are_refused(tmp_path, read, content):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(ValueError, match=r"results\.json is not whole"):
        read(tmp_path)


def test_a_run_is_read_with_its_curves_and_a_line_that_was_not_finished_is_left_out(tmp_path):
    assert read_run(tmp_path) is None
    (tmp_path / "recipe.json").write_text(json.dumps({"recipe": {"trainer": {"steps": 3}}}))
    rows = [{"split": "train", "step": s, "fvu": 0.5, "entropy": None} for s in range(3)]
    rows += [{"split": "validation", "step": 2, "fvu": 0.6}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + '\n{"split": "tr')
    run = read_run(tmp_path)
    assert run["recipe"] == {"trainer": {"steps": 3}}
    assert run["curves"]["train"] == {"step": [0, 1, 2], "fvu": [0.5] * 3, "entropy": [None] * 3}
    assert run["curves"]["validation"] == {"step": [2], "fvu": [0.6]}
    (tmp_path / "recipe.json").write_text("{}")
    with pytest.raises(ValueError, match=r"recipe\.json is not whole"):
        read_run(tmp_path)


def test_long_curves_are_thinned_out_and_keep_both_ends():
    curve = curves_of([{"split": "train", "step": s, "fvu": s / 5000} for s in range(5001)])["train"]
    assert len(curve["step"]) == 240
    assert (curve["step"][0], curve["step"][-1], curve["fvu"][-1]) == (0, 5000, 1.0)
