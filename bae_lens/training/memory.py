"""How much memory training takes, estimated before any of it is allocated."""

from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

from bae_lens.chunks import ENTRIES
from bae_lens.model.config import encoder_width
from bae_lens.model.refine import LARGEST_GRAM
from bae_lens.objective.config import TrainingBAEConfig

COPIES = 4
"""Of each weight: itself, its gradient, Adam's two moments."""
CODES = 12
"""Of a minibatch's codes at a step's peak: pre-activations, bits, features, their gradients, the covariance's parts."""
LOWER = "lower the expansion, bits_per_feature or batch_size"
PASS = 20
"""Of what is made at a time where all vectors are encoded, or the start's thresholds are found."""


def training_bytes(sae: TrainingBAEConfig, batch_size: int) -> int:
    """Bytes that training takes at its peak, in fp32, data apart: weights, gradients, Adam's moments, a minibatch's codes."""
    width, d_bits = encoder_width(sae), sae.d_sae * sae.bits_per_feature
    weights = sae.d_in * (width + sae.d_sae) + 3 * d_bits + sae.d_in
    step = CODES * batch_size * width + 8 * batch_size * sae.d_in
    gram = sae.d_sae**2 if sae.refine_weight and sae.d_sae <= LARGEST_GRAM else 0
    return 4 * (COPIES * weights + gram + max(step, PASS * max(ENTRIES, width)))


def check_memory(sae: TrainingBAEConfig, batch_size: int, device: str) -> None:
    """Raises MemoryError, with the estimate, where a device's free memory does not hold the training."""
    needed, free = training_bytes(sae, batch_size), free_bytes(device)
    if needed > free:
        raise MemoryError(
            f"training d_sae = {sae.d_sae} at d_in = {sae.d_in} with batches of {batch_size} takes about {_gib(needed)}, "
            f"{_gib(free)} are free on {device}: {LOWER}"
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
            f"takes about {_gib(estimate)}, vectors apart, and {_gib(free_bytes(device))} are free now: {LOWER}"
            f"{', or train fewer together' if runs > 1 else ''}. With resume=True the same goes on from the last checkpoint"
        ) from error


def _gib(size: float) -> str:
    return f"{size / 2**30:.3g} GiB"
