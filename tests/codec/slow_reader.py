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


def probability(step):
    """Of odds 2^(step / 3), in parts of 2^24."""
    if step < 0:
        return 2**24 - probability(-step)
    odds = [4294967296, 5411319704, 6817835603][step % 3] * 2 ** (step // 3)
    return 2**24 * odds // (odds + 2**32)


def read_numbers(reader, count, weights, seen, fading=False):
    weights, numbers = list(weights), []
    while len(numbers) < count:
        total, below = sum(weights), len(weights)
        frequencies = [1 + w * (2**24 - below) // total for w in weights]
        frequencies[0] += 2**24 - sum(frequencies)
        batch = [reader.symbol(frequencies) for _ in range(min(16, count - len(numbers)))]
        numbers += batch
        if fading:
            weights = [w - w // 8 for w in weights]
        for number in batch:
            weights[number] += seen
    return numbers


def read_model(content, bits, nested=1):
    """Parents, steps of probabilities (parent off, parent on; None where a bit is never on), and when each bit is coded."""
    reader = RangeReader(struct.unpack(f"<{len(content) // 4}I", content))
    free = [b for b in range(bits) if b % nested == 0]
    parent, steps = [b - 1 for b in range(bits)], ([None] * bits, [None] * bits)
    for b, told in zip(free, read_numbers(reader, len(free), [1] * max(2, len(free) + 1), 2), strict=True):
        parent[b] = free[told - 1] if told else -1
    for b, number in zip(free, read_numbers(reader, len(free), [1] * 121, 32), strict=True):
        steps[0][b] = number - 60
    for on in ([b for b in free if parent[b] >= 0], [b for b in range(bits) if b % nested == 1]):
        for b, number in zip(on, read_numbers(reader, len(on), [1] * 121, 32), strict=True):
            steps[1][b] = number - 60
    rest = [b for place in range(2, nested) for b in range(bits) if b % nested == place]
    weights = [max(64 >> abs(change), 1) for change in range(-120, 121)]
    for b, number in zip(rest, read_numbers(reader, len(rest), weights, 128, fading=True), strict=True):
        steps[1][b] = steps[1][b - 1] + number - 120
    stage = [0] * bits
    for b in free:
        above = parent[b]
        while above >= 0:
            stage[b] += 1
            above = parent[above]
    deepest = max(stage)
    stage = [stage[b] if b % nested == 0 else deepest + b % nested for b in range(bits)]
    return parent, steps, stage


def read_block(reader, rows, model):
    """A block's bits: a list of rows of 0 and 1 for each bit."""
    parent, steps, stage = model
    segments = [(stage[b], steps[on][b], b, on) for b in range(len(parent)) for on in (0, 1) if steps[on][b] is not None]
    segments.sort()
    columns = [[0] * rows for _ in parent]
    while segments:
        level, step = segments[0][:2]
        group = [s for s in segments if s[:2] == (level, step)]
        segments = segments[len(group) :]
        places = [
            (b, row) for _, _, b, on in group for row in range(rows) if (columns[parent[b]][row] if parent[b] >= 0 else 0) == on
        ]
        for (b, row), bit in zip(places, read_bits(reader, len(places), probability(step)), strict=True):
            columns[b][row] = bit
    return columns


def read_file(content):
    """Header, and the bits of each block as rows; of files in code mode, with every checksum."""
    magic, version, flags, length = struct.unpack_from("<8sHHI", content)
    assert (magic, version, flags) == (b"\x89BAEZ\r\n\x1a", 2, 0)
    assert hashlib.sha256(content[:16]).digest()[:8] == content[16:24]
    assert hashlib.sha256(content[24 : 24 + length]).digest()[:8] == content[24 + length : 32 + length]
    header, at, sections = json.loads(zlib.decompress(content[24 : 24 + length])), 32 + length, {}
    for entry in header["sections"]:
        sections[entry["name"]] = content[at : at + entry["bytes"]]
        assert hashlib.sha256(sections[entry["name"]]).hexdigest()[:16] == entry["check"]
        at += entry["bytes"]
    salt = hashlib.sha256(content[:at]).digest()
    index_at, vectors, blocks, end = struct.unpack_from("<QQI4s", content, len(content) - 32)
    assert end == b"ZEAB"
    assert hashlib.sha256(salt + content[index_at:-8]).digest()[:8] == content[-8:]
    nested = header["bits_per_feature"] if header["code"] == "nested" else 1
    model = read_model(sections["bits"], header["d_sae"] * header["bits_per_feature"], nested)
    codes = []
    for number, size in enumerate(struct.unpack_from(f"<{blocks}I", content, index_at)):
        block = content[at : at + size]
        at += size
        assert hashlib.sha256(salt + struct.pack("<I", number) + block[:-8]).digest()[:8] == block[-8:]
        rows = min(header["block_vectors"], vectors - number * header["block_vectors"])
        words = struct.unpack(f"<{(size - 8) // 4}I", block[:-8])
        columns = read_block(RangeReader(words), rows, model)
        codes += [list(row) for row in zip(*columns, strict=True)]
    assert at == index_at
    assert len(codes) == vectors
    return header, codes
