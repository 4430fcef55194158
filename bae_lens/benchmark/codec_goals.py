"""What the codec is held to: bits against cross-entropy, headers, indices, time, random access, damage. All measured here."""

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bae_lens.analyze.tree import tree_bits
from bae_lens.benchmark.mutations import mutated
from bae_lens.codec import BaezFile, CodecSettings, compress
from bae_lens.codec.bit_blocks import Ones, encode_block
from bae_lens.codec.dictionary import dictionary_of, ones_of
from bae_lens.codec.fit import Coded, bits_of, dense, sample_of, tree_of
from bae_lens.codec.range_coder import finished, new_encoder
from bae_lens.codec.sources import Source
from bae_lens.codec.workers import one_thread
from bae_lens.model.bae import BAE

BLOCK = 4096


class Figure(NamedTuple):
    """A figure beside what it must reach."""

    what: str
    value: float
    goal: str
    is_met: bool


def at_most(what: str, value: float, most: float) -> Figure:
    """A figure that must not be over a number."""
    return Figure(what, value, f"<= {most:g}", value <= most)


def at_least(what: str, value: float, least: float) -> Figure:
    """A figure that must not be under a number."""
    return Figure(what, value, f">= {least:g}", value >= least)


def sizes(bae: BAE, train: Float[Tensor, "a d_in"], held_out: Float[Tensor, "b d_in"], directory: Path) -> Iterator[Figure]:
    """Held-out vectors, their probabilities counted on others: bits against cross-entropy, headers, indices, the norm."""
    found = {
        name: compress(bae, held_out, directory / f"{name}.baez", CodecSettings(**settings), fit_on=train, progress=False)
        for name, settings in {
            "prior": {"probabilities": "prior"},
            "tree": {"probabilities": "tree"},
            "uint16": {"mode": "index", "packed": False},
            "packed": {"mode": "index"},
            "norm": {"norm_bits": 8},
        }.items()
    }
    with one_thread():
        sample = _sample(bae, train)
        for name in ("prior", "tree"):
            tree, ideal = tree_of(bae, sample, name), 0.0
            for x in held_out.split(BLOCK):
                ideal += tree_bits(tree, dense(ones_of(bae, x), len(x), bae.d_bits)).sum().item()
            yield Figure(f"cross-entropy of the {name}, bits a vector", ideal / len(held_out), "", True)
            yield at_most(f"blocks over the cross-entropy of the {name}", 8 * found[name].block_bytes / ideal, 1.01)
            file_bytes = found[name].bytes - found[name].decoder_bytes
            yield at_most(f"headers over the whole file, {name}", found[name].header_bytes / file_bytes, 0.01)
    for name, least in (("uint16", 2.5), ("packed", 1.4)):
        for probabilities in ("prior", "tree"):
            ratio = found[name].bytes_a_vector / found[probabilities].bytes_a_vector
            yield at_least(f"bytes of {name} indices over those of code mode, {probabilities}", ratio, least)
    yield Figure("FVU", found["tree"].fvu, "", True)
    lower = found["norm"].fvu < found["tree"].fvu
    yield Figure("FVU with 8 bits of norm", found["norm"].fvu, "< FVU", lower)


def times(
    bae: BAE, train: Float[Tensor, "a d_in"], held_out: Float[Tensor, "b d_in"], directory: Path, blocks: int = 6
) -> Iterator[Figure]:
    """CPU time on one thread, the best of three: coding of ready codes, `compress` as a whole, zstd-3 and the BAE's encoder.

    `compress` encodes its sample and then every vector. What it takes less that is counting probabilities, coding,
    reconstructions (the summary has their errors), checksums and writing.

    Args:
        blocks: Of 4,096 vectors, the first ones, for all times but that of `compress`, which is of all held-out vectors.
    """
    import zstandard

    with one_thread():
        sample = _sample(bae, train)
        vectors = held_out.split(BLOCK)[:blocks]
        codes = [(ones_of(bae, x), len(x)) for x in vectors]
        packed = [np.packbits(dense(ones, rows, bae.d_bits).numpy(), axis=1).tobytes() for ones, rows in codes]
        encoder = zstandard.ZstdCompressor(level=3)
        zstd = _seconds(lambda: [encoder.compress(part) for part in packed])
        encode = _seconds(lambda: [bae.encode(x) for x in vectors])
        scale = 1e6 / sum(map(len, vectors))
        yield Figure("zstd-3 on the packed bits, microseconds a vector", zstd * scale, "", True)
        yield Figure("the BAE's encoder, microseconds a vector", encode * scale, "", True)
        for name in ("prior", "tree"):
            stage = bits_of(tree_of(bae, sample, name), dictionary_of(bae), len(held_out))

            def code(ones: Ones, rows: int, stage=stage) -> bytes:
                coder = new_encoder()
                encode_block(coder, ones, rows, stage.layout)
                return finished(coder)

            coded = _seconds(lambda code=code: [code(*one) for one in codes])
            yield Figure(f"coding under the {name}, microseconds a vector", coded * scale, "", True)
            yield at_most(f"coding under the {name} over zstd-3", coded / zstd, 20)
            yield at_most(f"coding under the {name} over the BAE's encoder", coded / encode, 1)
            yield from _whole_times(bae, train, held_out, directory / "timed.baez", name, zstd * scale, encode * scale)


def _whole_times(
    bae: BAE, train: Tensor, held_out: Tensor, path: Path, name: str, zstd: float, encode: float
) -> Iterator[Figure]:
    """Of `compress`; the times of zstd-3 and of the encoder are in microseconds a vector."""
    settings = CodecSettings(probabilities=name)
    sampled = min(settings.fit_vectors, len(train))
    whole = _seconds(lambda: compress(bae, held_out, path, settings, fit_on=train, progress=False)) * 1e6 / len(held_out)
    rest = whole - encode * (len(held_out) + sampled) / len(held_out)
    what = f"compress() under the {name}"
    yield Figure(f"{what}, of {len(held_out)} vectors, microseconds a vector", whole, "", True)
    yield Figure(f"{what} less the BAE's encoder, microseconds a vector", rest, "", True)
    yield at_most(f"{what} less the BAE's encoder, over zstd-3", rest / zstd, 20)
    yield at_most(f"{what} less the BAE's encoder, over the BAE's encoder", rest / encode, 1)
    sample = _sample(bae, train)
    counting = _seconds(lambda: bits_of(tree_of(bae, sample, name), dictionary_of(bae), len(held_out)))
    yield Figure(f"of that, counting the {name} on {sampled} vectors, once a file, seconds", counting, "", True)


def random_access(
    bae: BAE, held_out: Float[Tensor, "b d_in"], directory: Path, vectors: int, slices: int = 50
) -> Iterator[Figure]:
    """Shares of a file of so many vectors (drawn from the held-out ones) that slices of 512 read, and that opening it reads."""
    generator = torch.Generator().manual_seed(0)
    x = held_out[torch.randint(len(held_out), (vectors,), generator=generator)]
    path = directory / "many.baez"
    compress(bae, x, path, CodecSettings(bae_inside=False), progress=False)
    size, most = path.stat().st_size, 0
    with BaezFile(path, bae) as file:
        yield Figure(f"opening a file of {vectors} vectors without its BAE, share read", file.bytes_read / size, "", True)
        opening = file.bytes_read
        for begin in torch.randint(vectors - 512, (slices,), generator=generator).tolist():
            before = file.bytes_read
            file[begin : begin + 512]
            most = max(most, file.bytes_read - before)
    yield at_most(f"opening, and the costliest of {slices} slices of 512 vectors, share read", (opening + most) / size, 0.01)


def damage(bae: BAE, held_out: Float[Tensor, "b d_in"], directory: Path, files: int) -> Iterator[Figure]:
    """How many of so many mutated files were accepted as they are, or gave a wrong vector."""
    path, bad = directory / "small.baez", directory / "bad.baez"
    settings = CodecSettings(block_vectors=50, norm_bits=8, bae_inside=False)  # the decoder would be most of so small a file
    compress(bae, held_out[:200], path, settings, progress=False)
    content, generator, accepted = path.read_bytes(), random.Random(0), 0
    for _ in range(files):
        bad.write_bytes(mutated(content, generator))
        try:
            with BaezFile(bad, bae) as file:
                file.verify()
            accepted += 1
        except ValueError:
            pass
    yield at_most(f"of {files} mutated files accepted", accepted, 0)


def _sample(bae: BAE, train: Tensor) -> list[Coded]:
    """As `compress` counts probabilities."""
    source = Source(train, bae.cfg.d_in)
    most = min(CodecSettings().fit_vectors, len(source))
    return sample_of(bae, source.sample(most), most)


def _seconds(run: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(3):
        begin = time.process_time()
        run()
        best = min(best, time.process_time() - begin)
    return best
