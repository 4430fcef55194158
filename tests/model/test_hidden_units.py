"""BAEs whose encoder has hidden units: everything that a BAE can do, exact, or refused with the reason."""

import copy

import pytest
import torch
from sae_lens import SAE, TrainingSAE
from safetensors.torch import load_file, save_file

import bae_lens
from bae_lens.model.transforms import fold_decoder_norm, fold_polarity, merge_duplicates, remove_constant_bits, reorder
from bae_lens.model.views import export_jumprelu, graded_view

HOOK = "blocks.1.hook_resid_pre"


@pytest.fixture
def make(make_bae):
    """BAEs whose hidden units change about a fifth of the bits."""

    def make(bits_per_feature=1, hidden=20, seed=0, **fields):
        bae = make_bae(bits_per_feature, seed=seed, encoder_hidden=hidden, **fields)
        generator = torch.Generator().manual_seed(seed)
        bae.W_out.data.normal_(std=0.3, generator=generator)
        bae.b_hidden.data.normal_(std=0.5, generator=generator)
        return bae

    return make


def linear_of(bae):
    """The same BAE without its hidden units."""
    state = {n: t for n, t in bae.state_dict().items() if n not in ("W_hidden", "b_hidden", "W_out")}
    linear = bae_lens.BAE(bae_lens.BAEConfig.from_dict(bae.cfg.to_dict() | {"encoder_hidden": 0}))
    linear.load_state_dict(state)
    return linear


@pytest.mark.parametrize("apply_b_dec", [False, True])
@pytest.mark.parametrize(("c", "code"), [(1, "powers"), (3, "powers"), (3, "nested")])
def test_hidden_units_add_to_the_pre_activations_what_the_definition_says(make, c, code, apply_b_dec):
    bae = make(c, hidden=6, d_sae=5, d_in=4, code=code, apply_b_dec_to_input=apply_b_dec)
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    bits, pre = bae.encode_bits(x)
    W_enc, b_enc, b_dec, W_hidden, b_hidden, W_out = (
        w.double().tolist() for w in (bae.W_enc, bae.b_enc, bae.b_dec, bae.W_hidden, bae.b_hidden, bae.W_out)
    )
    for n, row in enumerate(x.double().tolist()):
        row = [value - b_dec[i] * apply_b_dec for i, value in enumerate(row)]
        units = [max(0.0, sum(row[i] * W_hidden[i][h] for i in range(4)) + b_hidden[h]) for h in range(6)]
        expected = [
            sum(row[i] * W_enc[i][j] for i in range(4)) + b_enc[j] + sum(units[h] * W_out[h][j] for h in range(6))
            for j in range(len(b_enc))
        ]
        assert pre[n].tolist() == pytest.approx(expected, abs=1e-5)
        ones = [float(p >= j) for p in expected for j in range(3)] if code == "nested" else [float(p >= 0) for p in expected]
        assert bits[n].tolist() == ones


def test_hidden_units_that_add_nothing_change_nothing_and_without_them_there_are_no_such_weights(make, vectors):
    bae = make()
    linear = linear_of(bae)
    assert (bae.bits(vectors) != linear.bits(vectors)).float().mean() > 0.02
    bae.W_out.data.zero_()
    assert torch.equal(bae(vectors), linear(vectors))
    assert bae.state_dict().keys() - linear.state_dict().keys() == {"W_hidden", "b_hidden", "W_out"}


@pytest.mark.parametrize(("c", "code"), [(1, "powers"), (3, "powers"), (3, "nested")])
def test_they_come_back_from_disk_through_saelens_own_loader(make, vectors, tmp_path, c, code):
    bae = make(c, code=code)
    bae.estimate_prior(vectors)
    bae_lens.save(bae, tmp_path / "bae")
    for back in (SAE.load_from_disk(tmp_path / "bae"), bae_lens.load(tmp_path / "bae")):
        assert back.cfg.encoder_hidden == 20
        assert torch.equal(back(vectors), bae(vectors))
    half = SAE.load_from_disk(tmp_path / "bae", dtype="bfloat16")
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    assert half.encode(vectors).dtype == torch.bfloat16
    changed = (half.bits(vectors) != bae.bits(vectors)).float().mean()
    assert changed < 0.02


@pytest.mark.parametrize("name", ["W_hidden", "b_hidden", "W_out"])
def test_a_file_that_lacks_one_of_the_weights_is_refused_and_the_weight_named(make, tmp_path, name):
    directory = bae_lens.save(make(), tmp_path / "bae")
    weights = load_file(directory / "sae_weights.safetensors")
    del weights[name]
    save_file(weights, directory / "sae_weights.safetensors")
    for load in (bae_lens.load, SAE.load_from_disk):
        with pytest.raises(ValueError, match=f"{name} is missing"):
            load(directory)


def test_copies_and_moves_between_dtypes_keep_the_code(make, vectors):
    bae = make()
    assert torch.equal(copy.deepcopy(bae)(vectors), bae(vectors))
    there_and_back = copy.deepcopy(bae).to(torch.float64).to(torch.float32)
    assert torch.equal(there_and_back(vectors), bae(vectors))


@pytest.mark.parametrize("c", [1, 3])
def test_the_polarity_fold_turns_their_columns_round_too(make, vectors, c):
    bae = make(c)
    bae.b_enc.data[: 20 * c] = 1.0
    bae.estimate_prior(vectors)
    folded = copy.deepcopy(bae)
    flipped = fold_polarity(folded).flipped
    assert flipped
    torch.testing.assert_close(folded(vectors), bae(vectors), atol=5e-6, rtol=1e-5)
    before, after = (b.bits(vectors).unflatten(-1, (-1, c)) for b in (bae, folded))
    before[:, flipped] = 1 - before[:, flipped]
    assert torch.equal(after, before)


def test_a_pre_activation_of_exactly_zero_keeps_its_side_through_the_fold(make):
    bae = make(d_in=2, d_sae=3, hidden=1)
    bae.W_enc.data[:] = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, -1.0]])
    bae.b_enc.data.zero_()
    bae.W_hidden.data[:], bae.b_hidden.data[:] = torch.tensor([[1.0], [0.0]]), 0.0
    bae.W_out.data[:] = torch.tensor([[-1.0, 0.0, 0.0]])  # takes back all of the first feature: 0 wherever it was positive
    x = torch.tensor([[0.0, 0.0], [1.0, 1.0], [3.0, 0.0], [-1.0, 1.0]])
    bae.estimate_prior(x)
    before = bae.bits(x)
    assert before[:, 0].tolist() == [1, 1, 1, 0]
    flipped = fold_polarity(bae).flipped
    assert 0 in flipped
    after = bae.bits(x)
    after[:, flipped] = 1 - after[:, flipped]
    assert torch.equal(after, before)


@pytest.mark.parametrize("c", [1, 3])
def test_other_transforms_keep_the_reconstructions(make, vectors, c):
    bae = make(c)
    for weight in (bae.W_enc, bae.b_enc, bae.W_out):
        weight.data[..., 5 * c : 6 * c] = weight.data[..., 2 * c : 3 * c]  # feature 5 is feature 2's duplicate
        weight.data[..., 7 * c : 8 * c] = 0
    bae.b_enc.data[7 * c : 8 * c] = -1  # feature 7 never fires
    bae.estimate_prior(vectors)
    expected = bae(vectors)
    new, order = reorder(bae, "energy")
    assert torch.equal(new.encode(vectors), bae.encode(vectors)[:, order])
    merged = merge_duplicates(bae, vectors, vectors)
    assert merged.removed == {5: 2}
    assert merged.disagreement == 0
    torch.testing.assert_close(merged.bae(vectors), expected, atol=1e-5, rtol=1e-5)
    removed = remove_constant_bits(bae, vectors)
    assert 7 in removed.removed
    torch.testing.assert_close(removed.bae(vectors), expected, atol=1e-5, rtol=1e-5)
    fold_decoder_norm(bae)
    torch.testing.assert_close(bae(vectors), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("apply_b_dec", [False, True])
def test_folding_a_scaling_factor_or_a_whitening_takes_raw_vectors_to_the_same_code(make, vectors, apply_b_dec):
    bae = make(apply_b_dec_to_input=apply_b_dec)
    scaled = copy.deepcopy(bae)
    scaled.fold_activation_norm_scaling_factor(0.25)
    assert torch.equal(scaled.bits(4 * vectors), bae.bits(vectors))  # powers of two round nothing
    torch.testing.assert_close(scaled(4 * vectors), 4 * bae(vectors))
    bae, x = bae.to(torch.float64), vectors.double()
    generator = torch.Generator().manual_seed(3)
    mean = torch.randn(128, generator=generator, dtype=torch.float64)
    whitening = torch.eye(128, dtype=torch.float64) + 0.05 * torch.randn(128, 128, generator=generator, dtype=torch.float64)
    whitened = copy.deepcopy(bae)
    whitened.fold_activation_whitening(mean, whitening, torch.linalg.inv(whitening))
    z = (x - mean) @ whitening
    torch.testing.assert_close(whitened.encode_bits(x)[1], bae.encode_bits(z)[1])
    torch.testing.assert_close(whitened(x), bae(z) @ torch.linalg.inv(whitening) + mean)


def test_a_graded_view_has_them_and_what_assumes_a_linear_encoder_is_refused_with_the_reason(make, vectors):
    bae = make()
    bae.estimate_prior(vectors)
    view = graded_view(bae)
    assert torch.equal(view.encode(vectors) > 0, bae.encode(vectors) > 0)
    torch.testing.assert_close(view(vectors), bae(vectors))
    with pytest.raises(ValueError, match="only a linear encoder has a view"):
        graded_view(bae, "standard")
    with pytest.raises(ValueError, match="encoder is linear; this BAE's has 20 hidden units"):
        export_jumprelu(bae, vectors)


def test_gradients_reach_the_hidden_units_by_the_surrogate(make, vectors):
    bae = make(surrogate="sigmoid")
    bae(vectors).square().sum().backward()
    for weight in (bae.W_hidden, bae.b_hidden, bae.W_out):
        assert weight.grad is not None
        assert weight.grad.abs().sum() > 0


def test_an_attached_bae_codes_with_its_hidden_units_and_steering_changes_the_model(any_model, windows, make):
    bae = make()
    seen = {}
    with bae_lens.attach(any_model, bae):
        _, cache = any_model.run_with_cache(windows.tokens[:1])
        seen = {name: value for name, value in cache.items() if name.endswith(("hook_sae_bits", "hook_sae_input"))}
    bits, x = (next(v for n, v in seen.items() if n.endswith(end)) for end in ("hook_sae_bits", "hook_sae_input"))
    assert torch.equal(bits, bae.bits(x))
    assert not torch.equal(bits, linear_of(bae).bits(x))
    plain = any_model(windows.tokens[:1])
    with bae_lens.steer(any_model, bae, {3: 4.0}):
        assert not torch.allclose(any_model(windows.tokens[:1]), plain)


def test_a_hook_z_bae_takes_heads_and_flat_vectors(vectors):
    cfg = bae_lens.BAEConfig(d_in=128, d_sae=8, reshape_activations="hook_z", encoder_hidden=5)
    cfg.metadata.hook_name = "blocks.0.attn.hook_z"
    bae = bae_lens.BAE(cfg)
    bae.W_out.data.normal_()
    assert torch.equal(bae.bits(vectors.unflatten(-1, (4, 32))), bae.bits(vectors))


def test_training_refuses_them_with_the_reason_and_a_file_that_has_them_too(make, tmp_path):
    with pytest.raises(ValueError, match="encoder_hidden is not trained.*distill_encoder"):
        bae_lens.TrainingBAEConfig(d_in=4, d_sae=8, encoder_hidden=3)
    bae_lens.save(make(), tmp_path / "bae")
    with pytest.raises(ValueError, match="encoder_hidden is not trained"):
        TrainingSAE.load_from_disk(tmp_path / "bae")


@pytest.mark.parametrize("value", [-1, 2.0, True])
def test_a_number_of_hidden_units_out_of_range_is_named(value):
    with pytest.raises(ValueError, match="encoder_hidden must be a whole number"):
        bae_lens.BAEConfig(d_in=4, d_sae=8, encoder_hidden=value)
