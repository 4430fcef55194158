"""What a code leaves over, in whole steps: a second stage for an FVU or a cosine that the code does not reach.

Every dimension is rounded to multiples of one step (for squared error one step for all is best, where each has its own
distribution), and its magnitude is coded as nested bits: at least 1, at least 2, and so on, each given the one before; the sign
is a bit that is given the first. So the residual goes through the same coder as the code.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bae_lens.codec.bit_blocks import Ones, ones_of_rows
from bae_lens.codec.trees import NO_PARENT

ROUNDING = 0.4
"""Magnitudes are floor(|r| / step + 0.4): under 1/2, since small values are more frequent than large ones."""
MOST_STEPS = 255
SMOOTHING = 0.5
"""Added to counts (Krichevsky and Trofimov)."""


class Steps(NamedTuple):
    """A quantiser."""

    step: float
    values: Float[np.ndarray, " magnitudes"]
    """What each magnitude decodes to: 0, then the mean of those that were rounded to it."""

    @property
    def most(self) -> int:
        """The largest magnitude."""
        return len(self.values) - 1


def fit_steps(residual: Float[Tensor, "rows d_in"], step: float) -> Steps:
    """The quantiser of a step, with as many magnitudes as these residuals need, at most 255."""
    size = residual.abs().double()
    magnitude = _magnitudes(size, step, MOST_STEPS)
    most = max(1, int(magnitude.max()))
    count = torch.bincount(magnitude.flatten(), minlength=most + 1).double()
    total = torch.zeros(most + 1, dtype=torch.float64).index_add_(0, magnitude.flatten(), size.flatten())
    nominal = torch.arange(most + 1).double() * step
    values = torch.where(count > 0, total / count.clamp_min(1), nominal)
    values[0] = 0
    return Steps(float(step), values.numpy())


def quantized(residual: Float[Tensor, "rows d_in"], steps: Steps) -> Int[Tensor, "rows d_in"]:
    """Signed magnitudes."""
    magnitude = _magnitudes(residual.abs().double(), steps.step, steps.most)
    return torch.where(residual < 0, -magnitude, magnitude)


def values_of(signed: Int[Tensor, "rows d_in"], steps: Steps) -> Float[Tensor, "rows d_in"]:
    """What signed magnitudes decode to, fp64."""
    return torch.from_numpy(steps.values)[signed.abs()] * signed.sign()


def parents(d_in: int, most: int) -> Int[np.ndarray, " bits"]:
    """Of the bits of a residual: of each dimension `most` of its magnitude, then its sign."""
    chain = np.append(np.arange(-1, most - 1), 0)
    above = np.arange(d_in)[:, None] * (most + 1) + chain
    above[:, 0] = NO_PARENT
    return above.reshape(-1)


def ones_of_steps(signed: Int[Tensor, "rows d_in"], most: int) -> Ones:
    """The bits of signed magnitudes."""
    row, dimension = signed.nonzero().numpy().T
    value = signed.numpy()[row, dimension]
    length = np.abs(value) + (value < 0)
    within = np.arange(length.sum()) - np.repeat(length.cumsum() - length, length)
    is_sign = within == np.repeat(np.abs(value), length)
    bit = np.repeat(dimension * (most + 1), length) + np.where(is_sign, most, within)
    return ones_of_rows(bit, np.repeat(row, length), signed.shape[1] * (most + 1))


def steps_of_ones(ones: Ones, rows: int, d_in: int, most: int) -> Int[Tensor, "rows d_in"]:
    """The signed magnitudes of bits."""
    dimension, within = np.divmod(ones.bit, most + 1)
    is_sign = within == most
    magnitude = np.zeros((rows, d_in), dtype=np.int64)
    np.add.at(magnitude, (ones.row[~is_sign], dimension[~is_sign]), 1)
    magnitude[ones.row[is_sign], dimension[is_sign]] *= -1
    return torch.from_numpy(magnitude)


def _magnitudes(size: Tensor, step: float, most: int) -> Tensor:
    return (size / step + ROUNDING).floor().clamp(max=most).long()


def tree_of_steps(signed: Int[Tensor, "rows d_in"], most: int) -> tuple[np.ndarray, np.ndarray]:
    """Parents of a residual's bits, and how probable each is given its own, counted on signed magnitudes."""
    rows, d_in = signed.shape
    above = parents(d_in, most)
    size = signed.abs()
    passed = np.stack([(size > j).sum(0).numpy() for j in range(most)] + [(signed < 0).sum(0).numpy()], 1).astype(np.float64)
    seen = np.concatenate([np.full((d_in, 1), float(rows)), passed[:, :-2], passed[:, :1]], 1)
    p = (passed + SMOOTHING) / (seen + 2 * SMOOTHING)
    is_first = np.arange(most + 1) == 0
    given = np.stack([np.where(is_first, p, 0), p], 2)
    return above, given.reshape(-1, 2)
