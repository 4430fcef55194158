import dataclasses
import itertools

import pytest
import torch

import bae_lens
from bae_lens.activations.synthetic import synthetic_set
from bae_lens.objective.entropy import marginal_entropy
from bae_lens.objective.revise import OFF, eliminate, revise
from bae_lens.training.recipes import rate_distortion, synthetic

WEIGHT = 0.02


@pytest.fixture
def data():
    return synthetic_set(8, 3, 2000, torch.Generator().manual_seed(2))


@pytest.fixture
def sae(data):
    """Bits 0 to 2 are the true ones, with decoder rows that are a little off; the others never change."""
    torch.manual_seed(0)
    sae = bae_lens.TrainingBAE(synthetic(8, 2).sae)
    for weight in (sae.W_enc, sae.W_dec, sae.b_dec):
        weight.data.zero_()
    sae.b_enc.data.fill_(OFF)
    sae.W_enc.data[:, :3], sae.W_dec.data[:3] = data.directions.T, 0.9 * data.directions
    sae.b_enc.data[:3] = -0.5
    return sae


def objective(sae, x):
    bits, _ = sae.encode_bits(x)
    error = (sae.decode(sae.bits_to_features(bits)) - x).double().pow(2).sum(1).mean()
    return (error + WEIGHT * marginal_entropy(bits.double().mean(0))).item()


def best_loss(bits, x):
    """Mean squared error of the best decoder with a bias, by least squares."""
    design = torch.cat([torch.ones(len(x), 1, dtype=torch.float64), bits], 1)
    fit = torch.linalg.lstsq(design, x, driver="gelsd").solution
    return (x - design @ fit).pow(2).sum(1).mean().item()


def slow_elimination(bits, x, costs):
    """Backward elimination with a fresh least-squares fit for every candidate."""
    kept = list(range(bits.shape[1]))
    while kept:
        now = best_loss(bits[:, kept], x)
        change = {j: best_loss(bits[:, [k for k in kept if k != j]], x) - now - costs[j].item() for j in kept}
        worst = min(change, key=change.__getitem__)
        if change[worst] > 0:
            break
        kept.remove(worst)
    return kept


@pytest.mark.parametrize("seed", range(6))
def test_elimination_is_that_of_a_fresh_fit_for_every_candidate(seed):
    generator = torch.Generator().manual_seed(seed)
    bits = (torch.rand(300, 7, generator=generator) < torch.linspace(0.1, 0.7, 7)).double()
    bits[:, 6] = (bits[:, 0] + bits[:, 1] > 0).double()
    x = bits[:, :4] @ torch.randn(4, 5, generator=generator, dtype=torch.float64) * 0.4
    x = x + 0.3 * torch.randn(300, 5, generator=generator, dtype=torch.float64)
    costs = 0.15 * torch.rand(7, generator=generator, dtype=torch.float64)
    found = eliminate(bits, x, costs)
    kept = slow_elimination(bits, x, costs)
    assert found.kept.nonzero().flatten().tolist() == kept
    loss = (x - found.bias - bits @ found.decoder).pow(2).sum(1).mean().item()
    assert loss == pytest.approx(best_loss(bits[:, kept], x), rel=1e-5)


def test_a_true_code_stays_and_its_decoder_is_refitted(sae, data):
    assert revise(sae, data.vectors, WEIGHT) == ([0, 1, 2], [], [])
    torch.testing.assert_close(sae.W_dec[:3], data.directions, atol=1e-4, rtol=0)
    assert objective(sae, data.vectors) == pytest.approx(3 * WEIGHT, rel=1e-2)


def test_of_equal_and_opposite_bits_one_stays(sae, data):
    for target, sign in ((4, 1.0), (5, -1.0)):
        sae.W_enc.data[:, target], sae.b_enc.data[target] = sign * sae.W_enc[:, 0], sign * sae.b_enc[0]
    before = objective(sae, data.vectors)
    kept, dropped, added = revise(sae, data.vectors, WEIGHT)
    assert len(kept) == 3
    assert {1, 2} < set(kept)
    assert set(kept + dropped) == {0, 1, 2, 4, 5}
    assert added == []
    assert objective(sae, data.vectors) == pytest.approx(3 * WEIGHT, rel=1e-2)
    assert objective(sae, data.vectors) < before
    bits, pre = sae.encode_bits(data.vectors)
    assert not bits[:, dropped].any()
    assert (pre[:, dropped] == OFF).all()


def test_a_direction_that_no_bit_follows_gets_one(sae, data):
    sae.b_enc.data[1] = -9
    kept, _, added = revise(sae, data.vectors, WEIGHT)
    assert kept == [0, 2]
    assert len(added) == 1
    bits, _ = sae.encode_bits(data.vectors)
    correlation = torch.corrcoef(torch.stack([bits[:, added[0]], data.code[:, 1].float()]))[0, 1]
    assert abs(correlation) > 0.99
    assert objective(sae, data.vectors) == pytest.approx(3 * WEIGHT, rel=1e-2)


@pytest.mark.parametrize("seed", range(4))
def test_a_revision_never_raises_the_objective(seed):
    data = synthetic_set(8, 5, 3000, torch.Generator().manual_seed(seed))
    torch.manual_seed(seed)
    sae = bae_lens.TrainingBAE(synthetic(8, 4).sae)
    before = objective(sae, data.vectors)
    revise(sae, data.vectors, WEIGHT)
    between = objective(sae, data.vectors)
    revise(sae, data.vectors, WEIGHT)
    assert objective(sae, data.vectors) <= between + 1e-6 <= before


def test_bits_that_cost_more_than_all_that_they_explain_are_all_dropped(sae, data):
    assert revise(sae, data.vectors, 10.0) == ([], [0, 1, 2], [])
    assert torch.allclose(sae.b_dec, data.vectors.mean(0), atol=1e-5)


def test_vectors_that_are_all_equal_leave_no_bit(sae):
    assert revise(sae, torch.zeros(100, 8), WEIGHT) == ([], [], [])


def test_training_revises_at_shares_of_the_run_with_the_weight_that_the_entropy_has_there(data, monkeypatch):
    from bae_lens.training import run

    seen = []

    def record(sae, x, weight):
        seen.append((sae.cfg.prior_samples // 512, len(x), weight))
        return revise(sae, x, weight)

    monkeypatch.setattr(run, "revise", record)
    recipe = synthetic(8, 4, steps=40)
    schedule = bae_lens.Schedule(delay=0.25, warm_up=20)
    cfg = dataclasses.replace(recipe.trainer, revise_at=(0.2, 0.5, 0.9), entropy_schedule=schedule)
    mean = dataclasses.replace(recipe.sae, reconstruction_loss="mean", entropy_weight=WEIGHT / 8)
    for sae_cfg in (recipe.sae, mean):
        seen.clear()
        bae_lens.train(data.vectors, recipe._replace(sae=sae_cfg, trainer=cfg), progress=False)
        assert [step for step, _, _ in seen] == [20, 36]
        assert [weight for _, _, weight in seen] == pytest.approx([WEIGHT * 11 / 20, WEIGHT])
        assert all(length == 2000 for _, length, _ in seen)


def test_adam_forgets_the_bits_that_were_not_kept(data, monkeypatch):
    from bae_lens.training import run

    optimizers = []

    class Spy(torch.optim.Adam):
        def step(self, *args, **kwargs):
            optimizers.append({weight: state["exp_avg_sq"].clone() for weight, state in self.state.items()})
            return super().step(*args, **kwargs)

    kept = []
    monkeypatch.setattr(torch.optim, "Adam", Spy)
    monkeypatch.setattr(run, "revise", lambda *given: kept.append(revise(*given)) or kept[-1])
    recipe = synthetic(8, 4, steps=40)
    bae_lens.train(data.vectors, recipe._replace(trainer=dataclasses.replace(recipe.trainer, revise_at=(0.5,))), progress=False)
    before, after = optimizers[19], optimizers[20]
    gone = [bit for bit in range(32) if bit not in kept[0].kept]
    assert 0 < len(gone) < 32
    shapes = {tuple(w.shape): w for w in after}
    for shape, dimension in (((8, 32), 1), ((32,), 0), ((32, 8), 0)):
        moments = after[shapes[shape]]
        assert not moments.index_select(dimension, torch.tensor(gone)).any()
        assert before[shapes[shape]].index_select(dimension, torch.tensor(gone)).any()
        assert moments.index_select(dimension, torch.tensor(kept[0].kept)).any()


@pytest.mark.parametrize(
    ("sae_changes", "message"),
    [({"bits_per_feature": 2}, "got 2, True and False"), ({"encoder_bias": False}, "got 1, False and False")],
)
def test_a_bae_that_cannot_be_revised_is_refused_before_training(sae_changes, message, data):
    recipe = synthetic(8, 4, steps=400)
    trainer = dataclasses.replace(recipe.trainer, revise_at=(0.5,))
    with pytest.raises(ValueError, match=message):
        bae_lens.train(data.vectors, recipe._replace(sae=dataclasses.replace(recipe.sae, **sae_changes), trainer=trainer))


def test_a_revision_under_another_objective_is_refused_before_training(data, tmp_path):
    recipe = rate_distortion(8, 4, levels=1, steps=40)
    recipe = recipe._replace(trainer=dataclasses.replace(recipe.trainer, revise_at=(0.5,)))
    with pytest.raises(ValueError, match='revise_at weighs bits by their entropy, which objective="rate_distortion" has no'):
        bae_lens.train(data.vectors, recipe, out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("shares", list(itertools.product([0.5], [0, 1, -0.1])))
def test_shares_of_the_run_are_between_nought_and_one(shares):
    with pytest.raises(ValueError, match="revise_at must be shares"):
        bae_lens.TrainerConfig(steps=5, revise_at=shares)
