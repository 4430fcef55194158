"""What a user chooses of a .baez file."""

import math
from dataclasses import dataclass

from bae_lens.checks import check_known
from bae_lens.codec.index_codes import LOWEST, check_threshold
from bae_lens.codec.limits import LARGEST_BLOCK

MODES = ("code", "index")
PROBABILITIES = ("tree", "prior")
NORM_BITS = (0, 8, 16)


@dataclass(frozen=True)
class CodecSettings:
    """How activations are compressed."""

    mode: str = "code"
    """"code": bits at their entropy, without loss; "index": A.5 of the paper, indices of bursty bits."""
    probabilities: str = "tree"
    """Of the code mode: each bit given its parent in a Chow-Liu tree ("tree"), or by itself ("prior")."""
    norm_bits: int = 0
    """8 or 16 bits more a vector for its radius; 0 for none."""
    target_fvu: float | None = None
    """Add what is needed to come to this FVU: the radius, then the residual in the largest steps that will do."""
    target_cosine: float | None = None
    """The same for the mean cosine similarity."""
    threshold: float = LOWEST
    """Of the index mode: burstiness over which a bit is stored, from log2 0.5 = -1 to 0."""
    packed: bool = True
    """Of the index mode: indices of as few bits as tell them apart, instead of 16."""
    block_vectors: int = 4096
    """Vectors a block: as many are read at least."""
    fit_vectors: int = 65536
    """Vectors, evenly spread, that probabilities are counted on."""
    bae_inside: bool = True
    """Whether the file carries the decoder; if not, it names it by its hash."""

    def __post_init__(self) -> None:
        self._check_kinds()
        check_known("mode", self.mode, MODES)
        check_known("kind of probabilities", self.probabilities, PROBABILITIES)
        if self.norm_bits not in NORM_BITS:
            raise ValueError(f"norm_bits must be 8 or 16, or 0 for no norm, got {self.norm_bits}")
        check_threshold(self.threshold)
        self._check_mode()
        if not 1 <= self.block_vectors <= LARGEST_BLOCK:
            raise ValueError(f"a block holds from 1 to {LARGEST_BLOCK} vectors, got {self.block_vectors}")
        if self.fit_vectors < 1:
            raise ValueError(f"probabilities need at least 1 vector to be counted on, got fit_vectors = {self.fit_vectors}")
        if self.target_fvu is not None and self.target_cosine is not None:
            raise ValueError("give a target FVU or a target cosine, not both")
        if self.target_fvu is not None and not (math.isfinite(self.target_fvu) and self.target_fvu > 0):
            raise ValueError(f"a target FVU must be over 0, got {self.target_fvu}")
        if self.target_cosine is not None and not -1 <= self.target_cosine < 1:
            raise ValueError(f"a target cosine must be under 1, got {self.target_cosine}")

    def _check_kinds(self) -> None:
        for name, kind, words in (
            ("block_vectors", int, "a whole number"),
            ("fit_vectors", int, "a whole number"),
            ("packed", bool, "True or False"),
            ("bae_inside", bool, "True or False"),
        ):
            value = getattr(self, name)
            if type(value) is not kind:
                raise TypeError(f"{name} must be {words}, got {value!r}")

    def _check_mode(self) -> None:
        """Refuses what would change nothing."""
        if self.mode == "code" and self.threshold != LOWEST:
            raise ValueError(f"a threshold ({self.threshold}) is of mode 'index': mode 'code' stores every bit")
        if self.mode == "code" and not self.packed:
            raise ValueError("wide indices (packed=False) are of mode 'index': mode 'code' has no indices")
        if self.mode == "index" and self.probabilities != PROBABILITIES[0]:
            raise ValueError(f"probabilities ({self.probabilities!r}) are of mode 'code': mode 'index' has none")
