"""Sums in memory that processes share, and messages where they share none."""

import os
import platform
import signal
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from training.processes import together

from bae_lens.objective import shared_memory
from bae_lens.objective.shared_memory import Board, SharedSum, common_memory
from bae_lens.training.failures import is_lost
from bae_lens.training.gradients import GradientSum

SHAPES = ((3, 50), (1,), (7,), (0,), (64, 33))

pytestmark = pytest.mark.skipif(not shared_memory.DIRECTORY.is_dir(), reason="no /dev/shm (tests/SKIPPED.md)")


def numbers(rank, turn, shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1000 * rank + turn), dtype=torch.float64)


def sums(parallel, directory):
    shared_memory.DIRECTORY = directory
    like = [torch.zeros(shape, dtype=torch.float64) for shape in SHAPES]
    summed = SharedSum.of(like, parallel.ranks.data)
    assert summed is not None
    for turn in range(20):
        for own, shape in zip(summed.own, SHAPES, strict=True):
            own.copy_(numbers(parallel.rank, turn, shape))
        summed.add_up()
        for total, shape in zip(summed.total, SHAPES, strict=True):
            assert total.shape == shape
            expected = numbers(0, turn, shape)
            for rank in range(1, parallel.world):
                expected = expected + numbers(rank, turn, shape)
            assert torch.equal(total, expected)


@pytest.mark.parametrize("world", [2, 3])
def test_the_sum_is_that_of_all_processes_in_their_order_every_time_and_no_file_stays(world, tmp_path):
    together(world, sums, tmp_path)
    assert list(tmp_path.iterdir()) == []


def gradients_with_and_without(parallel):
    """The same gradients, whether processes add up in memory or by messages; a weight that nothing reads has none."""
    found = []
    for apart in (False, True):
        if apart and parallel.rank == 1:
            shared_memory.DIRECTORY = Path("/nowhere")  # as on another machine
        weights = [torch.nn.Parameter(torch.ones(shape)) for shape in ((600, 500), (8,), (9,))]
        gradients = GradientSum(weights, parallel.ranks.data)
        assert (gradients.shared is None) == apart
        for turn in range(3):
            (weights[0].sin() * (turn + parallel.rank + 1)).sum().add(weights[1].sum()).backward()
            gradients.wait()
            assert weights[2].grad is None
            found.append([weight.grad.clone() for weight in weights[:2]])
            for weight in weights:
                weight.grad = None
    for shared, sent in zip(found[:3], found[3:], strict=True):
        for one, other in zip(shared, sent, strict=True):
            assert torch.equal(one, other)


def test_gradients_are_the_same_in_memory_and_by_messages():
    together(2, gradients_with_and_without)


def no_room(parallel, directory):
    shared_memory.DIRECTORY = directory
    group = parallel.ranks.data
    assert common_memory(2**62, torch.uint8, group) is None  # more than any machine has
    assert SharedSum.of([torch.zeros(3), torch.zeros(3, dtype=torch.float64)], group) is None
    memory, _ = common_memory(8, torch.int32, group)
    if parallel.rank == 1:
        memory[3] = 7
    dist.barrier(group)
    assert memory.tolist() == [0, 0, 0, 7, 0, 0, 0, 0]


def test_without_room_there_is_none_and_no_file_stays(tmp_path):
    together(2, no_room, tmp_path)
    assert list(tmp_path.iterdir()) == []


def boards(parallel):
    """What comes from a board stands until the next is waited for, however fast the others go on; lengths change."""
    for directory in (shared_memory.DIRECTORY, Path("/nowhere")):
        shared_memory.DIRECTORY = directory
        board, waiting = Board(parallel.ranks.data), None
        for turn in range(60):
            length = (turn * 37) % 101 + (2000 if turn == 30 else 0)
            values = said(parallel.rank, turn, length)
            arrived = board.put_up(values, length)
            if parallel.rank == turn % parallel.world:
                time.sleep(0.002)  # each is the slow one at times
            if waiting is not None:
                before, found = waiting[0], waiting[1]()
                for rank, received in enumerate(found):
                    expected = said(rank, before, (before * 37) % 101 + (2000 if before == 30 else 0))
                    assert torch.equal(received[: len(expected)], expected)
            waiting = turn, arrived
        assert board.has_memory == (directory != Path("/nowhere"))


def totals(parallel):
    """Of every type that is summed, the same to the last bit in all processes."""
    for directory in (shared_memory.DIRECTORY, Path("/nowhere")):
        shared_memory.DIRECTORY = directory
        board = Board(parallel.ranks.data)
        for turn, dtype in enumerate((torch.float32, torch.float64, torch.int64, torch.uint8)):
            for shape in ((), (0,), (5,), (4, 1001)):
                parts = [numbers(rank, turn, shape).mul(40).abs().to(dtype) for rank in range(parallel.world)]
                found = board.total(parts[parallel.rank])
                assert found.dtype == dtype
                torch.testing.assert_close(found, sum(parts[1:], parts[0].clone()))
                for have, expected in zip(board.gather(parts[parallel.rank]), parts, strict=True):
                    assert torch.equal(have, expected)
                of_all = [torch.empty_like(found) for _ in parts]
                dist.all_gather(of_all, found, group=parallel.ranks.data)
                assert all(torch.equal(one, found) for one in of_all)


def test_totals_are_the_same_in_all_processes():
    together(3, totals)


def dies_or_stays_away(parallel, how, directory):
    board = Board(parallel.ranks.data)
    board.gather(torch.zeros(0))
    board.gather(torch.zeros(3, dtype=torch.float64))
    if parallel.rank == 1:
        time.sleep(0.3)
        if how == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        dist.all_reduce(torch.zeros(1))  # the other leaves before
        return
    shared_memory.PATIENCE = 600.0 if how == "dies" else 0.5
    begun = time.monotonic()
    with pytest.raises(dist.DistError, match=r"process 1 of 3 does not answer after \d s") as found:
        board.gather(torch.zeros(3))
    assert is_lost(found.value)
    assert time.monotonic() - begun < 20
    if how == "stays away":
        dist.all_reduce(torch.zeros(1))
    else:
        (directory / f"seen-{parallel.rank}").touch()
        ends = time.monotonic() + 20
        while not (directory / f"seen-{2 - parallel.rank}").exists():  # who sees it first stays until the other does
            assert time.monotonic() < ends
            time.sleep(0.05)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="no x86-64 (tests/SKIPPED.md)")
@pytest.mark.parametrize("how", ["dies", "stays away"])
def test_who_dies_is_missed_at_once_and_who_stays_away_after_a_while(how, tmp_path):
    statuses, said = together(3, dies_or_stays_away, how, tmp_path, directory=tmp_path)
    assert statuses == ([0, -signal.SIGKILL, 0] if how == "dies" else [0, 0, 0]), said


def said(rank, turn, length):
    """A process has fewer values than the length at times, or none."""
    have = length if (rank + turn) % 3 else length // 2
    return torch.full((have,), (turn * 7 + rank * 31) % 120, dtype=torch.int8)


@pytest.mark.parametrize("world", [2, 3])
def test_what_is_put_up_comes_to_all_in_memory_and_by_messages(world):
    together(world, boards)


def test_a_file_that_is_not_there_or_cannot_be_made_is_no_memory(tmp_path):
    assert shared_memory._opened(tmp_path / "none") is None
    assert not (tmp_path / "none").exists()
    made = tmp_path / "made"
    assert shared_memory._is_done(lambda: made.touch(0o600, exist_ok=False))
    assert oct(made.stat().st_mode)[-3:] == "600"
    assert not shared_memory._is_done(lambda: made.touch(0o600, exist_ok=False))  # never somebody else's
