"""A plan: memory, step time, hours, cost and disk of training BAEs, and which parallelism makes fit what does not."""

import dataclasses
import math
from typing import Any, NamedTuple

from bae_lens.activations.dataset import MEMORY
from bae_lens.activations.shard_writer import PLACE_BYTES
from bae_lens.capacity.devices import Device, device_of
from bae_lens.capacity.roofline import CPU, GPU, LAUNCHES, CodeShape, part_seconds, step_parts
from bae_lens.objective.config import TrainingBAEConfig
from bae_lens.training.memory import FLOAT, TrainingMemory, training_memory
from bae_lens.training.recipes import recommended
from bae_lens.training.together import MOST_TOGETHER, SHARE_OF_MEMORY

FREE = 0.95
"""Share of a device's memory that is left beside the libraries' own."""
LARGEST_SPLIT = 64
"""Processes over which the features of one BAE are split at most."""
BESIDE = ("reading", "launches")
"""Parts of a step that go on while the device computes."""
STORED = {"bf16": 2, "fp16": 2, "fp32": 4}
"""Bytes of a number on disk, by `bae-lens harvest --dtype`."""
CHECKPOINTS = 2
"""That a run keeps; each holds the weights and Adam's two moments."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be trained, and on what."""

    d_in: int
    tokens: float
    """Vectors of each BAE."""
    expansion: float = 4
    bits_per_feature: int = 1
    epochs: float = 200
    batch_size: int = 512
    layers: int = 1
    positions: int = 1
    """Places of a sequence that each have a BAE of their own."""
    device: str = "h100"
    gpus: int = 1
    """Devices; of a CPU, processes."""
    price: float | None = None
    """Of an hour of one device."""
    tf32: bool = False
    """Whether products may be taken in TF32 (`torch.set_float32_matmul_precision("high")`)."""
    dtype: str = "fp32"
    """Of the activations on disk."""
    disk_rate: float = 3e9
    """Bytes a second that the disk gives one process."""

    def __post_init__(self) -> None:
        for name in ("d_in", "bits_per_feature", "batch_size", "layers", "positions", "gpus"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        for name in ("tokens", "expansion", "epochs", "disk_rate"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a positive number, got {value!r}")
        if self.price is not None and not (math.isfinite(self.price) and self.price >= 0):
            raise ValueError(f"price must be a number of at least 0, got {self.price!r}")
        if self.dtype not in STORED:
            raise ValueError(f"unknown dtype {self.dtype!r}; known are {', '.join(STORED)}")
        if self.tokens < self.batch_size:
            raise ValueError(f"{self.tokens:g} vectors are fewer than one batch of {self.batch_size}")


class Plan(NamedTuple):
    """What it takes."""

    wanted: Wanted
    device: Device
    sae: TrainingBAEConfig
    baes: int
    whole: TrainingMemory
    """Of one BAE on one device."""
    split: int
    """Devices over which the features of one BAE are split (feature parallel); 1 where one device holds it, 0 where none do."""
    shards: int
    """Devices over which the minibatches of one BAE are split (data parallel)."""
    at_once: int
    """BAEs that train at the same time, a group of devices each."""
    batched: int
    """BAEs that a grid trains together on one device, which share the launches of kernels; `at_once` counts them as one."""
    memory: TrainingMemory
    """On each device."""
    step: dict[str, float]
    """Seconds of a step by part; beside the arithmetic's parts "exchange", and what goes on at the same time (`BESIDE`)."""
    steps: int
    """Of each BAE."""
    disk_activations: float
    """Bytes."""
    disk_runs: float
    host: float
    """Bytes of vectors that each process holds in its machine's memory."""

    @property
    def step_seconds(self) -> float:
        """Reading, and launching kernels, go on beside the arithmetic."""
        return max(*(self.step[name] for name in BESIDE), sum(t for name, t in self.step.items() if name not in BESIDE))

    @property
    def hours(self) -> float:
        """Until all BAEs are trained."""
        return self.step_seconds * self.steps * math.ceil(self.baes / self.at_once) / 3600

    @property
    def hours_of_one(self) -> float:
        """Device hours of one BAE."""
        return self.step_seconds * self.steps * max(self.split, 1) * self.shards / 3600

    @property
    def devices(self) -> int:
        """Those that were given, or as many as one BAE needs where these are fewer."""
        return max(self.wanted.gpus, self.split)

    @property
    def cost(self) -> float | None:
        """In the price's currency."""
        return None if self.wanted.price is None else self.hours * self.devices * self.wanted.price

    def to_dict(self) -> dict[str, Any]:
        """Every number as JSON values."""
        fields = {
            name: getattr(self, name)
            for name in ("baes", "split", "shards", "at_once", "batched", "step", "steps", "step_seconds")
        }
        disk = {"disk_activations": self.disk_activations, "disk_runs": self.disk_runs, "host": self.host}
        return {
            "wanted": dataclasses.asdict(self.wanted),
            "device": self.device._asdict(),
            **fields,
            "memory": self.memory._asdict() | {"peak": self.memory.peak},
            "memory_whole": self.whole._asdict() | {"peak": self.whole.peak},
            "hours": self.hours,
            "cost": self.cost,
            **disk,
        }


def make_plan(wanted: Wanted, device: Device | None = None) -> Plan:
    """The plan for what is wanted; each BAE by the recipe `recommended`.

    Args:
        device: Instead of the table's, such as a measured one.

    Raises:
        ValueError: If the device is unknown, or the width is none.
    """
    device = device or device_of(wanted.device)
    sae = recommended(wanted.d_in, wanted.expansion, bits_per_feature=wanted.bits_per_feature, steps=1).sae
    baes = wanted.layers * wanted.positions
    whole = _memory(sae, wanted.batch_size, wanted)
    split = least_split(sae, wanted, device)
    groups = max(wanted.gpus // (split or 1), 1)  # devices that hold one BAE together are a group
    shards = 1 if baes > 1 or groups < 2 else max(n for n in range(1, groups + 1) if wanted.batch_size % n == 0)
    part, batch = _split(sae, split or 1), wanted.batch_size // shards
    at_once = min(baes, groups)
    room = int(SHARE_OF_MEMORY * FREE * device.memory // whole.peak) if split == 1 and not device.is_cpu else 1
    batched = max(1, min(room, MOST_TOGETHER, -(-baes // at_once)))
    return Plan(
        wanted=wanted,
        device=device,
        sae=sae,
        baes=baes,
        whole=whole,
        split=split,
        shards=shards,
        at_once=at_once,
        batched=batched,
        memory=_memory(part, batch, wanted),
        step=_step(sae, wanted, device, split or 1, shards, batched),
        steps=max(1, round(wanted.epochs * wanted.tokens / wanted.batch_size)),
        disk_activations=baes * wanted.tokens * (wanted.d_in * STORED[wanted.dtype])
        + wanted.positions * wanted.tokens * PLACE_BYTES,
        disk_runs=baes * whole.weights * (1 + 3 * CHECKPOINTS),
        host=min(MEMORY, wanted.tokens * wanted.d_in * STORED[wanted.dtype]),
    )


def least_split(sae: TrainingBAEConfig, wanted: Wanted, device: Device) -> int:
    """The smallest power of two of devices that hold one BAE by its features; 0 where even the largest does not."""
    split = 1
    while split <= LARGEST_SPLIT:
        if _memory(_split(sae, split), wanted.batch_size, wanted).peak <= FREE * device.memory:
            return split
        split *= 2
    return 0


def _split(sae: TrainingBAEConfig, processes: int) -> TrainingBAEConfig:
    """What one process has of the features."""
    return dataclasses.replace(sae, d_sae=-(-sae.d_sae // processes))


def _memory(sae: TrainingBAEConfig, batch_size: int, wanted: Wanted) -> TrainingMemory:
    return training_memory(sae, batch_size, samples=int(min(wanted.tokens, 2**31)))


def _step(sae: TrainingBAEConfig, wanted: Wanted, device: Device, split: int, shards: int, batched: int) -> dict[str, float]:
    """Seconds of a step by part, on one of the devices that share a BAE."""
    batch = wanted.batch_size // shards
    parts = step_parts(sae, batch, CodeShape(), sparse=device.is_cpu)
    seconds = {part.name: part_seconds(part, device, tf32=wanted.tf32) / split for part in parts}
    link = device.link * (CPU if device.is_cpu else GPU).bandwidth
    seconds["exchange"] = _exchanged(sae, batch, split, shards) / link
    seconds["reading"] = batch * wanted.d_in * STORED[wanted.dtype] / wanted.disk_rate
    seconds["launches"] = 0.0 if device.is_cpu else LAUNCHES / batched
    return seconds


def _exchanged(sae: TrainingBAEConfig, batch: int, split: int, shards: int) -> float:
    """Bytes that one process sends in a step: reductions send twice what they reduce, less a share."""
    found = 0.0
    if shards > 1:
        gradients, counts = 2 * sae.d_in * sae.d_sae / split, sae.d_sae**2 / split if sae.covariance_weight else 0
        found += 2 * (shards - 1) / shards * FLOAT * (gradients + counts)
    if split > 1:
        codes = batch * sae.d_sae * sae.bits_per_feature if sae.covariance_weight else 0  # a byte each, round the ring
        found += 2 * (split - 1) / split * FLOAT * batch * sae.d_in + (split - 1) / split * codes
    return found
