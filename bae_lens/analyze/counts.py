"""What a code does over a set of vectors, counted in one pass: whole numbers, which add up exactly over shards and processes.

How often each bit is on, at which positions, how often two are on together, and how often each distinct code occurs.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bae_lens.analyze.code_counts import CodeCounts, count_codes, hash_codes
from bae_lens.analyze.pair_counts import PairCounter, PairCounts, as_matrix, from_matrix

MOST_CODES = 2**20
"""Distinct codes to count; of more than that, only that there are more is kept. 24 bytes each."""
FLUSH_EVENTS, FLUSH_ROWS = 2**23, 2**17
"""How many bits that are on, or vectors, are held back before their pairs are counted: more at once is faster."""


class PositionCounts(NamedTuple):
    """Firing by position."""

    positions: Int[Tensor, " positions"]
    """The positions that occur, rising."""
    tokens: Int[Tensor, " positions"]
    """Vectors at each."""
    ones: Int[Tensor, "positions d_bits"]
    """How often each bit is on at each."""


class BitCounts(NamedTuple):
    """Counts of a code over a set of vectors; of a set and another one together, `merge_counts` of both."""

    tokens: int
    ones: Int[Tensor, " d_bits"]
    """How often each bit is on."""
    bits_per_feature: int
    """Bits nested within each other, each feature's in a row: the second is on only where the first is, and so on. Else 1."""
    pairs: PairCounts | None
    """How often two bits are on together; of nested bits, two features (their first bits). None where they were not counted."""
    codes: CodeCounts | None
    """The distinct codes; None where there are more than `most_codes`."""
    most_codes: int
    at: PositionCounts | None
    """By position, where positions were given."""

    @property
    def frequency(self) -> Float[Tensor, " d_bits"]:
        """Share of the vectors that each bit is on for, float64."""
        return self.ones.double() / self.tokens

    @property
    def live(self) -> Bool[Tensor, " d_bits"]:
        """The bits that change."""
        return (self.ones > 0) & (self.ones < self.tokens)


class BitCounter:
    """Counts codes batch by batch; the batches' sizes and order make no difference to what comes out.

    Args:
        d_bits: Width of the codes.
        bits_per_feature: Of nested bits, how many a feature has, one after the other.
        pairs: Whether to count how often two bits are on together.
        most_codes: How many distinct codes to count at most; 0 for none.
    """

    def __init__(self, d_bits: int, *, bits_per_feature: int = 1, pairs: bool = True, most_codes: int = MOST_CODES):
        if d_bits < 1 or bits_per_feature < 1 or d_bits % bits_per_feature:
            raise ValueError(f"{d_bits} bits cannot be features of {bits_per_feature} bits each")
        if most_codes < 0:
            raise ValueError(f"most_codes must be at least 0, got {most_codes}")
        self.d_bits = d_bits
        self._nested = bits_per_feature
        self._tokens = 0
        self._ones = np.zeros(d_bits, np.int64)
        self._pairs = PairCounter(d_bits // bits_per_feature) if pairs else None
        self._codes: CodeCounts | None = _no_codes() if most_codes else None
        self._most_codes = most_codes
        self._at: dict[int, tuple[int, np.ndarray]] | None = None
        self._held: list[tuple[np.ndarray, np.ndarray]] = []
        self._hashes: list[Tensor] = []

    def add(self, on: Bool[Tensor, "batch d_bits"], positions: Int[Tensor, " positions"] | None = None) -> None:
        """Counts a batch of codes.

        Args:
            positions: Where in its document each vector stands; for all batches, or for none.

        Raises:
            TypeError: If the codes are not bool.
            ValueError: If they have another width, or positions are given for some batches only.
        """
        check_codes(on, self.d_bits)
        if not len(on):
            return
        if positions is not None and len(positions) != len(on):
            raise ValueError(f"{len(positions)} positions given for {len(on)} codes")
        if self._tokens and (positions is None) != (self._at is None):
            raise ValueError("positions were given for some batches and not for others: give them for all or for none")
        column, per_row = events(on)
        self._tokens += len(on)
        self._ones += np.bincount(column, minlength=self.d_bits)
        if positions is not None:
            self._add_at(positions, column, per_row)
        if self._codes is not None:
            self._hashes.append(hash_codes(column, per_row, self.d_bits))
        if self._pairs is not None:
            self._held.append(first_bits(column, per_row, self._nested))
        if sum(map(len, self._hashes)) > FLUSH_ROWS:
            self._flush_codes()
        if sum(len(c) for c, _ in self._held) > FLUSH_EVENTS or sum(len(rows) for _, rows in self._held) > FLUSH_ROWS:
            self._flush_pairs()

    def counts(self) -> BitCounts:
        """What was counted so far.

        Raises:
            ValueError: If there were no codes.
        """
        if not self._tokens:
            raise ValueError("no codes were given: there is nothing to count")
        self._flush_codes()
        self._flush_pairs()
        return BitCounts(
            tokens=self._tokens,
            ones=torch.from_numpy(self._ones.copy()),
            bits_per_feature=self._nested,
            pairs=None if self._pairs is None else self._pairs.counts(),
            codes=self._codes,
            most_codes=self._most_codes,
            at=None if self._at is None else _positions(self._at),
        )

    def _add_at(self, positions: Tensor, column: np.ndarray, per_row: np.ndarray) -> None:
        self._at = self._at or {}
        values, place, tokens = np.unique(positions.cpu().numpy(), return_inverse=True, return_counts=True)
        cell = np.repeat(place, per_row) * self.d_bits + column
        ones = np.bincount(cell, minlength=len(values) * self.d_bits).reshape(len(values), self.d_bits)
        for number, position in enumerate(values.tolist()):
            before = self._at.get(position, (0, 0))
            self._at[position] = before[0] + int(tokens[number]), before[1] + ones[number]

    def _flush_codes(self) -> None:
        if self._hashes:
            hashes = torch.cat(self._hashes)
            new = count_codes(hashes, torch.ones(len(hashes), dtype=torch.long))
            self._codes = _sum_codes(self._codes, new, self._most_codes)
        self._hashes.clear()

    def _flush_pairs(self) -> None:
        if self._held and self._pairs is not None:
            column, per_row = (np.concatenate(parts) for parts in zip(*self._held, strict=True))
            self._pairs.add(column, per_row)
        self._held.clear()


def merge_counts(one: BitCounts, other: BitCounts) -> BitCounts:
    """The counts of two sets of vectors together, exactly those of counting them in one pass.

    Raises:
        ValueError: If they are of codes of different widths, or not of the same things.
    """
    kinds = [
        (len(c.ones), c.bits_per_feature, c.most_codes, *("not counted" if x is None else "counted" for x in (c.pairs, c.at)))
        for c in (one, other)
    ]
    for name, a, b in zip(("width", "bits_per_feature", "most_codes", "pairs", "positions"), *kinds, strict=True):
        if a != b:
            raise ValueError(f"counts of different codes cannot be merged: {name} is {a} in one and {b} in the other")
    both_pairs = None
    if one.pairs is not None and other.pairs is not None:
        both_pairs = from_matrix((as_matrix(one.pairs) + as_matrix(other.pairs)).tocsr())
    at = None
    if one.at is not None and other.at is not None:
        by_position = _by_position(one.at)
        for position, (tokens, ones) in _by_position(other.at).items():
            before = by_position.get(position, (0, 0))
            by_position[position] = before[0] + tokens, before[1] + ones
        at = _positions(by_position)
    return BitCounts(
        tokens=one.tokens + other.tokens,
        ones=one.ones + other.ones,
        bits_per_feature=one.bits_per_feature,
        pairs=both_pairs,
        codes=None if other.codes is None else _sum_codes(one.codes, other.codes, one.most_codes),
        most_codes=one.most_codes,
        at=at,
    )


def check_codes(on: Tensor, d_bits: int | None = None) -> None:
    """Raises TypeError unless these are bool, ValueError unless they are ``(any number, d_bits)``."""
    if on.dtype != torch.bool:
        raise TypeError(f"codes must be bool (on or off), got {on.dtype}: compare features with 0, or bits with 0.5")
    if on.dim() != 2 or (d_bits is not None and on.shape[1] != d_bits):
        raise ValueError(f"codes of shape {tuple(on.shape)} given where (any number, {d_bits or 'd_bits'}) is counted")


def events(on: Bool[Tensor, "batch d_bits"]) -> tuple[Int[np.ndarray, " events"], Int[np.ndarray, " batch"]]:
    """The bits that are on, row by row, and how many each row has."""
    place = np.flatnonzero(on.numpy()) if on.device.type == "cpu" else on.flatten().nonzero().squeeze(1).cpu().numpy()
    row, column = np.divmod(place, on.shape[1])
    return column, np.bincount(row, minlength=len(on))


def first_bits(column: np.ndarray, per_row: np.ndarray, bits_per_feature: int) -> tuple[np.ndarray, np.ndarray]:
    """Of nested bits only each feature's first, as the feature's index."""
    if bits_per_feature == 1:
        return column, per_row
    feature, bit = np.divmod(column, bits_per_feature)
    row = np.repeat(np.arange(len(per_row)), per_row)[bit == 0]
    return feature[bit == 0], np.bincount(row, minlength=len(per_row))


def _no_codes() -> CodeCounts:
    return CodeCounts(torch.zeros(0, 2, dtype=torch.long), torch.zeros(0, dtype=torch.long))


def _sum_codes(one: CodeCounts | None, other: CodeCounts, most: int) -> CodeCounts | None:
    """None where either is None or both together have too many: the outcome is the same in whichever order sets are merged."""
    if one is None:
        return None
    total = count_codes(torch.cat([one.hashes, other.hashes]), torch.cat([one.counts, other.counts]))
    return total if len(total.counts) <= most else None


def _by_position(at: PositionCounts) -> dict[int, tuple[int, np.ndarray]]:
    return {int(p): (int(n), ones.numpy()) for p, n, ones in zip(at.positions, at.tokens, at.ones, strict=True)}


def _positions(by_position: dict[int, tuple[int, np.ndarray]]) -> PositionCounts:
    order = sorted(by_position)
    return PositionCounts(
        torch.tensor(order),
        torch.tensor([by_position[p][0] for p in order]),
        torch.from_numpy(np.stack([by_position[p][1] for p in order])),
    )
