"""No cut, flipped or moved byte gives wrong vectors: always an error that names what is damaged."""

import random
import struct

import pytest
import torch

import bae_lens
from bae_lens.benchmark.mutations import mutated
from bae_lens.codec import DamagedFileError
from bae_lens.codec.container import PREFIX, checksum


def check_mutations(written, path, count, seed):
    """Of every mutated file each block is what it was, or an error that names it; and not all are what they were."""
    generator, content = random.Random(seed), written.path.read_bytes()
    with bae_lens.codec.open(written.path) as z:
        blocks = list(z.chunks())
    for _ in range(count):
        path.write_bytes(mutated(content, generator))
        errors = errors_of(path, blocks)
        assert errors
        assert all(path.name in error for error in errors)


def errors_of(path, blocks):
    """What is said of a file whose blocks should be these."""
    errors = []
    try:
        with bae_lens.codec.open(path) as z:
            assert len(z) == sum(map(len, blocks))
            for number, block in enumerate(blocks):
                try:
                    assert torch.equal(z.block(number).vectors.float(), block)
                except DamagedFileError as error:
                    errors.append(str(error) if f"block {number} was damaged" in str(error) else "")
    except ValueError as error:
        errors.append(str(error))
    return errors


@pytest.mark.parametrize("settings", [{"norm_bits": 8, "target_fvu": 0.1}, {"mode": "index"}], ids=str)
def test_hundreds_of_mutated_files_are_refused(write, tmp_path, settings):
    check_mutations(write(**settings), tmp_path / "bad.baez", 150, seed=0)


@pytest.mark.slow
def test_ten_thousand_mutated_files_are_refused(write, tmp_path):
    for seed, settings in enumerate([{"target_fvu": 0.1}, {"mode": "index"}, {"norm_bits": 16}, {"probabilities": "prior"}]):
        check_mutations(write("nested", **settings), tmp_path / "bad.baez", 2500, seed)


def test_the_damaged_block_is_named_and_the_others_are_read(write):
    path, _, _, _ = write()
    content = bytearray(path.read_bytes())
    with bae_lens.codec.open(path) as z:
        whole, start = z[:], z._container.index.starts[1]
    content[start + 20] ^= 1
    path.write_bytes(bytes(content))
    with bae_lens.codec.open(path) as z:
        assert torch.equal(z[:50], whole[:50])
        assert torch.equal(z[100:], whole[100:])
        with pytest.raises(DamagedFileError, match="block 1 was damaged or cut"):
            z[40:60]
        with pytest.raises(DamagedFileError, match="block 1 "):
            z.verify()


def test_blocks_that_have_changed_places_are_found(write):
    path, _, _, _ = write(data=torch.zeros(200, 128) + torch.arange(200).unsqueeze(1) % 50)
    with bae_lens.codec.open(path) as z:
        a, b, c = z._container.index.starts[:3]
    content = path.read_bytes()
    assert b - a == c - b
    path.write_bytes(content[:a] + content[b:c] + content[a:b] + content[c:])
    with bae_lens.codec.open(path) as z, pytest.raises(DamagedFileError, match="block 0 .* for this place"):
        z[0:10]


def test_a_block_of_another_file_is_found(write):
    one, other = write(name="one.baez"), write(name="other.baez", fit_vectors=50)
    with bae_lens.codec.open(one.path) as z, bae_lens.codec.open(other.path) as y:
        starts, others = z._container.index.starts, y._container.index.starts
    content = one.path.read_bytes()[: starts[0]] + other.path.read_bytes()[others[0] :]
    one.path.write_bytes(content)
    with pytest.raises(ValueError, match="index at its end was damaged"):
        bae_lens.codec.open(one.path)


@pytest.mark.parametrize(
    ("there", "why"), [(1, "newer bae_lens; update this one"), (-1, "older one; compress the vectors anew")]
)
def test_a_file_of_another_version_says_so(write, there, why):
    path, _, _, _ = write()
    content = path.read_bytes()
    magic, version, flags, length = PREFIX.unpack_from(content)
    prefix = PREFIX.pack(magic, version + there, flags, length)
    path.write_bytes(prefix + checksum(prefix) + content[24:])
    with pytest.raises(ValueError, match=f"is of version {version + there} .* written by an? {why}"):
        bae_lens.codec.open(path)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "the beginning was damaged"),
        (b"PK\x03\x04" + bytes(100), "is no .baez file"),
        (b"\x89BAEZ\r\n\x1a", "the beginning was damaged"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path, content, why):
    (tmp_path / "a.baez").write_bytes(content)
    with pytest.raises(ValueError, match=why):
        bae_lens.codec.open(tmp_path / "a.baez")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no file"):
        bae_lens.codec.open(tmp_path / "none.baez")


def test_of_a_damaged_file_nothing_is_decompressed(write, tmp_path):
    path, _, _, _ = write()
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + b"\0" + content[len(content) // 2 + 1 :])
    with pytest.raises(ValueError, match="damaged"):
        bae_lens.codec.decompress(path, tmp_path / "back", progress=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["acts.baez"]


def test_a_file_is_written_whole_or_not_at_all(write, tmp_path, monkeypatch):
    first = write().path.read_bytes()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("bae_lens.codec.container.struct.pack", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(norm_bits=8)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["acts.baez"]
    assert (tmp_path / "acts.baez").read_bytes() == first


def test_headers_that_are_whole_but_of_another_kind_are_refused(write):
    """As a program with a mistake in it might write them: every checksum is right."""
    from bae_lens.codec.container import new_container

    path, _, _, _ = write(norm_bits=8)
    with bae_lens.codec.open(path) as z:
        header, sections = dict(z.header), z._container.before.sections
        payload, rows = z._container.block(0), 50
    del header["sections"]
    for change in (
        {"format": "another"},
        {"block_vectors": 0},
        {"block_vectors": None},
        {"d_sae": 47},
        {"d_in": 64},
        {"norm_bits": 12},
        {"dtype": "float33"},
        {"bae": {}},
        {"residual": {"step": 1.0, "values": [0.0]}},
    ):
        with new_container(path, {**header, **change}, sections) as writer:
            writer.add(payload, rows)
        with pytest.raises(ValueError, match="acts.baez"):
            bae_lens.codec.open(path)
    for payload_there, rows_there in ((payload + b"more" * 9, rows), (payload, rows - 9), (payload + b"x", rows)):
        with new_container(path, header, sections) as writer:
            writer.add(payload_there, rows_there)
        with bae_lens.codec.open(path) as z, pytest.raises(DamagedFileError, match="block 0 was damaged"):
            z.verify()


def test_the_trailer_is_as_the_page_says(write):
    path, _, vectors, _ = write()
    index_at, count, blocks, end = struct.unpack_from("<QQI4s", path.read_bytes(), path.stat().st_size - 32)
    assert (count, blocks, end) == (len(vectors), -(-len(vectors) // 50), b"ZEAB")
    assert index_at == path.stat().st_size - 32 - 4 * blocks
