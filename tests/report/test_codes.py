import numpy as np
import pytest
import torch

from bae_lens.analyze.statistics import code_statistics
from bae_lens.report.codes import burstiness_table, on_prior, read_codes, usually_on

KINDS = [{}, {"bits_per_feature": 2}, {"bits_per_feature": 3, "code": "nested"}]


@pytest.mark.parametrize("fields", KINDS, ids=["one bit", "two bits", "three nested bits"])
def test_events_are_where_features_are_on_with_their_activation_and_burstiness(make_ready, fields):
    bae, source = make_ready(**fields)
    bae.act_scale.data.mul_(2.5)
    codes = read_codes(bae, source.vectors, progress=False)
    with torch.no_grad():
        features, burst = bae.encode(source.vectors), bae.feature_burstiness(source.vectors)
    assert not codes.is_inverted.any()
    assert codes.tokens == len(source.vectors)
    for token in (0, 1, 7, len(source.vectors) - 1):
        mine = slice(codes.starts[token], codes.starts[token + 1])
        on = [f for f in range(bae.cfg.d_sae) if features[token, f] > 0]
        assert codes.feature[mine].tolist() == on
        assert codes.activation[mine].tolist() == pytest.approx(features[token, on].tolist(), rel=1e-5)
        assert codes.score[mine].tolist() == pytest.approx(burst[token, on].tolist(), abs=1e-5)
    assert codes.on.tolist() == (features > 0).sum(0).tolist()
    stats = code_statistics(bae, source.vectors)
    assert codes.fvu == pytest.approx(stats.fvu, rel=1e-4)
    levels = (features / bae.act_scale * bae.top_level).round().long()
    for f in (0, 5):
        assert codes.levels[f].tolist() == torch.bincount(levels[:, f], minlength=bae.top_level + 1).tolist()


def test_the_events_of_another_sae_are_its_positive_activations(make_sae, make_source):
    sae = make_sae()
    source = make_source(sae)
    codes = read_codes(sae, source.vectors, progress=False)
    with torch.no_grad():
        acts = sae.encode(source.vectors)
    assert codes.levels is None
    assert np.diff(codes.starts).tolist() == (acts > 0).sum(1).tolist()
    assert codes.score.tolist() == pytest.approx(acts[acts > 0].tolist())
    assert codes.activation.tolist() == codes.score.tolist()
    assert codes.fvu == pytest.approx(code_statistics(sae, source.vectors).fvu, rel=1e-4)


def test_a_feature_that_is_usually_on_has_its_events_where_it_is_off(make_ready):
    bae, source = make_ready()
    bae.W_enc.data[:, 3] *= -1
    bae.b_enc.data[3] *= -1
    bae.estimate_prior(source.vectors)
    codes = read_codes(bae, source.vectors, progress=False)
    bits = bae.bits(source.vectors)[:, 3]
    assert codes.is_inverted.nonzero()[0].tolist() == [3]
    assert (codes.feature == 3).sum() == (bits == 0).sum()
    assert codes.on[3] == bits.sum()
    events = codes.feature == 3
    assert codes.activation[events].max() == 0
    assert codes.score[events].tolist() == pytest.approx([np.log2(bae.prior[3].item())] * int(events.sum()), abs=1e-4)


@pytest.mark.parametrize("fields", KINDS)
def test_the_table_of_burstiness_and_the_prior_of_being_on_are_those_of_every_level(make_ready, fields):
    bae, _ = make_ready(**fields)
    table, c = burstiness_table(bae), bae.cfg.bits_per_feature
    prior = bae.prior.double().view(-1, c).tolist()
    for feature in (0, 11):
        for level in range(bae.top_level + 1):
            if bae.is_nested:
                deviation = max(abs((level > j) - prior[feature][j]) for j in range(c))
            else:
                deviation = abs(level / bae.top_level - sum(p * 2**j for j, p in enumerate(prior[feature])) / bae.top_level)
            assert table[feature, level] == pytest.approx(np.log2(max(deviation, 2**-24)), abs=1e-3)
        off = 1 - prior[feature][0] if bae.is_nested else np.prod([1 - p for p in prior[feature]])
        assert on_prior(bae)[feature] == pytest.approx(1 - off, abs=1e-6)
    assert not usually_on(bae).any()


def test_a_code_that_is_too_dense_is_read_up_to_the_bound(make_ready, monkeypatch):
    bae, source = make_ready()
    monkeypatch.setattr("bae_lens.report.codes.rows_at_once", lambda width: 50)
    codes = read_codes(bae, source.vectors, most=100, progress=False)
    whole = read_codes(bae, source.vectors, progress=False)
    assert codes.is_cut
    assert not whole.is_cut
    assert codes.tokens < whole.tokens
    assert codes.tokens % 50 == 0
    assert len(codes.feature) > 100
    assert codes.feature.tolist() == whole.feature[: len(codes.feature)].tolist()


def test_vectors_that_are_all_equal_are_refused(make_ready):
    bae, _ = make_ready()
    with pytest.raises(ValueError, match="no variance to explain"):
        read_codes(bae, torch.ones(20, 128), progress=False)


def test_a_bae_without_a_prior_is_refused(make_bae):
    with pytest.raises(ValueError, match="no prior yet"):
        read_codes(make_bae(), torch.randn(20, 128), progress=False)
