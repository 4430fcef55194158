"""Refined codes of any SAELens SAE with a linear decoder, its features quantised to whole levels."""

from typing import Any

import torch
from jaxtyping import Float
from sae_lens import SAE
from torch import Tensor

from bae_lens.checks import check_activations
from bae_lens.model.level_codes import check_step, code_costs, level_counts, quantize
from bae_lens.model.refine import LARGEST_GRAM, Refined, refine

Step = float | Float[Tensor, " d_sae"]
"""What one level is worth: for all features, or for each."""


@torch.no_grad()
def refine_sae(
    sae: SAE[Any],
    x: Float[Tensor, "batch d_in"],
    step: Step,
    costs: Float[Tensor, "d_sae levels"],
    weight: float,
    *,
    max_moves: int = 10,
    gram: Float[Tensor, "d_sae d_sae"] | None = None,
) -> Refined:
    """The codes of an SAE's features, quantised to multiples of a step and refined; decode them as `levels * step`.

    A TopK or JumpReLU SAE takes a step of one's choice, a BAE its `act_scale` (over 2^C - 1 where a feature has C bits).

    Args:
        step: What one level is worth: a number, or one a feature ``(d_sae,)``.
        costs: Bits of each feature at each level ``(d_sae, C + 1)``, as from `fit_costs`.
        weight: Squared error per bit, in the units of x.
        gram: ``rows @ rows.T`` of ``rows = level_rows(sae, step)``, for callers that refine many batches.

    Raises:
        TypeError, ValueError: As `refine` and `level_rows`.
    """
    check_activations(x, sae.cfg.d_in, "vectors")
    rows, x = level_rows(sae, step), x.to(sae.device)
    levels = quantize(sae.encode(x), step, costs.shape[1] - 1)
    return refine(levels, x, rows, sae.b_dec, costs, weight, max_moves=max_moves, gram=gram)


@torch.no_grad()
def fit_costs(
    sae: SAE[Any], x: Float[Tensor, "token d_in"], step: Step, top_level: int, weight: float, *, rounds: int = 2
) -> Float[Tensor, "d_sae levels"]:
    """Costs for an SAE's refined codes: counted on its own codes of training vectors, then on codes refined under those costs.

    Args:
        top_level: C; levels go from 0 to it.
        rounds: How often to refine and count again.

    Raises:
        TypeError, ValueError: As `refine_sae`.
    """
    check_activations(x, sae.cfg.d_in, "vectors")
    rows = level_rows(sae, step)
    gram = rows @ rows.T if len(rows) <= LARGEST_GRAM else None
    batches = x.split(4096)
    counts = [level_counts(quantize(sae.encode(batch.to(sae.device)), step, top_level), top_level) for batch in batches]
    for _ in range(rounds):
        costs = code_costs(torch.stack(counts).sum(0))
        refined = [refine_sae(sae, batch, step, costs, weight, gram=gram).levels for batch in batches]
        counts = [level_counts(levels, top_level) for levels in refined]
    return code_costs(torch.stack(counts).sum(0))


@torch.no_grad()
def level_rows(sae: SAE[Any], step: Step) -> Float[Tensor, "d_sae d_in"]:
    """What one level of each feature adds to an SAE's reconstruction, in fp32: the decoder's rows, each times its step.

    Raises:
        ValueError: If a step is not positive, or the SAE's reconstruction of its input is not b_dec + features @ rows.
    """
    check_step(step)
    rows = sae.W_dec.float()
    if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
        rows = rows / rows.norm(dim=1, keepdim=True)
    steps = torch.as_tensor(step, dtype=torch.float32, device=rows.device).expand(len(rows))
    rows = steps.unsqueeze(1) * rows
    by_vector = sae.cfg.normalize_activations in ("constant_norm_rescale", "layer_norm")
    if by_vector or hasattr(sae.cfg, "d_out") or not _decodes_to(sae, steps, rows.sum(0) + sae.b_dec.float()):
        raise ValueError(f"this {type(sae).__name__} does not reconstruct its input as b_dec + features @ W_dec")
    return rows


def _decodes_to(sae: SAE[Any], features: Tensor, expected: Tensor) -> bool:
    found = sae.decode(features.to(sae.dtype).unsqueeze(0)).squeeze(0).float()
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=0.02, atol=0.02 * float(expected.abs().max()))
