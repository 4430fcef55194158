"""A reader of .baez files in plain Python and whole numbers, written from docs/codec.md and not from the package."""

import hashlib
import json
import struct
import zlib


class RangeReader:
    """A range decoder of 64-bit state and 32-bit words, for frequencies that sum to 2^24."""

    def __init__(self, words):
        self.words, self.at = words, 0
        self.lower, self.range = 0, 2**64 - 1
        self.point = self.word() << 32 | self.word()

    def word(self):
        self.at += 1
        return self.words[self.at - 1] if self.at <= len(self.words) else 0

    def symbol(self, frequencies):
        scale = self.range >> 24
        quantile = ((self.point - self.lower) % 2**64) // scale
        symbol = before = 0
        while before + frequencies[symbol] <= quantile:
            before += frequencies[symbol]
            symbol += 1
        self.lower = (self.lower + scale * before) % 2**64
        self.range = scale * frequencies[symbol]
        if self.range < 2**32:
            self.lower = self.lower << 32 & (2**64 - 1)
            self.range <<= 32
            self.point = (self.point << 32 | self.word()) & (2**64 - 1)
        return symbol


def gap_table(probability):
    longest = 1
    while longest * 2 <= 4096 and longest * 2 * probability <= 2**24:
        longest *= 2
    survivors, table = 2**40, []
    for _ in range(longest):
        after = survivors - survivors * probability // 2**24
        table.append(survivors // 2**16 - after // 2**16)
        survivors = after
    return [*table, survivors // 2**16]


def read_bits(reader, length, probability):
    """A sequence of bits of one probability, as a list of 0 and 1."""
    if 2**21 <= probability <= 2**24 - 2**21:
        return [reader.symbol([2**24 - probability, probability]) for _ in range(length)]
    rare = 1 if probability < 2**21 else 0
    table = gap_table(probability if rare else 2**24 - probability)
    bits = []
    while len(bits) < length:
        gap = reader.symbol(table)
        bits += [1 - rare] * gap
        if gap < len(table) - 1:
            bits.append(rare)
    return bits[:length]


def read_model(content, bits):
    """Parents, indices of probabilities (parent off, parent on), probabilities."""
    raw = zlib.decompress(content)

    def numbers(start, count, size):
        return [sum(raw[start + plane * count + i] << 8 * plane for plane in range(size)) for i in range(count)]

    (bits_there, different) = numbers(0, 2, 4)
    assert bits_there == bits
    probabilities = numbers(8, different, 4)
    back = [n - 2**32 if n >= 2**31 else n for n in numbers(8 + 4 * different, bits, 4)]
    given = numbers(8 + 4 * different + 4 * bits, 2 * bits, 2)
    parent = [b - back[b] if back[b] else -1 for b in range(bits)]
    return parent, (given[:bits], given[bits:]), probabilities


def read_block(reader, rows, model):
    """A block's bits: a list of rows of 0 and 1 for each bit."""
    parent, given, probabilities = model
    depth = [0] * len(parent)
    for b in range(len(parent)):
        above = parent[b]
        while above >= 0:
            depth[b] += 1
            above = parent[above]
    segments = [(depth[b], given[on][b], b, on) for b in range(len(parent)) for on in (0, 1) if given[on][b]]
    segments.sort()
    columns = [[0] * rows for _ in parent]
    while segments:
        level, index = segments[0][:2]
        group = [s for s in segments if s[:2] == (level, index)]
        segments = segments[len(group) :]
        places = [
            (b, row) for _, _, b, on in group for row in range(rows) if (columns[parent[b]][row] if parent[b] >= 0 else 0) == on
        ]
        for (b, row), bit in zip(places, read_bits(reader, len(places), probabilities[index]), strict=True):
            columns[b][row] = bit
    return columns


def read_file(content):
    """Header, and the bits of each block as rows; of files in code mode, with every checksum."""
    magic, version, flags, length = struct.unpack_from("<8sHHI", content)
    assert (magic, version, flags) == (b"\x89BAEZ\r\n\x1a", 1, 0)
    assert hashlib.sha256(content[:16]).digest()[:8] == content[16:24]
    assert hashlib.sha256(content[24 : 24 + length]).digest()[:8] == content[24 + length : 32 + length]
    header, at, sections = json.loads(content[24 : 24 + length]), 32 + length, {}
    for entry in header["sections"]:
        sections[entry["name"]] = content[at : at + entry["bytes"]]
        at += entry["bytes"]
    salt = hashlib.sha256(content[:at]).digest()
    index_at, vectors, blocks, end = struct.unpack_from("<QQI4s", content, len(content) - 32)
    assert end == b"ZEAB"
    assert hashlib.sha256(salt + content[index_at:-8]).digest()[:8] == content[-8:]
    model = read_model(sections["bits"], header["d_sae"] * header["bits_per_feature"])
    codes = []
    for number, size in enumerate(struct.unpack_from(f"<{blocks}I", content, index_at)):
        block = content[at : at + size]
        at += size
        assert hashlib.sha256(salt + block[:-8]).digest()[:8] == block[-8:]
        place, rows = struct.unpack_from("<II", block)
        assert place == number
        words = struct.unpack(f"<{(size - 16) // 4}I", block[8:-8])
        columns = read_block(RangeReader(words), rows, model)
        codes += [list(row) for row in zip(*columns, strict=True)]
    assert at == index_at
    assert len(codes) == vectors
    return header, codes
