"""What a code looks like over a set of vectors, for a BAE or any other SAELens SAE.

Vectors are a tensor, or a dataset on disk, which is read in order and never in memory as a whole.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from sae_lens import SAE
from torch import Tensor

from bae_lens.activations.dataset import ActivationDataset
from bae_lens.analyze.counts import MOST_CODES, BitCounter, BitCounts
from bae_lens.checks import check_activations
from bae_lens.model.bae import BinaryCode
from bae_lens.objective.entropy import marginal_entropy
from bae_lens.objective.metrics import DENSE

WHOLE = 16384
"""Vectors to look at at once where none is encoded."""

Vectors = Float[Tensor, "_ d_in"] | ActivationDataset


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


def vector_batches(
    vectors: Vectors, batch_size: int, d_in: int | None = None, what: str = "activations"
) -> Iterator[Float[Tensor, "batch d_in"]]:
    """The vectors in order, so many at a time at most; a dataset's in fp32.

    Raises:
        TypeError, ValueError: If they have another dtype or width, are empty, or are not finite.
    """
    if isinstance(vectors, ActivationDataset):
        for x in vectors.chunks(batch_size):
            check_activations(x, d_in, what)
            yield x.float()
        return
    check_activations(vectors, d_in, what)
    yield from vectors.split(batch_size)


@torch.no_grad()
def code_batches(
    sae: SAE[Any],
    vectors: Vectors,
    batch_size: int = 4096,
    target: Float[Tensor, "token d_out"] | None = None,
) -> Iterator[CodeBatch]:
    """Vectors with their codes and reconstructions, batch by batch.

    Args:
        target: What the reconstructions are of, if not of the vectors themselves (a transcoder's); takes their place as `x`.
    """
    begin = 0
    for x in vector_batches(vectors, batch_size, sae.cfg.d_in):
        wanted = (x if target is None else target[begin : begin + len(x)]).to(sae.device)
        x, begin = x.to(sae.device), begin + len(x)
        if isinstance(sae, BinaryCode) and not sae.is_nested:
            bits = sae.bits(x)
            features = sae.bits_to_features(bits)
            yield CodeBatch(wanted, features, bits > 0.5, sae.decode(features))
        else:
            features = sae.encode(x)
            yield CodeBatch(wanted, features, features > 0, sae.decode(features))


def all_bits(sae: SAE[Any], batch: CodeBatch) -> Bool[Tensor, "batch bits"]:
    """The codes of a batch with every bit of a nested feature, not only its first."""
    if not (isinstance(sae, BinaryCode) and sae.is_nested):
        return batch.on
    return sae.passed((batch.features.float() * (sae.top_level / sae.act_scale.float())).round())


@torch.no_grad()
def count_code(
    sae: SAE[Any],
    vectors: Vectors,
    *,
    positions: Int[Tensor, " positions"] | None = None,
    pairs: bool = True,
    most_codes: int = MOST_CODES,
    batch_size: int = 4096,
) -> BitCounts:
    """Counts what the bits of a BAE do over a set of vectors (of another SAE, its firing), nothing decoded.

    Args:
        positions: Where in its document each vector stands, to count firing by position.
        pairs: Whether to count how often two bits are on together.
        most_codes: How many distinct codes to count at most; 0 for none.

    Raises:
        TypeError, ValueError: If the vectors have another dtype or width, are empty, or are not finite.
    """
    if positions is not None and positions.shape != (len(vectors),):
        raise ValueError(f"positions must name one for each of the {len(vectors)} vectors, got {tuple(positions.shape)}")
    d_bits, nested = code_width(sae)
    counter = BitCounter(d_bits, bits_per_feature=nested, pairs=pairs, most_codes=most_codes)
    begin = 0
    for x in vector_batches(vectors, batch_size, sae.cfg.d_in):
        counter.add(_bits_on(sae, x.to(sae.device)), None if positions is None else positions[begin : begin + len(x)])
        begin += len(x)
    return counter.counts()


def code_width(sae: SAE[Any]) -> tuple[int, int]:
    """How many bits a code has, and how many of them in a row are nested within each other."""
    if not isinstance(sae, BinaryCode):
        return sae.cfg.d_sae, 1
    return sae.d_bits, sae.top_level if sae.is_nested else 1


def _bits_on(sae: SAE[Any], x: Float[Tensor, "batch d_in"]) -> Bool[Tensor, "batch bits"]:
    if not isinstance(sae, BinaryCode):
        return sae.encode(x) > 0
    return sae.passed(sae.encode_levels(x)[0]) if sae.is_nested else sae.bits(x) > 0.5


def code_statistics(sae: SAE[Any], vectors: Vectors, batch_size: int = 4096) -> CodeStatistics:
    """Statistics of a code over a set of vectors, in one pass; the same for every batch size.

    Raises:
        TypeError, ValueError: If the vectors have another dtype or width, are empty, or are not finite.

    Examples:
        >>> import bae_lens, torch
        >>> x = torch.randn(2048, 8, generator=torch.Generator().manual_seed(0))
        >>> bae = bae_lens.train(x, bae_lens.recipes.recommended(8, steps=20), progress=False).bae
        >>> stats = code_statistics(bae, x)
        >>> stats.tokens, stats.live + stats.dead == bae.d_bits, 0 < stats.fvu < 1
        (2048, True, True)
    """
    return statistics_of(code_batches(sae, vectors, batch_size), vectors)


def statistics_of(batches: Iterable[CodeBatch], vectors: Vectors) -> CodeStatistics:
    """As `code_statistics`, of codes that were made of these vectors in any other way."""
    counter, error = None, 0.0
    for batch in batches:
        counter = counter or BitCounter(batch.on.shape[1], pairs=False, most_codes=0)
        counter.add(batch.on)
        error += (batch.x_hat.double() - batch.x.double()).pow(2).sum().item()
    assert counter is not None
    return statistics_of_counts(counter.counts(), error / total_variation(vectors))


def statistics_of_counts(counts: BitCounts, fvu: float) -> CodeStatistics:
    """Statistics of counts, as of several sets together, and the FVU of the same vectors; of nested bits, the first ones'."""
    ones = counts.ones[:: counts.bits_per_feature]
    frequency = ones.double() / counts.tokens
    dead = (ones == 0) | (ones == counts.tokens)
    return CodeStatistics(
        tokens=counts.tokens,
        fvu=fvu,
        entropy=marginal_entropy(frequency).item(),
        l0=frequency.sum().item(),
        live=int((~dead).sum()),
        dead=int(dead.sum()),
        stuck_at_one=int((ones == counts.tokens).sum()),
        dense=int((frequency > DENSE).sum()),
        frequency=frequency,
    )


def mean_vector(vectors: Vectors) -> Float[Tensor, " d_in"]:
    """The mean, in float64."""
    parts = [x.double().sum(0) for x in vector_batches(vectors, WHOLE)]
    return torch.stack(parts).sum(0) / len(vectors)


def total_variation(vectors: Vectors) -> float:
    """Sum of |x - mean|^2, in float64."""
    mean = mean_vector(vectors)
    total = sum((x.double() - mean).pow(2).sum().item() for x in vector_batches(vectors, WHOLE))
    if total == 0:
        raise ValueError(f"the {len(vectors)} vectors are all equal: they have no variance to explain")
    return total
