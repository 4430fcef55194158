"""safetensors files written tensor by tensor, so that no more than one has to be in memory at a time."""

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
}
"""Names of the format, https://github.com/huggingface/safetensors#format."""


def write_tensors(
    path: Path, kinds: Mapping[str, tuple[tuple[int, ...], torch.dtype]], tensors: Iterable[tuple[str, Tensor]]
) -> None:
    """Writes a file that `safetensors.torch.load_file` reads.

    Args:
        kinds: Shape and dtype of each tensor, in the order in which they come.

    Raises:
        ValueError: If a tensor is not as was said.
    """
    header, end = {}, 0
    for name, (shape, dtype) in kinds.items():
        begin, end = end, end + torch.Size(shape).numel() * dtype.itemsize
        header[name] = {"dtype": DTYPES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    expected = iter(kinds.items())
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, tensor in tensors:
            if next(expected, None) != (name, (tuple(tensor.shape), tensor.dtype)):
                raise ValueError(f"{name} of {tuple(tensor.shape)} in {tensor.dtype} is not what was to come next")
            file.write(memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()))
        if next(expected, None) is not None:
            raise ValueError("fewer tensors came than were to come")
