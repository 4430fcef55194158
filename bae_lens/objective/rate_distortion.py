"""Learning codes that are refined in rate and distortion: a sparse warm phase, then the decoder follows the refined codes and
the encoder learns to predict them.

|x - x_hat|^2 + lambda * code length is minimised over the code of every minibatch (`bae_lens.model.refine`), in turns with a
step of the weights; so nothing needs a surrogate gradient. From a dense start this ends dense: the warm phase is a TopK
autoencoder of unit decoder rows, whose directions become the features.
"""

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from sae_lens.saes.sae import TrainStepInput, TrainStepOutput
from torch import Tensor

from bae_lens.model.level_codes import code_bits
from bae_lens.objective.metrics import unexplained
from bae_lens.objective.ranks import ALONE, Ranks

AUXILIARY_FEATURES = 32
"""Dead features that reconstruct the warm phase's residual together (Gao et al., arXiv 2406.04093, section A.2)."""
AUXILIARY_WEIGHT = 1 / 8
DEAD_AFTER = 100
"""Steps without being on after which a feature of the warm phase counts as dead."""
AMPLITUDE_MOMENTUM = 0.02
"""Of the running means of the warm phase's amplitudes."""
COST_SAMPLES = 5000
"""As so many vectors the running prior counts where codes are priced in training; more would price rare features out."""
LEVEL_STEP = 1.3 * math.sqrt(8.66)
"""A level's worth over sqrt(lambda): the step of a uniform quantiser at the slope of its rate (12 / (2 ln 2)), and wider."""


class Warm(NamedTuple):
    """A minibatch of the warm phase."""

    x_hat: Float[Tensor, "batch d_in"]
    amplitudes: Float[Tensor, "batch d_sae"]
    auxiliary_loss: Float[Tensor, ""]


def warm_forward(
    x: Float[Tensor, "batch d_in"],
    pre: Float[Tensor, "batch d_sae"],
    W_dec: Float[Tensor, "d_sae d_in"],
    b_dec: Float[Tensor, " d_in"],
    k: int,
    stats: Float[Tensor, "3 d_sae"],
    ranks: Ranks = ALONE,
) -> Warm:
    """A TopK autoencoder's reconstruction from decoder rows, which the caller keeps at norm 1, and the loss that revives its
    dead features.

    Args:
        stats: Steps since each feature was on, how often it is on, its mean amplitude times that; carried on in place.
    """
    top = pre.relu().topk(k, dim=1)
    amplitudes = torch.zeros_like(pre).scatter(1, top.indices, top.values)
    x_hat = amplitudes @ W_dec + b_dec
    with torch.no_grad():
        on = ranks.batch_mean((amplitudes > 0).to(stats.dtype))
        stats[0].add_(1).masked_fill_(on > 0, 0)
        stats[1].lerp_(on, AMPLITUDE_MOMENTUM)
        stats[2].lerp_(ranks.batch_mean(amplitudes.to(stats.dtype)), AMPLITUDE_MOMENTUM)
        dead = (stats[0] > DEAD_AFTER).nonzero().squeeze(1)
    if len(dead) == 0:
        return Warm(x_hat, amplitudes, x_hat.new_zeros(()))
    few = min(len(dead), AUXILIARY_FEATURES)
    of_dead = pre[:, dead].topk(few, dim=1)
    revived = torch.zeros_like(pre[:, dead]).scatter(1, of_dead.indices, of_dead.values.relu())
    error = revived @ W_dec[dead] - (x - x_hat).detach()
    share = AUXILIARY_WEIGHT * min(1.0, len(dead) / AUXILIARY_FEATURES)
    return Warm(x_hat, amplitudes, share * ranks.batch_mean(error.pow(2).sum(1)))


@torch.no_grad()
def normalize_rows(W_dec: Float[Tensor, "d_sae d_in"]) -> None:
    """Brings rows back to norm 1 in place. Dividing by the norm inside the forward pass instead lets it grow from step to step,
    which slows their turning: codes ended 10 % longer."""
    W_dec.div_(W_dec.norm(dim=1, keepdim=True).clamp_min(1e-12))


def level_worth(stats: Float[Tensor, "3 d_sae"], top_level: int, weight: float) -> Float[Tensor, " d_sae"]:
    """What one level of each feature is worth when the warm phase ends: a step that suits lambda; the mean amplitude of a
    feature that has one level only."""
    if top_level > 1:
        return torch.full_like(stats[0], LEVEL_STEP * math.sqrt(weight))
    on = stats[1] > 1e-6
    mean = stats[2] / stats[1].clamp_min(1e-6)
    return torch.where(on, mean, mean[on].mean()) if on.any() else torch.ones_like(mean)


def encoder_loss(pre: Float[Tensor, "batch d_sae"], start: Tensor, refined: Tensor, ranks: Ranks = ALONE) -> Float[Tensor, ""]:
    """Squared error of the encoder's levels where they or the refined ones are on, in levels, summed over features.

    A pre-activation passes its j-th threshold at j, so the middle of level m is m - 1/2.
    """
    where = (start > 0) | (refined > 0)
    return ranks.batch_mean(((pre + 0.5 - refined) * where).pow(2).sum(1))


def warm_pass(sae: Any, step_input: TrainStepInput) -> TrainStepOutput:
    """A `TrainingBAE`'s step of the warm phase."""
    x = step_input.sae_in
    target = sae.process_sae_in(x)
    normalize_rows(sae.W_dec)
    pre = sae.hook_sae_acts_pre(sae.encode_linear(target))
    warm = warm_forward(target, pre, sae.W_dec, sae.b_dec, sae.cfg.refine_from, sae.warm_stats, sae.ranks)
    mse = sae.ranks.batch_mean((warm.x_hat - target).pow(2).sum(1))
    on = sae.top_level * (warm.amplitudes > 0).to(x.dtype)
    return _output(sae, step_input, pre, target, warm.x_hat, on, {"mse_loss": mse, "encoder_loss": warm.auxiliary_loss})


def refined_pass(sae: Any, step_input: TrainStepInput) -> TrainStepOutput:
    """A `TrainingBAE`'s step with refined codes; the rate has no gradient, and is reported in the loss's units."""
    x = step_input.sae_in
    target = sae.process_sae_in(x)
    pre = sae.hook_sae_acts_pre(sae.encode_linear(target))
    weight = step_input.coefficients["rate"]
    assert weight is not None
    with torch.no_grad():
        start = sae.start_levels(pre)
        if not sae.prior_has_begun():
            follow_prior(sae, start)
        costs = sae.level_costs()
        levels = sae.refined(start, target, weight, costs)
    x_hat = levels @ (sae.W_dec * (sae.act_scale / sae.top_level).unsqueeze(1)) + sae.b_dec
    losses = {
        "mse_loss": sae.ranks.batch_mean((x_hat - target).pow(2).sum(1)),
        "rate_loss": weight * sae.ranks.batch_mean(code_bits(levels.to(torch.int16), costs)).to(x_hat.dtype),
        "encoder_loss": encoder_loss(pre, start, levels, sae.ranks),
    }
    follow_prior(sae, levels)
    return _output(sae, step_input, pre, target, x_hat, levels, losses)


def follow_prior(sae: Any, levels: Tensor) -> None:
    """Carries the running prior on by the levels of a minibatch."""
    sae.follow_prior(sae.ranks.batch_mean(sae.passed(levels).float()), len(levels) * sae.ranks.data_size)


def _output(
    sae: Any, step_input: TrainStepInput, pre: Tensor, target: Tensor, x_hat: Tensor, levels: Tensor, losses: dict[str, Tensor]
) -> TrainStepOutput:
    metrics: dict[str, Any] = {}
    if step_input.is_logging_step:
        metrics = sae.metrics_of(
            sae.ranks.batch_mean(sae.passed(levels).float()), unexplained(target, x_hat.detach(), sae.ranks)
        )._asdict()
    return TrainStepOutput(
        sae_in=step_input.sae_in,
        sae_out=x_hat / sae.data_scale + sae.data_mean,
        feature_acts=levels * (sae.act_scale / sae.top_level),
        hidden_pre=pre,
        loss=torch.stack(list(losses.values())).sum(),
        losses=losses,
        metrics=metrics,
    )
