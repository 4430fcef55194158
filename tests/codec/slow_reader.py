"""A reader of .baez files in plain Python and whole numbers, written from docs/codec.md and not from the package."""

import hashlib
import itertools
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
    """Of the bits of a code: see `read_table`."""
    return read_table(content, [b - 1 if b % nested else None for b in range(bits)], [b % nested for b in range(bits)])


def read_table(content, known, place):
    """Parents, steps of probabilities (parent off, parent on; None where a bit is never on), and when each bit is coded.

    `known` are the parents of nested bits, None of free ones; `place` is j of each.
    """
    reader, bits = RangeReader(words_of(content)), range(len(known))
    free = [b for b in bits if known[b] is None]
    parent, steps = list(known), ([None] * len(known), [None] * len(known))
    for b, told in zip(free, read_numbers(reader, len(free), [1] * max(2, len(free) + 1), 2), strict=True):
        parent[b] = free[told - 1] if told else -1
    for b, number in zip(free, read_numbers(reader, len(free), [1] * 121, 32), strict=True):
        steps[0][b] = number - 60
    for on in ([b for b in free if parent[b] >= 0], [b for b in bits if place[b] == 1]):
        for b, number in zip(on, read_numbers(reader, len(on), [1] * 121, 32), strict=True):
            steps[1][b] = number - 60
    rest = [b for j in range(2, max(place) + 1) for b in bits if place[b] == j]
    weights = [max(64 >> abs(change), 1) for change in range(-120, 121)]
    for b, number in zip(rest, read_numbers(reader, len(rest), weights, 128, fading=True), strict=True):
        steps[1][b] = steps[1][parent[b]] + number - 120
    stage = [0] * len(known)
    for b in free:
        above = parent[b]
        while above >= 0:
            stage[b] += 1
            above = parent[above]
    deepest = max(stage)
    stage = [deepest + place[b] if place[b] else stage[b] for b in bits]
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


def words_of(content):
    return struct.unpack(f"<{len(content) // 4}I", content)


def read_decoder(content, header):
    """Rows and bias as lists of numbers; their hash is the header's."""
    (length,) = struct.unpack_from("<Q", content)
    listed, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    raw = {name: data[slice(*listed[name]["data_offsets"])] for name in ("rows", "bias")}
    d_sae, d_in, c = header["d_sae"], header["d_in"], header["bits_per_feature"]
    assert [listed[name]["dtype"] for name in raw] == ["F32", "F32"]
    assert [listed[name]["shape"] for name in raw] == [[d_sae, d_in], [d_in]]
    told = json.dumps([d_sae, d_in, c, header["code"] if c > 1 else "powers"]).encode()
    assert hashlib.sha256(told + raw["rows"] + raw["bias"]).hexdigest() == header["bae"]["sha256"]
    numbers = struct.unpack(f"<{d_sae * d_in}f", raw["rows"])
    return [numbers[f * d_in : (f + 1) * d_in] for f in range(d_sae)], struct.unpack(f"<{d_in}f", raw["bias"])


def read_indices(payload, rows, width, prior):
    """The code's bits as rows, and the bytes that are left."""
    bits = "".join(f"{byte:08b}" for byte in payload)
    numbers = (int(bits[at : at + width], 2) for at in itertools.count(0, width))
    counts = [next(numbers) for _ in range(rows)]
    codes = []
    for count in counts:
        turned = {next(numbers) for _ in range(count)}
        codes.append([bit ^ (b in turned) for b, bit in enumerate(prior)])
    return codes, payload[((rows + sum(counts)) * width + 7) // 8 :]


def read_gains(reader, rows, norm_bits, frequencies):
    numbers = [reader.symbol(frequencies) for _ in range(rows)]
    if norm_bits == 16:
        numbers = [256 * high + reader.symbol([2**16] * 256) for high in numbers]
    return [2.0 ** (3 * (k / 2 ** (norm_bits - 1) - 1)) for k in numbers]


def read_residual(reader, rows, values, table, d_in):
    """What is added to each vector."""
    k, columns = len(values) - 1, read_block(reader, rows, table)
    found = []
    for row in range(rows):
        bits = [[columns[d * (k + 1) + j][row] for j in range(k + 1)] for d in range(d_in)]
        found.append([values[sum(of[:k])] * (-1 if of[k] else 1) for of in bits])
    return found


def vector_of(code, header, decoder):
    rows, vector = decoder[0], list(decoder[1])
    for b, bit in enumerate(code):
        if bit:
            feature, j = divmod(b, header["bits_per_feature"])
            level = 2**j if header["code"] == "powers" else 1
            vector = [number + level * more for number, more in zip(vector, rows[feature], strict=True)]
    return vector


def read_stages(header, sections):
    """What blocks are read with, of every stage that there is."""
    bits, d_in, stages = header["d_sae"] * header["bits_per_feature"], header["d_in"], {}
    if header["mode"] == "code":
        nested = header["bits_per_feature"] if header["code"] == "nested" else 1
        stages["bits"] = read_model(sections["bits"], bits, nested)
    else:
        stages["prior"] = [int(bit) for byte in sections["rounded_prior"] for bit in f"{byte:08b}"][:bits]
    if "norm_bits" in header:
        stages["norm"] = struct.unpack("<256I", zlib.decompress(sections["norm"]))
        assert sum(stages["norm"]) == 2**24
    if "residual" in header:
        k = len(header["residual"]["values"]) - 1
        known = [d * (k + 1) + above if above >= 0 else None for d in range(d_in) for above in [*range(-1, k - 1), 0]]
        stages["residual"] = read_table(sections["residual"], known, [*range(k), 1] * d_in)
    return stages


def read_payload(payload, rows, header, stages, decoder):
    """The bits of a block as rows, and its vectors."""
    if header["mode"] == "index":
        codes, payload = read_indices(payload, rows, header["index"]["width"], stages["prior"])
    reader = RangeReader(words_of(payload))
    if header["mode"] == "code":
        codes = [list(row) for row in zip(*read_block(reader, rows, stages["bits"]), strict=True)]
    vectors, bias = [vector_of(code, header, decoder) for code in codes], decoder[1]
    if "norm" in stages:
        for row, gain in enumerate(read_gains(reader, rows, header["norm_bits"], stages["norm"])):
            vectors[row] = [zero + gain * (number - zero) for number, zero in zip(vectors[row], bias, strict=True)]
    if "residual" in stages:
        for row, more in enumerate(read_residual(reader, rows, header["residual"]["values"], stages["residual"], len(bias))):
            vectors[row] = [number + one for number, one in zip(vectors[row], more, strict=True)]
    return codes, vectors


def read_file(content):
    """Header, the bits of each vector's code, and the vectors; with every checksum, of a file that carries its decoder."""
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
    index_at, count, blocks, end = struct.unpack_from("<QQI4s", content, len(content) - 32)
    assert end == b"ZEAB"
    assert hashlib.sha256(salt + content[index_at:-8]).digest()[:8] == content[-8:]
    stages, decoder = read_stages(header, sections), read_decoder(sections["decoder"], header)
    codes, vectors = [], []
    for number, size in enumerate(struct.unpack_from(f"<{blocks}I", content, index_at)):
        block = content[at : at + size]
        at += size
        assert hashlib.sha256(salt + struct.pack("<I", number) + block[:-8]).digest()[:8] == block[-8:]
        rows = min(header["block_vectors"], count - number * header["block_vectors"])
        found = read_payload(block[:-8], rows, header, stages, decoder)
        codes += found[0]
        vectors += found[1]
    assert at == index_at
    assert len(codes) == count
    return header, codes, vectors
