"""Feature cards as in Figs. 13 to 21: phrase, score, and the tokens where the feature is activated, as text and as HTML."""

import html
from collections.abc import Sequence

from bae_lens.comsem.prompts import quote
from bae_lens.comsem.samples import Sample
from bae_lens.comsem.scores import FeatureResult
from bae_lens.comsem.study import FeatureSamples

STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:60em;padding:0 1em;color:#222;background:#fff}
article{border:1px solid #ccc;border-radius:6px;padding:.6em 1em;margin:1em 0}
h2{font-size:1.05em;margin:.2em 0}ol{margin:.4em 0;padding-left:2em}li{white-space:pre-wrap;overflow-wrap:anywhere}
mark{background:#cfe3ef;border-radius:3px;padding:0 .1em}.yes::before{content:"yes ";color:#2a6f97}
.no::before{content:"no ";color:#a33}.named::before{content:"named by ";color:#777}
.failed::before{content:"no answer ";color:#777}
.score{color:#2a6f97;font-weight:600}.muted{color:#777}
"""


def cards_text(results: Sequence[FeatureResult], samples: Sequence[FeatureSamples], most: int = 8) -> str:
    """A card a feature as plain text; what cannot be seen stands as escapes."""
    return "\n\n".join(_text(r, s, most) for r, s in zip(results, samples, strict=True)) + "\n"


def cards_html(results: Sequence[FeatureResult], samples: Sequence[FeatureSamples], title: str = "Features by ComSem") -> str:
    """A page of cards, the best score first. Text of the corpus and of the model is escaped."""
    pairs = sorted(zip(results, samples, strict=True), key=lambda pair: (-(pair[0].comsem.score or 0), pair[0].feature))
    cards = "\n".join(_html(result, feature) for result, feature in pairs)
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style><h1>{html.escape(title)}</h1>\n{cards}\n</html>\n"
    )


def _head(result: FeatureResult) -> tuple[str, str]:
    phrase = result.phrase if result.phrase is not None else "(no name)"
    interval = result.comsem.interval()
    if result.comsem.score is None or interval is None:
        return phrase, result.status
    low, high = interval
    return phrase, f"{result.comsem.score:.3g} ({result.comsem.hits} of {result.comsem.judged}; 95 % {low:.2f} to {high:.2f})"


def _text(result: FeatureResult, feature: FeatureSamples, most: int) -> str:
    phrase, score = _head(result)
    shuffled = "-" if result.shuffled.score is None else f"{result.shuffled.score:.3g}"
    lines = [
        f"Feature index: #{result.feature}",
        f"Feature interpretation: {_visible(phrase)}",
        f"Interpretability score: {score}",
        f"Shuffled control: {shuffled}; seen {result.seen} times",
    ]
    lines += [f"Reason: {_visible(result.reason)}"] if result.reason else []
    lines.append("Activated tokens and contexts:")
    for number, sample in enumerate([*feature.interpret, *feature.test][:most], 1):
        parts = [_visible(part) for part in (sample.before, sample.token, sample.after)]
        lines.append(f"  #{number}: {_dots(sample.cut_before)}{parts[0]}«{parts[1]}»{parts[2]}{_dots(sample.cut_after)}")
    return "\n".join(lines)


def _html(result: FeatureResult, feature: FeatureSamples) -> str:
    phrase, score = _head(result)
    answers: tuple[bool | str | None, ...] = result.answers or (None,) * len(feature.test)
    items = [_item(sample, "named") for sample in feature.interpret]
    items += [_item(sample, _class(answer)) for sample, answer in zip(feature.test, answers, strict=True)]
    shuffled = "-" if result.shuffled.score is None else f"{result.shuffled.score:.3g}"
    reason = f'<p class="muted">{html.escape(result.reason)}</p>' if result.reason else ""
    return (
        f'<article id="feature-{result.feature}"><h2>#{result.feature}: <bdi>{html.escape(phrase)}</bdi></h2>'
        f'<p>score <span class="score">{html.escape(score)}</span>, '
        f'<span class="muted">shuffled control {shuffled}, seen {result.seen} times</span></p>{reason}'
        f"<ol>{''.join(items)}</ol></article>"
    )


def _item(sample: Sample, kind: str) -> str:
    shown = sample.token.lstrip() or sample.token  # the space before a word is not marked
    left = sample.before + sample.token.removesuffix(shown)
    parts = (left.lstrip() if sample.cut_before else left, shown, sample.after)
    before, token, after = (f"<bdi>{html.escape(part)}</bdi>" for part in parts)
    dots = (_dots(sample.cut_before), _dots(sample.cut_after))
    return f'<li class="{kind}">{dots[0]}{before}<mark>{token}</mark>{after}{dots[1]}</li>'


def _class(answer: bool | str | None) -> str:
    return "failed" if not isinstance(answer, bool) else "yes" if answer else "no"


def _visible(text: str) -> str:
    return quote(text)[1:-1].replace('\\"', '"')


def _dots(cut: bool) -> str:
    return "... " if cut else ""
