"""Numbers and texts of a page in one block: a JSON header and typed arrays, gzipped, in base64.

Base64 has no character that HTML gives a meaning to, so no text of a corpus can end the element that it stands in.
"""

import base64
import gzip
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

ALIGNED = 8
"""Arrays begin at multiples of so many bytes, as typed arrays of a browser must."""
KINDS = {"u1": "Uint8Array", "u2": "Uint16Array", "u4": "Uint32Array", "i4": "Int32Array", "f4": "Float32Array"}


def pack(values: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """A block that `unpack` of the page's script reads.

    Layout: length of the header (4 bytes, little-endian), the header in UTF-8 with spaces behind it, then the arrays.

    Args:
        values: JSON values.
        arrays: Of the types in `KINDS`; stored little-endian, row by row.

    Raises:
        TypeError: If an array is of another type.
        ValueError: If a value is no strict JSON (NaN).
    """
    places, parts, at = {}, [], 0
    for name, array in arrays.items():
        code = array.dtype.str[1:]
        if code not in KINDS:
            raise TypeError(f"the array {name!r} is {array.dtype}: a page holds {', '.join(KINDS)}")
        content = np.ascontiguousarray(array, np.dtype(f"<{code}")).tobytes()
        places[name] = {"kind": KINDS[code], "at": at, "length": array.size, "shape": list(array.shape)}
        content += bytes(-len(content) % ALIGNED)
        parts.append(content)
        at += len(content)
    header = json.dumps({"values": dict(values), "arrays": places}, allow_nan=False, separators=(",", ":")).encode()
    header += b" " * (-(4 + len(header)) % ALIGNED)
    block = len(header).to_bytes(4, "little") + header + b"".join(parts)
    return base64.b64encode(gzip.compress(block, compresslevel=6, mtime=0)).decode("ascii")


def smallest(array: np.ndarray) -> np.ndarray:
    """Whole numbers from 0 up in the narrowest type that holds them."""
    most = int(array.max(initial=0))
    return array.astype(np.uint8 if most < 2**8 else np.uint16 if most < 2**16 else np.uint32)
