import pytest
import torch

from bae_lens.objective import stacked
from bae_lens.objective.covariance import covariance_loss
from bae_lens.objective.stacked import stacked_covariance


def codes(baes, batch, width, seed=0):
    """Bits of many densities, some of them constant, in doubles."""
    generator = torch.Generator().manual_seed(seed)
    density = torch.rand(baes, 1, width, generator=generator).mul(1.4).sub(0.2).clamp(0, 1)
    return (torch.rand(baes, batch, width, generator=generator) < density).double()


@pytest.mark.parametrize("block", [2**20, 50])  # all covariances at once, or a few rows at a time
@pytest.mark.parametrize(("baes", "batch", "width"), [(3, 64, 20), (2, 7, 11), (1, 2, 3)])
def test_each_baes_covariance_and_gradient_are_those_of_the_plain_formula(baes, batch, width, block, monkeypatch):
    monkeypatch.setitem(stacked.COVARIANCES, "cpu", block)
    bits = codes(baes, batch, width).requires_grad_()
    value = stacked_covariance(bits)
    (value * torch.arange(1.0, baes + 1)).sum().backward()
    assert bits.grad is not None
    for number in range(baes):
        own = bits[number].detach().clone().requires_grad_()
        counts = own.detach().T @ own.detach()
        ones = own.detach().sum(0)
        sign = (batch * counts - torch.outer(ones, ones)).sign().fill_diagonal_(0)  # exact, as torch.cov's is not
        (sign * torch.cov(own.T)).sum().backward()
        expected = sum(
            abs((batch * counts[i, j] - ones[i] * ones[j]).item()) for i in range(width) for j in range(width) if i != j
        ) / (batch * (batch - 1))
        assert value[number].item() == pytest.approx(expected, rel=1e-12)
        torch.testing.assert_close(bits.grad[number], (number + 1) * own.grad, atol=1e-12, rtol=1e-10)


def test_a_nan_reaches_no_other_bae():
    bits = codes(3, 32, 10).float()
    spoilt = bits.clone()
    spoilt[1, 3, 4] = torch.nan
    found = stacked_covariance(spoilt)
    for number in (0, 2):
        assert found[number] == covariance_loss(bits[number])
