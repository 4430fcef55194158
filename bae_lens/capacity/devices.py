"""What devices can do: peak rates from their makers' datasheets, and which share of them training reaches."""

from typing import NamedTuple

from bae_lens.checks import check_known

TERA, GIGA = 1e12, 1e9


class Device(NamedTuple):
    """A device's peak rates, dense (without structured sparsity)."""

    title: str
    fp32: float
    """FLOP/s of fp32 products, outside of tensor cores: what PyTorch takes unless told otherwise."""
    tf32: float
    """FLOP/s of fp32 products in TF32; `fp32` where there is none."""
    int8: float
    """Operations a second of int8 products."""
    bandwidth: float
    """Bytes a second of its memory."""
    memory: float
    """Bytes."""
    link: float
    """Bytes a second from one device to another of the same machine, in one direction."""
    source: str
    is_cpu: bool = False


DEVICES = {
    "h100": Device(
        "NVIDIA H100 SXM", 67 * TERA, 494 * TERA, 1979 * TERA, 3.35 * TERA, 80 * GIGA, 450 * GIGA, "NVIDIA H100 datasheet"
    ),
    "h200": Device(
        "NVIDIA H200 SXM", 67 * TERA, 494 * TERA, 1979 * TERA, 4.8 * TERA, 141 * GIGA, 450 * GIGA, "NVIDIA H200 datasheet"
    ),
    "a100": Device(
        "NVIDIA A100 SXM 80 GB",
        19.5 * TERA,
        156 * TERA,
        624 * TERA,
        2.039 * TERA,
        80 * GIGA,
        300 * GIGA,
        "NVIDIA A100 datasheet",
    ),
    "l4": Device("NVIDIA L4", 30.3 * TERA, 60 * TERA, 242 * TERA, 0.3 * TERA, 24 * GIGA, 32 * GIGA, "NVIDIA L4 datasheet"),
    "rtx4090": Device(
        "NVIDIA GeForce RTX 4090",
        82.6 * TERA,
        82.6 * TERA,
        660.6 * TERA,
        1.008 * TERA,
        24 * GIGA,
        32 * GIGA,
        "NVIDIA Ada GPU architecture whitepaper",
    ),
    "m1-max": Device(
        "Apple M1 Max, 32-core GPU",
        10.4 * TERA,
        10.4 * TERA,
        10.4 * TERA,
        0.4 * TERA,
        64 * GIGA,
        0.4 * TERA,
        "Apple's announcement of M1 Max (which names no int8 rate)",
    ),
    "cpu": Device(
        "one core with AVX-512 VNNI",
        0.115 * TERA,
        0.115 * TERA,
        0.46 * TERA,
        10 * GIGA,
        16 * GIGA,
        10 * GIGA,
        "estimated from training steps on a server of two cores; --measure gives the rates of yours",
        is_cpu=True,
    ),
}


class Achieved(NamedTuple):
    """Which share of a device's peak rates training reaches."""

    fp32: float
    tf32: float
    int8: float
    bandwidth: float


def device_of(name: str) -> Device:
    """A device by name.

    Raises:
        ValueError: If it is unknown (near names are said).
    """
    check_known("device", name, DEVICES)
    return DEVICES[name]
