"""Files of real activations: what comes back, what it costs, and what is refused."""

import inspect
import json
import math
import warnings

import numpy as np
import pytest
import torch
from kinds import KINDS, levels_of
from slow_reader import read_file

import bae_lens
from bae_lens.cli import main
from bae_lens.codec import CodecSettings, compress, decompress


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("settings", [{}, {"probabilities": "prior"}, {"mode": "index"}, {"norm_bits": 16}], ids=str)
def test_codes_come_back_exactly(write, kind, settings):
    path, bae, vectors, _ = write(kind, **settings)
    with bae_lens.codec.open(path) as z:
        assert len(z) == len(vectors)
        assert (z.codes(slice(None)) == levels_of(bae, vectors)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_the_reconstructions_of_the_bae(write, kind):
    path, bae, vectors, summary = write(kind)
    with bae_lens.codec.open(path) as z:
        found = z[:]
    expected = bae(vectors).detach()
    assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max()))
    assert summary.fvu == pytest.approx(bae_lens_fvu(vectors, found), rel=1e-5)
    assert summary.mse == pytest.approx((vectors - found).double().square().mean().item(), rel=1e-5)


def bae_lens_fvu(x, x_hat):
    x, x_hat = x.double(), x_hat.double()
    return ((x - x_hat).square().sum() / (x - x.mean(0)).square().sum()).item()


STAGES = {
    "the tree": ("plain", {}),
    "bits alone": ("plain", {"probabilities": "prior"}),
    "powers of two": ("powers", {}),
    "nested levels": ("nested", {}),
    "indices": ("powers", {"mode": "index", "threshold": -0.5}),
    "indices of 16 bits": ("nested", {"mode": "index", "packed": False}),
    "the radius": ("plain", {"norm_bits": 8}),
    "a wide radius": ("plain", {"norm_bits": 16}),
    "the residual": ("plain", {"target_fvu": 0.3}),
    "indices, radius and residual": ("plain", {"mode": "index", "norm_bits": 8, "target_fvu": 0.3}),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_reader_of_ones_own_reads_every_stage_of_a_file(write, stage):
    """Written from docs/codec.md alone, in plain Python."""
    kind, settings = STAGES[stage]
    path, _, _, _ = write(kind, data=torch.randn(70, 128, generator=torch.Generator().manual_seed(0)), **settings)
    header, codes, vectors = read_file(path.read_bytes())
    assert ("residual" in header) == ("residual" in stage)
    assert ("norm_bits" in header) == ("radius" in stage or "residual" in stage)
    with bae_lens.codec.open(path) as z:
        c = header["bits_per_feature"]
        worth = 2 ** np.arange(c) if header["code"] == "powers" else np.ones(c, dtype=int)
        levels = torch.from_numpy(np.array(codes).reshape(len(codes), -1, c) @ worth)
        assert (levels == z.codes(slice(None))).all()
        expected = torch.cat([z.block(number).vectors for number in range(z.blocks)])
    assert torch.allclose(torch.tensor(vectors, dtype=torch.float64), expected, rtol=1e-9, atol=1e-9)


def test_any_slice_is_what_the_whole_says(write):
    path, _, _, _ = write(norm_bits=8)
    with bae_lens.codec.open(path) as z:
        whole = z[:]
        for index in (slice(0, 1), slice(49, 51), slice(50, 100), slice(120, None), slice(-3, None), slice(7, 7), slice(9, 2)):
            assert torch.equal(z[index], whole[index])
        assert torch.equal(z[53], whole[53])
        assert torch.equal(z[-1], whole[-1])
        assert torch.equal(torch.cat(list(z.chunks())), whole)


def test_a_slice_reads_its_blocks_only(write):
    path, _, _, _ = write(data=torch.randn(3000, 128, generator=torch.Generator().manual_seed(0)))
    with bae_lens.codec.open(path) as z:
        before = z.bytes_read
        z[1000:1050]
        assert 0 < z.bytes_read - before < 0.03 * path.stat().st_size


def test_a_slice_out_of_range_is_refused(write):
    path, _, vectors, _ = write()
    n = len(vectors)
    with bae_lens.codec.open(path) as z:
        for index in (slice(0, n + 1), slice(n + 1, None), slice(-n - 1, None), n, -n - 1):
            with pytest.raises(IndexError, match=f"holds {n} vectors"):
                z[index]
        with pytest.raises(IndexError, match="no step"):
            z[::2]


def test_shards_and_tensors_give_the_same_blocks(make_kind, acts, vectors, tmp_path):
    bae = make_kind("plain")
    a = compress(bae, acts.path, tmp_path / "a.baez", progress=False)
    b = compress(bae, vectors, tmp_path / "b.baez", progress=False)
    assert (a.code_bytes, a.fvu) == (b.code_bytes, b.fvu)


def test_with_the_norm_the_fvu_is_strictly_lower(write):
    plain, eight, sixteen = (write(norm_bits=bits).summary for bits in (0, 8, 16))
    assert sixteen.fvu < eight.fvu < plain.fvu
    assert eight.block_bytes - plain.block_bytes <= len(write().vectors) + 8 * 20


@pytest.mark.parametrize("mode", ["code", "index"])
def test_a_target_is_met_with_as_little_as_will_do(write, mode):
    alone = write(mode=mode).summary
    already = write(mode=mode, target_fvu=alone.fvu * 1.01).summary
    assert (already.norm_bits, already.residual_step) == (0, None)
    before = already.block_bytes
    for share in (0.5, 0.1, 0.01):
        found = write(mode=mode, target_fvu=share * alone.fvu).summary
        assert 0.8 * share * alone.fvu < found.fvu <= share * alone.fvu
        assert found.block_bytes > before
        before = found.block_bytes
    cosine = write(mode=mode, target_cosine=0.999).summary
    assert 0.999 <= cosine.cosine < 0.9995
    assert cosine.residual_step is not None


def test_a_target_is_met_on_all_vectors_though_the_sample_was_a_small_one(write, vectors):
    data = torch.cat([vectors, 3 * vectors])  # the second half has more left over, and the sample sees two vectors of it
    found = write(data=data, target_fvu=0.05, fit_vectors=4).summary
    assert found.fvu <= 0.05


def test_a_residual_comes_back_within_half_a_step(write):
    path, _, vectors, summary = write(target_fvu=0.01)
    with bae_lens.codec.open(path) as z:
        error = (z[:] - vectors).abs()
    assert error.median() < summary.residual_step / 2
    assert error.max() < summary.residual_step


def test_a_target_that_cannot_be_reached_says_the_best_that_can(write, tmp_path):
    with pytest.raises(ValueError, match=r"FVU of 1e-09 cannot be reached.*the best is an FVU of [\d.e-]+.*alone comes to"):
        write(target_fvu=1e-9)
    with pytest.raises(ValueError, match="cosine of 1 cannot be reached|cosine of .* cannot be reached"):
        write(target_cosine=1 - 1e-12)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("threshold", [-1.0, -0.5, -0.1])
def test_index_mode_is_a5_of_the_paper(write, packed, threshold):
    """The steps of A.5, bit by bit."""
    path, bae, vectors, summary = write(mode="index", threshold=threshold, packed=packed)
    bits = bae.bits(vectors).detach().double().numpy()
    prior = bits.mean(0)
    expected, indices = [], 0
    for code in bits:
        kept = [i for i in range(len(code)) if code[i] != prior[i] and math.log2(abs(code[i] - prior[i])) > threshold]
        indices += len(kept)
        rebuilt = [1.0 if p > 0.5 else 0.0 for p in prior]
        for i in kept:
            rebuilt[i] = 1 - rebuilt[i]
        expected.append(rebuilt)
    with bae_lens.codec.open(path) as z:
        found, codes = z[:], z.codes(slice(None))
    expected = torch.tensor(expected)
    assert (codes == expected).all()
    assert torch.allclose(found, bae.decode(expected), atol=1e-4)
    width = 6 if packed else 16
    assert abs(summary.code_bytes - (indices + len(bits)) * width / 8) <= len(bits) / 50 + 1


def test_what_is_neither_a_number_nor_a_slice_is_refused_in_words(write):
    path = write().path
    with bae_lens.codec.open(path) as z:
        assert torch.equal(z[torch.tensor(3)], z[3])
        for wrong in ("a", [1, 2], 1.5, slice(0.5, 2)):
            with pytest.raises(TypeError, match=r"a whole number or a slice of them, as in file\[0:512\]"):
                inspect.unwrap(type(z).__getitem__)(z, wrong)  # not through the type checker of the tests
        with pytest.raises(TypeError, match="codes are of a slice"):
            inspect.unwrap(type(z).codes)(z, 3)
        with pytest.raises(IndexError, match=r"no step, got 2: take file\[a:b\]\[::2\]"):
            z[0:4:2]
        assert repr(z) == f"BaezFile({str(path)!r}: {len(z):,} vectors of width {z.d_in}, in {z.blocks} blocks)"


def test_a_file_without_its_bae_asks_for_it(write, make_bae):
    path, bae, vectors, summary = write(bae_inside=False)
    assert summary.decoder_bytes == 0
    with pytest.raises(ValueError, match="does not carry its BAE: give it"):
        bae_lens.codec.open(path)
    with bae_lens.codec.open(path, bae) as z:
        assert torch.allclose(z[:], bae(vectors), atol=1e-4)
    with pytest.raises(ValueError, match="written with another BAE: the SHA-256"):
        bae_lens.codec.open(path, make_bae(seed=1))
    with pytest.raises(ValueError, match="d_sae, d_in, bits a feature"):
        bae_lens.codec.open(path, make_bae(d_sae=40))


def test_a_bae_of_another_width_is_refused(make_bae, vectors, tmp_path):
    with pytest.raises(ValueError, match=r"d_in = 64: they must be \(vectors, 64\)"):
        compress(make_bae(d_in=64), vectors, tmp_path / "a.baez")


def test_activations_of_another_hook_point_are_refused(make_bae, acts, tmp_path):
    other = make_bae(hook_name="blocks.0.hook_resid_pre")
    with pytest.raises(ValueError, match=r"holds no activations of 'blocks.0.hook_resid_pre'; did you mean 'blocks.1"):
        compress(other, acts.path, tmp_path / "a.baez")
    with pytest.raises(ValueError, match=r"activations at blocks.1.hook_resid_pre, and the BAE is of blocks.0"):
        compress(other, acts, tmp_path / "a.baez")


def test_a_bae_that_normalises_its_input_is_refused(make_bae, vectors, tmp_path):
    with pytest.raises(ValueError, match="normalises its input"):
        compress(make_bae(normalize_activations="layer_norm"), vectors, tmp_path / "a.baez")


def test_empty_input_is_refused(make_bae, vectors, tmp_path):
    with pytest.raises(ValueError, match="no vectors to compress"):
        compress(make_bae(), vectors[:0], tmp_path / "a.baez")
    with pytest.raises(FileNotFoundError, match="no activations"):
        compress(make_bae(), tmp_path, tmp_path / "a.baez")


def test_a_nan_is_refused_and_no_file_is_left(make_kind, vectors, tmp_path):
    bad = vectors.clone()
    bad[77, 3] = float("nan")
    settings = CodecSettings(block_vectors=64, fit_vectors=2)
    with pytest.raises(ValueError, match=r"the vectors from 64 to 127 hold 1 NaN"):
        compress(make_kind("plain"), bad, tmp_path / "a.baez", settings, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", ["touched", "removed", "added"])
def test_a_directory_that_changes_while_it_is_read_is_refused(make_kind, acts, tmp_path, change, monkeypatch):
    shard = acts.path / "shard-00001.safetensors"
    changes = {
        "touched": lambda: shard.write_bytes(shard.read_bytes()),
        "removed": shard.unlink,
        "added": lambda: (acts.path / "shard-00009.safetensors").write_bytes(b"x"),
    }
    read_rows = type(acts).read_rows

    def read_then_change(self, index):
        rows = read_rows(self, index)
        if shard.exists() and not (acts.path / "shard-00009.safetensors").exists():
            changes[change]()
        return rows

    monkeypatch.setattr(type(acts), "read_rows", read_then_change)
    with pytest.raises(ValueError, match="has changed while it was read: shard-0000"):
        compress(make_kind("plain"), acts, tmp_path / "a.baez", progress=False)
    assert not (tmp_path / "a.baez").exists()


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"mode": "codes"}, "did you mean 'code'"),
        ({"probabilities": "trees"}, "did you mean 'tree'"),
        ({"norm_bits": 12}, "norm_bits must be 8 or 16"),
        ({"threshold": 0.5}, "from log2 0.5 = -1 to 0"),
        ({"block_vectors": 0}, "from 1 to 65536"),
        ({"fit_vectors": 0}, "at least 1 vector"),
        ({"target_fvu": 0.0}, "must be over 0, got 0.0"),
        ({"target_fvu": float("nan")}, "must be over 0"),
        ({"threshold": -0.5}, "is of mode 'index'"),
        ({"packed": False}, "are of mode 'index'"),
        ({"mode": "index", "probabilities": "prior"}, "are of mode 'code'"),
        ({"target_cosine": 1.0}, "must be under 1"),
        ({"target_fvu": 0.1, "target_cosine": 0.9}, "not both"),
    ],
)
def test_settings_out_of_range_are_refused(fields, why):
    with pytest.raises(ValueError, match=why):
        CodecSettings(**fields)


def test_activations_of_half_precision_come_back_in_it(make_kind, vectors, tmp_path):
    acts = bae_lens.save_activations(tmp_path / "half", [vectors.bfloat16()])
    compress(make_kind("plain"), acts, tmp_path / "a.baez", progress=False)
    back = decompress(tmp_path / "a.baez", tmp_path / "back", progress=False)
    assert next(iter(back.chunks())).dtype == torch.bfloat16


def test_the_commands_compress_and_decompress(make_kind, acts, vectors, tmp_path, capsys):
    bae = make_kind("plain")
    bae_lens.save(bae, tmp_path / "bae")
    file, numbers = tmp_path / "a.baez", tmp_path / "a.json"
    paths = ["--bae", str(tmp_path / "bae"), "--activations", str(acts.path), "--out", str(file)]
    assert main(["compress", *paths, "--norm-bits", "8", "--json", str(numbers)]) == 0
    assert f"{len(vectors)} vectors in {file.stat().st_size:,} bytes" in capsys.readouterr().out
    assert json.loads(numbers.read_text())["bytes"] == file.stat().st_size
    assert main(["decompress", str(file), "--out", str(tmp_path / "back")]) == 0
    back = bae_lens.ActivationDataset(tmp_path / "back")
    assert back.metadata["of"] == "a test"
    with bae_lens.codec.open(file) as z:
        assert torch.equal(torch.cat(list(back.chunks())), z[:])
    assert main(["compress", *paths, "--mode", "indx"]) == 2
    assert "did you mean 'index'" in capsys.readouterr().err


def test_a_split_of_decompressed_vectors_says_that_it_is_not_by_document(make_kind, acts, tmp_path, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        acts.split()  # vectors of one's own, that never said
    compress(make_kind("plain"), acts, tmp_path / "a.baez", progress=False)
    assert main(["decompress", str(tmp_path / "a.baez"), "--out", str(tmp_path / "back")]) == 0
    assert "without the token and document that each is of" in capsys.readouterr().out
    back = bae_lens.ActivationDataset(tmp_path / "back")
    assert back.metadata["not_kept"] == ["tokens", "documents", "positions"]
    with pytest.warns(UserWarning, match=r"decompressed from a\.baez, which does not keep .* split by vector"):
        train, held_out = back.split()
    assert len(train) + len(held_out) == len(acts)


def test_vectors_that_are_all_equal_have_no_fvu_and_the_summary_says_so(make_kind, tmp_path):
    found = compress(make_kind("plain"), torch.ones(100, 128), tmp_path / "a.baez", progress=False)
    assert "no FVU, as the vectors are all equal" in found.describe()
    assert found.numbers()["fvu"] is None
