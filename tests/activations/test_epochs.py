import json

import pytest
import torch

import bae_lens
from bae_lens.activations.dataset import ActivationDataset
from bae_lens.activations.epochs import Share, plan_epoch
from bae_lens.activations.prefetch import prefetch
from bae_lens.training.data import as_source

ROWS, WIDTH = 5000, 4
SMALL = 20_000
"""Bytes: a quarter of the vectors."""


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Vectors that hold their own number."""
    numbers = torch.arange(ROWS, dtype=torch.float32).unsqueeze(1).expand(ROWS, WIDTH)
    path = tmp_path_factory.mktemp("epochs") / "acts"
    bae_lens.save_activations(path, numbers.split(700), shard_vectors=1100)
    return path


def numbers(batches):
    return torch.cat([batch[:, 0] for batch in batches]).long()


@pytest.mark.parametrize("memory", [SMALL, 2**20])
def test_a_pass_brings_every_vector_once_in_an_order_that_is_the_seeds_whatever_the_workers(directory, memory):
    dataset = ActivationDataset(directory, memory=memory)
    one = numbers(dataset.epoch(125, seed=1))
    assert sorted(one.tolist()) == list(range(ROWS))
    for workers in (1, 3):
        assert torch.equal(numbers(dataset.epoch(125, seed=1, workers=workers)), one)
    assert not torch.equal(numbers(dataset.epoch(125, seed=2)), one)
    assert all(len(batch) == 512 for batch in dataset.epoch(512))
    assert len(numbers(dataset.epoch(512))) == ROWS // 512 * 512


@pytest.mark.parametrize("size", [624, 626, 1000, 1250, 1500, 2000, 5000])
def test_a_minibatch_may_be_larger_than_what_is_in_memory_at_a_time(directory, size):
    dataset = ActivationDataset(directory, memory=SMALL)
    plan = plan_epoch(ROWS, WIDTH * 4, SMALL)
    assert 600 < plan.block * plan.at_once <= 625
    batches = list(dataset.epoch(size, seed=1))
    assert [len(batch) for batch in batches] == [size] * (ROWS // size)
    found = numbers(batches)
    assert len(found.unique()) == len(found)
    assert torch.equal(numbers(dataset.epoch(size, seed=1, start=size)), found[size:]) if len(batches) > 1 else True


@pytest.mark.parametrize("memory", [SMALL, 2**20])
@pytest.mark.parametrize("start", [0, 128, 1280, 4864])
def test_a_pass_can_be_taken_up_where_it_was_left(directory, memory, start):
    dataset = ActivationDataset(directory, memory=memory)
    whole = numbers(dataset.epoch(128, seed=1))
    assert torch.equal(numbers(dataset.epoch(128, seed=1, start=start)) if start < 4864 else whole[start:], whole[start:])


def test_with_little_memory_a_minibatch_still_comes_from_all_over(directory):
    dataset = ActivationDataset(directory, memory=SMALL)
    for batch in dataset.epoch(500, seed=3):
        spread = batch[:, 0].std().item()
        assert spread > 0.6 * ROWS / 12**0.5


@pytest.mark.parametrize("memory", [SMALL, 2**20])
@pytest.mark.parametrize(("size", "start"), [(128, 0), (128, 1280), (1200, 0), (4, 12)])
def test_shares_of_a_pass_make_up_its_minibatches(directory, memory, size, start):
    """4,992 of the 5,000 vectors fill minibatches of 128: a share's rest may be full where the minibatch is not."""
    dataset = ActivationDataset(directory, memory=memory)
    whole = list(dataset.epoch(size, seed=1, start=start))
    shares = [list(dataset.epoch(size, seed=1, start=start, share=Share(index, 4))) for index in range(4)]
    assert {len(share) for share in shares} == {len(whole)}
    for number in (0, 1, -2, -1):
        assert torch.equal(torch.cat([share[number] for share in shares]), whole[number])
    with pytest.raises(ValueError, match="cannot be shared by 3"):
        next(dataset.epoch(128, share=Share(0, 3)))


def test_a_share_holds_its_part_of_the_memory(directory, monkeypatch):
    import bae_lens.activations.epochs as epochs

    sizes, made = [], epochs._load_of

    def watch(*args):
        load = made(*args)
        sizes.append(load.whole.nbytes)
        return load

    monkeypatch.setattr(epochs, "_load_of", watch)
    list(ActivationDataset(directory, memory=SMALL).epoch(100, share=Share(1, 4)))
    assert max(sizes) <= SMALL // 2 / 4 * 1.3


@pytest.mark.parametrize("workers", [0, 2])
def test_no_more_is_held_than_was_asked_for(directory, workers, monkeypatch):
    """Counts the bytes of vectors that were read and not yet let go."""
    held, most = {}, 0
    read = ActivationDataset.read

    def count(self, begin, end):
        nonlocal most
        most = max(most, end - begin)
        return read(self, begin, end)

    import bae_lens.activations.epochs as epochs

    made = epochs._load_of

    def watch(data, plan, lot):
        import weakref

        load = made(data, plan, lot)
        key = id(load.whole)
        held[key] = load.whole.nbytes
        weakref.finalize(load.whole, held.pop, key)
        assert sum(held.values()) <= SMALL
        return load

    monkeypatch.setattr(ActivationDataset, "read", count)
    monkeypatch.setattr(epochs, "_load_of", watch)
    dataset = ActivationDataset(directory, memory=SMALL)
    assert len(numbers(dataset.epoch(100, workers=workers))) == ROWS
    assert 0 < most * WIDTH * 4 <= SMALL // 64
    assert not held


def test_views_have_passes_of_their_own(directory):
    view = ActivationDataset(directory, memory=SMALL).select(torch.arange(0, ROWS, 3))
    assert sorted(numbers(view.epoch(1)).tolist()) == list(range(0, ROWS, 3))


def test_a_plan_fits_its_memory_or_is_refused():
    for vectors, row_bytes, memory in ((10**9, 8192, 2**30), (1000, 512, 2048), (10**6, 64, 10**7)):
        plan = plan_epoch(vectors, row_bytes, memory)
        assert 2 * plan.block * plan.at_once * row_bytes <= memory
    with pytest.raises(ValueError, match="do not hold two vectors"):
        plan_epoch(10, 512, 1000)


def test_a_bae_trains_to_the_same_weights_after_an_interruption_with_little_memory(directory, tmp_path, monkeypatch):
    x = torch.randn(3000, 16, generator=torch.Generator().manual_seed(0))
    bae_lens.save_activations(tmp_path / "acts", [x])
    dataset = ActivationDataset(tmp_path / "acts", memory=64 * 1024)
    recipe = bae_lens.recipes.recommended(16, 2, steps=40, batch_size=128)
    whole = bae_lens.train(dataset, recipe, progress=False).bae
    from bae_lens.training.run import Run

    step = Run._train_step

    def stop(self, bar):
        if self.step == 31:
            raise KeyboardInterrupt(self.leave())
        step(self, bar)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_train_step", stop)
        with pytest.raises(KeyboardInterrupt):
            bae_lens.train(dataset, recipe, out=tmp_path / "run", progress=False)
    resumed = bae_lens.train(dataset, recipe, out=tmp_path / "run", resume=True, progress=False).bae
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True))


def test_a_run_is_not_taken_up_with_a_memory_that_gives_another_order(tmp_path):
    x = torch.randn(3000, 16, generator=torch.Generator().manual_seed(0))
    bae_lens.save_activations(tmp_path / "acts", [x])

    def source(memory):
        made = as_source(ActivationDataset(tmp_path / "acts", memory=memory), "cpu")
        made.begin(128, torch.Generator().manual_seed(0))
        return made

    one = source(64 * 1024)
    for _ in range(5):
        one.next_batch()
    state = json.loads(json.dumps(one.state()))
    with pytest.raises(ValueError, match=r"with memory=65536 bytes, .* now memory=1073741824: give it the same"):
        source(2**30).load_state(state)
    again = source(64 * 1024)
    again.load_state(state)
    assert torch.equal(again.next_batch(), one.next_batch())
    large = source(2**30)  # all vectors fit either of two large memories, in the same order
    large.next_batch()
    source(2**31).load_state(large.state())


def test_on_a_cpu_minibatches_are_prefetched_as_they_are():
    batches = [torch.ones(2), torch.zeros(2)]
    assert all(a is b for a, b in zip(prefetch(batches, "cpu"), batches, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU to prefetch to (tests/SKIPPED.md)")
def test_on_a_gpu_they_arrive_whole_and_in_order(directory):
    dataset = ActivationDataset(directory, memory=SMALL)
    found = [batch.sum().item() for batch in prefetch(dataset.epoch(100), "cuda")]
    assert found == [batch.sum().item() for batch in dataset.epoch(100)]
