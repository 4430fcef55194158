"""What a training step costs, by a roofline: each part takes the longer of its arithmetic and its memory traffic."""

from typing import NamedTuple

from bae_lens.capacity.devices import Achieved, Device
from bae_lens.model.config import encoder_width
from bae_lens.objective.config import TrainingBAEConfig
from bae_lens.training.memory import FLOAT

CPU = Achieved(1.0, 1.0, 1.0, 1.0)
"""A CPU's rates are measured ones already (`bae-lens plan --measure`)."""
GPU = Achieved(fp32=0.8, tf32=0.386, int8=0.149, bandwidth=0.9)
"""Of the datasheet's. TF32 and int8: from one step of a BAE on an H200 (d = 2048, d' = 8192, 4,096 vectors; 2026-11-26,
`python benchmarks/step.py --device cuda`), 6.7 ms of which the covariance took 2.47: with all that a step does besides
products, and with the launches of kernels. fp32 and bandwidth: from a product of 8192 x 8192 matrices in bf16 (798 of 989
TFLOP/s) and a copy (3.0 of 3.35 TB/s) on an H100 SXM. Other devices were not measured: they are taken to reach the same."""
LAUNCHES = 3.2e-3
"""Seconds in which the processor launches a step's kernels on a GPU, however little they do: 32 BAEs of d = 128 and d' = 512
took 51.6 s for 500 steps each on an H200, one after another (2026-11-26, `python benchmarks/scale.py --only grid --device cuda
--rounds 1`). BAEs that are trained together share them."""
ELEMENTWISE = 12
"""How often a step reads or writes a code that is as wide as the bits, one number each: counted in `TrainingBAE`."""
ADAM = 7
"""Numbers that fused Adam reads (weight, gradient, two moments) and writes (three of them) for each weight."""


class CodeShape(NamedTuple):
    """What a minibatch's code looks like; by default as in the second half of a `recommended` run on the story Llama
    (`benchmarks/step.py --model`)."""

    live: float = 0.944
    """Share of bits that change within a minibatch."""
    density: float = 0.0445
    """Share of bits that are on."""
    near: float = 0.077
    """Share of pre-activations that a gradient reaches."""


class Part(NamedTuple):
    """A part of a step."""

    name: str
    operations: float
    """Floating-point, or of int8 products."""
    bytes: float
    """Read from and written to the device's memory."""
    is_int8: bool = False


def step_parts(sae: TrainingBAEConfig, batch_size: int, code: CodeShape, *, sparse: bool) -> list[Part]:
    """The parts of one step, forward and backward.

    Args:
        sparse: Whether gradients are taken from the entries that matter, as on a CPU (objective/sparse_products.py).
    """
    d_in, features, width, d_bits = sae.d_in, sae.d_sae, encoder_width(sae), sae.d_sae * sae.bits_per_feature
    encoder, decoder = 2.0 * batch_size * d_in * width, 2.0 * batch_size * d_in * features
    near, density = (code.near, code.density) if sparse else (1.0, 1.0)
    weights = d_in * (width + features)
    covarying = code.live * (features if sae.code == "nested" else d_bits)
    codes = batch_size * (width + features)
    parts = [
        Part("encode", encoder * (1 + near), FLOAT * (2 * d_in * width + 2 * codes)),
        Part("decode", decoder * (2 * density + near), FLOAT * (3 * d_in * features + 3 * codes)),
        Part("codes", 0.0, FLOAT * ELEMENTWISE * batch_size * d_bits),
        Part("Adam", 0.0, FLOAT * ADAM * weights),
    ]
    if sae.covariance_weight:  # half of the counts by symmetry, and the signed sums
        parts.append(Part("covariance", 3.0 * batch_size * covarying**2, FLOAT * 3 * batch_size * covarying, is_int8=True))
    return parts


def part_seconds(part: Part, device: Device, *, tf32: bool = False) -> float:
    """How long a part takes."""
    achieved = CPU if device.is_cpu else GPU
    products = achieved.tf32 * device.tf32 if tf32 else achieved.fp32 * device.fp32
    if part.is_int8:
        products = achieved.int8 * device.int8
    return max(part.operations / products, part.bytes / (achieved.bandwidth * device.bandwidth))
