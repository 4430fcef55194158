import math

import pytest
import torch

from bae_lens.model.binarize import SURROGATES, step

PRE = torch.tensor([-2.0, -0.3, -0.1, 0.0, 0.2, 0.3, 0.31, 5.0], dtype=torch.float64)


def apply(surrogate, width=1.0, at_zero=1.0):
    pre = PRE.clone().requires_grad_()
    bits = step(pre, torch.full_like(PRE, at_zero), surrogate, width)
    return pre, bits


def test_the_step_is_one_at_zero_as_in_the_paper():
    assert apply("sigmoid")[1].tolist() == [0, 0, 0, 1, 1, 1, 1, 1]


def test_the_bit_at_zero_can_be_turned_round():
    assert apply("sigmoid", at_zero=0.0)[1].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert SURROGATES["reference_code"].bit_at_zero == 0


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


SMOOTH = {
    "sigmoid": sigmoid,
    "tanh": lambda z: (1 + math.tanh(z)) / 2,
    "swish_sign": lambda z: (1 + (2 * sigmoid(z) * (1 + z * (1 - sigmoid(z))) - 1)) / 2,
    "biper": lambda z: (1 + math.sin(z)) / 2,
}
"""What stands for the step, of z = pre-activation / width."""


@pytest.mark.parametrize("width", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("name", SMOOTH)
def test_a_smooth_surrogate_is_the_derivative_of_its_function_by_central_differences(name, width):
    pre, bits = apply(name, width)
    incoming = torch.linspace(-1, 2, len(PRE), dtype=torch.float64)
    (bits * incoming).sum().backward()
    smooth, h = SMOOTH[name], 1e-5
    slopes = [(smooth((x + h) / width) - smooth((x - h) / width)) / (2 * h) for x in PRE.tolist()]
    torch.testing.assert_close(pre.grad, incoming * torch.tensor(slopes, dtype=torch.float64), atol=1e-9, rtol=1e-7)


def test_every_surrogate_that_has_a_smooth_function_rises_from_0_to_1_around_the_step():
    for name, smooth in SMOOTH.items():
        z = math.pi / 2 if name == "biper" else 30
        assert smooth(-z) == pytest.approx(0, abs=1e-9), name
        assert smooth(0) == pytest.approx(0.5), name
        assert smooth(z) == pytest.approx(1, abs=1e-9), name


def test_the_registry_has_no_surrogate_without_a_test_of_its_gradient():
    assert set(SURROGATES) == set(SMOOTH) | {"clip", "identity", "reference_code"}


@pytest.mark.parametrize("name", [*SMOOTH, "clip"])
def test_a_smaller_width_keeps_the_gradient_nearer_to_the_step(name):
    def reach(width):
        pre = torch.linspace(-1, 1, 2001, dtype=torch.float64).mul(width * math.pi / 2).requires_grad_()
        step(pre, torch.ones(1, dtype=torch.float64), name, width).sum().backward()
        return ((pre.grad.abs() * pre.detach().abs()).sum() / pre.grad.abs().sum()).item()

    assert reach(0.1) == pytest.approx(0.1 * reach(1.0))


def test_the_clip_surrogate_passes_gradients_within_its_width_only():
    pre, bits = apply("clip", 0.3)
    (2 * bits).sum().backward()
    assert pre.grad.tolist() == [0, 2, 2, 2, 2, 2, 0, 0]


def test_the_identity_surrogate_passes_every_gradient():
    pre, bits = apply("identity")
    (bits * PRE).sum().backward()
    torch.testing.assert_close(pre.grad, PRE)


def test_the_reference_surrogate_is_g_times_one_minus_g_of_the_incoming_gradient():
    pre, bits = apply("reference_code")
    incoming = torch.linspace(-0.5, 2, len(PRE), dtype=torch.float64)
    (bits * incoming).sum().backward()
    assert pre.grad.tolist() == [g * (1 - g) for g in incoming.tolist()]


def test_bits_keep_the_dtype_of_the_pre_activations():
    pre = torch.tensor([-1.0, 1.0], dtype=torch.bfloat16)
    assert step(pre, torch.ones(2, dtype=torch.bfloat16), "sigmoid", 1.0).dtype == torch.bfloat16
