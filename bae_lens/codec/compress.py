"""Activations to a .baez file and back, in bounded memory (A.5 of the paper, at the limit of entropy)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from bae_lens.activations.dataset import LOST, ActivationDataset
from bae_lens.activations.saving import save_activations
from bae_lens.codec.container import new_container
from bae_lens.codec.dictionary import dictionary_of, ones_of
from bae_lens.codec.errors import Errors
from bae_lens.codec.fit import Coded, Target, add_stages, bits_of, indices_of, sample_of, tree_of
from bae_lens.codec.header import to_header
from bae_lens.codec.reader import BaezFile
from bae_lens.codec.settings import CodecSettings
from bae_lens.codec.sources import Source
from bae_lens.codec.stages import EncodedBlock, Stages, encode_vectors
from bae_lens.codec.workers import map_blocks, one_thread
from bae_lens.files import at_home, check_output_file
from bae_lens.model.bae import BAE

MOST_PROCESSES = 1024
SHARD_BYTES = 2**28
"""Of a shard that is decompressed, at most: it is put together in memory."""
MOST_SHARD_VECTORS = 262_144
TRIES = 6
"""Passes over the data for a target that was met on the sample and not on all vectors."""


class Summary(NamedTuple):
    """What was written, and how good it is."""

    vectors: int
    bytes: int
    """Of the whole file."""
    decoder_bytes: int
    """Of the BAE's decoder in it; 0 where it is named by its hash."""
    block_bytes: int
    """Of the blocks' content."""
    code_bytes: int
    """Of that: the code, without radius and residual."""
    fvu: float
    mse: float
    """Mean squared error a dimension."""
    cosine: float
    """Mean cosine similarity of vectors and reconstructions."""
    norm_bits: int
    residual_step: float | None

    @property
    def bytes_a_vector(self) -> float:
        """Of the file without the decoder."""
        return (self.bytes - self.decoder_bytes) / self.vectors

    @property
    def header_bytes(self) -> int:
        """All that is neither content of blocks nor the decoder: header, probabilities, checksums, index."""
        return self.bytes - self.decoder_bytes - self.block_bytes

    def numbers(self) -> dict[str, Any]:
        """As JSON values; what is no number is None."""
        found = {**self._asdict(), "bytes_a_vector": self.bytes_a_vector, "header_bytes": self.header_bytes}
        return {name: None if value != value else value for name, value in found.items()}

    def describe(self) -> str:
        """In words."""
        stages = [f"{self.norm_bits} bits of norm"] * bool(self.norm_bits) + ["a residual"] * (self.residual_step is not None)
        fvu = "no FVU, as the vectors are all equal" if self.fvu != self.fvu else f"FVU {self.fvu:.4f}"
        code = f"{8 * self.code_bytes / self.vectors:.2f} bits of code"
        return (
            f"{self.vectors:,} vectors in {self.bytes:,} bytes: {self.bytes_a_vector:.2f} a vector "
            f"({', '.join([code, *stages])}), and {self.decoder_bytes:,} bytes for the decoder; "
            f"{fvu}, MSE {self.mse:.4g}, cosine {self.cosine:.4f}"
        )


class _Missed(Exception):
    """The target was not met on all vectors; what was written is not kept."""


def compress(
    bae: BAE,
    activations: Float[Tensor, "vectors d_in"] | ActivationDataset | str | Path,
    out: str | Path,
    settings: CodecSettings | None = None,
    *,
    fit_on: Float[Tensor, "other d_in"] | ActivationDataset | None = None,
    processes: int = 1,
    progress: bool = True,
) -> Summary:
    """Writes activations as a .baez file, whole or not at all.

    Args:
        activations: Vectors, activations on disk, or their directory (of several hook points, the BAE's is taken).
        out: The file; one that is there is replaced.
        fit_on: Other vectors to count probabilities on, instead of a sample of these.
        processes: The bytes are the same whatever their number. (A script that asks for several keeps what it runs under
            ``if __name__ == "__main__"``, as always with Python's processes.)

    Raises:
        TypeError, ValueError: If an argument is of another kind, there are no vectors, they are not finite, of another width
            or hook point, the directory changes while it is read, the BAE normalises its input, or the target cannot be
            reached (the best is said).
        FileExistsError, PermissionError: If the file cannot be written.
    """
    settings = CodecSettings() if settings is None else settings
    if not isinstance(settings, CodecSettings):
        raise TypeError(f"settings are CodecSettings, got {settings!r}")
    if type(processes) is not int or processes > MOST_PROCESSES:
        raise ValueError(f"processes must be a whole number, {MOST_PROCESSES} at most, got {processes!r}")
    check_output_file(out)
    dictionary = dictionary_of(bae)
    activations = _opened(activations, bae)
    source = Source(activations, bae.cfg.d_in)
    shown = tqdm(disable=not progress, desc="compress", unit=" vectors", unit_scale=True, total=len(source))
    with one_thread():
        counted = source if fit_on is None else Source(fit_on, bae.cfg.d_in)
        most = min(settings.fit_vectors, len(counted))
        sample = sample_of(bae, counted.sample(most), most)
        code = _code_stage(bae, source, sample, settings, processes)
    target = asked = Target(settings.target_fvu, settings.target_cosine)
    with shown:
        for _ in range(TRIES):
            stages = add_stages(Stages(dictionary, code), sample, settings, target, len(source))
            shown.reset()
            try:
                return _write(out, bae, stages, source, settings, asked, processes, shown)
            except _Missed as missed:
                target = _tightened(target, asked, missed.args[0])
    raise ValueError(f"{asked.describe()} was not met on all vectors in {TRIES} passes: count on more vectors (fit_vectors)")


def decompress(path: str | Path, out: str | Path, bae: BAE | None = None, *, progress: bool = True) -> ActivationDataset:
    """Writes the vectors of a .baez file as activations on disk, in the dtype that they were compressed from.

    They do not say of which token and document they are (`not_kept` in their metadata): `split` divides them by vector, and
    warns.

    Args:
        bae: Where the file does not carry it.

    Raises:
        FileNotFoundError, ValueError: As `BaezFile`; of a damaged file nothing is written.
        FileExistsError, PermissionError: If `out` holds something, or cannot be written.
    """
    with BaezFile(path, bae) as file:
        dtype = getattr(torch, file.header["dtype"])
        metadata = {
            **file.metadata,
            LOST: Path(path).name,
            "not_kept": ["tokens", "documents", "positions"],
            "decoder_sha256": file.header["bae"]["sha256"],
        }

        def chunks() -> Iterator[Tensor]:
            with tqdm(disable=not progress, desc="decompress", unit=" vectors", unit_scale=True, total=len(file)) as shown:
                for chunk in file.chunks():
                    yield chunk.to(dtype)
                    shown.update(len(chunk))

        shard = max(1, min(MOST_SHARD_VECTORS, SHARD_BYTES // (file.d_in * dtype.itemsize)))
        return save_activations(out, chunks(), metadata=metadata, shard_vectors=shard)


def _opened(activations: Tensor | ActivationDataset | str | Path, bae: BAE) -> Tensor | ActivationDataset:
    if isinstance(activations, Tensor):
        return activations
    hook = bae.cfg.metadata.hook_name
    if isinstance(activations, str | Path):
        return ActivationDataset(activations, hook)
    if hook and activations.hook_name and hook != activations.hook_name:
        raise ValueError(f"{activations.path} holds activations at {activations.hook_name}, and the BAE is of {hook}")
    return activations


def _code_stage(bae: BAE, source: Source, sample: list[Coded], settings: CodecSettings, processes: int) -> Any:
    if settings.mode == "code":
        return bits_of(tree_of(bae, sample, settings.probabilities), dictionary_of(bae), len(source))
    ones = sum(map_blocks(_count, None, bae, source.blocks(settings.block_vectors), processes), np.zeros(bae.d_bits))
    return indices_of(bae, ones / len(source), settings)


def _count(_: None, bae: BAE, x: Tensor) -> np.ndarray:
    return np.bincount(ones_of(bae, x).bit, minlength=bae.d_bits)


def _encode(stages: Stages, bae: BAE, x: Tensor) -> EncodedBlock:
    return encode_vectors(stages, bae, x)


def _write(
    out: str | Path,
    bae: BAE,
    stages: Stages,
    source: Source,
    settings: CodecSettings,
    target: Target,
    processes: int,
    shown: "tqdm[Any]",
) -> Summary:
    hook = bae.cfg.metadata.hook_name
    header, sections = to_header(
        stages,
        block_vectors=settings.block_vectors,
        dtype=source.dtype,
        bae_inside=settings.bae_inside,
        metadata={**({"hook_name": hook} if hook else {}), **source.metadata},
    )
    errors: Errors | None = None
    block_bytes = code_bytes = 0
    with new_container(out, header, sections) as writer:
        blocks = source.blocks(settings.block_vectors)
        for block in map_blocks(_encode, stages, bae, blocks, processes):
            writer.add(block.payload, block.rows)
            errors = block.errors if errors is None else errors.plus(block.errors)
            block_bytes, code_bytes = block_bytes + len(block.payload), code_bytes + block.code_bytes
            shown.update(block.rows)
        assert errors is not None
        if target.is_set and not target.is_met(errors):
            raise _Missed(errors)
    return Summary(
        vectors=errors.vectors,
        bytes=at_home(out).stat().st_size,
        decoder_bytes=len(sections.get("decoder", b"")),
        block_bytes=block_bytes,
        code_bytes=code_bytes,
        fvu=_fvu(errors),
        mse=errors.mse,
        cosine=errors.cosine,
        norm_bits=stages.radius.bits if stages.radius else 0,
        residual_step=stages.residual.steps.step if stages.residual else None,
    )


def _fvu(errors: Errors) -> float:
    """Not a number where the vectors have no variance: they can be compressed all the same."""
    try:
        return errors.fvu
    except ValueError:
        return float("nan")


def _tightened(target: Target, asked: Target, errors: Errors) -> Target:
    """What to ask of the sample so that all vectors come to what was asked."""
    if asked.fvu is not None and target.fvu is not None:
        return Target(target.fvu * asked.fvu / errors.fvu * 0.998, None)
    assert asked.cosine is not None
    assert target.cosine is not None
    return Target(None, 1 - (1 - target.cosine) * (1 - asked.cosine) / (1 - errors.cosine) * 0.998)
