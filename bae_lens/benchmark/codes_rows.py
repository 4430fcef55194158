"""The rows of `bae-lens bench-codes`: what is asked for, what each is named, and what came of it."""

import itertools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bae_lens.benchmark.codes_kinds import KINDS, Point
from bae_lens.benchmark.codes_measure import Measured
from bae_lens.checks import check_known

PATTERN = re.compile(r"([^/]+)/(?:x(\d+(?:\.\d+)?(?:e[+-]\d+)?)/)?([^/]+)/([^/]+)(?:/seed(\d+))?")
FORM = (
    "names are HOOK/xEXPANSION/KIND/POINT/seedSEED, as in blocks.1.hook_resid_pre/x4/nested/0.17-k3/seed0, "
    "and HOOK/KIND/POINT where nothing is trained, as in blocks.1.hook_resid_pre/pca/1.2"
)


@dataclass(kw_only=True)
class CodesOptions:
    """What `bae-lens bench-codes` takes. Every combination of the lists is a row."""

    out: Path
    """Directory for rows, tables and picture."""
    model: str | None = None
    """Model directory or name; the embedded tiny Llama if not given."""
    text: Path | None = None
    """Text file, a document a line; the embedded corpus if not given."""
    hooks: list[str] = field(default_factory=lambda: ["blocks.1.hook_resid_pre", "blocks.1.hook_resid_post"])
    expansions: list[float] = field(default_factory=lambda: [4.0, 16.0])
    """Features a dimension."""
    kinds: list[str] = field(default_factory=lambda: list(KINDS))
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    steps: int = 3000
    """Training steps of 512 tokens."""
    at: list[float] = field(default_factory=lambda: [0.10, 0.15, 0.20])
    """FVUs at which the curves are compared."""
    tokens: int = 400_000
    """Training tokens to harvest at most, and held-out ones too."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("hooks", "expansions", "kinds", "seeds", "at"):
            values = list(dict.fromkeys(getattr(self, name)))
            if not values:
                raise ValueError(f"the list of {name} is empty: give at least one")
            setattr(self, name, values)
        for kind in self.kinds:
            check_known("kind of code", kind, KINDS)
        for fvu in self.at:
            if not 0 < fvu < 1:
                raise ValueError(f"codes are compared at FVUs over 0 and under 1, got {fvu}")
        for name in ("steps", "tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.model is not None and self.text is None:
            raise ValueError("give --text with --model: the embedded corpus belongs to the embedded Llama")

    def rows(self) -> "list[Row]":
        """All rows, in the order of training."""
        found = []
        for hook in self.hooks:
            places = [(None, None), *itertools.product(self.expansions, self.seeds)]
            for (expansion, seed), kind in itertools.product(places, self.kinds):
                if KINDS[kind].is_trained == (seed is not None):
                    found += [Row(hook, expansion, kind, point, seed) for point in KINDS[kind].points]
        return found


class Row(NamedTuple):
    """One code."""

    hook: str
    expansion: float | None
    """None where nothing is trained."""
    kind: str
    point: Point
    seed: int | None
    """None where nothing is trained."""

    @property
    def name(self) -> str:
        """All that tells it from other rows; the path of its file."""
        width = [] if self.expansion is None else [f"x{self.expansion:g}"]
        seed = [] if self.seed is None else [f"seed{self.seed}"]
        return "/".join([self.hook, *width, self.kind, self.point.name, *seed])

    @classmethod
    def parse(cls, name: str) -> "Row":
        """The row of a name.

        Raises:
            ValueError: If rows have no such names, or its kind no such point (near names are said).
        """
        parts = PATTERN.fullmatch(name)
        if parts is None:
            raise ValueError(f"no row is named {name!r}: {FORM}")
        hook, expansion, kind, point_name, seed = parts.groups()
        check_known("kind of code", kind, KINDS)
        points = {point.name: point for point in KINDS[kind].points}
        check_known(f"point of {kind}", point_name, points)
        if {expansion is not None, seed is not None} != {KINDS[kind].is_trained}:
            raise ValueError(f"no row of {kind} is named {name!r}: {FORM}")
        trained = (float(expansion), int(seed)) if expansion and seed else (None, None)
        return cls(hook, trained[0], kind, points[point_name], trained[1])


class RowResult(NamedTuple):
    """What came of a row."""

    row: Row
    measured: Measured
    seconds: float
    """Of training and measuring it."""
    settings: dict[str, Any]
    """`settings_of` what was trained."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "name": self.row.name,
            "measured": self.measured._asdict(),
            "seconds": self.seconds,
            "settings": self.settings,
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "RowResult":
        """Back from JSON values."""
        return cls(Row.parse(value["name"]), Measured(**value["measured"]), value["seconds"], value["settings"])

    def describe(self) -> str:
        """A line."""
        found = self.measured
        line = f"{self.row.name}: {found.bits:.2f} bits a token at FVU {found.fvu:.4f}"
        if found.l0 is not None:
            line += (
                f", CE recovered {found.ce_from_zero:.4f} (zero) {found.ce_from_mean:.4f} (mean), L0 {found.l0:.2f}, "
                f"{found.dead} dead, {found.dense} dense"
            )
        return f"{line}, {self.seconds:.1f} s"
