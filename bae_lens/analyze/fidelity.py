"""What the model loses when a reconstruction takes the place of its activations: CE loss clean, spliced, ablated."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from sae_lens import SAE
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm
from transformer_lens.hook_points import HookPoint

from bae_lens.activations.models import find_hook_point
from bae_lens.activations.text import Windows

Replacement = Callable[[Tensor], Tensor]


class Fidelity(NamedTuple):
    """CE losses in nats a token, and the share of an ablation's damage that the splice does not do."""

    clean: float
    spliced: float
    zero_ablated: float
    mean_ablated: float
    recovered_from_zero: float
    """(zero_ablated - spliced) / (zero_ablated - clean)."""
    recovered_from_mean: float
    """(mean_ablated - spliced) / (mean_ablated - clean)."""


class Baseline(NamedTuple):
    """CE losses that do not depend on the SAE: measured once, used for every SAE at one hook point."""

    clean: float
    zero_ablated: float
    mean_ablated: float


def fidelity(
    model: Any, sae: SAE[Any], windows: Windows, baseline: Baseline, *, hook_name: str | None = None, batch_size: int = 32
) -> Fidelity:
    """Splices an SAE at every token but BOS and compares the loss with that of ablations.

    Raises:
        ValueError: If the hook point does not exist, or writing to it would not change the residual stream.
    """
    return fidelity_of(model, sae.forward, windows, hook_name or sae.cfg.metadata.hook_name, baseline, batch_size=batch_size)


def fidelity_of(
    model: Any, replace: Replacement, windows: Windows, hook_name: str | None, baseline: Baseline, *, batch_size: int = 32
) -> Fidelity:
    """As `fidelity`, of anything that reconstructs activations ``(batch, pos, d_in)``."""
    spliced = ce_loss(model, windows, hook_name, replace, batch_size=batch_size, label="spliced")
    from_zero = (baseline.zero_ablated - spliced) / (baseline.zero_ablated - baseline.clean)
    from_mean = (baseline.mean_ablated - spliced) / (baseline.mean_ablated - baseline.clean)
    return Fidelity(baseline.clean, spliced, baseline.zero_ablated, baseline.mean_ablated, from_zero, from_mean)


def ablation_baseline(
    model: Any, windows: Windows, hook_name: str, mean: Float[Tensor, " d_in"], *, batch_size: int = 32
) -> Baseline:
    """CE loss of the model as it is, with zeros, and with the mean vector at a hook point (BOS left as it is)."""

    def loss(replace: Replacement | None, label: str) -> float:
        return ce_loss(model, windows, hook_name, replace, batch_size=batch_size, label=label)

    return Baseline(
        clean=loss(None, "clean"),
        zero_ablated=loss(torch.zeros_like, "zero-ablated"),
        mean_ablated=loss(lambda x: mean.to(x).reshape(x.shape[2:]).expand_as(x), "mean-ablated"),
    )


@torch.no_grad()
def ce_loss(
    model: Any,
    windows: Windows,
    hook_name: str | None,
    replace: Replacement | None = None,
    *,
    batch_size: int = 32,
    label: str = "",
    progress: bool = True,
) -> float:
    """Mean CE loss in nats over the tokens that follow a token whose activation is replaced.

    BOS is left as it is, and the prediction made from it is not counted, so that all variants count the same tokens.

    Args:
        replace: Vectors ``(batch, pos, d_in)`` to what takes their place; None for the model as it is.
    """
    name = find_hook_point(model, hook_name, writing=replace is not None).name
    device = next(model.parameters()).device

    def hook(activation: Tensor, hook: HookPoint) -> Tensor:
        assert replace is not None
        return torch.cat([activation[:, :1], replace(activation[:, 1:]).to(activation.dtype)], 1)

    total, count = 0.0, 0
    order = windows.lengths.argsort(stable=True)
    for rows in tqdm(order.split(batch_size), desc=f"CE loss, {label}", leave=False, disable=not progress):
        lengths = windows.lengths[rows]
        tokens = windows.tokens[rows, : int(lengths.max())].to(device)
        mask = (torch.arange(tokens.shape[1]) < lengths.unsqueeze(1)).to(device)
        hooks = [] if replace is None else [(name, hook)]
        logits = model.run_with_hooks(tokens, fwd_hooks=hooks, attention_mask=mask.long())
        keep = mask[:, 2:]
        total += cross_entropy(logits[:, 1:-1][keep].float(), tokens[:, 2:][keep], reduction="sum").item()
        count += int(keep.sum())
    if not count:
        raise ValueError("no window is long enough to have a loss: three tokens are needed, BOS counted")
    return total / count
