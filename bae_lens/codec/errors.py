"""How far reconstructions are from their vectors, in sums that add up over blocks."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Errors(NamedTuple):
    """Sums over vectors, in float64."""

    vectors: int
    squared: float
    """|x - x_hat|^2."""
    cosines: float
    """Cosine similarity of x and x_hat; 0 where one of them is 0."""
    total: Float[Tensor, " d_in"]
    """x - b_dec, which is near the mean."""
    energy: float
    """|x - b_dec|^2."""

    def plus(self, other: "Errors") -> "Errors":
        """Of both sets of vectors together."""
        return Errors(
            self.vectors + other.vectors,
            self.squared + other.squared,
            self.cosines + other.cosines,
            self.total + other.total,
            self.energy + other.energy,
        )

    @property
    def mse(self) -> float:
        """Mean squared error a dimension."""
        return self.squared / self.vectors / len(self.total)

    @property
    def cosine(self) -> float:
        """Mean cosine similarity of vectors and reconstructions."""
        return self.cosines / self.vectors

    @property
    def fvu(self) -> float:
        """Fraction of variance unexplained.

        Raises:
            ValueError: If the vectors are all equal.
        """
        variation = self.energy - self.total.square().sum().item() / self.vectors
        if variation <= 1e-12 * self.energy:
            raise ValueError(f"the {self.vectors} vectors are all equal: they have no variance to explain")
        return self.squared / variation


def errors_of(x: Float[Tensor, "rows d_in"], x_hat: Float[Tensor, "rows d_in"], bias: Float[Tensor, " d_in"]) -> Errors:
    """The sums of some vectors and their reconstructions."""
    x, x_hat = x.double(), x_hat.double()
    centred = x - bias.double()
    return Errors(
        len(x),
        (x - x_hat).square().sum().item(),
        torch.cosine_similarity(x, x_hat, dim=1).sum().item(),
        centred.sum(0),
        centred.square().sum().item(),
    )
