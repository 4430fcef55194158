"""Two processes give what one gives: the same bits, losses, weights and files."""

import dataclasses
import json

import pytest
import torch
from sae_lens.saes.sae import TrainStepInput
from training.processes import quick, together, vectors

import bae_lens
from bae_lens.objective.covariance import covariance_loss
from bae_lens.objective.global_covariance import _unpack, covariance_of, pack
from bae_lens.objective.ranks import ALONE
from bae_lens.training.failures import RankFailed
from bae_lens.training.gradients import GradientSum
from bae_lens.training.recipes import rate_distortion, recommended, synthetic


def assert_same(one, many, x, tolerance):
    """Weights, bits and every number of the history, whose metrics are computed in fp32 always."""
    for name, tensor in one.bae.state_dict().items():
        torch.testing.assert_close(many.bae.state_dict()[name], tensor, rtol=tolerance, atol=tolerance)
    assert torch.equal(one.bae.bits(x), many.bae.bits(x))
    assert one.flipped == many.flipped
    assert one.bae.cfg.prior_samples == many.bae.cfg.prior_samples
    assert one.history
    for rows in ("history", "validation"):
        assert len(getattr(one, rows)) == len(getattr(many, rows))
        for before, now in zip(getattr(one, rows), getattr(many, rows), strict=True):
            for name, value in before._asdict().items():
                allowed = tolerance if "loss" in name else 1e-5
                assert now._asdict()[name] == pytest.approx(value, rel=allowed, abs=allowed), f"{name} at {before.step}"


def equal_in_fp64(parallel):
    x, held_out = vectors(dtype=torch.float64), vectors(300, seed=2, dtype=torch.float64)
    for changes in ({}, {"bits_per_feature": 2, "covariance_weight": 0.02}):
        recipe = quick(dtype="float64", **changes)
        one, many = (bae_lens.train(x, recipe, validation=held_out, progress=False, **p) for p in ({}, {"parallel": parallel}))
        assert_same(one, many, x, 1e-10)


def same_in_fp32(parallel, every=False):
    """Of every kind of objective, or of the two that `recommended` has."""
    x, held_out = vectors(), vectors(300, seed=2)
    several = {"bits_per_feature": 4, "code": "nested"}
    changed = {"entropy_batch_share": 0.25, "entropy_form": "eq4", "entropy_floor": 3.0, "init": "linear"}
    recipes = [quick(), quick(**several)]
    if every:
        recipes += [quick(reconstruction_loss="mean", **changed)]
    if every and parallel.ranks.features is None:
        recipes += [quick(rate_distortion, steps=20), quick(synthetic, entropy_weight=0.02, revise_at=(0.6,))]
    for recipe in recipes:
        one, many = (bae_lens.train(x, recipe, validation=held_out, progress=False, **p) for p in ({}, {"parallel": parallel}))
        for before, now in zip(one.history, many.history, strict=True):
            assert now.loss == pytest.approx(before.loss, rel=1e-4)
        for before, now in zip(one.validation, many.validation, strict=True):
            assert now.entropy == pytest.approx(before.entropy, rel=1e-2)


@pytest.mark.parametrize("feature_parallel", [1, 2])
def test_two_processes_equal_one_in_fp64_and_keep_to_its_losses_in_fp32(feature_parallel):
    together(2, equal_in_fp64, feature_parallel=feature_parallel)
    together(2, same_in_fp32, feature_parallel=feature_parallel)


@pytest.mark.slow
@pytest.mark.parametrize("feature_parallel", [1, 2, 4])
def test_four_processes_equal_one(feature_parallel):
    together(4, equal_in_fp64, feature_parallel=feature_parallel)
    together(4, same_in_fp32, True, feature_parallel=feature_parallel)


@pytest.mark.slow
@pytest.mark.parametrize("feature_parallel", [1, 2])
def test_two_processes_keep_to_the_losses_of_every_objective(feature_parallel):
    together(2, same_in_fp32, True, feature_parallel=feature_parallel)


def gradients_of(sae, x, step_input=None):
    sae.zero_grad()
    sums = GradientSum(sae.parameters(), sae.ranks.data)
    sae.training_forward_pass(TrainStepInput(x, {"entropy": 0.3, "covariance": 0.02}, None, 9, False)).loss.backward()
    sums.wait()
    for handle in sums.handles:
        handle.remove()
    return torch.cat([p.grad.flatten().clone() for p in sae.parameters()])


def averaging_is_another_objective(parallel):
    torch.manual_seed(0)
    cfg = dataclasses.replace(recommended(16, 4).sae, init="linear", dtype="float64")
    sae, x = bae_lens.TrainingBAE(cfg), vectors(128, dtype=torch.float64)
    whole = gradients_of(sae, x)
    mine = x[parallel.share.rows(128)]
    averaged = parallel.ranks.batch_sum(gradients_of(sae, mine)) / 2
    sae.ranks = parallel.ranks
    summed = gradients_of(sae, mine)
    assert (summed - whole).abs().max() < 1e-12 * whole.abs().max()
    assert (averaged - whole).abs().max() > 1e-2 * whole.abs().max()


def plain_covariance(bits):
    cov = torch.cov(bits.T)
    return cov.abs().sum() - cov.diagonal().abs().sum()


def covariance_is_global(parallel):
    """Against the plain formula in float64, for sizes that fill neither bytes nor blocks, and bits that never change; tied
    pairs, of no covariance, are left out of the gradient, as `torch.cov` gives them random signs."""
    ranks = parallel.ranks
    for rows, d_bits, chance in ((12, 40, 0.3), (50, 700, 0.02), (126, 70, 0.5), (8, 6, 0.0)):
        whole = (torch.rand(rows, d_bits, generator=torch.Generator().manual_seed(rows)) < chance).double()
        width = d_bits // ranks.feature_size
        columns = slice(ranks.feature_index * width, (ranks.feature_index + 1) * width)
        mine = whole[parallel.share.rows(rows), columns].clone().requires_grad_()
        value = covariance_of(mine, ranks.batch_mean(mine), ranks)
        value.backward()
        of_one = whole.clone().requires_grad_()
        covariance_loss(of_one).backward()
        assert value.item() == pytest.approx(plain_covariance(whole).item(), rel=1e-12)
        torch.testing.assert_close(mine.grad, of_one.grad[parallel.share.rows(rows), columns], rtol=1e-12, atol=1e-12)


def test_bits_are_packed_eight_a_byte_and_come_back():
    for rows, length in ((3, 8), (5, 13), (2, 64), (1, 1), (0, 9)):
        bits = (torch.rand(rows, length) < 0.5).float()
        packed = pack(bits)
        assert packed.shape == (rows, -(-length // 8))
        for row in range(rows):
            for place in range(length):
                assert (int(packed[row, place // 8]) >> (place % 8)) & 1 == bits[row, place]
        for dtype in (torch.int8, torch.float32):
            assert torch.equal(_unpack(packed, dtype)[:, :length], bits.to(dtype))


def objective(parallel):
    covariance_is_global(parallel)
    if parallel.ranks.features is None:
        averaging_is_another_objective(parallel)


@pytest.mark.parametrize("feature_parallel", [1, 2])
def test_the_covariance_is_that_of_all_bits_and_averaged_local_gradients_are_another_objectives(feature_parallel):
    together(2, objective, feature_parallel=feature_parallel)


@pytest.mark.slow
def test_the_covariance_goes_round_a_ring_of_four_and_a_mesh(tmp_path):
    for feature_parallel in (1, 2, 4):
        together(4, covariance_in_two_and_four, feature_parallel=feature_parallel)


def covariance_in_two_and_four(parallel):
    ranks = parallel.ranks
    whole = (torch.rand(64, 80, generator=torch.Generator().manual_seed(0)) < 0.2).double()
    width = 80 // ranks.feature_size
    columns = slice(ranks.feature_index * width, (ranks.feature_index + 1) * width)
    value = covariance_of(whole[parallel.share.rows(64), columns], whole[:, columns].mean(0), ranks)
    assert value.item() == pytest.approx(plain_covariance(whole).item(), rel=1e-12)


def same_data_and_files(parallel, directory, names):
    """Vectors on disk that do not fit the memory, and a stream; every file but the times in them."""
    x = vectors()
    recipe = quick(checkpoint_every=20)
    dataset = bae_lens.ActivationDataset(directory / "acts", memory=20_000)
    seen = []
    for name in names:
        data = dataset if name == "disk" else list(x.split(130))
        one = bae_lens.train(data, recipe, out=directory / f"{name}-{parallel.rank}", progress=False)
        callback = lambda step, bae: seen.append((step, bae.cfg.d_sae))  # noqa: E731
        out = directory / f"{name}-{len('both') + parallel.ranks.feature_size}"
        many = bae_lens.train(data, recipe, out=out, callback=callback, progress=False, parallel=parallel)
        assert many.history[-1].loss == pytest.approx(one.history[-1].loss, rel=1e-4)
        again = bae_lens.train(data, recipe, out=out, resume=True, progress=False, parallel=parallel)
        assert again.history == many.history
        assert torch.equal(again.bae.W_enc, many.bae.W_enc)
        if parallel.is_first:
            files, others = ({str(p.relative_to(d)) for p in d.rglob("*")} for d in (out, directory / f"{name}-0"))
            assert files == others
            assert torch.equal(bae_lens.load(out).W_enc, many.bae.W_enc)
            rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
            assert [row["step"] for row in rows] == [row.step for row in one.history]
    assert bool(seen) == parallel.is_first
    assert {d_sae for _, d_sae in seen} <= {64}


@pytest.mark.parametrize(("feature_parallel", "name"), [(1, "stream"), (2, "disk")])
def test_data_come_in_shares_and_the_first_process_writes_the_same_files(tmp_path, feature_parallel, name):
    bae_lens.save_activations(tmp_path / "acts", vectors().split(300), shard_vectors=450)
    together(2, same_data_and_files, tmp_path, [name], feature_parallel=feature_parallel)


@pytest.mark.slow
def test_a_mesh_of_two_by_two_reads_and_writes_the_same(tmp_path):
    bae_lens.save_activations(tmp_path / "acts", vectors().split(300), shard_vectors=450)
    together(4, same_data_and_files, tmp_path, ["disk", "stream"], feature_parallel=2)


def until(step):
    def stop(made, bae):
        if made == step:
            raise KeyboardInterrupt

    return stop


def begun_by_one_goes_on(parallel, directory):
    x, recipe = vectors(dtype=torch.float64), quick(dtype="float64", checkpoint_every=10)
    own = directory / f"one-{parallel.rank}"
    whole = bae_lens.train(x, recipe, progress=False)
    if parallel.is_first:
        with pytest.raises(KeyboardInterrupt):
            bae_lens.train(x, recipe, out=own, callback=until(36), progress=False)
    many = bae_lens.train(x, recipe, out=directory / "one-0", resume=True, progress=False, parallel=parallel)
    assert_same(whole, many, x, 1e-10)


def is_begun_by_many(parallel, directory):
    """Left at a step by all, as a signal does it."""
    from bae_lens.training.run import Run

    step, x, recipe = Run._train_step, vectors(dtype=torch.float64), quick(dtype="float64", checkpoint_every=10)

    def counted(self, bar):
        step(self, bar)
        if self.step == 33:
            raise KeyboardInterrupt(self.leave())

    Run._train_step = counted
    try:
        with pytest.raises(KeyboardInterrupt, match="after 33 of 50"):
            bae_lens.train(x, recipe, out=directory / "many", progress=False, parallel=parallel)
    finally:
        Run._train_step = step


@pytest.mark.parametrize("feature_parallel", [1, 2])
def test_a_run_goes_on_with_another_number_of_processes(tmp_path, feature_parallel):
    x, recipe = vectors(dtype=torch.float64), quick(dtype="float64", checkpoint_every=10)
    together(2, begun_by_one_goes_on, tmp_path, feature_parallel=feature_parallel)
    together(2, is_begun_by_many, tmp_path, feature_parallel=feature_parallel)
    assert sorted(p.name for p in (tmp_path / "many" / "checkpoints").iterdir()) == ["step-00000030", "step-00000033"]
    resumed = bae_lens.train(x, recipe, out=tmp_path / "many", resume=True, progress=False)
    assert_same(bae_lens.train(x, recipe, progress=False), resumed, x, 1e-10)


def wrong_input(parallel, directory):
    """None of it costs the processes their connection."""
    x, both = vectors(), {"progress": False, "parallel": parallel}
    first = pytest.raises(ValueError, match="127 vectors cannot be shared by 2") if parallel.ranks.data else None
    if first:
        with first:
            bae_lens.train(x, quick(batch_size=127), **both)
        with (
            pytest.raises(ValueError, match="rank 1 was given other settings.*trainer.seed was 0 and is 1")
            if parallel.rank
            else (pytest.raises(RankFailed, match="rank 1"))
        ):
            bae_lens.train(x, quick(seed=parallel.rank), **both)
    else:
        with pytest.raises(ValueError, match="d_sae = 63 features cannot be split over 2"):
            bae_lens.train(x, quick(d_sae=63), **both)
        with pytest.raises(ValueError, match="objective='rate_distortion'.*--feature-parallel at 1"):
            bae_lens.train(x, quick(rate_distortion), **both)
        with pytest.raises(ValueError, match=r"revise_at=\(0.4, 0.55, 0.7\)"):
            bae_lens.train(x, quick(synthetic), **both)
        with pytest.raises(ValueError, match="apply_b_dec_to_input=True"):
            bae_lens.train(x, quick(apply_b_dec_to_input=True), **both)
    with pytest.raises(ValueError, match="activations.sha256") if parallel.rank else pytest.raises(RankFailed, match="rank 1"):
        bae_lens.train(vectors(seed=parallel.rank), quick(), **both)
    (directory / "full").mkdir(exist_ok=True)
    (directory / "full" / "file").touch()
    with pytest.raises(RankFailed, match="rank 0") if parallel.rank else pytest.raises(FileExistsError, match="already holds"):
        bae_lens.train(x, quick(), out=directory / "full", **both)
    with pytest.raises(FloatingPointError, match="mse_loss is"):
        bae_lens.train(1e19 * x, quick(rescale=False), **both)
    assert len(bae_lens.train(x, quick(steps=3), **both).history) == 2


@pytest.mark.parametrize("feature_parallel", [1, 2])
def test_wrong_input_is_refused_by_all_processes_together(tmp_path, feature_parallel):
    together(2, wrong_input, tmp_path, feature_parallel=feature_parallel)


def test_processes_that_do_not_fill_teams_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with (
        pytest.raises(ValueError, match="3 processes cannot split features in teams of 2"),
        bae_lens.distributed(feature_parallel=2),
    ):
        pass
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(ValueError, match="WORLD_SIZE must be a whole number"), bae_lens.distributed():
        pass


def test_alone_everything_is_as_it_was(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with bae_lens.distributed() as parallel:
        assert parallel.ranks == ALONE
        assert parallel.told({"a": (1,)}) == {"a": (1,)}
