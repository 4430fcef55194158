import gzip
import json
import re

import numpy as np
import pytest
import torch
from studies import make_study

from bae_lens.activations.harvest import Activations
from bae_lens.comsem import FunctionBackend, RunOptions, estimate, interpret, top_n, write_results
from bae_lens.comsem.cards import cards_html
from bae_lens.comsem.ledger import Price, read_price, read_prices
from bae_lens.comsem.projection import Points, dispersion, extremes, maps_chart, sample_points, umap_maps
from bae_lens.comsem.results import describe
from bae_lens.comsem.samples import Sample
from bae_lens.comsem.scores import FeatureResult, Tally, correlation, summarise, tally, wilson
from bae_lens.pictures.static import chart_png

NASTY = '<script>alert("x")</script>\u202e"\n'


@pytest.fixture
def run(tmp_path):
    study = make_study(4, control=1)
    nasty = Sample(("a ", NASTY, " b"), 1, 2, 0, 0.0)
    study.features[0] = study.features[0]._replace(test=(nasty, *study.features[0].test[1:]))

    def answer(request):
        if request.kind == "interpret":
            return json.dumps({"phrase": f"<b>things</b> & {NASTY.strip()[:8]}"})
        return "Yes" if request.samples[0].tokens[0] < "h" else "No"

    results = interpret(study, FunctionBackend(answer, "judge"), journal=tmp_path / "j", options=RunOptions(progress=False))
    return results, study


def test_every_file_is_written_and_says_the_same(run, tmp_path):
    results, study = run
    written = write_results(results, study, tmp_path / "out")
    assert all(path.exists() for path in written)
    rows = [json.loads(line) for line in (tmp_path / "out" / "features.jsonl").read_text().splitlines()]
    assert [row["feature"] for row in rows] == [0, 1, 2, 3]
    for row in rows:
        answers = [sample["answer"] for sample in row["judged_on"]]
        assert row["hits"] == sum(answers)
        assert row["score"] == sum(answers) / len(answers)
        assert row["interval"] == list(wilson(row["hits"], row["judged"]))
        assert len(row["named_by"]) == 5
    assert rows[0]["judged_on"][0]["token"] == NASTY
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["activated"] == 4
    assert summary["score"] == pytest.approx(np.mean([row["score"] for row in rows]))
    assert summary["top"][-1] == {"n": 4, "interpretable": summary["interpretable"], "score": summary["score"]}
    assert (tmp_path / "out" / "scores.png").read_bytes().startswith(b"\x89PNG")
    assert "4 of 64 features activated (FA), 4 scored" in describe(results, study)
    write_results(results, study, tmp_path / "out")  # once more, in its place


def test_a_card_marks_a_word_without_the_space_before_it(run):
    results, study = run
    word, blank = Sample(("used", " as", " is"), 1, 2, 0, 0.0), Sample(("used", "  ", "as"), 1, 2, 0, 0.0)
    study.features[1] = study.features[1]._replace(test=(word, blank, *study.features[1].test[2:]))
    page = cards_html(results.features, study.features)
    assert "<bdi>used </bdi><mark><bdi>as</bdi></mark><bdi> is</bdi>" in page
    assert "<mark><bdi>  </bdi></mark>" in page


def test_cards_show_untrusted_text_as_text(run, tmp_path):
    results, study = run
    write_results(results, study, tmp_path / "out")
    page = (tmp_path / "out" / "cards.html").read_text()
    assert "<script" not in page
    assert "<b>" not in page
    assert "&lt;script&gt;" in page
    allowed = ["doctype", "html", "meta", "title", "style", "h1", "h2", "article", "bdi", "p", "span", "ol", "li", "mark"]
    assert set(re.findall(r"<(\w+)", page)) <= set(allowed)
    text = (tmp_path / "out" / "cards.txt").read_text()
    assert "\u202e" not in text
    assert "Feature index: #0" in text
    assert "Interpretability score: " in text


def test_delphis_and_neuronpedias_files_hold_the_phrases(run, tmp_path):
    results, study = run
    write_results(results, study, tmp_path / "out")
    name = "blocks.1.hook_resid_pre_latent2.txt"
    assert json.loads((tmp_path / "out/delphi/explanations" / name).read_text()) == results.features[2].phrase
    judged = json.loads((tmp_path / "out/delphi/scores/comsem" / name).read_text())
    assert [row["prediction"] for row in judged] == list(results.features[2].answers)
    assert all(len(row["str_tokens"]) == len(row["activations"]) for row in judged)
    lines = gzip.decompress((tmp_path / "out/neuronpedia/explanations/batch-0.jsonl.gz").read_bytes()).decode().splitlines()
    first = json.loads(lines[0])
    assert (first["index"], first["description"], first["explanationModelName"]) == ("0", results.features[0].phrase, "judge")
    assert first["layer"] == "blocks.1.hook_resid_pre"


def test_wilsons_interval_is_where_the_score_test_is_at_its_bound():
    for hits, n in [(0, 8), (3, 8), (8, 8), (50, 100)]:
        for bound in wilson(hits, n):
            if 0 < bound < 1:
                z = abs(hits / n - bound) / np.sqrt(bound * (1 - bound) / n)
                assert z == pytest.approx(1.959964, rel=1e-4)


def test_the_summary_counts_failures_and_means_over_the_scored():
    results = [
        FeatureResult(0, "scored", 9, "a", comsem=Tally(8, 8), shuffled=Tally(1, 8)),
        FeatureResult(1, "scored", 9, "a", comsem=Tally(0, 8), shuffled=Tally(0, 8)),
        FeatureResult(2, "scored", 9, "a", comsem=Tally(4, 8)),
        FeatureResult(3, "failed", 9, reason="x"),
        FeatureResult(4, "stopped", 9),
    ]
    found = summarise(results, [FeatureResult(0, "scored", 9, comsem=Tally(1, 4))])
    assert (found.activated, found.scored, found.failed, found.stopped, found.interpretable, found.over_half) == (
        5,
        3,
        1,
        1,
        2,
        1,
    )
    assert (found.score, found.score_failures_as_zero, found.shuffled, found.random) == (0.5, 0.375, 1 / 16, 0.25)
    assert top_n(results, 2).score == 0.75
    assert top_n(results, 2).interpretable == 2
    with pytest.raises(ValueError, match="the best 4 of 3 scored"):
        top_n(results, 4)
    assert tally([True, False, "no answer"]) == (1, 2, 1)
    assert correlation([1, 2, 3], [2, 4, 6]) == pytest.approx(1)
    assert correlation([1, 1, 1], [2, 4, 6]) is None


def test_a_dry_run_counts_the_requests_that_a_run_sends(tmp_path):
    study = make_study(5, control=2)
    calls = []
    options = RunOptions(progress=False, prices={"judge": Price(1, 1)}, shuffled=3)
    interpret(study, FunctionBackend(lambda r: calls.append(r) or "Yes", "judge"), journal=tmp_path / "j", options=options)
    expected = estimate(study, "judge", "judge", options)
    assert len(calls) <= expected.total.requests <= len(calls) + 40  # equal samples are judged once
    assert expected.total.requests == 7 * (1 + 8) + 5 * 3
    assert expected.total.cost == pytest.approx((expected.total.prompt_tokens + expected.total.completion_tokens) / 1e6)
    apart = estimate(study, "a", "gpt-4.1-mini", options)
    assert apart.by_model["a"].requests == 7
    assert apart.by_model["a"].cost is None
    assert apart.by_model["gpt-4.1-mini"].cost > 0


def test_prices_are_read_and_what_is_none_is_refused(tmp_path):
    (tmp_path / "p.json").write_text('{"m": [1, 2.5]}')
    assert read_prices(tmp_path / "p.json") == {"m": Price(1, 2.5)}
    for text in ("[]", '{"m": 1}', '{"m": [1]}', '{"m": [1, -2]}', '{"m": ["a", 2]}', "{"):
        (tmp_path / "p.json").write_text(text)
        with pytest.raises(ValueError, match="is no price table, which looks like"):
            read_prices(tmp_path / "p.json")
    assert read_price("a=b=1,2") == ("a=b", Price(1, 2))
    for text in ("m", "m=1", "m=1,x", "m=1,2,3"):
        with pytest.raises(ValueError, match="a price is MODEL=PROMPT,COMPLETION"):
            read_price(text)


def test_a_features_points_are_the_tokens_of_its_sentences():
    vectors = torch.randn(30, 4)
    activations = Activations(vectors, torch.arange(30) // 10, torch.arange(30) % 10 + 1)
    samples = tuple(Sample(("x",), 0, p, w, 0.0) for w, p in [(0, 3), (2, 10)])
    feature = make_study(1).features[0]._replace(interpret=samples[:1], test=samples[1:])
    points = sample_points(activations, feature)
    assert torch.equal(points.vectors, torch.cat([vectors[:10], vectors[20:]]))
    assert points.active.nonzero().flatten().tolist() == [2, 19]


def test_the_best_and_the_worst_features_are_drawn():
    results = [FeatureResult(i, "scored", 9, "a", comsem=Tally(i, 8)) for i in range(8)]
    assert [r.feature for r in extremes(results)] == [7, 6, 5, 2, 1, 0]
    assert [r.feature for r in extremes(results[:4])] == [3, 2, 1, 0]


def test_maps_are_drawn_or_the_reason_is_said():
    few = Points(torch.randn(5, 4), torch.zeros(5, dtype=torch.bool))
    try:
        import umap  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match=r"pip install 'bae-lens\[umap\]'"):
            umap_maps([("x", few)])
        return
    with pytest.raises(ValueError, match="too few vectors to draw a map of: x"):
        umap_maps([("x", few)])
    enough = Points(torch.randn(40, 4), torch.arange(40) < 6)
    chart = maps_chart(umap_maps([("$x$ <b>", enough)]))
    assert chart_png(chart).startswith(b"\x89PNG")
    others, activated = chart.panels[0].lines
    assert (len(others.points), len(activated.points)) == (34, 6)
    assert others.marker != activated.marker  # for readers who see no colours


def test_dispersion_is_the_activated_vectors_spread_over_that_of_all():
    torch.manual_seed(0)
    points = Points(torch.randn(30, 4), torch.arange(30) < 5)

    def spread(rows):
        mean = [sum(row[i] for row in rows) / len(rows) for i in range(4)]
        return sum(sum((row[i] - mean[i]) ** 2 for i in range(4)) for row in rows) / len(rows)

    rows = points.vectors.tolist()
    assert dispersion(points) == pytest.approx(spread(rows[:5]) / spread(rows), rel=1e-6)
    assert dispersion(points._replace(active=torch.arange(30) < 1)) is None
    assert dispersion(Points(torch.ones(30, 4), points.active)) is None
    one_place = points.vectors.clone()
    one_place[:5] = 1.0
    assert dispersion(points._replace(vectors=one_place)) == 0
