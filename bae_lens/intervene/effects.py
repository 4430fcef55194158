"""What one feature does to a model: directly, turned on everywhere, and ablated where it is on, over many prompts."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from sae_lens import SAE
from tabulate import tabulate
from torch import Tensor

from bae_lens.activations.text import Windows
from bae_lens.intervene.direct import direct_logits, feature_units
from bae_lens.intervene.each_feature import codes_after_bos
from bae_lens.intervene.edits import parse_edit
from bae_lens.intervene.metrics import token_losses
from bae_lens.intervene.suffix import (
    Prompts,
    Suffix,
    activations_of,
    after_bos,
    logits_from,
    rows_a_pass,
    rows_of,
    suffix_of,
    token_windows,
)
from bae_lens.model.bae import BinaryCode


class TokenChange(NamedTuple):
    """What a feature does to one token of the vocabulary."""

    token: str
    token_id: int
    logit: float
    """Mean change of its logit, centred over the vocabulary."""
    before: float
    """Mean probability as next token with the feature off (of an ablation: as it was)."""
    after: float
    """With the feature on (of an ablation: ablated)."""


class Change(NamedTuple):
    """How the next-token predictions at the edited tokens differ from those without the edit."""

    tokens: int
    """Tokens that were edited; the means are over them. With none, everything is 0."""
    logits: Float[Tensor, " vocab"]
    """Mean change of each logit, centred over the vocabulary, float64."""
    probabilities: Float[Tensor, " vocab"]
    """Mean change of each next-token probability, float64."""
    before: Float[Tensor, " vocab"]
    """Mean probability without the edit."""
    kl: float
    """Mean KL(without || with the edit), nats a token."""
    loss: float
    """Mean change of the CE loss in nats, over edited tokens that have a next one."""

    def strongest(self, tokenizer: Any, count: int, *, up: bool) -> list[TokenChange]:
        """The tokens whose mean probability rises (or falls) most."""
        order = self.probabilities.argsort(descending=up)[:count].tolist()
        return [
            TokenChange(
                repr(i) if tokenizer is None else tokenizer.decode([i]),
                i,
                self.logits[i].item(),
                self.before[i].item(),
                (self.before[i] + self.probabilities[i]).item(),
            )
            for i in order
        ]


class FeatureEffect(NamedTuple):
    """What `feature_effect` found; prints as a table."""

    feature: int
    hook_name: str
    activation: float
    """What the feature is where it is turned on."""
    frequency: float
    """Share of the prompts' tokens, BOS left out, that it is on for by itself."""
    direct: Float[Tensor, " vocab"]
    """Logits added directly by `activation`, centred over the vocabulary (see `bae_lens.intervene.direct`)."""
    direct_agreement: float
    """Pearson's correlation of `direct` with `turned_on.logits`."""
    turned_on: Change
    """The feature on at every token, against off at every token."""
    ablated: Change
    """The feature off where it is on by itself, against the model as it is."""
    up: list[TokenChange]
    """The tokens that turning it on promotes most."""
    down: list[TokenChange]
    """And those that it suppresses most."""

    @property
    def logits(self) -> Float[Tensor, " vocab"]:
        """Mean change of each logit where it is turned on."""
        return self.turned_on.logits

    @property
    def loss(self) -> float:
        """Mean change of the CE loss where it is turned on, nats a token."""
        return self.turned_on.loss

    def __str__(self) -> str:
        rows = [
            {
                "edit": name,
                "tokens": change.tokens,
                "KL, nats": change.kl,
                "loss, nats": change.loss,
            }
            for name, change in (("turned on", self.turned_on), ("ablated", self.ablated))
        ]
        head = (
            f"feature {self.feature} at {self.hook_name}: on for {self.frequency:.2%} of the tokens, turned on at "
            f"{self.activation:.3g}; direct logits correlate {self.direct_agreement:.2f} with its effect"
        )
        words = (f"{sign} {', '.join(_word(t) for t in found)}" for sign, found in (("up:  ", self.up), ("down:", self.down)))
        return "\n".join([head, tabulate(rows, headers="keys", floatfmt="+.4f"), *words])

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for JSON; without the values of the whole vocabulary."""
        return {
            "feature": self.feature,
            "hook_name": self.hook_name,
            "activation": self.activation,
            "frequency": self.frequency,
            "direct_agreement": self.direct_agreement,
            **{
                name: {"tokens": change.tokens, "kl": change.kl, "loss": change.loss}
                for name, change in (("turned_on", self.turned_on), ("ablated", self.ablated))
            },
            "up": [token._asdict() for token in self.up],
            "down": [token._asdict() for token in self.down],
        }


def _word(change: TokenChange) -> str:
    return f"{change.token!r} {change.before:.3f} -> {change.after:.3f}"


def feature_effect(
    model: Any,
    sae: SAE[Any],
    feature: Any,
    prompts: Prompts,
    *,
    activation: float | None = None,
    top: int = 10,
    hook_name: str | None = None,
) -> FeatureEffect:
    """What a feature does to the next-token predictions and the loss of a model, over many prompts, in batches.

    The model runs once up to the hook point; after it with the feature on, off, and as it is. What the SAE misses stays.

    Args:
        feature: Its index.
        prompts: Texts, tokens or windows.
        activation: What the feature is where it is turned on. By default its mean where it is on in these prompts; where it
            is on nowhere, one level of a BAE's feature.
        top: Tokens listed in `up` and in `down`.
        hook_name: Another hook point than the metadata's.

    Raises:
        ValueError: If the SAE does not belong to the model (its hook point, its width), a prompt is empty or longer than the
            context, or the activation is not known.
        IndexError: If the feature is out of range.

    Examples:
        >>> import bae_lens
        >>> from bae_lens.demo import demo_model_dir
        >>> model = bae_lens.load_model(demo_model_dir())
        >>> bae = bae_lens.BAE(bae_lens.BAEConfig(d_in=128, d_sae=512))
        >>> bae.cfg.metadata.hook_name = "blocks.1.hook_resid_pre"
        >>> effect = bae_lens.feature_effect(model, bae, feature=412, prompts=["Return the number of items", "Raise an error"])
        >>> len(effect.up), effect.logits.shape == (model.cfg.d_vocab,)
        (10, True)
    """
    feature = parse_edit(sae, feature, 0.0 if activation is None else activation).feature
    suffix = suffix_of(model, sae, hook_name)
    windows = token_windows(model, prompts)
    codes = _codes(suffix, sae, windows, feature)
    places = after_bos(windows).to(codes.device)
    on = (codes != 0) & places
    value = _activation(sae, feature, activation, codes[on])
    turned_on, ablated = _changes(suffix, windows, codes, places, sae.W_dec[feature], value)
    unit = feature_units(sae)[feature].item()
    direct = direct_logits(model, sae, [feature], prompts=windows, hook_name=suffix.hook_name)[0] * (value / unit)
    return FeatureEffect(
        feature,
        suffix.hook_name,
        value,
        float(on.sum() / places.sum()),
        direct,
        torch.corrcoef(torch.stack([direct.cpu().double(), turned_on.logits]))[0, 1].item(),
        turned_on,
        ablated,
        turned_on.strongest(model.tokenizer, top, up=True),
        turned_on.strongest(model.tokenizer, top, up=False),
    )


def _codes(suffix: Suffix, sae: SAE[Any], windows: Windows, feature: int) -> Tensor:
    """What the feature is at each token ``(prompt, pos)``, 0 at BOS and padding."""
    found = torch.zeros(windows.tokens.shape, dtype=sae.dtype, device=sae.device)
    for index in torch.arange(len(windows.tokens)).split(32):
        part = rows_of(windows, index)
        codes = codes_after_bos(sae, activations_of(suffix, part), part)
        found[index, : part.tokens.shape[1]] = codes[..., feature].to(found)
    return found


def _activation(sae: SAE[Any], feature: int, given: float | None, where_on: Tensor) -> float:
    if given is not None:
        return float(given)
    if len(where_on):
        return where_on.float().mean().item()
    if isinstance(sae, BinaryCode):
        return feature_units(sae)[feature].item()
    raise ValueError(
        f"feature {feature} is on nowhere in these prompts, so it is not known what it is where it is on: give the activation"
    )


@torch.no_grad()
def _changes(
    suffix: Suffix, windows: Windows, codes: Tensor, places: Tensor, row: Tensor, value: float
) -> tuple[Change, Change]:
    """On against off at every token, and ablated against as it is where the feature is on, in batches of like length."""
    turned_on, ablated = _Sums(suffix.model.cfg.d_vocab), _Sums(suffix.model.cfg.d_vocab)
    order = windows.lengths.argsort(stable=True)
    for index in order.split(rows_a_pass(suffix.model, windows.tokens.shape[1])):
        part = rows_of(windows, index)
        length = part.tokens.shape[1]
        code, place = (x[index.to(x.device), :length] for x in (codes, places))
        base = activations_of(suffix, part)

        def run(activation: Tensor, code: Tensor = code, base: Tensor = base, part: Windows = part) -> Tensor:
            moved = (activation - code).unsqueeze(-1) * row
            return logits_from(suffix, base + moved.to(base.dtype).view_as(base), part.tokens).float()

        off, on = run(torch.zeros_like(code)), run(value * place)
        turned_on.add(off, on, place, part)
        if (code != 0).any():
            ablated.add(run(code), off, code != 0, part)
    return turned_on.change(), ablated.change()


class _Sums:
    """Running sums over edited tokens; a logit of Llama's vocabulary at every token would not fit in memory."""

    def __init__(self, vocabulary: int):
        self.logits, self.before, self.after = (torch.zeros(vocabulary, dtype=torch.float64) for _ in range(3))
        self.kl = self.loss = 0.0
        self.tokens = self.predicted = 0

    def add(self, before: Tensor, after: Tensor, edited: Tensor, windows: Windows) -> None:
        """Adds the predictions at edited tokens."""
        follows = torch.arange(before.shape[1] - 1) < (windows.lengths - 1).unsqueeze(1)
        counted = edited[:, :-1] & follows.to(edited.device)
        nats = [token_losses(logits[:, :-1], windows.tokens[:, 1:])[counted] for logits in (before, after)]
        self.loss += (nats[1] - nats[0]).double().sum().item()
        self.predicted += int(counted.sum())
        before, after = before[edited], after[edited]
        shift = after - before
        log_before, log_after = before.log_softmax(-1), after.log_softmax(-1)
        p = log_before.exp()
        self.kl += (p * (log_before - log_after)).double().sum().item()
        self.logits += (shift - shift.mean(-1, keepdim=True)).double().sum(0).cpu()
        self.before += p.double().sum(0).cpu()
        self.after += log_after.exp().double().sum(0).cpu()
        self.tokens += len(before)

    def change(self) -> Change:
        """The means."""
        n = max(self.tokens, 1)
        return Change(
            self.tokens,
            self.logits / n,
            (self.after - self.before) / n,
            self.before / n,
            self.kl / n,
            self.loss / max(self.predicted, 1),
        )
