"""safetensors files written piece by piece, so that no tensor has to be in memory as a whole."""

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
    path: Path, kinds: Mapping[str, tuple[tuple[int, ...], torch.dtype]], pieces: Iterable[tuple[str, Tensor]]
) -> None:
    """Writes a file that `safetensors.torch.load_file` reads.

    Args:
        kinds: Shape and dtype of each tensor, in the order in which they come.
        pieces: The tensors, each in pieces that follow one another in memory.

    Raises:
        ValueError: If the pieces do not make up these tensors.
    """
    header, end = {}, 0
    for name, (shape, dtype) in kinds.items():
        begin, end = end, end + torch.Size(shape).numel() * dtype.itemsize
        header[name] = {"dtype": DTYPES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    at = 0
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, piece in pieces:
            begin, last = header[name]["data_offsets"]
            if piece.dtype != kinds[name][1] or not begin <= at <= at + piece.nbytes <= last:
                raise ValueError(f"a piece of {name}, {tuple(piece.shape)} in {piece.dtype}, is not what was to come next")
            file.write(piece.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
            at += piece.nbytes
    if at != end:
        raise ValueError(f"{end - at} bytes are missing of the tensors {', '.join(kinds)}")
