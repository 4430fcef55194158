"""What decoding needs of a BAE: what a level of each feature adds, and the bias; and codes of vectors, as places of ones."""

import hashlib
import json
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from bae_lens.codec.bit_blocks import Ones, ones_of_rows
from bae_lens.model.bae import BAE

NAMES = ("rows", "bias")


class Dictionary(NamedTuple):
    """The linear decoder of a BAE: x_hat = bias + levels @ rows."""

    rows: Float[Tensor, "d_sae d_in"]
    """What one level of each feature adds, fp32; a level is a sum of place values of bits that are on."""
    bias: Float[Tensor, " d_in"]
    bits_per_feature: int
    code: str
    """How the bits of a feature make its level: "powers" of two, or "nested"."""

    @property
    def d_in(self) -> int:
        """Width of the vectors."""
        return self.rows.shape[1]

    @property
    def d_bits(self) -> int:
        """Bits of a code."""
        return len(self.rows) * self.bits_per_feature

    @property
    def nested_bits(self) -> int:
        """Of how many bits of a feature each can be on only where the one before it is; 1 where none is nested."""
        return self.bits_per_feature if self.code == "nested" else 1

    @property
    def fingerprint(self) -> str:
        """Its SHA-256 in hexadecimal digits: of its shape, and of its numbers as fp32, the lowest byte first."""
        shape = [*self.rows.shape, self.bits_per_feature, self.code if self.bits_per_feature > 1 else "powers"]
        found = hashlib.sha256(json.dumps(shape).encode())
        for part in (self.rows, self.bias):
            found.update(part.numpy().astype("<f4").tobytes())
        return found.hexdigest()


def dictionary_of(bae: BAE) -> Dictionary:
    """The decoder of a BAE.

    Raises:
        TypeError: If it is no BAE.
        ValueError: If the BAE normalises each vector by itself: its code alone does not tell the vector.
    """
    if not isinstance(bae, BAE):
        raise TypeError(f"the codec takes a BAE, as bae_lens.load gives it, got {bae!r:.80}")
    if bae.cfg.normalize_activations != "none":
        raise ValueError(
            f"this BAE normalises its input (normalize_activations={bae.cfg.normalize_activations!r}): what it divides out is "
            "not in its code; fold it into the weights first"
        )
    rows = bae.level_rows().detach().cpu().contiguous()
    bias = bae.b_dec.detach().float().cpu().contiguous()
    return Dictionary(rows, bias, bae.cfg.bits_per_feature, bae.cfg.code)


def to_bytes(dictionary: Dictionary) -> bytes:
    """As safetensors."""
    return save({name: getattr(dictionary, name).contiguous() for name in NAMES})


def from_bytes(content: bytes, shape: tuple[int, int], bits_per_feature: int, code: str) -> Dictionary:
    """Reads what `to_bytes` gave.

    Raises:
        ValueError: If it is not the decoder of so many features and dimensions.
    """
    try:
        parts = load(content)
    except SafetensorError as error:
        raise ValueError(f"it cannot be read: {error}") from error
    shapes = {name: tuple(part.shape) for name, part in parts.items() if part.dtype == torch.float32}
    if shapes != {"rows": shape, "bias": shape[1:]}:
        raise ValueError(f"it holds {shapes}, where rows {shape} and a bias are expected")
    return Dictionary(parts["rows"], parts["bias"], bits_per_feature, code)


@torch.no_grad()
def ones_of(bae: BAE, x: Float[Tensor, "rows d_in"]) -> Ones:
    """Which bits of the codes of vectors are on."""
    x = x.to(bae.device, bae.dtype)
    if not bae.is_nested:
        row, bit = (bae.bits(x) > 0.5).cpu().nonzero().numpy().T
        return ones_of_rows(bit, row, bae.d_bits)
    levels = bae.encode_levels(x)[0].cpu().to(torch.int64)
    row, feature = levels.nonzero().numpy().T
    level = levels.numpy()[row, feature]
    within = np.arange(level.sum()) - np.repeat(level.cumsum() - level, level)
    bit = np.repeat(feature * bae.cfg.bits_per_feature, level) + within
    return ones_of_rows(bit, np.repeat(row, level), bae.d_bits)


@torch.no_grad()
def reconstruct(dictionary: Dictionary, ones: Ones, rows: int) -> Float[Tensor, "rows d_in"]:
    """Vectors of codes, in fp64: one row of the decoder after the other, so that every machine adds in the same order."""
    by_row = np.argsort(ones.row.astype(np.uint16) if rows <= 2**16 else ones.row, kind="stable")
    bit, row = ones.bit[by_row], ones.row[by_row]
    feature, place = np.divmod(bit, dictionary.bits_per_feature)
    value = np.ones(len(bit)) if dictionary.code == "nested" else 2.0**place
    first = np.append(0, np.bincount(row, minlength=rows).cumsum())[:-1]
    return dictionary.bias.double() + torch.nn.functional.embedding_bag(
        torch.from_numpy(feature),
        dictionary.rows.double(),
        torch.from_numpy(first),
        mode="sum",
        per_sample_weights=torch.from_numpy(value),
    )


def levels_of(dictionary: Dictionary, ones: Ones, rows: int) -> Int[Tensor, "rows d_sae"]:
    """Codes as levels of features, int16."""
    feature, place = np.divmod(ones.bit, dictionary.bits_per_feature)
    value = 1 if dictionary.code == "nested" else 1 << place
    levels = np.zeros((rows, len(dictionary.rows)), dtype=np.int16)
    np.add.at(levels, (ones.row, feature), value)
    return torch.from_numpy(levels)
