"""Which features each token of a prompt turns on, as a table and as HTML."""

import html
from typing import Any, NamedTuple

import torch
from sae_lens import SAE
from torch import Tensor

from bae_lens.activations.harvest import activations_at
from bae_lens.activations.models import find_hook_point
from bae_lens.intervene.attach import spliced_at
from bae_lens.model.bae import BinaryCode

BURSTY = -1.0
"""log2 0.5: a bit beyond it is not where it usually is (A.5 takes the same bound)."""


class Reading(NamedTuple):
    """A feature at a token."""

    feature: int
    score: float
    """Burstiness (log2, at most 0) for a BAE, the activation for another SAE."""
    activation: float


class TokenReadings(NamedTuple):
    """The strongest features of a token."""

    position: int
    token: str
    readings: list[Reading]
    """Strongest first."""


class Inspection(NamedTuple):
    """What `inspect` found: prints as a table, shows as HTML in a notebook."""

    hook_name: str
    by: str
    """"burstiness" or "activation"."""
    tokens: list[TokenReadings]

    def table(self) -> str:
        """A line a token: its features with their scores; "-" marks a feature that is off where it is usually on."""
        width = max([len(repr(t.token)) for t in self.tokens] + [5])
        head = f"{'pos':>4}  {'token':<{width}}  features by {self.by} at {self.hook_name}"
        rows = [
            f"{t.position:>4}  {t.token!r:<{width}}  " + "  ".join(f"{_label(r)} ({r.score:.2f})" for r in t.readings)
            for t in self.tokens
        ]
        return "\n".join([head, *(row.rstrip() for row in rows)])

    def __str__(self) -> str:
        return self.table()

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for JSON."""
        tokens = [{**t._asdict(), "readings": [r._asdict() for r in t.readings]} for t in self.tokens]
        return {"hook_name": self.hook_name, "by": self.by, "tokens": tokens}

    def _repr_html_(self) -> str:
        rows = []
        for t in self.tokens:
            cells = " ".join(
                f'<span title="{self.by} {r.score:.3f}, activation {r.activation:.3g}" style="padding:1px 6px;margin:1px;'
                f'border-radius:8px;border:1px solid #2a6f97;opacity:{self._opacity(r.score, t):.2f}">{_label(r)}</span>'
                for r in t.readings
            )
            rows.append(
                f'<tr><td style="text-align:right">{t.position}</td>'
                f'<td style="text-align:left"><code style="white-space:pre-wrap">{html.escape(t.token)}</code></td>'
                f'<td style="text-align:left">{cells}</td></tr>'
            )
        features = f"features by {self.by} at {html.escape(self.hook_name)}"
        head = f'<tr style="text-align:left"><th>pos</th><th>token</th><th>{features}</th></tr>'
        return f"<table>{head}{''.join(rows)}</table>"

    def _opacity(self, score: float, token: TokenReadings) -> float:
        if self.by == "burstiness":
            return max(0.35, 1 + score / 2)
        return max(0.35, score / max(r.score for r in token.readings))


def _label(reading: Reading) -> str:
    return str(reading.feature) if reading.activation > 0 else f"-{reading.feature}"


def inspect(model: Any, sae: SAE[Any], prompt: str | Tensor, *, k: int = 5, hook_name: str | None = None) -> Inspection:
    """The strongest features of each token of a prompt.

    A BAE's features are ranked by burstiness (section 5.2) against its prior, those left out that are where they usually are;
    another SAE's by activation, zeros left out. Inside a `steer` block the steered model is read.

    Args:
        prompt: Text, or tokens ``(pos,)`` or ``(1, pos)``.
        k: At most so many features a token.
        hook_name: Another hook point than the metadata's.

    Raises:
        TypeError: If the prompt is neither a text nor tokens.
        ValueError: If the hook point does not exist or does not fit, the prompt is empty, or a BAE has no prior yet.

    Examples:
        >>> import bae_lens
        >>> from bae_lens.demo import demo_model_dir
        >>> model = bae_lens.load_model(demo_model_dir())
        >>> windows = bae_lens.tokenize(model.tokenizer, ["Return the number of items in the list. " * 100], context_size=64)
        >>> x = bae_lens.harvest(model, windows, "blocks.1.hook_resid_pre", progress=False).vectors
        >>> recipe = bae_lens.recipes.recommended(128, steps=10)
        >>> bae = bae_lens.train(x, recipe, metadata={"hook_name": "blocks.1.hook_resid_pre"}, progress=False).bae
        >>> found = bae_lens.inspect(model, bae, "Return the number", k=3)
        >>> [token.token for token in found.tokens], found.by, len(found.tokens[1].readings)
        (['<|begin_of_text|>', 'Return', ' the', ' number'], 'burstiness', 3)
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if not isinstance(prompt, str | Tensor):
        raise TypeError(f"a prompt is a text or a tensor of tokens, got {type(prompt).__name__}: one prompt at a time")
    hook_name = hook_name or sae.cfg.metadata.hook_name
    if isinstance(prompt, str) and not prompt:
        raise ValueError("the prompt is empty")
    if spliced_at(find_hook_point(model, hook_name)) is not None:
        raise ValueError(f"an SAE is attached at {hook_name}: inspect would read its reconstruction; leave that block first")
    tokens = model.to_tokens(prompt) if isinstance(prompt, str) else torch.atleast_2d(prompt)
    if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < model.cfg.d_vocab:
        raise ValueError(f"tokens of the prompt are from 0 to {model.cfg.d_vocab - 1}, got {tokens.min()} to {tokens.max()}")
    if tokens.shape[0] != 1 or tokens.shape[1] == 0:
        raise ValueError(f"one prompt at a time: got tokens of shape {tuple(tokens.shape)}")
    residual = activations_at(model, tokens, hook_name)
    if residual.shape[-1] != sae.cfg.d_in:
        raise ValueError(f"{hook_name} has width {residual.shape[-1]}, this SAE's d_in is {sae.cfg.d_in}")
    with torch.no_grad():
        residual = residual[0].to(sae.device)
        activations = sae.encode(residual).float()
        by_burstiness = isinstance(sae, BinaryCode)
        scores = sae.feature_burstiness(residual) if isinstance(sae, BinaryCode) else activations
        least = BURSTY if by_burstiness else 0.0
        top = scores.topk(min(k, scores.shape[-1]), dim=-1)
    readings = [
        [
            Reading(feature, score, activations[position, feature].item())
            for score, feature in zip(values.tolist(), indices.tolist(), strict=True)
            if score > least
        ]
        for position, (values, indices) in enumerate(zip(top.values, top.indices, strict=True))
    ]
    words = model.to_str_tokens(tokens[0])
    assert hook_name is not None
    return Inspection(
        hook_name,
        "burstiness" if by_burstiness else "activation",
        [TokenReadings(i, word, found) for i, (word, found) in enumerate(zip(words, readings, strict=True))],
    )
