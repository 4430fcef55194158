"""Distils refined codes into an encoder with hidden units: one feed-forward pass instead of refining.

A code that is refined in rate and distortion (`bae_lens.model.refine`) is not what a linear encoder says: whether a feature is
on depends on what the others explain. Hidden units beside the linear part (`bae_lens.model.hidden_units`) learn to predict it.
"""

import dataclasses
import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from sae_lens.saes.sae import SAEMetadata
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm.auto import tqdm

from bae_lens.model.bae import BAE
from bae_lens.training.config import TrainerConfig
from bae_lens.training.data import Vectors, as_source
from bae_lens.training.inference import estimate_from, own_generators
from bae_lens.training.memory import FLOAT, free_bytes, gib
from bae_lens.training.normalization import Normalization, fit
from bae_lens.training.schedules import Schedule

SHARPNESS = 6.0
"""Log-odds that a feature is on, for each level that its pre-activation lies above the threshold."""
REFINE_MOVES = 3
"""At most so many moves a vector where refining goes on from the distilled code."""
LOOK_EVERY = 50
"""Steps between two looks at the loss."""


class Encoder(NamedTuple):
    """An encoder's weights, as `HiddenUnits` has them, for normalised vectors (x - mean) * scale."""

    W_enc: Float[Tensor, "d_in d_pre"]
    b_enc: Float[Tensor, " d_pre"]
    W_hidden: Float[Tensor, "d_in hidden"]
    b_hidden: Float[Tensor, " hidden"]
    W_out: Float[Tensor, "hidden d_pre"]

    def __call__(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_pre"]:
        """Pre-activations."""
        return x @ self.W_enc + self.b_enc + (x @ self.W_hidden + self.b_hidden).relu() @ self.W_out


def distill_encoder(
    bae: BAE,
    x: Vectors,
    *,
    hidden: int = 512,
    steps: int = 3000,
    batch_size: int = 512,
    learning_rate: float = 3e-3,
    seed: int = 0,
    keep_refining: bool = False,
    progress: bool = True,
) -> BAE:
    """A BAE with the same decoder whose encoder predicts the refined codes of this one in one feed-forward pass.

    The BAE that is given stays as it is, whatever happens; Ctrl-C gives up what was learnt.

    Args:
        bae: A trained BAE that refines its codes (`refine_weight`), with a prior.
        x: Raw vectors, as `bae_lens.train` takes them: best those that it was trained on.
        hidden: Hidden units of the new encoder; with 0 its linear part alone is trained.
        steps: Optimiser steps, of `batch_size` vectors each.
        learning_rate: Of Adam, at its peak.
        seed: Of the hidden units' start and of the order of the vectors: equal seeds give equal encoders.
        keep_refining: Refine on, from the distilled code, by at most 3 moves a vector (`refine_moves`); by default the new
            BAE does not refine.

    Returns:
        A BAE that takes raw vectors, with `encoder_hidden` units and a prior estimated anew on `x`.

    Raises:
        TypeError, ValueError: If the BAE does not refine, has no prior or has hidden units already, a number is out of range,
            or the vectors do not fit.
        MemoryError: If the device's free memory does not hold the hidden units.
        FloatingPointError: If the loss is not finite.
    """
    _check(bae, hidden)
    cfg = TrainerConfig(steps=steps, batch_size=batch_size, learning_rate=learning_rate, seed=seed, device=str(bae.device))
    source = as_source(x, cfg.device)
    source.check(bae.cfg.d_in, cfg.batch_size)
    norm = fit(source, cfg)
    generator = torch.Generator().manual_seed(cfg.seed)
    encoder = first_encoder(bae, norm, hidden, generator)
    source.begin(cfg.batch_size, generator)
    mean = norm.mean.to(bae.device, torch.float32)
    optimizer = torch.optim.Adam(encoder, lr=learning_rate, fused=True)
    schedule = Schedule(shape="wsd", warm_up=min(100, steps // 5), decay=0.4)
    with tqdm(total=steps, desc="distill", unit="step", disable=not progress) as bar:
        for step in range(steps):
            batch = source.next_batch().to(bae.device)
            with torch.no_grad():
                levels = bae.encode_levels(batch)[0].float()
            loss = distillation_loss(encoder((batch.float() - mean) * norm.scale), levels)
            optimizer.param_groups[0]["lr"] = learning_rate * schedule.factor(step, steps)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % LOOK_EVERY == 0 or step == steps - 1:
                _stop_if_not_finite(loss.item(), step)
                bar.set_postfix(loss=f"{loss.item():.3f}")
            bar.update()
    new = with_encoder(bae, encoder, norm, keep_refining)
    estimate_from(new, source)
    return new


def distillation_loss(pre: Float[Tensor, "batch d_pre"], levels: Float[Tensor, "batch d_pre"]) -> Float[Tensor, ""]:
    """How badly pre-activations predict levels, summed over features: the cross-entropy of on and off at the first threshold,
    and the squared error of the level, in levels, where it is on.

    A pre-activation passes its j-th threshold at j, so the middle of level m is m - 1/2.
    """
    on = (levels > 0).to(pre.dtype)
    which = binary_cross_entropy_with_logits(SHARPNESS * pre, on, reduction="none")
    return (which + on * (pre + 0.5 - levels).square()).sum(1).mean()


@torch.no_grad()
def first_encoder(bae: BAE, norm: Normalization, hidden: int, generator: torch.Generator) -> Encoder:
    """The linear encoder of a BAE, for normalised vectors in fp32, beside hidden units that add nothing yet."""
    shift = _shift(bae, norm)
    W_enc, W_hidden = bae.W_enc.double(), torch.randn(bae.cfg.d_in, hidden, generator=generator) / math.sqrt(bae.cfg.d_in)
    weights = (
        W_enc / norm.scale,
        bae.b_enc + shift @ W_enc,
        W_hidden,
        torch.zeros(hidden),
        torch.zeros(hidden, bae.d_pre),
    )
    return Encoder(*(nn.Parameter(weight.to(bae.device, torch.float32)) for weight in weights))


@torch.no_grad()
def with_encoder(bae: BAE, encoder: Encoder, norm: Normalization, keep_refining: bool) -> BAE:
    """A copy of a BAE with another encoder, which takes raw vectors."""
    shift, scale = _shift(bae, norm), norm.scale
    W_enc, W_hidden = encoder.W_enc.double() * scale, encoder.W_hidden.double() * scale
    weights = Encoder(W_enc, encoder.b_enc - shift @ W_enc, W_hidden, encoder.b_hidden - shift @ W_hidden, encoder.W_out)
    cfg = dataclasses.replace(
        bae.cfg,
        encoder_hidden=encoder.W_hidden.shape[1],
        encoder_bias=True,
        refine_weight=bae.cfg.refine_weight if keep_refining else 0.0,
        refine_from=0,  # the distilled code is not to be cut down to the largest few
        refine_moves=REFINE_MOVES if keep_refining else bae.cfg.refine_moves,
        metadata=SAEMetadata(**bae.cfg.metadata.to_dict()),
    )
    with own_generators(str(bae.device)):
        new = BAE(cfg)
    new.load_state_dict(bae.state_dict() | {name: w for name, w in weights._asdict().items() if name in new.state_dict()})
    return new


def _shift(bae: BAE, norm: Normalization) -> Float[Tensor, " d_in"]:
    """What the encoder sees of the vectors' mean, in float64."""
    mean = norm.mean.to(bae.device)
    return mean - bae.b_dec.detach().double() if bae.cfg.apply_b_dec_to_input else mean


def _check(bae: BAE, hidden: int) -> None:
    if not isinstance(bae, BAE):
        raise TypeError(f"a trained BAE is expected, got {type(bae).__name__}")
    if not bae.cfg.refine_weight:
        raise ValueError("this BAE does not refine its codes (refine_weight is 0): its encoder needs no distilling")
    if bae.cfg.encoder_hidden:
        raise ValueError("this BAE's encoder has hidden units already: distil the BAE that it was distilled from")
    bae.check_prior()
    if isinstance(hidden, bool) or not isinstance(hidden, int) or hidden < 0:
        raise ValueError(f"hidden must be a whole number of at least 0, got {hidden!r}")
    needed, free = 4 * FLOAT * hidden * (bae.cfg.d_in + bae.d_pre), free_bytes(str(bae.device))
    if needed > free:
        raise MemoryError(
            f"{hidden} hidden units take about {gib(needed)} with gradients and moments, {gib(free)} are free on {bae.device}: "
            "lower `hidden`"
        )


def _stop_if_not_finite(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise FloatingPointError(f"the loss of distilling is {loss} at step {step}: begin again with a lower learning rate")
