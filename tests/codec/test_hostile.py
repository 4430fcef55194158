"""Files that are whole, with every checksum right, and made to take more memory than there is, or to break the reader."""

import re
import tracemalloc
import zlib

import numpy as np
import pytest
import torch

import bae_lens
from bae_lens.codec import DamagedFileError, dictionary, index_codes
from bae_lens.codec.container import MAGIC, PREFIX, TRAILER, VERSION, checksum, new_container
from bae_lens.codec.limits import LARGEST_CODE, LARGEST_NUMBERS, check_shape
from bae_lens.codec.range_coder import TOTAL, decode_bits, decoder_of, encode_bits, finished, new_encoder

MIB = 2**20


@pytest.fixture
def forge(write):
    """A file of other fields and sections, its blocks and its decoder's hash as they are due; its path."""

    def forge(fields=(), sections=(), vectors=None, **settings):
        path, _, _, _ = write(**settings)
        with bae_lens.codec.open(path) as z:
            header, parts = {**z.header, **dict(fields)}, {**z._container.before.sections, **dict(sections)}
            payload, decoder = z._container.block(0), z._stages.dictionary
        del header["sections"]
        if "decoder" in dict(sections):
            decoder = decoder._replace(**dict(zip(dictionary.NAMES, sections["decoder"], strict=True)))
            parts["decoder"] = dictionary.to_bytes(decoder)
            header |= {"d_sae": decoder.rows.shape[0], "d_in": decoder.rows.shape[1]}
        decoder = decoder._replace(bits_per_feature=header["bits_per_feature"], code=header["code"])
        header["bae"] = {"sha256": decoder.fingerprint, "inside": True}
        with new_container(path, header, parts) as writer:
            writer.add(payload, 50)
            writer.vectors = vectors or writer.vectors
        return path

    return forge


def check_refused(path, why):
    """In words, and before the memory that the file asks for is taken."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=rf"acts\.baez.*({why})"):
            bae_lens.codec.open(path)
        assert tracemalloc.get_traced_memory()[1] < 64 * MIB
    finally:
        tracemalloc.stop()


def test_what_is_forged_without_a_change_is_read(forge):
    for settings in ({"norm_bits": 8}, {"mode": "index"}):
        with bae_lens.codec.open(forge(**settings)) as z:
            z.verify()
            assert bool(z[:].isfinite().all())


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"code": "nested", "bits_per_feature": 10**9}, "bits_per_feature must be a whole number from 1 to 64"),
        ({"code": "nested", "bits_per_feature": 65}, "from 1 to 64"),
        ({"code": "powers", "bits_per_feature": 9}, "from 1 to 8"),
        ({"bits_per_feature": 0}, "from 1 to 8"),
        ({"bits_per_feature": 1.0}, "from 1 to 8"),
        ({"bits_per_feature": True}, "from 1 to 8"),
        ({"code": "ternary"}, "unknown code"),
        ({"code": ["powers"]}, "unknown code"),
        ({"mode": "codes"}, "mode 'codes' is not known"),
        ({"d_sae": 10**12}, "d_sae must be"),
        ({"d_in": 10**12}, "d_in must be"),
        ({"d_in": -1}, "d_in must be"),
        ({"block_vectors": 2**17}, "block_vectors must be"),
        ({"block_vectors": 50.0}, "block_vectors must be"),
        ({"block_vectors": True}, "block_vectors must be"),
        ({"norm_bits": 12}, "norm_bits must be 8 or 16"),
        ({"norm_bits": 8.0}, "norm_bits must be"),
        ({"norm_bits": None}, "norm_bits must be"),
        ({"dtype": "int64"}, "'int64' is no dtype"),
        ({"dtype": "nn"}, "'nn' is no dtype"),
        ({"dtype": None}, "is no dtype"),
        ({"metadata": ["a"]}, "no JSON object"),
        ({"residual": {"step": 1.0, "values": 257 * [0]}}, "magnitudes"),
        ({"residual": {"step": 1.0, "values": [[0.0, 1.0], [1.0, 2.0]]}}, "magnitudes"),
        ({"residual": {"step": 1.0, "values": [0.0, 10**400]}}, "not one of this format"),
        ({"residual": {"step": 0.0, "values": [0.0, 1.0]}}, "step must be"),
        ({"residual": [0.0, 1.0]}, "not one of this format"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_numbers_of_the_header_out_of_range_are_refused(forge, fields, why):
    check_refused(forge(fields, {"residual": b""}, norm_bits=8), why)


def test_a_section_that_inflates_without_end_is_refused(forge):
    check_refused(forge(sections={"norm": zlib.compress(bytes(128 * MIB), 9)}, norm_bits=8), "does not end where it should")


def test_a_decoder_of_no_width_may_not_have_any_number_of_features(forge):
    none = torch.empty(10**12, 0), torch.empty(0)
    check_refused(forge(sections={"decoder": none}), "d_sae must be a whole number from 1")


@pytest.mark.parametrize(
    ("fields", "sections", "why"),
    [
        ({"index": {"threshold": -1.0, "width": 16.0}}, {}, "the width of indices must be"),
        ({"index": {"threshold": -1.0, "width": 10**9}}, {}, "the width of indices must be"),
        ({"index": {"threshold": -1.0, "width": 7}}, {}, "indices of 7 bits are not known"),
        ({"index": {"threshold": "low", "width": 16}}, {}, "not one of this format"),
        ({}, {"rounded_prior": b""}, "'rounded_prior' does not hold 48 bits"),
        ({}, {"rounded_prior": bytes(100)}, "'rounded_prior' does not hold 48 bits"),
    ],
    ids=str,
)
def test_headers_of_the_index_mode_out_of_range_are_refused(forge, fields, sections, why):
    check_refused(forge(fields, sections, mode="index"), why)


def test_more_vectors_than_a_whole_number_of_the_machine_are_refused(forge):
    check_refused(forge(vectors=2**64 - 1), "1 blocks for 18446744073709551615 vectors")


@pytest.mark.parametrize(
    "text",
    [
        b'{"sections": [{"name": "bits", "bytes": 4611686018427387904, "check": ""}]}',
        b'{"sections": [{"name": "bits", "bytes": 1e400, "check": ""}]}',
        b'{"sections": [{"name": "bits", "bytes": -1, "check": ""}]}',
        b'{"sections": {"bits": 5}}',
        b"[1, 2]",
        b"[" * 10**6,
        b" " * (2**24 + 1),
    ],
    ids=lambda text: text[:70].decode(),
)
def test_headers_that_name_sections_that_cannot_be_are_refused(tmp_path, text):
    path, deflated = tmp_path / "acts.baez", zlib.compress(text, 9)
    prefix = PREFIX.pack(MAGIC, VERSION, 0, len(deflated))
    before = prefix + checksum(prefix) + deflated + checksum(deflated)
    path.write_bytes(before + TRAILER.pack(len(before), 0, 0, b"ZEAB") + bytes(8))
    check_refused(path, "was damaged")


def test_a_block_whose_few_bytes_stand_for_any_number_of_bits_is_refused():
    tracemalloc.start()
    try:
        for probability in (TOTAL - 16, TOTAL - TOTAL // 9, TOTAL // 2, TOTAL // 9):
            encoder = new_encoder()
            encode_bits(encoder, np.arange(2**20), 2**20, probability)
            content = finished(encoder)
            tracemalloc.reset_peak()
            with pytest.raises(ValueError, match="more of its bits are on than a block holds"):
                decode_bits(decoder_of(content), 2**38, probability, most=10**5)
            assert tracemalloc.get_traced_memory()[1] < 64 * MIB
    finally:
        tracemalloc.stop()


def test_a_rounded_prior_of_ones_may_not_stand_for_any_number_of_bits():
    with pytest.raises(ValueError, match="bits are on in a block of 65536 vectors, and it holds at most"):
        index_codes.check_prior(np.ones(LARGEST_CODE, dtype=bool), 2**16)


def test_a_block_of_too_many_bits_is_damaged_to_a_reader_and_refused_in_words_by_a_writer(write, monkeypatch):
    path, _, _, _ = write()
    monkeypatch.setattr("bae_lens.codec.bit_blocks.LARGEST_ONES", 100)
    with bae_lens.codec.open(path) as z, pytest.raises(DamagedFileError, match="block 0 .* more of its bits are on"):
        z[0]
    monkeypatch.setattr("bae_lens.codec.limits.LARGEST_ONES", 100)
    for mode in ("code", "index"):
        with pytest.raises(ValueError, match=r"a block of 50 vectors, and it holds at most 100: smaller blocks.*block_vectors"):
            write(mode=mode)


def test_what_a_reader_would_refuse_is_not_written(write, monkeypatch):
    widest = LARGEST_NUMBERS // 2**16
    check_shape(widest, LARGEST_CODE // 64, 64, "nested", 2**16)
    with pytest.raises(ValueError, match=re.escape(f"hold at most {LARGEST_NUMBERS // (widest + 1)} vectors (block_vectors)")):
        check_shape(widest + 1, 1, 1, "powers", 2**16)
    with pytest.raises(ValueError, match="d_sae must be a whole number from 1 to"):
        check_shape(1, LARGEST_CODE // 64 + 1, 64, "nested", 1)
    path, _, _, _ = write(target_fvu=0.01)
    monkeypatch.setattr("bae_lens.codec.header.LARGEST_CODE", 100)
    for attempt in (lambda: bae_lens.codec.open(path), lambda: write(target_fvu=0.01)):
        with pytest.raises(ValueError, match=r"a residual of \d+ bits a vector is over the 100"):
            attempt()
