import json
import math
import statistics
from pathlib import Path

import pytest

from bae_lens.report.figures.results import KINDS, Found, find_results
from bae_lens.reproduce import claims as module
from bae_lens.reproduce.claims import FILE, Claim, describe, judge, markdown, read_claims, write_claims
from bae_lens.reproduce.measures import MEASURES, Measured, NotTestable

CLAIM = Claim("a", "4.1", "It is so", ["synthetic"], "share_of_ranks_found", "a share", "at least", 0.5, "1 | 2")
THERE = {"synthetic": [Found("synthetic", Path(), "")]}


@pytest.fixture
def comes_to(monkeypatch):
    """A measure in the place of a claim's own."""

    def put(value):
        def measure(results):
            if isinstance(value, str):
                raise NotTestable(value)
            return Measured(value, "made of this")

        monkeypatch.setitem(MEASURES, CLAIM.measure, measure)

    return put


def by_kind(mini):
    every = find_results(mini)
    return {kind: [one for one in every if one.kind == kind] for kind in KINDS}


@pytest.mark.parametrize(
    ("value", "side", "outcome"),
    [
        (0.5, "at least", "held"),
        (0.49, "at least", "failed"),
        (0.5, "at most", "held"),
        (0.51, "at most", "failed"),
        (math.nan, "at least", "not testable"),
        ("too few", "at least", "not testable"),
    ],
)
def test_a_claim_holds_on_its_side_of_the_threshold(comes_to, value, side, outcome):
    comes_to(value)
    (verdict,) = judge([CLAIM._replace(side=side)], THERE)
    assert verdict.outcome == outcome
    assert (verdict.value is None) == (outcome == "not testable")


def test_without_results_a_claim_cannot_be_tested_and_the_stages_reason_is_said():
    (verdict,) = judge([CLAIM], {}, {"synthetic": "the stage 'synthetic' failed: no disk"})
    assert (verdict.outcome, verdict.words) == ("not testable", "the stage 'synthetic' failed: no disk")
    assert judge([CLAIM], {})[0].words == "there are no results of 'synthetic'"


def test_every_claim_names_results_that_exist_and_a_measure_of_its_own():
    found = read_claims()
    assert len({claim.id for claim in found}) == len(found) == 14
    assert {kind for claim in found for kind in claim.results} <= set(KINDS)
    assert {claim.measure for claim in found} == set(MEASURES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('measure = "dense_shar"', "unknown measure 'dense_shar'; did you mean 'dense_share'"),
        ('is = "at leats"', "unknown side of a threshold 'at leats'; did you mean 'at least'"),
        ('colour = "red"', "other fields than a claim has"),
    ],
)
def test_a_file_of_claims_that_is_wrong_is_refused_with_what_is(tmp_path, change, message):
    first = FILE.read_text(encoding="utf-8").split("[[claims]]")[1]
    name = change.split(" =")[0]
    lines = [line for line in first.splitlines() if not line.startswith(f"{name} =")]
    path = tmp_path / "claims.toml"
    path.write_text("[[claims]]\n" + "\n".join([*lines, change]))
    with pytest.raises(ValueError, match=message):
        read_claims(path)


def test_what_is_printed_and_written_says_the_papers_numbers_beside_ours(comes_to, tmp_path):
    comes_to(0.25)
    verdicts = judge([CLAIM, CLAIM._replace(id="b", results=["compare"])], THERE)
    said = describe(verdicts)
    assert "FAILED: It is so (4.1)" in said
    assert "a share: 0.25, at least 0.5 is asked for. made of this" in said
    assert said.count("paper: 1 | 2") == 2
    assert said.endswith("0 held, 1 failed, 1 not testable")
    rows = [line for line in markdown(verdicts, "about").splitlines() if line.startswith("| It is so")]
    assert rows[0] == "| It is so (4.1) | 0.25 | at least 0.5 | **failed** | 1 \\| 2 |"
    write_claims(tmp_path, verdicts, "about")
    written = json.loads((tmp_path / "claims.json").read_text())["claims"]
    assert [(one["id"], one["outcome"], one["value"]) for one in written] == [
        ("a", "failed", 0.25),
        ("b", "not testable", None),
    ]


def test_every_claim_has_a_verdict_of_the_mini_run_and_only_good_reasons_keep_one_from_it(mini):
    verdicts = {verdict.claim.id: verdict for verdict in judge(read_claims(), by_kind(mini))}
    assert len(verdicts) == 14
    untested = {name: verdict.words for name, verdict in verdicts.items() if verdict.outcome == "not testable"}
    assert set(untested) <= {
        "demonstrations_remove_information",
        "token_information_gain",
        "steering",
        "best_score_of_the_best",
        "low_scores_are_dispersed",
    }
    assert "the model does not do the task" in untested["demonstrations_remove_information"]
    assert "1 layers after the embeddings are too few" in untested["token_information_gain"]


def test_measures_are_what_the_files_say(mini):
    results = by_kind(mini)
    values = {
        name: MEASURES[name](results).value for name in ("dense_share", "activated_ratio", "loss_ratio", "compressed_share")
    }
    lines = json.loads((mini / "compare" / "layer1" / "results.json").read_text())["lines"]
    figures = {line["method"]: line["figures"][0] for line in lines}
    bae = figures["bae"]
    others = [figures["relu_paper"], figures["topk_paper"]]
    assert values["dense_share"] == bae["dense"] / bae["live"]
    assert values["activated_ratio"] == bae["act_more_than_8"] / max(other["act_more_than_8"] for other in others)
    assert values["loss_ratio"] == pytest.approx(bae["loss"] / statistics.fmean(other["loss"] for other in others))
    rows = json.loads((mini / "codec" / "layer1" / "cells" / "2-bae.json").read_text())["rows"]
    assert values["compressed_share"] == next(r["bytes"] for r in rows if r["how"] == "index, 16 bits") / 512


def test_entropy_of_sets_is_found_within_its_tolerance_and_with_its_fvu(mini):
    (found,) = by_kind(mini)["synthetic"]
    path = next(path for path in (found.path / "cells").iterdir() if "-with-" in path.name)
    cell = json.loads(path.read_text())["found"]
    expected = abs(cell["entropy"] - 2) <= 0.1 and cell["fvu"] < 0.01
    assert MEASURES["share_of_ranks_found"]({"synthetic": [found]}).value == float(expected)


def test_low_scores_are_more_dispersed_where_every_one_of_them_is(monkeypatch, mini):
    from bae_lens.reproduce import measures

    (first, *_) = [one for one in find_results(mini) if one.kind == "comsem" and one.name.endswith("-bae")]
    run = measures.read_named(first)
    scores, spreads = [i / 40 for i in range(40)], [1 - i / 40 for i in range(40)]
    monkeypatch.setattr(measures, "read_named", lambda found: run._replace(scores=scores, dispersions=spreads))
    assert MEASURES["dispersion_odds"]({"comsem": [first]}).value == 1.0
    monkeypatch.setattr(measures, "read_named", lambda found: run._replace(scores=scores, dispersions=spreads[::-1]))
    assert MEASURES["dispersion_odds"]({"comsem": [first]}).value == 0.0
    monkeypatch.setattr(measures, "read_named", lambda found: run._replace(scores=scores[:8], dispersions=spreads[:8]))
    assert (
        "make no quarters"
        in module.judge([claim for claim in read_claims() if claim.id == "low_scores_are_dispersed"], {"comsem": [first]})[
            0
        ].words
    )
