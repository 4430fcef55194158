"""The paper's claims (claims.toml) held against the results of the job: held, failed, or not testable and why."""

import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bae_lens.checks import check_known
from bae_lens.files import write_json, write_text
from bae_lens.report.figures.entries import Results
from bae_lens.reproduce.measures import MEASURES
from bae_lens.version import __version__

FILE = Path(__file__).parent / "claims.toml"
SIDES = ("at least", "at most")

Outcome = Literal["held", "failed", "not testable"]


class Claim(NamedTuple):
    """A claim of the paper and its test."""

    id: str
    section: str
    statement: str
    results: list[str]
    """Kinds of results that it needs."""
    measure: str
    test: str
    """What is measured, in words."""
    side: str
    """"at least" or "at most"."""
    threshold: float
    paper: str
    """The paper's own numbers."""


class Verdict(NamedTuple):
    """What became of a claim."""

    claim: Claim
    outcome: Outcome
    value: float | None
    words: str
    """What the value is made of, or why there is none."""


def read_claims(path: Path = FILE) -> list[Claim]:
    """The claims of a file.

    Raises:
        ValueError: If a claim lacks a field, names no known measure, or says neither "at least" nor "at most".
    """
    claims = []
    for value in tomllib.loads(path.read_text(encoding="utf-8"))["claims"]:
        fields = {"side" if name == "is" else name: what for name, what in value.items()}
        try:
            claim = Claim(**fields)
        except TypeError as error:
            raise ValueError(f"{path}: the claim {value.get('id')!r} has other fields than a claim has ({error})") from error
        check_known("measure", claim.measure, MEASURES)
        check_known("side of a threshold", claim.side, SIDES)
        claims.append(claim)
    return claims


def judge(claims: Sequence[Claim], results: Results, missing: Mapping[str, str] | None = None) -> list[Verdict]:
    """What becomes of each claim.

    Args:
        results: Directories of results by kind.
        missing: Why there are no results of a kind.
    """
    return [_judge(claim, results, missing or {}) for claim in claims]


def _judge(claim: Claim, results: Results, missing: Mapping[str, str]) -> Verdict:
    lacking = [kind for kind in claim.results if not results.get(kind)]
    if lacking:
        return Verdict(claim, "not testable", None, missing.get(lacking[0], f"there are no results of {lacking[0]!r}"))
    try:
        value, words = MEASURES[claim.measure](results)
    except ValueError as error:  # NotTestable, or results that are not whole
        return Verdict(claim, "not testable", None, str(error))
    if not math.isfinite(value):
        return Verdict(claim, "not testable", None, f"the measure came to {value}: {words}")
    holds = value >= claim.threshold if claim.side == "at least" else value <= claim.threshold
    return Verdict(claim, "held" if holds else "failed", value, words)


def describe(verdicts: Sequence[Verdict]) -> str:
    """A few lines a claim, and how many held."""
    parts = [_describe(number, verdict) for number, verdict in enumerate(verdicts, 1)]
    counts = {outcome: sum(v.outcome == outcome for v in verdicts) for outcome in ("held", "failed", "not testable")}
    return "\n".join(parts) + f"\n\n{', '.join(f'{count} {outcome}' for outcome, count in counts.items())}"


def _describe(number: int, verdict: Verdict) -> str:
    claim = verdict.claim
    value = "" if verdict.value is None else f" {verdict.value:.3g}, {claim.side} {claim.threshold:g} is asked for."
    return (
        f"{number:2}. {verdict.outcome.upper()}: {claim.statement} ({claim.section})\n"
        f"    here: {claim.test}:{value} {verdict.words}\n    paper: {claim.paper}"
    )


def markdown(verdicts: Sequence[Verdict], about: str) -> str:
    """claims.md."""
    rows = ["| claim | here | asked for | outcome | the paper's own numbers |", "| --- | --- | --- | --- | --- |"]
    details = []
    for verdict in verdicts:
        claim = verdict.claim
        value = "" if verdict.value is None else f"{verdict.value:.3g}"
        asked = f"{claim.side} {claim.threshold:g}"
        rows.append(_row(f"{claim.statement} ({claim.section})", value, asked, f"**{verdict.outcome}**", claim.paper))
        details.append(f"- **{claim.id}**: {_inline(claim.test)}. {_inline(verdict.words)}")
    return (
        f"# The paper's claims, here\n\n{about}\n\n"
        + "\n".join(rows)
        + "\n\n## How each was tested\n\n"
        + "\n".join(details)
        + "\n"
    )


def write_claims(out: Path, verdicts: Sequence[Verdict], about: str) -> list[Path]:
    """Writes claims.md and claims.json; their paths."""
    values: list[dict[str, Any]] = [
        {**verdict.claim._asdict(), "outcome": verdict.outcome, "value": verdict.value, "words": verdict.words}
        for verdict in verdicts
    ]
    write_text(out / "claims.md", markdown(verdicts, about))
    write_json(out / "claims.json", {"bae_lens": __version__, "about": about, "claims": values})
    return [out / "claims.md", out / "claims.json"]


def _row(*cells: str) -> str:
    return "| " + " | ".join(_inline(cell).replace("|", "\\|") for cell in cells) + " |"


def _inline(text: str) -> str:
    return " ".join(text.split())
