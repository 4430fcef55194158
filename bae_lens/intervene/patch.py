"""Feature patching: one prompt runs with activations of features taken from another."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from sae_lens import SAE
from torch import Tensor

from bae_lens.activations.text import Windows
from bae_lens.intervene.each_feature import Effects, codes_after_bos, effects_of_changes
from bae_lens.intervene.metrics import Metric, last_logits
from bae_lens.intervene.suffix import Prompts, Suffix, activations_of, logits_from, suffix_of, token_windows

PLACES = ("same", "last")


class Patched(NamedTuple):
    """A prompt run as it is, and with features of another."""

    clean: Float[Tensor, "pos vocab"]
    """The target's logits as it is."""
    logits: Float[Tensor, "pos vocab"]
    """With the source's features."""
    changed: Int[Tensor, " feature"]
    """At how many tokens each feature that was asked for came out different."""

    @property
    def last_kl(self) -> float:
        """KL(clean || patched) in nats of the next token after the prompt."""
        before, after = self.clean[-1].log_softmax(-1), self.logits[-1].log_softmax(-1)
        return (before.exp() * (before - after)).sum().item()


class _Pair(NamedTuple):
    suffix: Suffix
    target: Windows
    activations: Tensor
    changes: Tensor


def patch_features(
    model: Any,
    sae: SAE[Any],
    *,
    source: Prompts,
    target: Prompts,
    features: Sequence[int] | None = None,
    at: str = "same",
    hook_name: str | None = None,
) -> Patched:
    """Runs the target prompt with features of the source prompt; what the SAE misses in the target stays as it is.

    With the same prompt on both sides the logits change by exactly 0.

    Args:
        features: Which features to take over; all if not given.
        at: "same" position, of prompts of equally many tokens, or only the "last" token from the last.
        hook_name: Another hook point than the metadata's.

    Raises:
        ValueError: If the SAE does not belong to the model, a prompt is empty or too long, or the lengths differ at "same".
        IndexError: If a feature is out of range.
    """
    pair = _pair(model, sae, source, target, at, hook_name)
    changes = pair.changes
    chosen = torch.arange(sae.cfg.d_sae) if features is None else torch.as_tensor(list(features), dtype=torch.long)
    if len(chosen) and not 0 <= int(chosen.min()) <= int(chosen.max()) < sae.cfg.d_sae:
        raise IndexError(f"features must lie between 0 and {sae.cfg.d_sae - 1}, got {chosen.tolist()}")
    chosen = chosen.to(changes.device)
    with torch.no_grad():
        moved = (changes[..., chosen] @ sae.W_dec[chosen]).to(pair.activations.dtype).view_as(pair.activations)
        clean = logits_from(pair.suffix, pair.activations, pair.target.tokens)[0]
        logits = logits_from(pair.suffix, pair.activations + moved, pair.target.tokens)[0]
    return Patched(clean, logits, (changes[0, :, chosen] != 0).sum(0).cpu())


def patching_effects(
    model: Any,
    sae: SAE[Any],
    *,
    source: Prompts,
    target: Prompts,
    metric: Metric,
    at: str = "same",
    way: str = "both",
    hook_name: str | None = None,
    progress: bool = True,
) -> Effects:
    """The effect on a metric of taking over each feature by itself, exactly and by its gradient.

    Arguments as `patch_features` and `ablation_effects`.
    """
    pair = _pair(model, sae, source, target, at, hook_name)
    return effects_of_changes(pair.suffix, sae, pair.target, pair.activations, pair.changes, metric, way=way, progress=progress)


def kl_from(logits: Float[Tensor, "prompt vocab"]) -> Metric:
    """KL in nats from these next-token distributions, as a metric: of the clean run it is 0."""
    before = logits.float().log_softmax(-1)

    def measure(changed: Tensor, windows: Windows) -> Tensor:
        after = last_logits(changed, windows).float().log_softmax(-1)
        return (before.exp() * (before - after)).sum(-1)

    return measure


def _pair(model: Any, sae: SAE[Any], source: Prompts, target: Prompts, at: str, hook_name: str | None) -> _Pair:
    """What the target's activations are, and by how much the source's features differ."""
    if at not in PLACES:
        raise ValueError(f"at must be one of {', '.join(PLACES)}, got {at!r}")
    suffix = suffix_of(model, sae, hook_name)
    one, two = token_windows(model, source), token_windows(model, target)
    for name, windows in (("source", one), ("target", two)):
        if len(windows.tokens) != 1:
            raise ValueError(f"one {name} prompt at a time: got {len(windows.tokens)}")
    lengths = int(one.lengths[0]), int(two.lengths[0])
    if at == "same" and lengths[0] != lengths[1]:
        raise ValueError(
            f"the source prompt has {lengths[0]} tokens and the target prompt {lengths[1]}: at='same' needs equally many; "
            "at='last' takes the last token's features"
        )
    activations = activations_of(suffix, two)
    ours = codes_after_bos(sae, activations, two)
    theirs = codes_after_bos(sae, activations_of(suffix, one), one)
    if at == "same":
        return _Pair(suffix, two, activations, theirs - ours)
    changes = torch.zeros_like(ours)
    changes[:, -1] = theirs[:, -1] - ours[:, -1]
    return _Pair(suffix, two, activations, changes)
