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


@pytest.mark.parametrize("width", [0.5, 1.0, 3.0])
def test_the_sigmoid_surrogate_is_the_derivative_of_a_sigmoid_of_that_temperature(width):
    pre, bits = apply("sigmoid", width)
    bits.sum().backward()
    smooth = PRE.clone().requires_grad_()
    torch.sigmoid(smooth / width).sum().backward()
    torch.testing.assert_close(pre.grad, smooth.grad)


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
