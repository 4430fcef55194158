import pytest
import torch
from sae_lens.saes.sae import TrainStepInput

import bae_lens
from bae_lens.objective import sparse_products
from bae_lens.objective.sparse_products import decode_linear, encode_linear


def features(samples, d_sae, density, live=1.0, seed=0, levels=1):
    """Some columns constantly 0, some constantly on, the others on for a share `density` of the samples."""
    generator = torch.Generator().manual_seed(seed)
    on = (torch.rand(samples, d_sae, generator=generator) < density).float()
    values = on * torch.randint(1, levels + 1, (samples, d_sae), generator=generator) / levels
    constant = torch.randperm(d_sae, generator=generator)[: d_sae - round(live * d_sae)]
    values[:, constant] = 0
    values[:, constant[::3]] = 1
    return values


def leaves(*tensors):
    return [t.clone().requires_grad_() for t in tensors]


def random(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def in_float64(function, *tensors):
    """Value and gradients of the dense formula in float64, for a loss that weighs each entry differently."""
    wide = [t.double().requires_grad_() for t in tensors]
    out = function(*wide)
    (out * random(*out.shape, seed=9).double()).sum().backward()
    return out, [t.grad for t in wide]


@pytest.mark.parametrize("density", [0.0, 0.02, 0.1, 0.4, 1.0])
@pytest.mark.parametrize("live", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("levels", [1, 7])
def test_the_decoder_and_its_gradients_are_those_of_the_dense_product(density, live, levels):
    inputs = features(33, 50, density, live, levels=levels), random(50, 12), random(12)
    expected, gradients = in_float64(lambda f, W, b: f @ W + b, *inputs)
    own = leaves(*inputs)
    out = decode_linear(*own)
    (out * random(33, 12, seed=9)).sum().backward()
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
    for leaf, gradient in zip(own, gradients, strict=True):
        torch.testing.assert_close(leaf.grad.double(), gradient, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("density", [0.0, 0.02, 0.5, 1.0])
def test_the_encoders_gradients_are_those_of_the_dense_product(density):
    reaching = features(33, 50, density)  # which entries a local surrogate lets a gradient through
    inputs = random(33, 12), random(12, 50, seed=2), random(50, seed=3)
    expected, gradients = in_float64(lambda x, W, b: (x @ W + b) * reaching, *inputs)
    own = leaves(*inputs)
    out = encode_linear(*own) * reaching
    (out * random(33, 50, seed=9)).sum().backward()
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
    for leaf, gradient in zip(own, gradients, strict=True):
        torch.testing.assert_close(leaf.grad.double(), gradient, rtol=1e-5, atol=1e-5)


def test_vectors_that_want_no_gradient_get_none():
    x, W, b = random(8, 4), *leaves(random(4, 6), random(6))
    encode_linear(x, W, b).sum().backward()
    assert x.grad is None
    assert W.grad is not None


def test_few_entries_are_added_up_and_many_multiplied():
    few, many = features(40, 60, 0.02), features(40, 60, 0.6)
    assert sparse_products.entries(few, few.bool()) is not None
    assert sparse_products.entries(many, many.bool()) is None


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_feature_that_is_not_finite_reaches_the_reconstruction(bad):
    values = features(20, 30, 0.05)
    values[3, 4] = bad
    out = decode_linear(values, random(30, 5), random(5))
    assert not out[3].isfinite().any()
    assert out[:3].isfinite().all()


def test_other_shapes_and_dtypes_and_autocast_take_the_dense_way():
    values, W, b = features(20, 30, 0.05), random(30, 5), random(5)
    torch.testing.assert_close(decode_linear(values.view(4, 5, 30), W, b), (values @ W + b).view(4, 5, 5))
    assert decode_linear(values.bfloat16(), W.bfloat16(), b.bfloat16()).dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (values @ W).dtype == decode_linear(values, W, torch.zeros(5, dtype=torch.bfloat16)).dtype


def test_an_empty_minibatch_and_strided_features_are_taken():
    W, b = random(30, 5), random(5)
    assert decode_linear(torch.zeros(0, 30), W, b).shape == (0, 5)
    assert encode_linear(torch.zeros(0, 5), W.T, random(30)).shape == (0, 30)
    values = features(20, 30, 0.05)
    strided = values.T.contiguous().T
    torch.testing.assert_close(decode_linear(strided, W, b), values @ W + b)
    leaf = W.clone().requires_grad_()
    decode_linear(strided, leaf, b).sum().backward()
    torch.testing.assert_close(leaf.grad, values.T @ torch.ones(20, 5))


def test_torch_func_differentiates_both():
    values, x = features(20, 30, 0.05), random(20, 5)
    by_decoder = torch.func.grad(lambda W: decode_linear(values, W, torch.zeros(5)).sum())(random(30, 5))
    torch.testing.assert_close(by_decoder, values.T @ torch.ones(20, 5))
    by_encoder = torch.func.grad(lambda W: encode_linear(x, W, torch.zeros(30)).sum())(random(5, 30))
    torch.testing.assert_close(by_encoder, x.T @ torch.ones(20, 30))


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5])
def test_the_features_gradient_is_that_of_the_dense_product_where_it_is_wanted(share):
    values, W = features(33, 50, 0.05), random(50, 12)
    wanted = torch.rand(33, 50, generator=torch.Generator().manual_seed(3)) < share
    weights = random(33, 12, seed=9)
    leaf = values.clone().requires_grad_()
    (decode_linear(leaf, W, random(12), wanted) * weights).sum().backward()
    torch.testing.assert_close(leaf.grad[wanted], (weights @ W.T)[wanted], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("hooked", [False, True])
def test_a_hook_on_the_features_sees_their_whole_gradient(hooked):
    torch.manual_seed(0)
    cfg = bae_lens.TrainingBAEConfig(d_in=8, d_sae=60, surrogate="clip", surrogate_width=0.01)
    sae, seen = bae_lens.TrainingBAE(cfg), []
    if hooked:
        sae.hook_sae_acts_post.add_hook(lambda grad, hook: seen.append(grad.clone()), dir="bwd")
    out = sae.training_forward_pass(TrainStepInput(random(30, 8), sae.get_coefficients(), None, 10**6, False))
    expected = torch.autograd.grad(out.losses["mse_loss"], out.sae_out, retain_graph=True)[0] @ sae.W_dec.T
    out.losses["mse_loss"].backward()
    if hooked:
        torch.testing.assert_close(seen[0], expected)
    reached = out.hidden_pre.abs() <= 0.01
    torch.testing.assert_close(sae.b_enc.grad, (expected * reached).sum(0), rtol=1e-4, atol=1e-6)
