"""How much memory training takes, part by part, estimated before any of it is allocated.

The numbers of copies below were counted in what PyTorch allocated on a CPU (its profiler's memory events), at d_in 512 and
1,024, d_sae 2,048 to 8,192, batches of 512 and 4,096; `tests/training/test_memory.py` holds the sum to measured peaks.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import psutil
import torch

from bae_lens.chunks import ENTRIES, rows_at_once
from bae_lens.model.config import encoder_width
from bae_lens.model.refine import LARGEST_GRAM
from bae_lens.objective.config import TrainingBAEConfig
from bae_lens.objective.covariance import BLOCK_ENTRIES
from bae_lens.training.data import START_SAMPLES

FLOAT = 4
"""Bytes of a number in fp32, in which training computes."""
VECTORS = 4
"""Of a minibatch's vectors at a step's peak: themselves, their reconstructions, the error, its square."""
CODES = 3.25
"""Of a minibatch's codes: pre-activations, bits, features, and in a byte each which of them a gradient reaches."""
CODES_OF_SEVERAL = 4.5
"""Of the same, a bit, where several bits make a feature: thresholds, their surrogates' parts and the fold come with them."""
COVARIANCE = 3.25
"""Of the live codes in the covariance term: themselves, in int8, signed sums, their gradient."""
BLOCKS = 4
"""Blocks of covariances at a time."""
REFINED_CODES, REFINED_LEVELS = 5, 1.25
"""Of codes that are refined: of a feature; and of each of its levels, when the prior is carried on."""
REVISED = 9
"""Of the codes of the vectors that a revision looks at (objective/revise.py): most of it is in float64."""
SAMPLES = 3
"""Of the vectors of a start from data."""
PASS, PASS_OF_LEVELS = 4, 7.25
"""Of as many codes as are made at a time where all vectors are encoded: of one bit a feature, of several."""
KEPT, UNTRIMMED = 0.17, 2**26
"""What glibc's allocator keeps of freed blocks: a share of all, in pieces that do not fit again, and bytes at the end of its
heap. Fitted to the peaks of six sizes (with MALLOC_MMAP_THRESHOLD_=1048576 in the environment it kept 2 %, in slower steps)."""
LOWER = "lower the expansion, bits_per_feature or batch_size"


class TrainingMemory(NamedTuple):
    """Bytes that training takes, vectors that wait to be trained on apart."""

    weights: int
    gradients: int
    moments: int
    """Adam's two."""
    gram: int
    """Of the decoder, where codes are refined."""
    minibatch: int
    """Vectors of a step."""
    codes: int
    covariance: int
    start: int
    """What a start from data makes, weights apart."""
    revision: int
    finish: int
    """What the trained BAE is made and measured with after the last step; gradients and moments are freed before."""

    @property
    def resident(self) -> int:
        """From the first step to the end."""
        return self.weights + self.gradients + self.moments + self.gram

    @property
    def step(self) -> int:
        """The peak of a step."""
        return self.resident + self.minibatch + self.codes + self.covariance

    @property
    def allocated(self) -> int:
        """The largest of what start, steps, revision and end take."""
        return max(self.weights + self.start, self.step, self.resident + self.revision, self.weights + self.gram + self.finish)

    @property
    def peak(self) -> int:
        """What a process needs for it."""
        return round((1 + KEPT) * self.allocated) + UNTRIMMED


def training_memory(
    sae: TrainingBAEConfig,
    batch_size: int,
    *,
    samples: int = START_SAMPLES,
    live: float = 1.0,
    revises: bool = False,
    sharing: int = 1,
) -> TrainingMemory:
    """The memory of one BAE's training on one device, in fp32.

    Args:
        samples: Vectors to train on, where they are fewer than a start from data looks at.
        live: Share of the bits that change within a minibatch.
        revises: Whether the trainer revises the code (`revise_at`).
        sharing: Processes that add up gradients in memory that they share: the sum is one more, theirs together, and a weight's
            gradient is copied there when it is made.
    """
    features, d_bits, width, d_in = sae.d_sae, sae.d_sae * sae.bits_per_feature, encoder_width(sae), sae.d_in
    refines = sae.objective == "rate_distortion"
    encoder, decoder = d_in * width, d_in * features
    weights = encoder + decoder + width + d_in + 2 * d_bits + 4 * features
    seen = min(samples, START_SAMPLES)
    start = SAMPLES * seen * d_in if sae.init == "data" else 0
    if sae.init == "data" and not refines:
        start = max(start, (SAMPLES - 1) * seen * d_in + encoder + decoder + PASS * ENTRIES)
    of_pass = PASS if d_bits == features else PASS_OF_LEVELS
    passing = of_pass * max(ENTRIES, width) + rows_at_once(width) * d_in
    folding = 3 * encoder + 4 * decoder  # in float64
    return TrainingMemory(
        weights=FLOAT * weights,
        gradients=FLOAT * (weights if sharing == 1 else weights + -(-weights // sharing) + max(encoder, decoder)),
        moments=2 * FLOAT * weights,
        gram=FLOAT * features**2 if sae.refine_weight and features <= LARGEST_GRAM else 0,
        minibatch=FLOAT * VECTORS * batch_size * d_in,
        codes=round(FLOAT * batch_size * _codes(sae)),
        covariance=0 if refines or not sae.covariance_weight else _covariance(sae, batch_size, live),
        start=round(FLOAT * start),
        revision=FLOAT * REVISED * seen * d_bits if revises else 0,
        finish=round(FLOAT * (weights + max(folding, passing))),
    )


def _codes(sae: TrainingBAEConfig) -> float:
    """Numbers of a vector's code at a step's peak."""
    if sae.objective == "rate_distortion":
        return sae.d_sae * (REFINED_CODES + REFINED_LEVELS * sae.bits_per_feature)
    return sae.d_sae * (CODES if sae.bits_per_feature == 1 else CODES_OF_SEVERAL * sae.bits_per_feature)


def _covariance(sae: TrainingBAEConfig, batch_size: int, live: float) -> int:
    covarying = sae.d_sae if sae.code == "nested" else sae.d_sae * sae.bits_per_feature
    return round(FLOAT * (COVARIANCE * batch_size * live * covarying + BLOCKS * BLOCK_ENTRIES))


def training_bytes(sae: TrainingBAEConfig, batch_size: int, *, revises: bool = False, sharing: int = 1) -> int:
    """Bytes that training takes at its peak, vectors apart."""
    return training_memory(sae, batch_size, revises=revises, sharing=sharing).peak


def check_memory(sae: TrainingBAEConfig, batch_size: int, device: str, *, revises: bool = False, sharing: int = 1) -> None:
    """Raises MemoryError, with the estimate, where a device's free memory does not hold the training."""
    sharing = 1 if torch.device(device).type == "cuda" else sharing
    needed, free = training_bytes(sae, batch_size, revises=revises, sharing=sharing), free_bytes(device)
    if needed > free:
        raise MemoryError(
            f"training d_sae = {sae.d_sae} at d_in = {sae.d_in} with batches of {batch_size} takes about {gib(needed)}, "
            f"{gib(free)} are free on {device}: {LOWER}"
        )


def free_bytes(device: str) -> int:
    """What is free on a device."""
    is_cuda = torch.device(device).type == "cuda"
    return torch.cuda.mem_get_info(device)[0] if is_cuda else psutil.virtual_memory().available


def is_memory(error: BaseException) -> bool:
    """Whether this says that memory has run out, on a GPU or a CPU."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


@contextmanager
def memory_errors(sae: TrainingBAEConfig, batch_size: int, device: str, runs: int = 1) -> Iterator[None]:
    """A block in which memory that runs out is a MemoryError that says what was estimated, and which setting to lower."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if (isinstance(error, MemoryError) and error.args) or not is_memory(error):  # that one says all there is to say
            raise
        estimate = runs * training_bytes(sae, batch_size)
        together = f" for each of {runs} BAEs that are trained together" if runs > 1 else ""
        raise MemoryError(
            f"{device} ran out of memory: d_sae = {sae.d_sae} at d_in = {sae.d_in} with batches of {batch_size}{together} "
            f"takes about {gib(estimate)}, vectors apart, and {gib(free_bytes(device))} are free now: {LOWER}"
            f"{', or train fewer together' if runs > 1 else ''}. With resume=True the same goes on from the last checkpoint"
        ) from error


def gib(size: float) -> str:
    """Bytes as a person reads them."""
    return f"{size / 2**30:.3g} GiB"
