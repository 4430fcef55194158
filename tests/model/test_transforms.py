import copy

import pytest
import torch

import bae_lens
from bae_lens.model.transforms import fold_decoder_norm, fold_polarity, merge_duplicates, remove_constant_bits, reorder


@pytest.mark.parametrize("c", [1, 3])
def test_the_polarity_fold_turns_the_frequent_features_round_and_nothing_else_changes(make_bae, vectors, c):
    bae = make_bae(c)
    bae.b_enc.data[: 20 * c] = 1.0
    bae.estimate_prior(vectors)
    folded = copy.deepcopy(bae)
    report = fold_polarity(folded)
    frequent = (bae.encode(vectors).mean(0) > 0.5).nonzero().flatten().tolist()
    assert report.flipped == frequent
    assert frequent
    torch.testing.assert_close(folded(vectors), bae(vectors), atol=2e-6, rtol=1e-5)
    before, after = (b.bits(vectors).unflatten(-1, (-1, c)) for b in (bae, folded))
    for feature in range(48):
        expected = 1 - before[:, feature] if feature in frequent else before[:, feature]
        assert torch.equal(after[:, feature], expected)
    folded_prior = folded.prior.clone()
    folded.estimate_prior(vectors)
    torch.testing.assert_close(folded.prior, folded_prior, atol=1e-7, rtol=0)


def test_a_pre_activation_of_exactly_zero_keeps_its_side_through_the_fold_and_the_disk(make_bae, tmp_path):
    bae = make_bae(d_in=2, d_sae=3)
    bae.W_enc.data[:] = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, -1.0]])
    bae.b_enc.data.zero_()
    x = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [-1.0, 1.0]])
    bae.estimate_prior(x)
    before, out = bae.bits(x), bae(x)
    flipped = fold_polarity(bae).flipped
    bae_lens.save(bae, tmp_path / "bae")
    for folded in (bae, bae_lens.load(tmp_path / "bae")):
        bits = folded.bits(x)
        bits[:, flipped] = 1 - bits[:, flipped]
        assert torch.equal(bits, before)
        torch.testing.assert_close(folded(x), out)
    assert before[0].tolist() == [1, 1, 1]
    assert flipped == [0, 1, 2]


def test_folding_twice_changes_nothing(make_bae, vectors):
    bae = make_bae()
    bae.b_enc.data.fill_(0.5)
    bae.estimate_prior(vectors)
    assert fold_polarity(bae).flipped
    weights = copy.deepcopy(bae.state_dict())
    assert fold_polarity(bae).flipped == []
    assert all(torch.equal(weights[name], tensor) for name, tensor in bae.state_dict().items())


def test_a_fold_without_a_prior_or_with_a_subtracted_bias_is_refused(make_bae, vectors):
    with pytest.raises(ValueError, match="estimate_prior"):
        fold_polarity(make_bae())
    bae = make_bae(apply_b_dec_to_input=True)
    bae.estimate_prior(vectors)
    with pytest.raises(ValueError, match="apply_b_dec_to_input"):
        fold_polarity(bae)


def level_of(bae, x):
    """Levels by the definition: consecutive bits, least significant first."""
    c = bae.cfg.bits_per_feature
    bits = bae.bits(x).unflatten(-1, (-1, c))
    return sum(bits[..., j] * 2**j for j in range(c))


def with_zero(vectors, bae):
    """Vectors and one whose pre-activation is exactly 0 everywhere it can be: the origin, for a BAE without encoder bias."""
    return torch.cat([vectors, torch.zeros(1, bae.cfg.d_in)])


@pytest.mark.parametrize("c", [1, 3])
def test_the_decoder_norm_fold_says_the_norms_and_a_second_one_changes_nothing(make_bae, vectors, c):
    bae = make_bae(c)
    bae.b_enc.data.zero_()
    x = with_zero(vectors, bae)
    norms, bits, out = bae.W_dec.norm(dim=1), bae.bits(x), bae(x)
    torch.testing.assert_close(fold_decoder_norm(bae).norms, norms)
    once = copy.deepcopy(bae.state_dict())
    torch.testing.assert_close(fold_decoder_norm(bae).norms, torch.ones(48))
    for name, tensor in bae.state_dict().items():
        torch.testing.assert_close(tensor, once[name])
    assert torch.equal(bae.bits(x), bits)
    torch.testing.assert_close(bae(x), out, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("c", [1, 3])
def test_constant_features_move_into_the_bias_and_nothing_else_changes(make_bae, vectors, c):
    bae = make_bae(c)
    bae.b_enc.data[: 3 * c] = torch.tensor([100.0, -100.0, 100.0]).repeat_interleave(c)
    bae.b_enc.data[3 * c - 1] = -100.0
    bae.estimate_prior(vectors)
    levels, frequency = level_of(bae, vectors), bae.bits(vectors).mean(0).unflatten(0, (-1, c))
    constant = ((frequency == 0) | (frequency == 1)).all(1).nonzero().flatten().tolist()
    found = remove_constant_bits(bae, vectors)
    assert {0, 1, 2} <= set(constant)
    assert found.removed == {i: int(levels[0, i]) for i in constant}
    assert found.kept == [i for i in range(48) if i not in constant]
    assert found.disagreement == 0
    torch.testing.assert_close(found.bae(vectors), bae(vectors), atol=1e-5, rtol=1e-5)
    assert torch.equal(level_of(found.bae, vectors), levels[:, found.kept])
    assert found.bae.cfg.d_sae == len(found.kept)


def test_inputs_on_which_a_removed_feature_is_not_constant_are_counted(make_bae, vectors):
    bae = make_bae()
    bae.b_enc.data[0] = -(vectors @ bae.W_enc[:, 0]).max() - 1e-3
    bae.estimate_prior(vectors)
    along = 100 * bae.W_enc[:, 0] / bae.W_enc[:, 0].norm()
    held_out = torch.cat([vectors[:30], vectors[:10] + along])
    found = remove_constant_bits(bae, held_out)
    assert 0 in found.removed
    removed = list(found.removed)
    expected = torch.tensor([found.removed[i] for i in removed])
    assert found.disagreement == (bae.bits(held_out)[:, removed] != expected).any(1).float().mean().item()
    assert found.disagreement >= 0.25


def test_a_bae_of_constant_features_only_has_nothing_left(make_bae, vectors):
    bae = make_bae()
    bae.b_enc.data.fill_(-1000)
    bae.estimate_prior(vectors)
    with pytest.raises(ValueError, match="nothing would be left"):
        remove_constant_bits(bae)


@pytest.mark.parametrize("c", [1, 3])
def test_duplicates_and_opposites_are_merged_into_the_first(make_bae, vectors, c):
    bae = make_bae(c)
    bae.b_enc.data.zero_()
    bits = slice(3 * c, 4 * c)
    for feature, sign in ((10, 2.0), (11, -1.0), (12, 1.0)):
        own = slice(feature * c, (feature + 1) * c)
        bae.W_enc.data[:, own] = sign * bae.W_enc.data[:, bits]
        bae.at_zero[own] = bae.at_zero[bits] if sign > 0 else 1 - bae.at_zero[bits]
    fold_decoder_norm(bae)
    x = with_zero(vectors, bae)
    levels = level_of(bae, x)
    found = merge_duplicates(bae, x, x)
    assert found.removed == {10: 3, 11: 3, 12: 3}
    assert found.kept == [i for i in range(48) if i not in (10, 11, 12)]
    assert found.disagreement == 0
    assert torch.equal(level_of(found.bae, x), levels[:, found.kept])
    torch.testing.assert_close(found.bae(x), bae(x), atol=2e-5, rtol=1e-5)
    assert merge_duplicates(found.bae, x).removed == {}


def test_duplicates_that_disagree_elsewhere_are_counted(make_bae, vectors):
    bae = make_bae()
    bae.W_enc.data[:, 10] = bae.W_enc.data[:, 3]
    bae.b_enc.data[10] = bae.b_enc.data[3] + 1e-6
    held_out = vectors[:50].clone()
    direction = bae.W_enc[:, 3]
    held_out[7] -= ((held_out[7] @ direction + bae.b_enc[3] + 5e-7) / direction.pow(2).sum()) * direction
    found = merge_duplicates(bae, vectors[50:], held_out)
    differ = (bae.bits(held_out)[:, 3] != bae.bits(held_out)[:, 10]).float().mean().item()
    assert found.removed == {10: 3}
    assert found.disagreement == pytest.approx(differ)
    assert differ > 0


@pytest.mark.parametrize("c", [1, 3])
@pytest.mark.parametrize("by", ["prior", "energy"])
def test_reordering_sorts_features_and_changes_nothing_else(make_bae, vectors, c, by):
    bae = make_bae(c)
    bae.W_dec.data *= torch.linspace(0.1, 3, 48).unsqueeze(1)
    bae.b_enc.data.zero_()
    x = with_zero(vectors, bae)
    bae.estimate_prior(vectors)
    found = reorder(bae, by)
    assert sorted(found.order) == list(range(48))
    assert torch.equal(level_of(found.bae, x), level_of(bae, x)[:, found.order])
    torch.testing.assert_close(found.bae(x), bae(x), atol=2e-5, rtol=1e-5)
    values = found.bae.encode(vectors)
    key = values.mean(0) if by == "prior" else values.var(0) * found.bae.W_dec.pow(2).sum(1)
    if by == "prior" or c == 1:
        assert (key.diff() <= 1e-6 * key.max()).all()


def test_rewrites_that_make_no_sense_are_refused(make_bae, vectors):
    with pytest.raises(ValueError, match="did you mean 'prior'"):
        reorder(make_bae(), "priors")
    for rewrite in (lambda b: reorder(b, "prior"), remove_constant_bits):
        with pytest.raises(ValueError, match="estimate_prior"):
            rewrite(make_bae())
    bae = make_bae(apply_b_dec_to_input=True)
    bae.estimate_prior(vectors)
    for rewrite in (remove_constant_bits, lambda b: merge_duplicates(b, vectors)):
        with pytest.raises(ValueError, match="apply_b_dec_to_input"):
            rewrite(bae)
