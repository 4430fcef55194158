"""What a code looks like over a set of vectors, for a BAE or any other SAELens SAE."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from sae_lens import SAE
from torch import Tensor

from bae_lens.checks import check_activations
from bae_lens.model.bae import BinaryCode
from bae_lens.objective.entropy import marginal_entropy
from bae_lens.objective.metrics import DENSE


class CodeStatistics(NamedTuple):
    """Of the bits of a BAE, or of the firing (activation over 0) of another SAE's features, as of nested ones."""

    tokens: int
    fvu: float
    """Fraction of variance unexplained: sum |x - x_hat|^2 / sum |x - mean|^2 over the whole set, not by batches."""
    entropy: float
    """Marginal entropy in bits a token. Says nothing without `fvu` beside it; of another SAE, the magnitudes are not in it."""
    l0: float
    live: int
    dead: int
    """Never change, at 0 or at 1."""
    stuck_at_one: int
    dense: int
    """On for more than a tenth of the tokens."""
    frequency: Float[Tensor, " d_bits"]
    """Share of the tokens that each is on for, float64."""

    def numbers(self) -> dict[str, float]:
        """All but the frequencies."""
        return {name: value for name, value in self._asdict().items() if name != "frequency"}


class CodeBatch(NamedTuple):
    """Vectors with their code."""

    x: Float[Tensor, "batch d_out"]
    """What the reconstruction is of."""
    features: Float[Tensor, "batch d_sae"]
    on: Tensor
    """Bits of a BAE, firing of another SAE's or of nested features; bool."""
    x_hat: Float[Tensor, "batch d_out"]


@torch.no_grad()
def code_batches(
    sae: SAE[Any],
    vectors: Float[Tensor, "token d_in"],
    batch_size: int = 4096,
    target: Float[Tensor, "token d_out"] | None = None,
) -> Iterator[CodeBatch]:
    """Vectors with their codes and reconstructions, batch by batch.

    Args:
        target: What the reconstructions are of, if not of the vectors themselves (a transcoder's); takes their place as `x`.
    """
    check_activations(vectors, sae.cfg.d_in)
    targets = (vectors if target is None else target).split(batch_size)
    for x, wanted in zip(vectors.split(batch_size), targets, strict=True):
        x, wanted = x.to(sae.device), wanted.to(sae.device)
        if isinstance(sae, BinaryCode) and not sae.is_nested:
            bits = sae.bits(x)
            features = sae.bits_to_features(bits)
            yield CodeBatch(wanted, features, bits > 0.5, sae.decode(features))
        else:
            features = sae.encode(x)
            yield CodeBatch(wanted, features, features > 0, sae.decode(features))


def code_statistics(sae: SAE[Any], vectors: Float[Tensor, "token d_in"], batch_size: int = 4096) -> CodeStatistics:
    """Statistics of a code over a set of vectors, in one pass; the same for every batch size.

    Raises:
        TypeError, ValueError: If the vectors have another dtype or width, are empty, or are not finite.
    """
    return statistics_of(code_batches(sae, vectors, batch_size), vectors)


def statistics_of(batches: Iterable[CodeBatch], vectors: Float[Tensor, "token d_in"]) -> CodeStatistics:
    """As `code_statistics`, of codes that were made of these vectors in any other way."""
    count: Tensor | int = 0
    error = 0.0
    for batch in batches:
        count = count + batch.on.sum(0).cpu()
        error += (batch.x_hat.double() - batch.x.double()).pow(2).sum().item()
    assert isinstance(count, Tensor)
    frequency = count.double() / len(vectors)
    dead = (count == 0) | (count == len(vectors))
    return CodeStatistics(
        tokens=len(vectors),
        fvu=error / total_variation(vectors),
        entropy=marginal_entropy(frequency).item(),
        l0=frequency.sum().item(),
        live=int((~dead).sum()),
        dead=int(dead.sum()),
        stuck_at_one=int((count == len(vectors)).sum()),
        dense=int((frequency > DENSE).sum()),
        frequency=frequency,
    )


def total_variation(vectors: Float[Tensor, "token d_in"]) -> float:
    """Sum of |x - mean|^2, in float64."""
    mean = vectors.double().mean(0)
    total = sum((x.double() - mean).pow(2).sum().item() for x in vectors.split(65536))
    if total == 0:
        raise ValueError(f"the {len(vectors)} vectors are all equal: they have no variance to explain")
    return total
