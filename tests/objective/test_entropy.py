import math

import pytest
import torch

from bae_lens.objective.entropy import entropy_loss, level_entropy_loss, marginal_entropy


def random_bits(samples=40, d_bits=6, seed=0, density=0.3):
    return (torch.rand(samples, d_bits, generator=torch.Generator().manual_seed(seed)) < density).double()


def entropy_by_loops(bits):
    total = 0.0
    for column in bits.T.tolist():
        p = sum(column) / len(column)
        total -= sum(q * math.log2(q) for q in (p, 1 - p) if q > 0)
    return total


def test_reported_entropy_is_the_sum_of_bernoulli_entropies():
    bits = random_bits()
    assert marginal_entropy(bits.mean(0)).item() == pytest.approx(entropy_by_loops(bits), rel=1e-12)
    assert marginal_entropy(torch.full((8,), 0.5)).item() == 8
    assert marginal_entropy(torch.tensor([0.0, 1.0])).item() == 0


def test_the_bernoulli_loss_is_the_entropy_and_eq4_is_half_of_it_on_fair_bits():
    bits = random_bits()
    assert entropy_loss(bits.mean(0), "bernoulli").item() == pytest.approx(entropy_by_loops(bits), rel=1e-6)
    fair = torch.full((10,), 0.5, dtype=torch.float64)
    assert entropy_loss(fair, "bernoulli").item() == pytest.approx(10)
    assert entropy_loss(fair, "eq4").item() == pytest.approx(5)
    means = bits.mean(0).tolist()
    assert entropy_loss(bits.mean(0), "eq4").item() == pytest.approx(-sum(p * math.log2(p) for p in means), rel=1e-6)


@pytest.mark.parametrize("form", ["bernoulli", "eq4"])
def test_the_entropy_loss_has_a_finite_gradient_at_zero_and_one(form):
    mean = torch.tensor([0.0, 1.0, 1 / 4096, 1 - 1 / 4096, 0.5], requires_grad=True)
    entropy_loss(mean, form).backward()
    assert torch.isfinite(mean.grad).all()
    if form == "bernoulli":
        assert mean.grad[0] > 0 > mean.grad[1]


def test_the_gradient_of_the_entropy_is_that_of_finite_differences():
    mean = torch.tensor([0.1, 0.4, 0.9], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m: entropy_loss(m, "bernoulli"), mean)


def random_levels(samples=40, d_sae=5, top=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(samples, d_sae, generator=generator) ** 2 * (top + 1)).long()


def test_the_loss_of_nested_bits_is_the_entropy_of_their_levels():
    levels = random_levels()
    total = 0.0
    for column in levels.T.tolist():
        shares = [column.count(level) / len(column) for level in range(4)]
        total -= sum(p * math.log2(p) for p in shares if p)
    passed = torch.stack([(levels > j).double().mean(0) for j in range(3)], 1)
    assert level_entropy_loss(passed).item() == pytest.approx(total, rel=1e-6)
    assert level_entropy_loss(passed[:, :1]).item() == pytest.approx(entropy_loss(passed[:, 0], "bernoulli").item(), rel=1e-9)


def test_the_gradient_of_the_levels_entropy_is_that_of_finite_differences_and_finite_at_the_ends():
    passed = torch.tensor([[0.6, 0.3, 0.1], [0.9, 0.5, 0.45]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(level_entropy_loss, passed)
    ends = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.4, 0.4]], requires_grad=True)
    level_entropy_loss(ends).backward()
    assert ends.grad is not None
    assert torch.isfinite(ends.grad).all()
    assert ends.grad.abs().max() < 5  # no logarithm of an epsilon
