import copy

import pytest
import torch

from bae_lens.model.transforms import fold_polarity


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
    import bae_lens

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
