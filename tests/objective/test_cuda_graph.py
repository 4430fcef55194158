import pytest
import torch

from bae_lens.objective import covariance_triton
from bae_lens.objective.covariance import covariance_loss, live_covariance
from bae_lens.objective.cuda_graph import MOST_SHAPES, RECORD_AFTER, Recorded

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available() or not covariance_triton.available(), reason="no GPU with Triton (tests/SKIPPED.md)"
)


def some_bits(samples, d_bits, seed):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(samples, d_bits, generator=generator) < torch.rand(d_bits, generator=generator) ** 4).float()


def test_on_a_cpu_the_function_itself_is_called_each_time():
    calls = []

    def function(x):
        calls.append(x)
        return (2 * x,)

    recorded, x = Recorded(function), torch.ones(2, 3)
    for _ in range(RECORD_AFTER + 3):
        assert torch.equal(recorded(x)[0], 2 * x)
    assert len(calls) == RECORD_AFTER + 3


@needs_gpu
def test_a_replay_gives_what_the_function_gives_and_leaves_earlier_results_alone():
    calls = []

    def function(x):
        calls.append(x.shape)
        return x.cumsum(0), (x * x).sum()

    recorded = Recorded(function)
    inputs = [torch.randn(64, 32, device="cuda") for _ in range(12)]
    results = [recorded(x) for x in inputs]
    assert len(calls) == RECORD_AFTER + 1
    for x, (sums, square) in zip(inputs, results, strict=True):
        assert torch.equal(sums, x.cumsum(0))
        assert torch.equal(square, (x * x).sum())


@needs_gpu
def test_shapes_are_told_apart_and_few_are_kept():
    recorded = Recorded(lambda x: (x + 1,))
    for width in [*range(1, MOST_SHAPES + 4), 1, 2]:
        for _ in range(RECORD_AFTER + 2):
            assert recorded(torch.ones(3, width, device="cuda"))[0].shape == (3, width)
    assert len(recorded._recordings) <= MOST_SHAPES


@needs_gpu
def test_what_cannot_be_recorded_is_called_as_before():
    recorded = Recorded(lambda x: (x * x.sum().item(),))  # waits for the device, which a graph cannot
    for value in range(RECORD_AFTER + 4):
        assert recorded(torch.full((2,), float(value), device="cuda"))[0].tolist() == [2.0 * value**2] * 2


@needs_gpu
def test_the_covariance_and_its_gradient_are_the_same_in_every_call():
    for seed in range(RECORD_AFTER + 5):
        bits = some_bits(200, 300, seed)
        on_gpu = bits.cuda().requires_grad_()
        loss = covariance_loss(on_gpu)
        (3 * loss).backward()
        expected = live_covariance(bits.double())
        assert loss.item() == pytest.approx(expected.value.item(), rel=1e-6)
        assert on_gpu.grad is not None
        assert expected.gradient is not None
        torch.testing.assert_close(
            on_gpu.grad[:, expected.live.cuda()].cpu().double(), 3 * expected.gradient, rtol=1e-5, atol=1e-7
        )
