"""The weights of many runs in one tensor a kind: the runs' own are views of it, and so are Adam's moments.

Whatever is done to a run by itself (a start from data, a revision, a checkpoint, its BAE as it stands) is done to the stack.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bae_lens.objective.stacked import Weights
from bae_lens.training.run import Run

MOMENTS = ("exp_avg", "exp_avg_sq")


class Stack(NamedTuple):
    """Runs of one shape that are at one step."""

    weights: Weights
    prior: Float[Tensor, "runs d_bits"]
    mean: Float[Tensor, "runs d_in"]
    """What is subtracted from each run's vectors, in their dtype."""
    scale: Float[Tensor, " runs"]
    optimizer: torch.optim.Optimizer

    def normalized(self, batches: Sequence[Float[Tensor, "batch d_in"]]) -> Float[Tensor, "runs batch d_in"]:
        """A minibatch of raw vectors a run, as the weights see them."""
        x = torch.stack([batch.to(self.mean.device, non_blocking=True) for batch in batches])
        x = x if x.dtype == torch.float64 else x.float()
        mean, scale = self.mean.to(x.dtype).unsqueeze(1), self.scale.to(x.dtype)[:, None, None]
        return ((x - mean) * scale).to(self.weights.W_enc.dtype)


@torch.no_grad()
def stack(runs: Sequence[Run]) -> Stack:
    """Moves the runs' weights, priors and moments together."""
    cfg = runs[0].cfg
    weights = Weights(*(_together([run.sae.get_parameter(name) for run in runs]) for name in Weights._fields))
    trained = {n: w for n, w in weights._asdict().items() if runs[0].sae.get_parameter(n).requires_grad}
    for weight in trained.values():
        weight.requires_grad_()
    optimizer = torch.optim.Adam(trained.values(), lr=cfg.learning_rate, betas=(cfg.beta1, cfg.beta2), fused=True)
    for name, weight in trained.items():
        optimizer.state[weight] = _moments([(run.optimizer, run.sae.get_parameter(name)) for run in runs])
    prior = torch.stack([run.sae.prior for run in runs])
    for number, run in enumerate(runs):
        run.sae.prior = prior[number]
    scale = torch.tensor([run.norm.scale for run in runs], dtype=torch.float64, device=prior.device)
    return Stack(weights, prior, torch.stack([run.mean for run in runs]), scale, optimizer)


def _together(parameters: Sequence[torch.nn.Parameter]) -> Tensor:
    """One tensor, of which the parameters become views."""
    whole = torch.stack([parameter.detach() for parameter in parameters])
    for parameter, part in zip(parameters, whole, strict=True):
        parameter.data = part
    return whole


def _moments(owners: Sequence[tuple[torch.optim.Optimizer, torch.nn.Parameter]]) -> dict[str, Tensor]:
    """Adam's state of a stacked weight, of which the runs' own states become views."""
    own = [optimizer.state[parameter] for optimizer, parameter in owners]
    step = own[0]["step"].clone() if own[0] else torch.zeros((), dtype=torch.float32, device=owners[0][1].device)
    state = {"step": step}
    for moment in MOMENTS:
        parts = [
            known[moment] if known else torch.zeros_like(parameter) for known, (_, parameter) in zip(own, owners, strict=True)
        ]
        state[moment] = torch.stack(parts)
    for number, (optimizer, parameter) in enumerate(owners):
        optimizer.state[parameter] = {"step": step} | {moment: state[moment][number] for moment in MOMENTS}
    return state
