"""Writes what a run found: JSON Lines a feature, a summary, cards, a figure, and the formats of other tools."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bae_lens.comsem.cards import cards_html, cards_text
from bae_lens.comsem.exports import export_delphi, export_neuronpedia
from bae_lens.comsem.figures import score_chart
from bae_lens.comsem.runner import Results
from bae_lens.comsem.samples import Sample
from bae_lens.comsem.scores import FeatureResult, top_n
from bae_lens.comsem.study import FeatureSamples, Study
from bae_lens.files import at_home, write_bytes, write_json, write_text
from bae_lens.pictures.static import chart_png
from bae_lens.version import __version__

JOURNAL = "journal.jsonl"
MAPS = "umap.json"
"""Coordinates of the maps of `interpret --umap`."""
TOP_SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)


def write_results(
    results: Results,
    study: Study,
    out: str | Path,
    *,
    name: str = "BAE",
    dispersions: Mapping[int, float | None] | None = None,
) -> list[Path]:
    """Writes a run into its directory, each file whole or not at all; files of the same run are replaced.

    Args:
        dispersions: How far apart each feature's vectors lie (see `comsem.projection.dispersion`).

    Returns:
        Paths of features.jsonl, control.jsonl, summary.json, cards.html, cards.txt, scores.png, delphi/ and neuronpedia/.
    """
    out = at_home(out)
    write_text(out / "features.jsonl", _lines(results.features, study.features, dispersions or {}))
    write_text(out / "control.jsonl", _lines(results.control, study.control, {}))
    write_json(out / "summary.json", {"name": name, **summary_dict(results, study)})
    write_text(out / "cards.html", cards_html(results.features, study.features))
    write_text(out / "cards.txt", cards_text(results.features, study.features))
    scores = [r.comsem.score for r in results.features if r.comsem.score is not None]
    write_bytes(out / "scores.png", chart_png(score_chart({name: (scores, study.counts["features"])})))
    export_delphi(results, study, out / "delphi")
    export_neuronpedia(results, study, out / "neuronpedia")
    names = (
        "features.jsonl",
        "control.jsonl",
        "summary.json",
        "cards.html",
        "cards.txt",
        "scores.png",
        "delphi",
        "neuronpedia",
    )
    return [out / file for file in names]


def summary_dict(results: Results, study: Study) -> dict[str, Any]:
    """The summary as JSON values."""
    scored = results.summary.scored
    sizes = sorted({max(1, round(share * scored)) for share in TOP_SHARES}) if scored else []
    return {
        "bae_lens": __version__,
        **results.summary._asdict(),
        "counts": study.counts,
        "top": [
            {"n": n, "interpretable": s.interpretable, "score": s.score} for n in sizes for s in [top_n(results.features, n)]
        ],
        "stopped_because": results.stopped,
        "usage": {model: usage._asdict() for model, usage in results.usage.items()},
        "retried": results.retried,
        "settings": results.settings,
    }


def feature_dict(result: FeatureResult, samples: FeatureSamples) -> dict[str, Any]:
    """A feature as JSON values: phrase, scores, controls and samples."""
    answers: tuple[bool | str | None, ...] = result.answers or (None,) * len(samples.test)
    extra: dict[str, Any] = {}
    for name in ("detection", "fuzzing", "calibrated"):
        if getattr(result, name) is not None:
            extra[name] = getattr(result, name).to_dict()
    if result.simulation is not None:
        extra["simulation"] = result.simulation
    return {
        "feature": result.feature,
        "status": result.status,
        "reason": result.reason,
        "phrase": result.phrase,
        **result.comsem.to_dict(),
        "seen": result.seen,
        "shuffled": {**result.shuffled.to_dict(), "phrase_of": result.donor},
        **extra,
        "named_by": [_sample(sample) for sample in samples.interpret],
        "judged_on": [{**_sample(s), "answer": answer} for s, answer in zip(samples.test, answers, strict=True)],
    }


def describe(results: Results, study: Study) -> str:
    """The summary in a few lines of text."""
    s = results.summary
    lines = [
        f"{s.activated} of {study.counts['features']} features activated (FA), {s.scored} scored, {s.failed} failed, "
        f"{s.stopped} not run",
        f"{s.interpretable} interpretable (FI), {s.over_half} with a score over 0.5; mean score {_number(s.score)} "
        f"({_number(s.score_failures_as_zero)} with failures as 0)",
        f"controls: shuffled phrases {_number(s.shuffled)}, random features {_number(s.random)}",
    ]
    others = {name: getattr(s, name) for name in ("detection", "fuzzing", "simulation", "calibrated")}
    if any(value is not None for value in others.values()):
        lines.append(", ".join(f"{name} {_number(value)}" for name, value in others.items() if value is not None))
    for model, usage in results.usage.items():
        cost = "cost unknown" if usage.cost is None else f"${usage.cost:.4f}"
        lines.append(f"{model}: {usage.requests} answers, {usage.prompt_tokens} + {usage.completion_tokens} tokens, {cost}")
    return "\n".join(lines + ([f"stopped: {results.stopped}"] if results.stopped else []))


def _lines(results: list[FeatureResult], samples: list[FeatureSamples], dispersions: Mapping[int, float | None]) -> str:
    rows: Iterator[dict[str, Any]] = (
        {**feature_dict(r, s), **({"dispersion": dispersions[r.feature]} if r.feature in dispersions else {})}
        for r, s in zip(results, samples, strict=True)
    )
    return "".join(json.dumps(row, ensure_ascii=True, allow_nan=False) + "\n" for row in rows)


def _sample(sample: Sample) -> dict[str, Any]:
    return {
        "token": sample.token,
        "position": sample.position,
        "window": sample.window,
        "magnitude": round(sample.magnitude, 6),
        "before": sample.before,
        "after": sample.after,
    }


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
