"""What answers say of a feature: the ComSem score with its interval, the controls, and the scores of other pipelines."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

Z95 = 1.959963984540054


class Tally(NamedTuple):
    """Yes answers of those that could be read."""

    hits: int = 0
    judged: int = 0
    failed: int = 0
    """Requests that were not answered; no part of the score."""

    @property
    def score(self) -> float | None:
        """Hits over samples judged: the ComSem score. None where nothing was judged."""
        return self.hits / self.judged if self.judged else None

    def interval(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval of the score."""
        return wilson(self.hits, self.judged) if self.judged else None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**self._asdict(), "score": self.score, "interval": self.interval()}


class Discrimination(NamedTuple):
    """Answers on samples that have the feature and on samples that have not: detection, fuzzing."""

    on: Tally
    """Yes on samples that have it."""
    off: Tally
    """Yes on samples that have not."""

    @property
    def balanced_accuracy(self) -> float | None:
        """Mean of the shares that are right of either kind; chance is 0.5."""
        if self.on.score is None or self.off.score is None:
            return None
        return (self.on.score + 1 - self.off.score) / 2

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"balanced_accuracy": self.balanced_accuracy, "on": self.on.to_dict(), "off": self.off.to_dict()}


class FeatureResult(NamedTuple):
    """What came out for one feature."""

    feature: int
    status: str
    """"scored", "failed" (with its reason) or "stopped" (the budget ended before it)."""
    seen: int
    """In the top-k of so many tokens."""
    phrase: str | None = None
    reason: str | None = None
    comsem: Tally = Tally()
    answers: tuple[bool | str, ...] = ()
    """Of each test sample: yes, no, or why there is no answer."""
    shuffled: Tally = Tally()
    """Another feature's phrase, judged on this one's samples."""
    donor: int | None = None
    """Whose phrase that was."""
    calibrated: Tally | None = None
    """As `comsem`, answers corrected by what a sample without content gets (section 5.1, footnote 2)."""
    detection: Discrimination | None = None
    fuzzing: Discrimination | None = None
    simulation: float | None = None
    """Correlation of predicted and real activations over the tokens of the test sentences."""


class Summary(NamedTuple):
    """The whole in numbers."""

    activated: int
    """FA: features with enough samples."""
    scored: int
    failed: int
    stopped: int
    interpretable: int
    """FI: with a score over 0."""
    score: float | None
    """Mean over the scored."""
    score_failures_as_zero: float | None
    """Mean over scored and failed."""
    over_half: int
    """With a score over 0.5."""
    shuffled: float | None
    """Mean of the shuffled control, over features that have one."""
    random: float | None
    """Mean score of the random control's features."""
    detection: float | None
    fuzzing: float | None
    simulation: float | None
    calibrated: float | None


def wilson(hits: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a share.

    >>> [round(x, 3) for x in wilson(6, 8)]
    [0.409, 0.929]
    """
    share = hits / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def correlation(predicted: Sequence[float], real: Sequence[float]) -> float | None:
    """Pearson's correlation, None where either does not vary."""
    x, y = np.asarray(predicted, np.float64), np.asarray(real, np.float64)
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / scale if scale > 0 else None


def tally(answers: Sequence[bool | str]) -> Tally:
    """Counts answers; a text says why there is none."""
    read = [answer for answer in answers if isinstance(answer, bool)]
    return Tally(sum(read), len(read), len(answers) - len(read))


def summarise(results: Sequence[FeatureResult], control: Sequence[FeatureResult]) -> Summary:
    """The summary of a run."""
    scored = [r for r in results if r.status == "scored"]
    failed = sum(r.status == "failed" for r in results)
    scores = [r.comsem.score for r in scored if r.comsem.score is not None]
    return Summary(
        activated=len(results),
        scored=len(scored),
        failed=failed,
        stopped=sum(r.status == "stopped" for r in results),
        interpretable=sum(score > 0 for score in scores),
        score=_mean(scores),
        score_failures_as_zero=_mean([*scores, *[0.0] * failed]),
        over_half=sum(score > 0.5 for score in scores),
        shuffled=_mean([r.shuffled.score for r in scored]),
        random=_mean([r.comsem.score for r in control if r.status == "scored"]),
        detection=_mean([r.detection.balanced_accuracy for r in scored if r.detection]),
        fuzzing=_mean([r.fuzzing.balanced_accuracy for r in scored if r.fuzzing]),
        simulation=_mean([r.simulation for r in scored]),
        calibrated=_mean([r.calibrated.score for r in scored if r.calibrated]),
    )


def top_n(results: Sequence[FeatureResult], n: int) -> Summary:
    """The summary of the n features of highest score (Table 4).

    Raises:
        ValueError: If so many were not scored.
    """
    scored = [r for r in results if r.comsem.score is not None and r.status == "scored"]
    if not 1 <= n <= len(scored):
        raise ValueError(f"the best {n} of {len(scored)} scored features were asked for")
    return summarise(sorted(scored, key=lambda r: (-(r.comsem.score or 0), r.feature))[:n], [])


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
