"""A start from data, so that training begins sparse: columns along data points, thresholds that leave each bit seldom on."""

import torch
from jaxtyping import Float
from torch import Tensor

from bae_lens.chunks import rows_at_once


def data_directions(
    centred: Float[Tensor, "samples d_in"], count: int, generator: torch.Generator
) -> Float[Tensor, "count d_in"]:
    """Unit directions of so many random rows, and of random combinations of three where the rows do not suffice."""
    rows = centred[torch.randperm(len(centred), generator=generator)[:count].to(centred.device)]
    rows = rows[rows.pow(2).sum(1) > 0]
    missing = count - len(rows)
    if missing:
        chosen = torch.randint(len(centred), (missing, 3), generator=generator).to(centred.device)
        weights = torch.randn(missing, 3, generator=generator).to(centred)
        rows = torch.cat([rows, torch.einsum("ij,ijk->ik", weights, centred[chosen])])
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)


def thresholds(
    x: Float[Tensor, "samples d_in"], columns: Float[Tensor, "d_in d_pre"], density: float
) -> Float[Tensor, " d_pre"]:
    """What each pre-activation x @ columns passes for a share `density` of the samples."""
    width = rows_at_once(len(x), columns.shape[1])
    return torch.cat([_quantiles(x @ block, 1 - density) for block in columns.split(width, dim=1)])


def _quantiles(pre: Tensor, q: float) -> Tensor:
    """The q-quantile of each column, by selection: `torch.quantile` refuses large inputs."""
    index = min(int(q * len(pre)), len(pre) - 1)
    return pre.kthvalue(index + 1, dim=0).values
