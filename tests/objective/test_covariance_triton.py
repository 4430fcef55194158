"""The Triton kernels against a loop over pairs of bits: on a GPU where there is one, and under Triton's interpreter.

Triton reads TRITON_INTERPRET when it is imported, so the last test but one runs this file again in a process that has it set.
"""

import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bae_lens.objective import covariance_triton
from bae_lens.objective.covariance import covariance_loss
from bae_lens.objective.covariance_triton import KernelsFailed, available, covariance_with_gradient, fits, panel_columns

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
HOPPER_TENSOR_CORES = re.compile(r"wgmma\.mma_async\S*\.s32\.s8\.s8")
SHARED_MEMORY = 227 * 1024


def new_triton():
    """Before 3.7 Triton's interpreter cannot count to a number that a kernel loads, where NumPy is newer than it."""
    try:
        major, minor = importlib.metadata.version("triton").split(".")[:2]
    except importlib.metadata.PackageNotFoundError:
        return False
    return (int(major), int(minor)) >= (3, 7)


runs_kernels = pytest.mark.skipif(not available(), reason="no GPU with Triton in this process (tests/SKIPPED.md)")
needs_gpu = pytest.mark.skipif(INTERPRETED or not available(), reason="no GPU with Triton (tests/SKIPPED.md)")
needs_triton = pytest.mark.skipif(
    INTERPRETED or not new_triton(), reason="Triton 3.7 is not installed, or this process interprets (tests/SKIPPED.md)"
)


def by_pairs(bits):
    """Value and gradient by a loop over pairs; n h - s, n times a centred column, is in integers: ties are exact."""
    n, d = bits.shape
    centred = (n * bits.double() - bits.double().sum(0)).T.long().cpu().numpy()
    value, gradient = 0, torch.zeros(d, n, dtype=torch.int64).numpy()
    for i in range(d):
        for j in range(i):
            c = int(centred[i] @ centred[j])
            sign = (c > 0) - (c < 0)
            value += 2 * abs(c)
            gradient[i] += sign * centred[j]
            gradient[j] += sign * centred[i]
    return value / (n * n * max(n - 1, 1)), torch.from_numpy(gradient.T).double() * 2 / (n * max(n - 1, 1))


def random_bits(samples, d_bits, live=1.0, seed=0):
    """Fair bits of which the fraction `live` varies; the others are 0 or 1 throughout."""
    generator = torch.Generator().manual_seed(seed)
    bits = (torch.rand(samples, d_bits, generator=generator) < 0.5).float()
    bits[0], bits[-1] = 1, 0
    constant = torch.randperm(d_bits, generator=generator)[round(live * d_bits) :]
    bits[:, constant] = (torch.arange(len(constant)) % 2).float()
    return bits.to(DEVICE)


def assert_parity(bits, tolerance=1e-6):
    value, gradient = covariance_with_gradient(bits)
    expected, expected_gradient = by_pairs(bits)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(expected, rel=1.2e-7)  # the nearest fp32, or one beside it
    assert gradient.dtype == bits.dtype
    assert gradient.shape == bits.shape
    torch.testing.assert_close(gradient.double().cpu(), expected_gradient, rtol=tolerance, atol=tolerance)


@runs_kernels
@pytest.mark.parametrize("live", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("d_bits", [1, 5, 130, 200])
@pytest.mark.parametrize("samples", [2, 37, 64, 100])
def test_value_and_gradient_are_those_of_a_loop_over_pairs(samples, d_bits, live):
    assert_parity(random_bits(samples, d_bits, live))


@runs_kernels
def test_one_sample_has_no_covariance_and_no_gradient():
    value, gradient = covariance_with_gradient(torch.ones(1, 3, device=DEVICE))
    assert value.item() == 0
    assert not gradient.any()


@runs_kernels
def test_value_and_gradient_are_those_of_the_plain_loss_and_its_backward_pass():
    bits = random_bits(64, 70).double().requires_grad_()  # 64 is a power of two: the plain loss has exact ties too
    loss = covariance_loss(bits)
    loss.backward()
    value, gradient = covariance_with_gradient(bits)
    assert value.item() == pytest.approx(loss.item(), rel=1.2e-7)
    assert bits.grad is not None
    torch.testing.assert_close(gradient, bits.grad, rtol=1e-12, atol=1e-12)


@runs_kernels
@pytest.mark.parametrize("samples", [37, 64])
def test_duplicates_and_opposites_count_like_any_other_pair(samples):
    bits = random_bits(samples, 40)
    assert_parity(torch.cat([bits, bits[:, ::3], 1 - bits[:, ::2]], dim=1))


@runs_kernels
def test_uncorrelated_bits_have_value_and_gradient_of_exactly_zero():
    codes = torch.arange(64, device=DEVICE)
    bits = torch.stack([(codes >> place) & 1 for place in range(6)], dim=1).float()
    parities = (bits[:, :1] + bits[:, 1:]) % 2
    value, gradient = covariance_with_gradient(torch.cat([bits, parities], dim=1))
    assert value.item() == 0
    assert not gradient.any()


@runs_kernels
def test_ties_add_nothing_to_the_gradient_where_the_batch_is_no_power_of_two():
    columns = [[1, 1, 0, 0, 0, 0], [1, 0, 1, 0, 1, 0], [1, 1, 1, 0, 0, 0]]  # the first two are uncorrelated
    bits = torch.tensor(columns, device=DEVICE).float().T
    assert not covariance_with_gradient(bits[:, :2].contiguous())[1].any()
    assert_parity(bits)


@runs_kernels
@pytest.mark.parametrize("width", [256, 512])
def test_the_result_does_not_depend_on_the_panels(width, monkeypatch):
    bits = random_bits(37, 600, live=0.9)
    value, gradient = covariance_with_gradient(bits)
    monkeypatch.setattr(covariance_triton, "PANEL_COLUMNS", width)
    assert panel_columns(768) == width  # three panels, or two of which the last is half empty
    in_panels, gradient_in_panels = covariance_with_gradient(bits)
    assert torch.equal(value, in_panels)
    assert torch.equal(gradient, gradient_in_panels)
    assert_parity(bits)


@runs_kernels
def test_tuning_runs_kernels_many_times_and_leaves_the_result_alone(monkeypatch):
    trials = []

    def three_trials(call, quantiles):
        trials.append([call() for _ in range(3)])
        return [1.0, 1.0, 1.0]

    monkeypatch.setattr(covariance_triton, "PANEL_COLUMNS", 256)
    monkeypatch.setattr(covariance_triton, "INTERPRETER_TILES", ((64, 64, 64, 4, 1), (32, 128, 64, 4, 1)))
    monkeypatch.setattr(covariance_triton, "_median_milliseconds", three_trials)
    monkeypatch.setattr(covariance_triton, "_kernels", covariance_triton._kernels.__wrapped__)
    assert_parity(random_bits(37, 300))
    assert len(trials) >= 4  # two kernels, at least two tiles each


@pytest.mark.parametrize("d_bits", [256, 2048, 5120, 8192, 16384, 32768])
def test_a_panel_is_no_wider_than_the_limits_and_panels_cover_all_bits(d_bits):
    width = panel_columns(d_bits)
    assert width % 256 == 0
    assert width <= 4096
    assert width * d_bits <= 64 * 2**20
    assert -(-d_bits // width) == max(-(-d_bits // 4096), -(-d_bits * d_bits // (64 * 2**20)))


@runs_kernels
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float16, 2e-3), (torch.bfloat16, 1e-2)])
def test_the_gradient_has_the_dtype_and_the_precision_of_the_bits(dtype, tolerance):
    assert_parity(random_bits(37, 30).to(dtype), tolerance)


@runs_kernels
def test_bits_of_any_strides_are_taken():
    bits = random_bits(50, 40)
    assert_parity(bits.T)
    assert_parity(bits[::2, ::3])


@runs_kernels
def test_the_largest_batch_overflows_nothing():
    n, d = 46340, 8
    column = (torch.arange(n, device=DEVICE) % 2).float()
    value, gradient = covariance_with_gradient(column[:, None].expand(n, d))
    assert value.item() == pytest.approx(d * (d - 1) * n / (4 * (n - 1)), rel=1.2e-7)
    expected = 2 * (d - 1) / (n - 1) * (column - 0.5)
    torch.testing.assert_close(gradient, expected[:, None].expand(n, d), rtol=1e-6, atol=0)


@runs_kernels
@pytest.mark.parametrize("entry", [float("nan"), float("inf"), 0.5, 2.0, -1.0])
@pytest.mark.parametrize("live", [0.0, 1.0])
def test_an_entry_that_is_no_bit_makes_value_and_gradient_nan(entry, live):
    bits = random_bits(20, 10, live)
    bits[7, 3] = entry
    value, gradient = covariance_with_gradient(bits)
    assert value.isnan()
    assert gradient.isnan().all()


@runs_kernels
def test_what_triton_raises_is_handed_on_as_one_kind_of_error(monkeypatch):
    def fail():
        raise OSError("no C compiler")

    monkeypatch.setattr(covariance_triton, "_kernels", fail)
    with pytest.raises(KernelsFailed, match="no C compiler"):
        covariance_with_gradient(random_bits(4, 3))


@runs_kernels
def test_what_does_not_fit_is_refused():
    few = torch.zeros(1, 1, device=DEVICE)
    assert fits(few.expand(46340, 1))
    for shape in [(46341, 1), (0, 3), (3, 0), (46340, 46340)]:
        bits = few[:0, :0].reshape(shape) if 0 in shape else few.expand(shape)
        assert not fits(bits)
        with pytest.raises(ValueError, match="the kernels take no bits of shape"):
            covariance_with_gradient(bits)


@runs_kernels
def test_the_environment_switches_the_kernels_off(monkeypatch):
    monkeypatch.setenv("BAE_LENS_TRITON", "0")
    assert not available()
    monkeypatch.setenv("BAE_LENS_TRITON", "1")
    assert available()


def test_bits_on_a_cpu_do_not_fit_unless_triton_interprets(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert not fits(torch.zeros(4, 3))


def test_without_triton_the_module_imports_and_says_that_it_is_not_available(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    spec = importlib.util.spec_from_file_location("covariance_triton_again", covariance_triton.__file__)
    assert spec is not None
    assert spec.loader is not None
    again = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, again)
    spec.loader.exec_module(again)
    assert not again.available()


@needs_gpu
def test_nothing_waits_for_the_device_after_the_first_call():
    bits = random_bits(512, 2048, live=0.3)
    first, first_gradient = covariance_with_gradient(bits)
    torch.cuda.set_sync_debug_mode("error")
    try:
        value, gradient = covariance_with_gradient(bits)
        with pytest.raises(RuntimeError, match="synchroniz"):  # the mode is on
            value.item()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert value.item() == first.item() > 0
    assert torch.equal(gradient, first_gradient)


@needs_gpu
def test_memory_stays_under_128_mebibytes_at_8192_bits():
    bits = random_bits(512, 8192)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    covariance_with_gradient(bits)
    assert torch.cuda.max_memory_allocated() - before <= 128 * 2**20


@needs_triton
def test_under_tritons_interpreter_these_tests_pass():
    command = [sys.executable, "-m", "pytest", __file__, "-p", "no:cacheprovider", "--durations=0"]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "BAE_LENS_TRITON": "1"}
    result = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[2], check=False
    )
    assert result.returncode == 0, result.stdout
    passed = re.search(r"(\d+) passed", result.stdout)
    assert passed is not None
    assert int(passed[1]) >= 90, result.stdout


HOPPER = [("_signs", tile) for tile in covariance_triton.SIGNS_TILES]
HOPPER += [("_centred_product", tile) for tile in covariance_triton.PRODUCT_TILES]
POINTERS = {
    **dict.fromkeys(["rows", "columns", "signs"], "*i8"),
    **dict.fromkeys(["ones", "sums", "order", "row_sums"], "*i32"),
    **dict.fromkeys(["rank", "row_sizes"], "*i64"),
    **dict.fromkeys(["bits", "gradient", "nothing"], "*fp32"),
}


def compiled_for_hopper(name, constants, warps, stages, live):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    covariance_triton._language()
    kernel = triton.jit(getattr(covariance_triton, name))
    types = {**dict.fromkeys(kernel.arg_names, "i32"), **POINTERS, "live": live, **dict.fromkeys(constants, "constexpr")}
    aligned = {(place,): [["tt.divisibility", 16]] for place, arg in enumerate(kernel.arg_names) if arg not in constants}
    source = ASTSource(kernel, {arg: types[arg] for arg in kernel.arg_names}, constexprs=constants, attrs=aligned)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps, "num_stages": stages})


@needs_triton
@pytest.mark.parametrize(("name", "tile"), HOPPER)
def test_every_tile_compiles_for_hopper_to_its_int8_tensor_cores_and_fits_its_shared_memory(name, tile, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    language = covariance_triton._language()
    dtype = {"IN_TILE": language.int32} if name == "_signs" else {"DIVISION": language.float32}
    blocks = dict(zip(["BLOCK_J", "BLOCK_I", "BLOCK_K"], tile[:3], strict=True))
    kernel = compiled_for_hopper(name, {**dtype, **blocks, "GROUP": 8}, *tile[3:], live="*i64")
    assert HOPPER_TENSOR_CORES.search(kernel.asm["ptx"])
    assert "cp.async" in kernel.asm["ptx"]
    assert kernel.metadata.shared <= SHARED_MEMORY


@needs_triton
@pytest.mark.parametrize("dtype", ["*fp64", "*fp32", "*bf16"])
def test_packing_compiles_for_hopper(dtype, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setitem(POINTERS, "bits", dtype)
    assert "st.global" in compiled_for_hopper("_pack", {"STEP": 64, "stride_d": 1}, 4, 3, live="*i1").asm["ptx"]
