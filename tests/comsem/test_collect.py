import numpy as np
import pytest
import torch

import bae_lens
from bae_lens.comsem.collect import collect, collect_codes, collect_random
from bae_lens.comsem.magnitude import activation_scale, code_function, levels_scale, scale_of
from bae_lens.comsem.topk import top_k


def by_sorting(magnitudes, codes, usual, k, samples, keep_usual):
    """Algorithm 1, step 1, as it is written: `sorted` on Python lists, token by token."""
    kept, seen, left_out = {}, {}, 0
    for token, row in enumerate(magnitudes.tolist()):
        for j in sorted(range(len(row)), key=row.__getitem__, reverse=True)[:k]:
            if not keep_usual and codes[token, j] == usual[j]:
                left_out += 1
                continue
            seen[j] = seen.get(j, 0) + 1
            if len(kept.setdefault(j, [])) < samples:
                kept[j].append(token)
    return kept, seen, left_out


def assert_as_by_sorting(codes, scale, keep_usual, k=4, samples=5):
    expected, seen, left_out = by_sorting(scale.dense(codes), codes, scale.usual, k, samples, keep_usual)
    for size in (1, 7, 1000):
        batches = (codes[i : i + size] for i in range(0, len(codes), size))
        found = collect_codes(batches, scale, k=k, samples=samples, keep_usual=keep_usual)
        assert {j: [p for p, _ in found.of(j)] for j in range(scale.features) if found.of(j)} == expected
        assert {j: n for j, n in enumerate(found.seen.tolist()) if n} == seen
        assert found.usual == left_out
        assert found.tokens == len(codes)


@pytest.mark.parametrize("keep_usual", [False, True])
@pytest.mark.parametrize("levels", [2, 5])
def test_the_samples_of_a_bae_are_those_that_sorting_each_token_finds(keep_usual, levels):
    random = np.random.default_rng(levels)
    often = random.random(30) ** 3
    codes = (random.random((200, 30)) < often).astype(np.uint8) * random.integers(1, levels, (200, 30)).astype(np.uint8)
    codes[:, 3], codes[:, 4], codes[:, 5] = 0, levels - 1, codes[:, 6]  # dead, stuck, and two that always tie
    assert_as_by_sorting(codes, levels_scale([codes], 30, levels), keep_usual)


@pytest.mark.parametrize("keep_usual", [False, True])
@pytest.mark.parametrize("rescaled", [False, True])
def test_the_samples_of_an_sae_are_those_that_sorting_each_token_finds(keep_usual, rescaled):
    random = np.random.default_rng(0)
    acts = np.maximum(random.normal(size=(150, 25)) - 0.5 + random.normal(size=25), 0).astype(np.float32).round(1)
    acts[:, :3] = 0
    assert_as_by_sorting(acts, activation_scale([acts] if rescaled else None, 25), keep_usual)


def test_burstiness_is_log2_of_the_distance_to_the_mean_of_the_evaluation_set(make_bae, vectors):
    bae = make_bae()
    codes = code_function(bae)(vectors)
    scale = scale_of(bae, lambda: [codes[:50], codes[50:]])
    bits = bae.bits(vectors).detach().double()
    reference = (bits - bits.mean(0)).abs().clamp_min(2.0**-24).log2().numpy()
    np.testing.assert_allclose(scale.dense(codes), reference, atol=1e-5)
    bae.estimate_prior(vectors)
    np.testing.assert_allclose(scale_of(bae, list, prior="own").dense(codes), reference, atol=1e-5)
    np.testing.assert_allclose(scale_of(bae, list, prior="own").dense(codes), bae.burstiness(vectors), atol=1e-5)


@pytest.mark.parametrize("code", ["powers", "nested"])
def test_features_of_several_bits_are_ranked_by_the_deviation_of_the_real_feature(make_bae, vectors, code):
    bae = make_bae(bits_per_feature=3, code=code)
    bae.b_enc.data.fill_(0.5)
    codes = code_function(bae)(vectors)
    features = bae.encode(vectors).detach().double()
    assert codes.max() > 1
    np.testing.assert_allclose(codes / bae.top_level, features, atol=1e-6)
    reference = (features - features.mean(0)).abs().clamp_min(2.0**-24).log2().numpy()
    np.testing.assert_allclose(scale_of(bae, lambda: [codes]).dense(codes), reference, atol=1e-4)
    bae.estimate_prior(vectors)
    own = scale_of(bae, list, prior="own")
    if code == "nested":  # of independent bits the prior does not know which levels are frequent, only their mean
        np.testing.assert_allclose(own.dense(codes), reference, atol=1e-4)
    np.testing.assert_allclose(2.0 ** own.table[:, 0], features.mean(0).clamp_min(2.0**-24), rtol=1e-3)


def test_rescaled_activations_have_mean_0_and_deviation_1():
    acts = np.random.default_rng(1).exponential(size=(500, 6)).astype(np.float32) * [1, 10, 100, 1, 1, 0]
    z = activation_scale([acts[:100], acts[100:]], 6).dense(acts)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(z.std(0)[:5], 1, atol=1e-4)
    assert (z[:, 5] == 0).all()


def test_a_reservoir_keeps_every_sample_equally_often_whatever_the_batches():
    codes = np.ones((60, 1), np.float32)
    scale = activation_scale(None, 1)
    often = np.zeros(60)
    for seed in range(200):
        found = collect_codes([codes], scale, samples=6, keep="reservoir", seed=seed)
        split = collect_codes([codes[:7], codes[7:31], codes[31:]], scale, samples=6, keep="reservoir", seed=seed)
        assert found.places.tolist() == split.places.tolist()
        assert len(set(found.places[0].tolist())) == 6
        often[found.places[0]] += 1
    assert abs(often - 20).max() < 4 * 4.3  # four standard deviations of a binomial


def test_the_control_gives_each_token_features_by_lot():
    found = collect_random(3000, 20, k=10, samples=4)
    share = found.seen / 3000
    assert abs(share - (1 - (19 / 20) ** 10)).max() < 0.05
    assert (found.places >= 0).all()
    assert found.scale is None


def test_any_saes_activations_are_collected(vectors):
    from sae_lens import StandardSAE, StandardSAEConfig

    with torch.random.fork_rng():
        torch.manual_seed(0)
        sae = StandardSAE(StandardSAEConfig(d_in=vectors.shape[1], d_sae=40))
        sae.W_enc.data.normal_()
    acts = sae.encode(vectors).detach().numpy()
    expected, _, left_out = by_sorting(acts, acts, np.zeros(40), 10, 13, False)
    found = collect(sae, vectors, progress=False)
    assert {j: [p for p, _ in found.of(j)] for j in range(40) if found.of(j)} == expected
    assert found.usual == left_out
    assert collect(sae, vectors, magnitude="rescaled", progress=False).tokens == len(vectors)
    assert collect(sae, vectors, magnitude="random", progress=False).scale is None


def test_activations_on_disk_are_read_as_they_are_in_memory(make_bae, vectors, tmp_path):
    bae = make_bae()
    bae_lens.save_activations(tmp_path / "acts", [vectors], metadata={})
    on_disk = collect(bae, bae_lens.ActivationDataset(tmp_path / "acts"), progress=False)
    in_memory = collect(bae, vectors, progress=False)
    assert on_disk.places.tolist() == in_memory.places.tolist()


def test_what_does_not_fit_is_said(make_bae, vectors):
    bae = make_bae()
    for options, message in [
        ({"magnitude": "activation"}, "the magnitude of a BAE is burstiness"),
        ({"magnitude": "burst"}, "unknown magnitude 'burst'; did you mean 'burstiness'"),
        ({"keep": "all"}, "unknown way to keep samples 'all'"),
        ({"k": 0}, "k must be at least 1"),
        ({"prior": "own"}, "no prior yet"),
    ]:
        with pytest.raises(ValueError, match=message):
            collect(bae, vectors, progress=False, **options)
    with pytest.raises(ValueError, match="width 5"):
        collect(bae, torch.zeros(3, 5), progress=False)


def test_a_batch_of_nothing_unusual_has_no_entries():
    codes = np.zeros((5, 4), np.uint8)
    found = top_k(codes, levels_scale([codes], 4, 2), 3)
    assert len(found.entries.token) == 0
    assert found.left_out == 15
