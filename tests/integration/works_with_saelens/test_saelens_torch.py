"""A BAE in other dtypes, compiled, copied and moved."""

import copy
import subprocess
import sys

import pytest
import torch
from sae_lens.saes.sae import TrainStepInput
from saelens_parts import training_config

import bae_lens

pytestmark = pytest.mark.parametrize("c", [1, 3])


def test_bf16_and_autocast(vectors, c):
    """A training step in bf16 and under autocast: finite, and its statistics in fp32."""
    for dtype, autocast in (("bfloat16", False), ("float32", True), ("bfloat16", True)):
        sae = bae_lens.TrainingBAE(training_config(c, dtype=dtype))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            output = sae.training_forward_pass(TrainStepInput(vectors.to(sae.dtype), sae.get_coefficients(), None, 9, True))
        output.loss.backward()
        assert torch.isfinite(output.loss)
        assert sae.W_enc.grad is not None
        assert torch.isfinite(sae.W_enc.grad).all()
        assert output.losses["entropy_loss"].dtype == sae.prior.dtype == torch.float32
        exact = 0.1 * bae_lens.objective.entropy.marginal_entropy((output.hidden_pre >= 0).double().mean(0)).item()
        assert output.losses["entropy_loss"].item() == pytest.approx(exact, rel=1e-3)


def test_torch_compile(bae, vectors, tmp_path, c):
    """Compiled, the graph captured whole, a BAE encodes and reconstructs the same, and has gradients."""
    bae.save_model(tmp_path)
    script = f"""
import torch, bae_lens
bae, x = bae_lens.load({str(tmp_path)!r}), torch.randn(20, 128)
compiled = torch.compile(bae, backend="aot_eager", fullgraph=True)
with torch.no_grad():
    torch.testing.assert_close(compiled(x), bae(x))
compiled(x).sum().backward()
assert bae.W_enc.grad.abs().sum() > 0
"""  # in a process without the tests' type checks, which no compiler looks through
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]


def test_deepcopy_and_moves_between_dtypes_and_devices(bae, vectors, c):
    """A copy is independent; a move keeps the prior in fp32 and the configuration in step."""
    other = copy.deepcopy(bae)
    other.W_dec.data.zero_()
    assert bae.W_dec.abs().sum() > 0
    half = copy.deepcopy(bae).to("cpu", torch.bfloat16)
    assert (half.cfg.dtype, half.prior.dtype, half.W_enc.dtype) == ("bfloat16", torch.float32, torch.bfloat16)
    back = half.to(dtype=torch.float32)
    assert torch.equal(back.prior, bae.prior)
    if torch.cuda.is_available():
        assert bae.to("cuda").bits(vectors.cuda()).device.type == "cuda"
        bae.to("cpu")
