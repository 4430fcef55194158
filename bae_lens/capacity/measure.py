"""The rates of the machine that this runs on, measured: products, copies, and one step beside what the roofline says of it."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import psutil
import torch
from sae_lens.saes.sae import TrainStepInput
from torch import Tensor

from bae_lens.capacity.devices import Device
from bae_lens.capacity.roofline import CodeShape, part_seconds, step_parts
from bae_lens.objective.covariance import fastest_product
from bae_lens.objective.training_bae import TrainingBAE
from bae_lens.training.recipes import recommended

ROUNDS = 5
SIZES = {"cpu": 1024, "cuda": 8192}
"""Of the square matrices that are multiplied."""
COPIED = {"cpu": 2**26, "cuda": 2**30}
"""Bytes that are copied: more than a cache holds."""
STEP = (512, 2048, 512)
"""d_in, d_sae and batch of the step that is measured."""


class Measured(NamedTuple):
    """What was found."""

    device: Device
    step: float
    """Seconds of a real step of the size `STEP`."""
    predicted: float
    """What the roofline says of it, by the measured rates and its code's own shape."""


def measure(device: str = "cpu") -> Measured:
    """Measures a device of this machine, the fastest of some rounds each; seconds on a CPU, with PyTorch's own threads.

    Raises:
        ValueError: If there is no such device.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"this machine has no device {device!r}: {error}") from error
    kind = torch.device(device).type
    n = SIZES.get(kind, SIZES["cpu"])
    a = torch.randn(n, n, device=device)
    fp32 = 2 * n**3 / _seconds(lambda: a @ a, device)
    bandwidth = _bandwidth(kind, device)
    found = Device(
        title=f"{torch.cuda.get_device_name(device) if kind == 'cuda' else f'this CPU, {torch.get_num_threads()} threads'}",
        fp32=fp32,
        tf32=_tf32(a, device) if kind == "cuda" else fp32,
        int8=_int8(n, device, fp32),
        bandwidth=bandwidth,
        memory=_memory(kind, device),
        link=bandwidth,
        source="measured by `bae-lens plan --measure`",
        is_cpu=True,  # these are rates that were reached
    )
    step, code = _step(device)
    sae = recommended(*_width()).sae
    parts = step_parts(sae, STEP[2], code, sparse=kind == "cpu")
    return Measured(found, step, sum(part_seconds(part, found) for part in parts))


def _width() -> tuple[int, float]:
    return STEP[0], STEP[1] / STEP[0]


def _bandwidth(kind: str, device: str) -> float:
    count = COPIED.get(kind, COPIED["cpu"]) // 4
    source, target = torch.ones(count, device=device), torch.empty(count, device=device)
    return 8 * count / _seconds(lambda: target.copy_(source), device)


def _int8(n: int, device: str, fp32: float) -> float:
    product = fastest_product(torch.device(device).type)
    if product.operand != torch.int8:
        return fp32
    bits = torch.ones(n, n, dtype=torch.int8, device=device)
    return 2 * n**3 / _seconds(lambda: product.multiply(bits, bits.T), device)


def _tf32(a: Tensor, device: str) -> float:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        return 2 * len(a) ** 3 / _seconds(lambda: a @ a, device)
    finally:
        torch.set_float32_matmul_precision(before)


def _memory(kind: str, device: str) -> float:
    return torch.cuda.mem_get_info(device)[1] if kind == "cuda" else psutil.virtual_memory().total


def _step(device: str) -> tuple[float, CodeShape]:
    """Seconds of a real step, and the shape of its code."""
    x = torch.randn(4 * STEP[2], STEP[0], generator=torch.Generator().manual_seed(0)).to(device)
    sae = TrainingBAE(recommended(*_width(), device=device).sae)
    sae.to(device)
    sae.start_from(x)
    trainable = [weight for weight in sae.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(trainable, lr=1e-7, fused=True)
    batch = x[: STEP[2]]

    def step() -> None:
        output = sae.training_forward_pass(TrainStepInput(batch, {"entropy": 0.1, "covariance": 2e-3}, None, 1000, False))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()

    seconds = _seconds(step, device)
    with torch.no_grad():
        bits, pre = sae.encode_bits(batch)
        mean = bits.mean(0)
    live, near = ((mean > 0) & (mean < 1)).float().mean().item(), (pre.abs() <= sae.cfg.surrogate_width).float().mean().item()
    return seconds, CodeShape(live, mean.mean().item(), near)


def _seconds(run: Callable[[], Any], device: str) -> float:
    """The shortest of some rounds, after one that does not count."""
    times = []
    for _ in range(ROUNDS + 1):
        _synchronize(device)
        begin = time.perf_counter()
        run()
        _synchronize(device)
        times.append(time.perf_counter() - begin)
    return min(times[1:])


def _synchronize(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
