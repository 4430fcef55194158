"""However many vectors there are, writer and reader take the memory of a few blocks."""

import json
import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, importlib, json, sys
from pathlib import Path
import torch, bae_lens
from bae_lens.codec import CodecSettings, compress, decompress

importlib.import_module("bae_lens.codec.compress").SHARD_BYTES = 2**21
torch.set_num_threads(1)
out, vectors, mode = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]

def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024

def peak(run):
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    run()
    return status("VmHWM") - before

def read(path):
    with bae_lens.codec.open(path) as z:
        assert sum(map(len, z.chunks())) == len(z)

def both(name, vectors):
    acts = bae_lens.save_activations(
        out / f"acts-{name}", (torch.randn(4096, 128) for _ in range(vectors // 4096)), shard_vectors=4096
    )
    path, settings = out / f"{name}.baez", CodecSettings(mode=mode, norm_bits=8, block_vectors=1024, fit_vectors=4096)
    return {
        "compress": peak(lambda: compress(bae, acts, path, settings, progress=False)),
        "read": peak(lambda: read(path)),
        "decompress": peak(lambda: decompress(path, out / f"back-{name}", progress=False)),
    }

torch.manual_seed(0)
bae = bae_lens.BAE(bae_lens.BAEConfig(d_in=128, d_sae=256))
bae.b_enc.data.fill_(-2.0)
both("warm", 4096)  # libraries load what they need at the first call
print(json.dumps([both("one", vectors), both("eight", 8 * vectors)]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the peak memory on Linux alone (tests/SKIPPED.md)")
@pytest.mark.parametrize("mode", ["code", "index"])
def test_eight_times_the_vectors_take_no_more_memory(tmp_path, mode):
    """In a process of its own: 10 MB of vectors, and 84 MB."""
    vectors = 20480
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(vectors), mode]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    one, eight = json.loads(printed)
    more = 7 * vectors * 128 * 4
    for what in one:
        assert eight[what] - one[what] < more / 3, (what, one, eight)
