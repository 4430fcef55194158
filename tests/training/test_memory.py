"""The memory estimate beside what training takes."""

import subprocess
import sys

import pytest

from bae_lens.training.memory import training_bytes, training_memory
from bae_lens.training.recipes import rate_distortion, recommended, synthetic

SCRIPT = """
import ctypes, sys
from pathlib import Path
import torch, bae_lens
from bae_lens.training.memory import training_bytes
d_in, d_sae, batch = map(int, sys.argv[1:])
torch.set_num_threads(1)

def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024

def run(d_in, d_sae, batch, samples):
    x = torch.randn(samples, d_in)
    recipe = bae_lens.recipes.recommended(d_in, d_sae / d_in, steps=3, batch_size=batch)
    bae_lens.train(x, recipe, progress=False)
    return training_bytes(recipe.sae, batch) + x.numel() * x.element_size()

run(64, 128, 64, 256)  # libraries load what they need at the first call
ctypes.CDLL(None).malloc_trim(0)
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
estimate = run(d_in, d_sae, batch, 4096)
print((status("VmHWM") - before) / estimate)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the peak memory on Linux alone (tests/SKIPPED.md)")
@pytest.mark.parametrize(
    "size",
    [
        (1024, 4096, 512),
        pytest.param((512, 8192, 512), marks=pytest.mark.slow),
        pytest.param((1024, 8192, 512), marks=pytest.mark.slow),
        pytest.param((2048, 8192, 512), marks=pytest.mark.slow),
    ],
    ids=lambda size: "x".join(map(str, size)),
)
def test_the_estimate_is_within_15_percent_of_the_peak_above_the_imported_baseline(size):
    """In a process of its own, from before the vectors are made to after the BAE is finished."""
    command = [sys.executable, "-c", SCRIPT, *map(str, size)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert 1 / 1.15 < float(printed) < 1.15


def test_weights_gradients_and_moments_are_counted_from_the_weights_shapes():
    memory = training_memory(recommended(100, 3).sae, 512)
    numbers = 100 * 300 + 300 + 300 * 100 + 100 + (300 + 300 + 300 + 3 * 300)  # W_enc b_enc W_dec b_dec; buffers
    assert memory.weights == memory.gradients == 4 * numbers
    assert memory.moments == 2 * memory.weights
    assert memory.resident == 4 * memory.weights


def test_larger_batches_take_more_codes_and_no_more_weights():
    small, large = (training_memory(recommended(128, 8).sae, batch) for batch in (512, 4096))
    assert large.codes == 8 * small.codes
    assert large.weights == small.weights
    assert large.peak > small.peak


def test_the_covariance_takes_memory_of_live_bits_alone():
    sae = recommended(128, 8).sae
    half, whole = (training_memory(sae, 512, live=live).covariance for live in (0.5, 1.0))
    blocks = 2 * half - whole
    assert 0 < blocks < half
    assert training_memory(recommended(128, 8, bits_per_feature=4).sae, 512).covariance == 0  # its weight is 0


def test_refined_codes_have_a_gram_matrix_and_a_revision_has_its_own_codes():
    assert training_memory(rate_distortion(64, 8).sae, 256).gram == 4 * 512**2
    sae = synthetic(64, 64).sae
    plain, revised = (training_memory(sae, 64, revises=r) for r in (False, True))
    assert revised.peak > plain.peak == training_bytes(sae, 64)
