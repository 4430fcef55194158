"""What two decoders have in common, and what the rows of one have: "Cov" of Table 1, and stability over seeds."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class DecoderCovariance(NamedTuple):
    """Spectral norms of covariance matrices of a decoder's rows; the paper's "Cov" does not say which of them it is.

    (docs/compare.md: it can only be one of raw rows, most likely `rows`.)
    """

    rows: float
    """d' x d': each row is a variable, its d entries are the samples."""
    columns: float
    """d x d: each column is a variable, the d' rows are the samples."""
    rows_unit: float
    """As `rows`, of rows of length 1."""
    columns_unit: float
    """As `columns`, of rows of length 1."""


def decoder_covariance(W_dec: Float[Tensor, "d_sae d_out"]) -> DecoderCovariance:
    """The four spectral norms; in float64, and without a matrix as large as d' x d'.

    Raises:
        ValueError: If there are fewer than two rows or columns: they have no covariance.
    """
    if min(W_dec.shape) < 2:
        raise ValueError(f"a decoder of {W_dec.shape[0]} rows of {W_dec.shape[1]} has no covariance: two of both are needed")
    raw = W_dec.detach().cpu().double()
    unit = raw / raw.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return DecoderCovariance(_between_rows(raw), _between_rows(raw.T), _between_rows(unit), _between_rows(unit.T))


def _between_rows(rows: Tensor) -> float:
    """Spectral norm of the covariance of rows as variables."""
    centred = rows - rows.mean(1, keepdim=True)
    gram = centred.T @ centred if rows.shape[0] > rows.shape[1] else centred @ centred.T
    return torch.linalg.eigvalsh(gram)[-1].item() / (rows.shape[1] - 1)


def mean_max_cosine(
    one: Float[Tensor, "d_sae d_out"],
    other: Float[Tensor, "other_d_sae d_out"],
    live: tuple[Bool[Tensor, " d_sae"], Bool[Tensor, " other_d_sae"]] | None = None,
) -> float:
    """Mean over rows of the largest cosine with a row of the other decoder, both ways round; 1 where the same rows are in both.

    Args:
        live: Which rows count, of both: those of dead features say where they began. NaN where no row is left.
    """
    a, b = (torch.nn.functional.normalize(rows.detach().float(), dim=1) for rows in (one, other))
    if live is not None:
        a, b = a[live[0]], b[live[1]]
    if not (len(a) and len(b)):
        return math.nan
    forth = torch.cat([(part @ b.T).amax(1) for part in a.split(4096)])
    back = torch.cat([(part @ a.T).amax(1) for part in b.split(4096)])
    return ((forth.mean() + back.mean()) / 2).item()
