import copy
import json
import math

import pytest
import torch
from sae_lens import SAE, StandardSAE, StandardSAEConfig
from safetensors.torch import load_file, save_file

import bae_lens


@pytest.mark.parametrize("c", [1, 3])
def test_a_bae_computes_what_equations_1_2_and_7_say(make_bae, c):
    bae = make_bae(c, d_sae=5, d_in=4)
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    bits, features, x_hat = bae.bits(x), bae.encode(x), bae(x)
    W_enc, b_enc, W_dec, b_dec = (w.double().tolist() for w in (bae.W_enc, bae.b_enc, bae.W_dec, bae.b_dec))
    for n, row in enumerate(x.double().tolist()):
        h = [float(sum(row[i] * W_enc[i][j] for i in range(4)) + b_enc[j] >= 0) for j in range(5 * c)]
        r = [sum(2**j * h[f * c + j] for j in range(c)) / (2**c - 1) for f in range(5)]
        out = [sum(r[f] * W_dec[f][i] for f in range(5)) + b_dec[i] for i in range(4)]
        assert bits[n].tolist() == h
        assert features[n].tolist() == pytest.approx(r)
        assert x_hat[n].tolist() == pytest.approx(out, abs=1e-5)


def test_the_same_input_gives_the_same_bits_twice(make_bae, vectors):
    bae = make_bae()
    assert torch.equal(bae.bits(vectors), bae.bits(vectors))
    assert 0.01 < bae.bits(vectors).mean() < 0.5


def test_inference_is_differentiable_through_the_surrogate(make_bae):
    bae = make_bae(surrogate="sigmoid")
    x = torch.randn(3, 128, requires_grad=True)
    bae(x).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert bae.W_enc.grad is not None
    assert bae.W_enc.grad.abs().sum() > 0


@pytest.mark.parametrize("c", [1, 3])
def test_the_bits_have_a_hook_point_of_their_own_that_can_be_written(make_bae, vectors, c):
    bae = make_bae(c)
    _, cache = bae.run_with_cache(vectors)
    assert torch.equal(cache["hook_sae_bits"], bae.bits(vectors))
    assert cache["hook_sae_bits"].shape[-1] == 48 * c
    assert cache["hook_sae_acts_post"].shape[-1] == 48
    off = bae.run_with_hooks(vectors, fwd_hooks=[("hook_sae_bits", lambda bits, hook: torch.zeros_like(bits))])
    torch.testing.assert_close(off, bae.b_dec.expand_as(off))


def test_the_prior_is_the_mean_of_each_bit_counted_exactly_for_every_batch_size(make_bae, vectors):
    bae = make_bae(3)
    bae.estimate_prior(vectors, batch_size=7)
    count = [sum(row[j] for row in bae.bits(vectors).tolist()) for j in range(5)]
    assert bae.prior[:5].tolist() == pytest.approx([c / len(vectors) for c in count], rel=1e-7)
    small = bae.prior.clone()
    bae.estimate_prior(vectors.unsqueeze(0), batch_size=10**6)
    assert torch.equal(bae.prior, small)
    assert bae.cfg.prior_samples == len(vectors)


def test_burstiness_is_log2_of_the_distance_from_the_prior(make_bae, vectors):
    bae = make_bae()
    bae.estimate_prior(vectors)
    found, bits = bae.burstiness(vectors), bae.bits(vectors)
    for n in range(0, len(vectors), 20):
        for j in range(48):
            distance = abs(bits[n, j].item() - bae.prior[j].item())
            assert found[n, j].item() == pytest.approx(math.log2(max(distance, 2**-24)), abs=1e-4)
    assert torch.equal(bae.feature_burstiness(vectors), found)


def test_burstiness_of_a_feature_of_several_bits_is_that_of_its_value(make_bae, vectors):
    bae = make_bae(2)
    bae.estimate_prior(vectors)
    mean = bae.encode(vectors).double().mean(0)
    expected = (bae.encode(vectors) - mean).abs().log2()
    torch.testing.assert_close(bae.feature_burstiness(vectors).double(), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("refine_weight", [0.0, 0.1])
def test_burstiness_of_a_nested_feature_is_that_of_its_burstiest_bit(make_bae, vectors, refine_weight):
    """A rare feature that is on at its first level of five is where it seldom is, though far from the middle of its range."""
    bae = make_bae(5, code="nested", refine_weight=refine_weight)
    bae.estimate_prior(vectors)
    levels = (5 * bae.encode(vectors)).round().long().tolist()
    prior = bae.prior.view(48, 5).tolist()
    found = bae.feature_burstiness(vectors)
    for n in range(0, len(vectors), 20):
        for feature in range(48):
            distances = [abs((levels[n][feature] > j) - prior[feature][j]) for j in range(5)]
            assert found[n, feature].item() == pytest.approx(math.log2(max(*distances, 2**-24)), abs=1e-4)
    rare = (bae.prior.view(48, 5)[:, 0] < 0.2) & (bae.encode(vectors) > 0)
    assert (found[rare] > math.log2(0.8)).all()


def test_burstiness_without_a_prior_is_refused(make_bae, vectors):
    with pytest.raises(ValueError, match="estimate_prior"):
        make_bae().burstiness(vectors)


@pytest.mark.parametrize(("c", "code"), [(1, "powers"), (3, "nested")])
def test_a_refining_bae_without_a_prior_refuses_to_code(make_bae, vectors, c, code):
    bae = make_bae(c, code=code, refine_weight=0.1)
    for coding in (bae.encode, bae.bits, bae, bae.burstiness):
        with pytest.raises(ValueError, match=r"no prior yet: call bae\.estimate_prior\(activations\) first"):
            coding(vectors)
    bae.estimate_prior(vectors)
    assert bae.encode(vectors).any()


@pytest.mark.parametrize("refine_from", [0, 4])
@pytest.mark.parametrize(("c", "code"), [(1, "powers"), (3, "nested")])
def test_before_a_prior_ones_are_counted_in_unrefined_codes_of_the_largest_features(make_bae, vectors, c, code, refine_from):
    bae = make_bae(c, code=code, refine_weight=0.1, refine_from=refine_from)
    expected = [[0] * c for _ in range(48)]
    for pre in (vectors @ bae.W_enc + bae.b_enc).tolist():
        for feature in sorted(range(48), key=lambda f: -pre[f])[: refine_from or 48]:
            for j in range(c):
                expected[feature][j] += pre[feature] >= j
    ones = bae.count_ones(vectors)
    assert ones.tolist() == [count for row in expected for count in row]
    bae.set_prior(ones, len(vectors))
    assert not torch.equal(bae.count_ones(vectors), ones)  # they are refined now


def test_folding_the_decoder_norm_moves_it_into_the_activations_exactly(make_bae, vectors):
    bae = make_bae(3)
    folded = copy.deepcopy(bae)
    folded.fold_W_dec_norm()
    assert torch.equal(folded.bits(vectors), bae.bits(vectors))
    torch.testing.assert_close(folded(vectors), bae(vectors))
    torch.testing.assert_close(folded.W_dec.norm(dim=1), torch.ones(48))
    torch.testing.assert_close(folded.encode(vectors), bae.encode(vectors) * bae.W_dec.norm(dim=1))


@pytest.mark.parametrize("c", [1, 3])
def test_a_bae_comes_back_from_disk_through_saelens_own_loader(make_bae, vectors, tmp_path, c):
    bae = make_bae(c)
    bae.estimate_prior(vectors)
    bae_lens.save(bae, tmp_path / "bae")
    for back in (SAE.load_from_disk(tmp_path / "bae"), bae_lens.load(tmp_path / "bae")):
        assert isinstance(back, bae_lens.BAE)
        assert torch.equal(back(vectors), bae(vectors))
        assert torch.equal(back.prior, bae.prior)
        assert back.cfg.metadata.hook_name == bae.cfg.metadata.hook_name
        assert back.cfg.prior_samples == len(vectors)


def test_the_prior_stays_fp32_whatever_the_model_runs_in(make_bae, vectors):
    bae = make_bae()
    bae.prior.fill_(1 - 3 / 4096)
    bae.to(torch.bfloat16)
    assert bae.prior.dtype == torch.float32
    assert bae.prior[0].item() == pytest.approx(1 - 3 / 4096, rel=1e-7)
    assert bae.encode(vectors).dtype == torch.bfloat16


def test_the_prior_comes_back_exactly_from_a_bf16_file_too(make_bae, vectors, tmp_path):
    bae = make_bae()
    bae.estimate_prior(vectors)
    bae.prior[:3] = torch.tensor([1 - 3 / 4096, 1e-7, 0.1])
    bae_lens.save(bae, tmp_path / "fp32")
    exact = bae.prior.clone()
    bae_lens.save(bae.to(torch.bfloat16), tmp_path / "bf16")
    for back in (SAE.load_from_disk(tmp_path / "fp32", dtype="bfloat16"), SAE.load_from_disk(tmp_path / "bf16")):
        assert back.W_enc.dtype == torch.bfloat16
        assert torch.equal(back.prior, exact)


def test_two_baes_of_one_configuration_do_not_share_what_they_learn(vectors):
    cfg = bae_lens.BAEConfig(d_in=128, d_sae=8)
    one, two = bae_lens.BAE(cfg), bae_lens.BAE(cfg)
    one.estimate_prior(vectors)
    assert (one.cfg.prior_samples, two.cfg.prior_samples, cfg.prior_samples) == (len(vectors), 0, 0)


def test_a_hook_z_bae_takes_heads_and_flat_vectors(vectors):
    cfg = bae_lens.BAEConfig(d_in=128, d_sae=8, reshape_activations="hook_z")
    cfg.metadata.hook_name = "blocks.0.attn.hook_z"
    bae = bae_lens.BAE(cfg)
    heads = vectors.unflatten(-1, (4, 32))
    assert torch.equal(bae.bits(heads), bae.bits(vectors))
    assert torch.equal(bae(heads).flatten(-2), bae(vectors))
    bae.estimate_prior(heads)
    by_heads = bae.prior.clone()
    bae.estimate_prior(vectors)
    assert torch.equal(bae.prior, by_heads)


def test_a_width_that_does_not_fit_is_named(make_bae):
    with pytest.raises(ValueError, match="width 64.*d_in = 128"):
        make_bae().encode(torch.zeros(3, 64))


def test_integers_are_refused(make_bae):
    with pytest.raises(TypeError):
        make_bae().encode(torch.zeros(3, 128, dtype=torch.long))


def test_nan_and_infinity_are_counted_and_placed(make_bae):
    x = torch.zeros(5, 128)
    x[2, 7] = x[2, 8] = float("nan")
    x[4, 0] = float("inf")
    with pytest.raises(ValueError, match=r"2 NaN and 1 infinite.*2 vectors.*\(2, 7\)"):
        make_bae().estimate_prior(x)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"surrogate": "sigmod"}, "did you mean 'sigmoid'"),
        ({"bits_per_feature": 9}, "from 1 to 8"),
        ({"bits_per_feature": 0}, "from 1 to 8"),
        ({"surrogate_width": 0.0}, "surrogate_width"),
    ],
)
def test_a_configuration_out_of_range_names_its_field(fields, message):
    with pytest.raises(ValueError, match=message):
        bae_lens.BAEConfig(d_in=4, d_sae=8, **fields)


@pytest.fixture
def saved(make_bae, vectors, tmp_path):
    bae = make_bae()
    bae.estimate_prior(vectors)
    return bae_lens.save(bae, tmp_path / "bae")


def rewrite(directory, change):
    weights = load_file(directory / "sae_weights.safetensors")
    change(weights)
    save_file(weights, directory / "sae_weights.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("W_dec"), "W_dec is missing"),
        (lambda w: w.update(extra=torch.zeros(2)), "extra is unknown"),
        (lambda w: w.update(b_enc=torch.zeros(3)), r"b_enc has shape \(3,\) where \(48,\) is expected"),
    ],
)
def test_a_checkpoint_with_other_tensors_is_refused_by_both_loaders(saved, change, message):
    rewrite(saved, change)
    for load in (bae_lens.load, SAE.load_from_disk):
        with pytest.raises(ValueError, match=message):
            load(saved)


def test_a_truncated_configuration_is_refused_and_its_file_named(saved):
    text = (saved / "cfg.json").read_text()
    (saved / "cfg.json").write_text(text[: len(text) // 2])
    with pytest.raises(ValueError, match=r"cfg\.json is not whole"):
        bae_lens.load(saved)


def test_truncated_weights_are_refused_and_their_file_named(saved):
    weights = (saved / "sae_weights.safetensors").read_bytes()
    (saved / "sae_weights.safetensors").write_bytes(weights[:-100])
    with pytest.raises(ValueError, match="sae_weights.safetensors"):
        bae_lens.load(saved)


def test_another_architecture_is_refused(tmp_path):
    StandardSAE(StandardSAEConfig(d_in=4, d_sae=8)).save_model(tmp_path / "sae")
    with pytest.raises(ValueError, match="architecture 'standard', not 'bae'"):
        bae_lens.load(tmp_path / "sae")


def test_a_checkpoint_of_another_number_of_bits_is_refused(saved):
    cfg = json.loads((saved / "cfg.json").read_text())
    (saved / "cfg.json").write_text(json.dumps(cfg | {"bits_per_feature": 2}))
    with pytest.raises(ValueError, match="W_enc has shape"):
        bae_lens.load(saved)


def test_a_directory_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cfg\.json"):
        bae_lens.load(tmp_path / "nothing")
