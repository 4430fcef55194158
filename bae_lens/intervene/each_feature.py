"""What changing each feature by itself does to a metric, exactly and by its gradient, and how well the two agree.

A change of activation moves what passes the hook point along the decoder row; what the SAE misses stays as it is, as if the
SAE were spliced in with its error term. The gradient's estimate is first-order attribution patching through that splice:
change x (gradient . decoder row), summed over tokens. Features that do not change are skipped: their effect is exactly 0.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from sae_lens import SAE
from torch import Tensor
from tqdm.auto import tqdm

from bae_lens.activations.text import Windows
from bae_lens.intervene.metrics import Metric, loss
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


class Effects(NamedTuple):
    """The effect of a change of each feature by itself on a metric."""

    features: Int[Tensor, " feature"]
    clean: Float[Tensor, " prompt"]
    """The metric with nothing changed."""
    exact: Float[Tensor, "prompt feature"]
    """Metric with the feature changed, minus `clean`; exactly 0 where it does not change. NaN if it was not asked for."""
    gradient: Float[Tensor, "prompt feature"]
    """The same by first-order attribution. NaN if it was not asked for."""
    tokens: Int[Tensor, "prompt feature"]
    """Tokens of each prompt at which the feature changes."""

    def agreement(self) -> "Agreement":
        """How well the gradient's estimate agrees with the exact effect, over prompts and features that change."""
        changed = self.tokens > 0
        return agreement(self.exact[changed], self.gradient[changed])


class Agreement(NamedTuple):
    """Of two estimates of the same effects."""

    pairs: int
    pearson: float
    spearman: float
    same_sign: float
    """Share of the pairs in which both have one sign."""


WAYS = ("exact", "gradient", "both")


def ablation_effects(
    model: Any,
    sae: SAE[Any],
    prompts: Prompts,
    metric: Metric = loss,
    *,
    features: Sequence[int] | None = None,
    way: str = "both",
    hook_name: str | None = None,
    progress: bool = True,
) -> Effects:
    """The effect of ablating each feature (activation to 0 at every token but BOS) on a metric of each prompt.

    The model runs once up to the hook point, and after it once for each prompt and feature that is on there.

    Args:
        metric: See `bae_lens.intervene.metrics`; by default the mean loss in nats.
        features: Which features; all if not given.
        way: "exact", "gradient" (one forward and one backward pass a batch of prompts), or "both".
        hook_name: Another hook point than the metadata's.

    Raises:
        ValueError: If the SAE does not belong to the model, or a prompt is empty or longer than the context.
        IndexError: If a feature is out of range.
    """
    suffix = suffix_of(model, sae, hook_name)
    windows = token_windows(model, prompts)
    activations = activations_of(suffix, windows)
    codes = codes_after_bos(sae, activations, windows)
    return effects_of_changes(suffix, sae, windows, activations, -codes, metric, features=features, way=way, progress=progress)


@torch.no_grad()
def codes_after_bos(
    sae: SAE[Any], activations: Float[Tensor, "prompt pos *shape"], windows: Windows
) -> Float[Tensor, "prompt pos d_sae"]:
    """Features of each token, 0 at BOS and padding."""
    codes = sae.encode(activations)
    return codes * after_bos(windows).to(codes.device).unsqueeze(-1)


def effects_of_changes(
    suffix: Suffix,
    sae: SAE[Any],
    windows: Windows,
    activations: Float[Tensor, "prompt pos *shape"],
    changes: Float[Tensor, "prompt pos d_sae"],
    metric: Metric = loss,
    *,
    features: Sequence[int] | None = None,
    way: str = "both",
    progress: bool = True,
) -> Effects:
    """The effect of changing each feature's activation by itself, where it changes at all.

    Args:
        activations: What passes the hook point in these windows.
        changes: What is added to each activation.

    Raises:
        ValueError, IndexError: As `ablation_effects`.
    """
    if way not in WAYS:
        raise ValueError(f"way must be one of {', '.join(WAYS)}, got {way!r}")
    chosen = _features(sae, features)
    changes = changes[..., chosen.to(changes.device)]
    rows = sae.W_dec[chosen.to(sae.W_dec.device)]
    tokens = (changes != 0).sum(1).cpu()
    clean, gradient = _by_gradient(suffix, windows, activations, changes, rows, metric, with_gradient=way != "exact")
    nothing = torch.full_like(gradient, torch.nan)
    exact = nothing if way == "gradient" else _exactly(suffix, windows, activations, changes, rows, metric, clean, progress)
    return Effects(chosen, clean, exact, gradient if way != "exact" else nothing, tokens)


def agreement(exact: Float[Tensor, " pair"], estimate: Float[Tensor, " pair"]) -> Agreement:
    """Pearson's and Spearman's correlation, and how often the signs are the same; NaN for fewer than two pairs."""
    from scipy.stats import rankdata

    if len(exact) < 2:
        return Agreement(len(exact), float("nan"), float("nan"), float("nan"))
    pair = torch.stack([exact, estimate]).double()
    ranks = torch.from_numpy(rankdata(pair.numpy(), axis=1))
    pearson, spearman = (torch.corrcoef(values)[0, 1].item() for values in (pair, ranks))
    return Agreement(len(exact), pearson, spearman, (exact.sign() == estimate.sign()).double().mean().item())


def _features(sae: SAE[Any], features: Sequence[int] | None) -> Tensor:
    if features is None:
        return torch.arange(sae.cfg.d_sae)
    chosen = torch.as_tensor(list(features), dtype=torch.long)
    if not len(chosen):
        raise ValueError("no feature given")
    wrong = chosen[(chosen < 0) | (chosen >= sae.cfg.d_sae)]
    if len(wrong):
        raise IndexError(f"feature {int(wrong[0])} is out of range: this SAE has features 0 to {sae.cfg.d_sae - 1}")
    return chosen


def _by_gradient(
    suffix: Suffix, windows: Windows, activations: Tensor, changes: Tensor, rows: Tensor, metric: Metric, with_gradient: bool
) -> tuple[Tensor, Tensor]:
    """The metric of each prompt, and change x (gradient . row) summed over its tokens."""
    clean, effect = torch.zeros(len(activations)), torch.zeros(len(activations), len(rows))
    for index in _batches(suffix, windows):
        part = rows_of(windows, index)
        inputs = activations[index.to(activations.device), : part.tokens.shape[1]].detach().requires_grad_(with_gradient)
        with torch.set_grad_enabled(with_gradient):
            values = metric(logits_from(suffix, inputs, part.tokens), part)
        clean[index] = values.detach().float().cpu()
        if with_gradient:
            (slope,) = torch.autograd.grad(values.sum(), inputs)
            change = changes[index.to(changes.device), : part.tokens.shape[1]]
            effect[index] = (change * (slope.flatten(2).to(rows) @ rows.T)).sum(1).detach().float().cpu()
    return clean, effect


@torch.no_grad()
def _exactly(
    suffix: Suffix,
    windows: Windows,
    activations: Tensor,
    changes: Tensor,
    rows: Tensor,
    metric: Metric,
    clean: Tensor,
    progress: bool,
) -> Tensor:
    """The suffix once for each prompt and feature that changes, in batches of prompts of like length."""
    prompt, feature = (changes != 0).any(1).cpu().nonzero(as_tuple=True)
    order = windows.lengths[prompt].argsort(stable=True)
    prompt, feature = prompt[order], feature[order]
    effect = torch.zeros(len(activations), len(rows))
    with tqdm(total=len(prompt), desc="features x prompts", unit="run", disable=not progress) as bar:
        done = 0
        while done < len(prompt):
            here = slice(done, done + rows_a_pass(suffix.model, int(windows.lengths[prompt[done]])))
            part = rows_of(windows, prompt[here])
            length = part.tokens.shape[1]
            inputs = activations[prompt[here], :length]
            moved = changes[prompt[here], :length, feature[here]].unsqueeze(-1) * rows[feature[here]].unsqueeze(1)
            values = metric(logits_from(suffix, inputs + moved.to(inputs.dtype).view_as(inputs), part.tokens), part)
            effect[prompt[here], feature[here]] = values.float().cpu() - clean[prompt[here]]
            done += len(part.tokens)
            bar.update(len(part.tokens))
    return effect


def _batches(suffix: Suffix, windows: Windows) -> Sequence[Tensor]:
    order = windows.lengths.argsort(stable=True)
    return order.split(min(32, rows_a_pass(suffix.model, windows.tokens.shape[1])))
