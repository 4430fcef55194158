from collections import Counter

import numpy as np
import pytest
import torch

from bae_lens.analyze.description_length import code_length
from bae_lens.report.codes import on_prior, read_codes
from bae_lens.report.features import (
    activation_histogram,
    columns_of,
    events_by_position,
    partners,
    top_tokens,
)


@pytest.fixture
def ready(make_ready):
    bae, source = make_ready()
    return bae, source, read_codes(bae, source.vectors, progress=False)


@pytest.mark.parametrize("fields", [{}, {"bits_per_feature": 2}, {"bits_per_feature": 3, "code": "nested"}])
def test_the_bits_of_all_features_add_up_to_the_code_length(make_ready, fields):
    bae, source = make_ready(**fields)
    columns = columns_of(bae, read_codes(bae, source.vectors, progress=False), on_prior(bae))
    assert columns.bits.sum() == pytest.approx(code_length(bae, source.vectors, source.vectors).bits, rel=1e-3)


def test_what_a_feature_costs_where_it_is_on_is_the_logarithm_of_its_prior(ready):
    bae, _, codes = ready
    columns = columns_of(bae, codes, on_prior(bae))
    for feature in (2, 9):
        p = (bae.prior[feature].item() * bae.cfg.prior_samples + 0.5) / (bae.cfg.prior_samples + 1)
        assert columns.surprise[feature] == pytest.approx(-np.log2(p), rel=1e-4)
    assert columns.frequency == pytest.approx(bae.prior.numpy(), abs=1e-6)


def test_activations_are_averaged_where_a_feature_is_on_and_the_highest_burstiness_is_the_one_that_was_met(make_ready):
    bae, source = make_ready(3, code="nested")
    columns = columns_of(bae, read_codes(bae, source.vectors, progress=False), on_prior(bae))
    with torch.no_grad():
        features, burst = bae.encode(source.vectors), bae.feature_burstiness(source.vectors)
    for feature in range(bae.cfg.d_sae):
        on = features[:, feature] > 0
        if on.any():
            assert columns.mean_activation[feature] == pytest.approx(features[on, feature].mean().item(), rel=1e-4)
            assert columns.burstiness[feature] == pytest.approx(burst[on, feature].max().item(), abs=1e-4)
        else:
            assert np.isnan(columns.mean_activation[feature])


def test_the_top_tokens_are_by_count_times_share(ready):
    _, source, codes = ready
    ids = source.places.tokens.numpy()
    found = top_tokens(codes, ids, count=3)
    of_event, all_tokens = ids[codes.token_of_events()], Counter(ids.tolist())
    for feature in (0, 4, 30):
        often = Counter(of_event[codes.feature == feature].tolist())
        best = sorted((count**2 / all_tokens[token] for token, count in often.items()), reverse=True)[:3]
        kept = [
            (t, c, s)
            for t, c, s in zip(found.token[feature], found.often[feature], found.share[feature], strict=True)
            if t >= 0
        ]
        assert [c * s for _, c, s in kept] == pytest.approx(best, rel=1e-4)
        for token, count, share in kept:
            assert (count, share) == (often[token], pytest.approx(often[token] / all_tokens[token]))


def test_partners_are_the_features_of_highest_correlation(ready):
    _, _, codes = ready
    dense = np.zeros((codes.tokens, codes.features))
    dense[codes.token_of_events(), codes.feature] = 1
    found = partners(codes, count=4)
    varies = dense.std(0) > 0
    for feature in np.flatnonzero(varies)[:6]:
        phi = [np.corrcoef(dense[:, feature], dense[:, other])[0, 1] if varies[other] else 0 for other in range(codes.features)]
        both = dense.T @ dense[:, feature]
        best = sorted((phi[o] for o in range(codes.features) if o != feature and both[o] >= 3 and phi[o] > 0), reverse=True)[:4]
        kept = found.feature[feature] >= 0
        assert found.phi[feature][kept].tolist() == pytest.approx(best, abs=1e-4)
        for other, value, count in zip(found.feature[feature][kept], found.phi[feature], found.both[feature], strict=False):
            assert value == pytest.approx(phi[other], abs=1e-4)
            assert count == both[other]


def test_events_by_position_and_by_strength_add_up(make_sae, make_source):
    sae = make_sae()
    source = make_source(sae)
    codes = read_codes(sae, source.vectors, progress=False)
    positions = source.places.positions.numpy()
    table = events_by_position(codes, positions)
    where = positions[codes.token_of_events()]
    for feature in (1, 8):
        mine = where[codes.feature == feature]
        assert table[feature].tolist() == [
            int(((mine >= (2**b if b else 0)) & (mine < 2 ** (b + 1))).sum()) for b in range(table.shape[1])
        ]
    highest, histogram = activation_histogram(codes)
    for feature in (1, 8):
        mine = codes.activation[codes.feature == feature]
        assert highest[feature] == pytest.approx(mine.max())
        assert histogram[feature].sum() == len(mine)
        assert histogram[feature, -1] == (mine > mine.max() * 15 / 16).sum()


def test_features_of_one_bit_have_no_histogram(ready):
    assert activation_histogram(ready[2]) is None
