import pytest
import torch
from embedded import HOOK

import bae_lens
from bae_lens.analyze.contexts import feature_contexts, spread_features
from bae_lens.analyze.statistics import code_statistics


@pytest.mark.parametrize("c", [1, 3])
def test_contexts_are_where_the_feature_fires(model, make_bae, windows, c):
    found = bae_lens.harvest(model, windows, HOOK, progress=False)
    bae = make_bae(c)
    features = spread_features(bae, found.vectors, 3, least=5)
    assert len(features) == 3
    on = bae.encode(found.vectors) > 0
    for shown in feature_contexts(bae, found, windows, model.tokenizer, features, count=3, around=4):
        firing = on[:, shown.feature].nonzero().flatten()
        tokens = [model.tokenizer.decode([int(windows.tokens[found.window[i], found.position[i]])]) for i in firing]
        assert shown.frequency == len(firing) / len(on)
        assert len(shown.contexts) == 3
        assert {c.token for c in shown.contexts} <= set(tokens)
        token, times = shown.top_tokens[0]
        assert times == tokens.count(token) == max(tokens.count(t) for t in tokens)
        text = "".join(model.tokenizer.decode(row[1:n]) for row, n in zip(windows.tokens, windows.lengths, strict=True))
        assert all("".join(c) in text for c in shown.contexts)


def test_features_to_show_are_spread_over_frequencies(make_bae, vectors):
    bae = make_bae()
    stats = code_statistics(bae, vectors)
    shown = stats.frequency[torch.tensor(spread_features(bae, vectors, 4, least=5))]
    assert shown.tolist() == sorted(shown.tolist())
    assert shown[0] < shown[-1]
    bae.b_enc.data.fill_(-1000)
    assert spread_features(bae, vectors, 4) == []
