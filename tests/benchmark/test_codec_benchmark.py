"""What `benchmarks/codec.py` measures: of a small BAE, against what can be counted by hand."""

import math

import pytest
import torch

from bae_lens.analyze.rate_distortion_bounds import principal_axes
from bae_lens.benchmark.codec_figure import curves, figure
from bae_lens.benchmark.codec_goals import damage, random_access, sizes, times
from bae_lens.benchmark.codec_table import MODES, PCA_STEPS, bae_rows, number_rows, pca_rows, sae_rows, table, target_rows
from bae_lens.compare.baselines import topk, train_baseline
from bae_lens.compare.refined_baseline import fit_refined
from bae_lens.training.config import TrainerConfig


@pytest.fixture
def data(vectors):
    random = torch.Generator().manual_seed(0)
    rows = vectors[torch.randint(len(vectors), (6000,), generator=random)]
    rows = rows + 0.1 * torch.randn(rows.shape, generator=random)
    return rows[:4000], rows[4000:]


@pytest.fixture
def bae(make_bae, data):
    bae = make_bae()
    bae.estimate_prior(data[0])
    return bae


def mean_cosine(x, x_hat):
    """One vector after the other."""
    pairs = zip(x.double(), x_hat.double(), strict=True)
    return sum((a @ b / a.norm() / b.norm()).item() for a, b in pairs) / len(x)


def quantised_cosine(axes, train, held_out, step):
    """Every coefficient to the mean of the training coefficients of its level."""
    width = step * math.sqrt(((train.double() - axes.mean) @ axes.axes).square().mean().item())
    known = (train.double() - axes.mean) @ axes.axes
    x_hat = (held_out.double() - axes.mean) @ axes.axes
    for d in range(known.shape[1]):
        levels, low = (known[:, d] / width).round(), (known[:, d] / width).round().min()
        sums, counts = torch.bincount((levels - low).long(), known[:, d]), torch.bincount((levels - low).long())
        values = torch.where(counts > 0, sums / counts, (torch.arange(len(counts)) + low) * width)
        x_hat[:, d] = values[((x_hat[:, d] / width).round() - low).clamp(0, len(values) - 1).long()]
    return mean_cosine(held_out, axes.mean + x_hat @ axes.axes.T)


def test_figures_of_size_are_those_of_files(bae, data, tmp_path):
    found = {figure.what: figure for figure in sizes(bae, *data, tmp_path)}
    on = bae.bits(data[0]).detach().double()
    held_out = bae.bits(data[1]).detach().double()
    p = (on.sum(0) + 0.5) / (len(on) + 1)
    bits = -(held_out * p.log2() + (1 - held_out) * (1 - p).log2()).sum().item() / len(held_out)
    assert found["cross-entropy of the prior, bits a vector"].value == pytest.approx(bits, rel=1e-6)
    assert found["cross-entropy of the tree, bits a vector"].value < bits
    assert found["FVU with 8 bits of norm"].is_met
    assert all(1 <= f.value < 1.04 for what, f in found.items() if "blocks over" in what)  # so few vectors get a coarse table


def test_times_random_access_and_damage_are_measured(bae, data, tmp_path):
    timed = {figure.what: figure.value for figure in times(bae, *data, tmp_path, blocks=1)}
    assert all(value > 0 for what, value in timed.items() if " less " not in what)  # a difference of times is what it is
    for name in ("prior", "tree"):
        rest = timed[f"compress() under the {name} less the BAE's encoder, microseconds a vector"]
        encoder = timed["the BAE's encoder, microseconds a vector"]
        whole = timed[f"compress() under the {name}, of 2000 vectors, microseconds a vector"]
        assert whole - rest == pytest.approx(3 * encoder)  # of 2,000 vectors, and of the 4,000 that are counted on
        assert timed[f"compress() under the {name} less the BAE's encoder, over the BAE's encoder"] == pytest.approx(
            rest / encoder
        )
    *_, costliest = random_access(bae, data[1], tmp_path, vectors=9000, slices=3)
    assert 0.4 < costliest.value <= 1.0  # the file has three blocks
    (accepted,) = damage(bae, data[1], tmp_path, files=20)
    assert accepted.value == 0


def test_rows_of_the_table_have_their_bytes(bae, data, tmp_path):
    fp16, int8, int4 = number_rows(*data)
    assert (fp16.bytes, int8.bytes, int4.bytes) == (256, 128, 64)
    assert fp16.fvu < int8.fvu < int4.fvu < 0.1
    rows = list(bae_rows("BAE", bae, *data, tmp_path))
    by_how = {row.how: row for row in rows}
    assert set(by_how) == set(MODES)
    assert by_how["code, tree"].bytes < by_how["index, packed"].bytes < by_how["index, 16 bits"].bytes
    assert by_how["code, tree"].fvu == pytest.approx(by_how["index, 16 bits"].fvu, rel=1e-9)
    assert by_how["index, packed, threshold -0.5"].bytes <= by_how["index, packed"].bytes
    (residual,) = target_rows("BAE", bae, *data, tmp_path, [0.01])
    assert residual.fvu <= 0.01
    pca = list(pca_rows(*data))
    assert [row.bytes for row in pca] == sorted((row.bytes for row in pca), reverse=True)
    sae = train_baseline(topk(4), data[0], 64, TrainerConfig(steps=5, batch_size=64))
    plain, refined = sae_rows("TopK SAE, k = 4", sae, *data, [1.0])
    code = fit_refined(sae, data[0], 1.0)
    assert refined.cosine == pytest.approx(mean_cosine(data[1], code.reconstruct(data[1])), abs=1e-6)
    features = sae.encode(data[1])
    assert plain.cosine == pytest.approx(mean_cosine(data[1], sae.decode(features)), abs=0.01)  # magnitudes are in steps there
    axes = principal_axes(data[0])
    for row, step in zip(pca, PCA_STEPS, strict=True):
        assert row.cosine == pytest.approx(quantised_cosine(axes, *data, step), abs=1e-6)
    assert plain.bytes > 0
    assert refined.bytes > 0
    shown = table([fp16, *rows], 2000)
    assert f"{rows[0].bytes + rows[0].model_bytes / 2000:.2f}" in shown
    picture = figure({"one": [fp16, *rows, residual], "two": [*pca, plain, refined]})
    assert picture.startswith(b"\x89PNG")
    drawn = {curve.name: len(curve.size) for curve in curves([*rows, residual, *pca, plain, refined])}
    assert drawn["BAE: and a residual"] == 2  # from the code on
    assert drawn["PCA: entropy-coded"] == len(pca)
    assert "BAE: packed indices" in drawn
    assert "TopK SAE: codes refined" in drawn
