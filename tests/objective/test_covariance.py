import subprocess
import sys

import pytest
import torch

from bae_lens.objective import covariance
from bae_lens.objective.covariance import covariance_loss, live_covariance


@pytest.fixture(params=[covariance.INT8, covariance.FLOAT], ids=lambda p: str(p.operand))
def product(request, monkeypatch):
    """Each of the two ways to count, whichever is faster on this machine."""
    monkeypatch.setattr(covariance, "fastest_product", lambda device_type: request.param)


def random_bits(samples, d_bits, live=1.0, seed=0, dtype=torch.float32):
    """Bits of densities from 0.05 to 0.95; the others are constant, a third of them at 1."""
    generator = torch.Generator().manual_seed(seed)
    density = torch.rand(d_bits, generator=generator) * 0.9 + 0.05
    bits = (torch.rand(samples, d_bits, generator=generator) < density).to(dtype)
    constant = torch.randperm(d_bits, generator=generator)[: d_bits - round(live * d_bits)]
    bits[:, constant] = 0
    bits[:, constant[::3]] = 1
    return bits


def by_loops(bits):
    """Value and gradient of sum over i != j of abs(cov_ij), in float64, a pair at a time, signs from exact integers."""
    rows = bits.double()
    n, d = rows.shape
    ones = rows.sum(0).long().tolist()
    centred = rows - rows.mean(0)
    value, gradient = 0.0, torch.zeros(n, d, dtype=torch.float64)
    for i in range(d):
        for j in range(d):
            if i != j:
                value += abs((centred[:, i] @ centred[:, j]).item()) / (n - 1)
                together = int((rows[:, i] * rows[:, j]).sum())
                exact = n * together - ones[i] * ones[j]
                gradient[:, i] += 2 * ((exact > 0) - (exact < 0)) * centred[:, j] / (n - 1)
    return value, gradient


def measured(bits):
    bits = bits.clone().requires_grad_()
    value = covariance_loss(bits)
    value.backward()
    return value.item(), bits.grad


@pytest.mark.parametrize("live", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("samples", [2, 7, 32, 50])
def test_value_and_gradient_are_those_of_the_float64_loops(product, samples, live):
    bits = random_bits(samples, 40, live)
    value, gradient = by_loops(bits)
    got, got_gradient = measured(bits)
    assert got == pytest.approx(value, rel=1e-6, abs=1e-9)
    torch.testing.assert_close(got_gradient.double(), gradient, rtol=1e-5, atol=1e-5)


def test_more_bits_than_a_block_count_every_pair_once(product):
    bits = random_bits(24, 2 * 256 + 9, 0.9, dtype=torch.float64)
    n = len(bits)
    centred = bits - bits.mean(0)
    cov = centred.T @ centred / (n - 1)
    exact = n * bits.T @ bits - torch.outer(bits.sum(0), bits.sum(0))
    sign = exact.round().sign().fill_diagonal_(0)
    value, gradient = measured(bits)
    assert value == pytest.approx((cov * sign).sum().item(), rel=1e-12)
    torch.testing.assert_close(gradient, 2 / (n - 1) * centred @ sign, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("samples", [1, 2, 16])
@pytest.mark.parametrize("rows", [1, 2, 129])
@pytest.mark.parametrize("columns", [1, 5])
def test_the_int8_product_is_exact_for_views_of_one_row_or_column(samples, rows, columns):
    a = (torch.arange(rows * samples).view(samples, rows) % 3 - 1).to(torch.int8).T
    b = (torch.arange(columns * samples).view(columns, samples) % 2).to(torch.int8).T
    for _ in range(5):
        assert torch.equal(covariance.INT8.multiply(a, b), (a.long() @ b.long()).int())


def test_duplicates_and_exact_opposites_are_pushed_apart(product):
    bits = random_bits(64, 3)
    bits = torch.cat([bits, bits, 1 - bits], 1)
    value, gradient = by_loops(bits)
    got, got_gradient = measured(bits)
    assert got == pytest.approx(value, rel=1e-6)
    torch.testing.assert_close(got_gradient.double(), gradient, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got_gradient[:, :3], got_gradient[:, 3:6])
    torch.testing.assert_close(got_gradient[:, :3], -got_gradient[:, 6:])


@pytest.mark.parametrize("samples", [4, 100])
def test_an_exactly_uncorrelated_pair_has_no_gradient_at_any_batch_size(product, samples):
    """`torch.cov` gives such a pair the sign of a rounding error where the batch is no power of two."""
    quarter = samples // 4
    a = torch.tensor([0.0, 0, 1, 1]).repeat_interleave(quarter)
    b = torch.tensor([0.0, 1, 0, 1]).repeat_interleave(quarter)
    value, gradient = measured(torch.stack([a, b], 1))
    assert value == 0
    assert not gradient.any()


def test_a_single_sample_and_constant_bits_have_no_covariance(product):
    for bits in (random_bits(1, 9), torch.ones(6, 9), torch.zeros(6, 9)):
        value, gradient = measured(bits)
        assert value == 0
        assert not gradient.any()


def test_the_incoming_gradient_scales_the_gradient():
    bits = random_bits(16, 12)
    leaf = bits.clone().requires_grad_()
    (3 * covariance_loss(leaf)).backward()
    torch.testing.assert_close(leaf.grad, 3 * measured(bits)[1])


def test_nan_gives_nan_and_edited_bits_the_plain_formula():
    bits = random_bits(16, 12)
    bits[3, 4] = torch.nan
    assert torch.tensor(measured(bits)[0]).isnan()
    for edited in (0.5, 2.0, -1.0):
        bits[3, 4] = edited
        centred = bits.double() - bits.double().mean(0)
        cov = centred.T @ centred / 15
        value, gradient = measured(bits)
        assert value == pytest.approx((cov.abs().sum() - cov.diagonal().sum()).item(), rel=1e-5)
        torch.testing.assert_close(gradient.double(), 2 / 15 * centred @ cov.sign().fill_diagonal_(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_bits_are_counted_exactly_and_get_a_gradient_of_their_own_dtype(dtype):
    bits = random_bits(1000, 6)
    half = bits.to(dtype).requires_grad_()
    value = covariance_loss(half)
    value.backward()
    assert value.dtype == torch.float32
    assert value.item() == measured(bits)[0]
    assert half.grad.dtype == dtype


def test_what_is_no_matrix_of_numbers_is_refused():
    with pytest.raises((TypeError, ValueError), match="floating-point|Type-check"):
        covariance_loss(torch.ones(4, 3, dtype=torch.bool))
    with pytest.raises((TypeError, ValueError), match="batch, d_bits|Type-check"):
        covariance_loss(torch.ones(4, 3, 2))


def test_torch_func_differentiates_it():
    bits = random_bits(16, 12)
    torch.testing.assert_close(torch.func.grad(covariance_loss)(bits), measured(bits)[1])


def test_without_a_gradient_only_the_value_is_computed():
    bits = random_bits(16, 12)
    assert live_covariance(bits, with_gradient=False).gradient is None
    assert covariance_loss(bits).item() == measured(bits)[0]


def test_a_batch_whose_products_pass_32_bits_is_counted_exactly(product):
    samples = 70_000
    a = (torch.arange(samples) % 2).float()
    b = (torch.arange(samples) < samples // 2).float()
    value = covariance_loss(torch.stack([a, b, a], 1)).item()
    p, n = 0.5, samples
    assert value == pytest.approx(
        2 * p * (1 - p) * n / (n - 1), rel=1e-6
    )  # the pair (a, a), both ways; a and b are uncorrelated


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the peak memory on Linux alone (tests/SKIPPED.md)")
@pytest.mark.parametrize("name", ["INT8", "FLOAT"])
def test_the_peak_memory_at_8192_bits_stays_under_64_mib(name):
    """In a process of its own: what a live fraction of 1 at batch 512 adds to the resident set."""
    script = f"""
import torch
from pathlib import Path
from bae_lens.objective import covariance
torch.set_num_threads(1)
covariance.fastest_product = lambda device_type: covariance.{name}

def status(field):
    return int(next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith(field)).split()[1]) / 1024

covariance.covariance_loss((torch.rand(512, 64) < 0.3).float().requires_grad_()).backward()
bits = (torch.rand(512, 8192) < 0.3).float().requires_grad_()
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
covariance.covariance_loss(bits).backward()
print(status("VmHWM") - before)
"""
    for _ in range(3):  # what malloc keeps back of freed blocks differs from process to process
        peak = float(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout)
        assert peak > 16  # the gradient alone
        if peak < 64:
            return
    pytest.fail(f"{peak} MiB, three times over 64")
