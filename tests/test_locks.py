"""Locks of the file system: who has a directory, who is refused, and what is left afterwards."""

import errno
import fcntl
import os
import signal
import threading
import time

import pytest
from training.processes import CONTEXT

from bae_lens import locks
from bae_lens.locks import LOCK, alone_in, take


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.0)


def stays(directory, entered):
    with alone_in(directory):
        entered.set()
        time.sleep(600)


@pytest.fixture
def holder(tmp_path):
    """Another process, in the directory."""
    entered = CONTEXT.Event()
    process = CONTEXT.Process(target=stays, args=(tmp_path / "run", entered))
    process.start()
    assert entered.wait(60)
    yield process
    process.kill()
    process.join()


def test_a_second_process_is_told_who_is_there_and_after_a_sigkill_nobody_is(tmp_path, holder):
    with pytest.raises(BlockingIOError) as refused, alone_in(tmp_path / "run"):
        pytest.fail("two are in it")
    for part in (
        str(tmp_path / "run"),
        f"process {holder.pid} on ",
        f"since {time.strftime('%Y-')}",
        "choose another directory",
    ):
        assert part in str(refused.value)
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    assert (tmp_path / "run" / LOCK).exists()  # and locks nobody out
    with alone_in(tmp_path / "run"):
        assert f"process {os.getpid()} on " in (tmp_path / "run" / LOCK).read_text().splitlines()[-1]
    assert not list((tmp_path / "run").iterdir())


def test_who_leaves_leaves_no_file_and_no_directory_that_was_not_there(tmp_path):
    with alone_in(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / LOCK).is_file()
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError), alone_in(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "absent").rename(tmp_path / "a" / "kept")
    assert not list(tmp_path.iterdir())
    with alone_in(tmp_path / "a" / "b"):
        (tmp_path / "a" / "kept").write_text("")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["kept"]
    with alone_in(tmp_path / "a"):
        pass
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["kept"]


def test_who_asked_while_the_holder_left_has_no_lock_on_a_file_that_is_gone(tmp_path):
    """The file that both had open was unlinked: a third one would make another, and lock that."""
    path = tmp_path / LOCK
    with path.open("w") as before:
        fcntl.flock(before, fcntl.LOCK_EX)
        path.unlink()
        lock = take(path)
        assert os.fstat(lock._context.lock_file_fd).st_ino == path.stat().st_ino
        lock.release()


def test_a_line_of_the_lock_that_would_write_on_a_terminal_is_said_without_that(tmp_path):
    with (tmp_path / LOCK).open("w") as file:
        file.write("process 1 on \x1b[31mred\n" * 2)
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError, match=r"in use: process 1 on \[31mred is at work"), alone_in(tmp_path):
            pass
        file.truncate(0)
        with pytest.raises(BlockingIOError, match="in use: another process is at work"), alone_in(tmp_path):
            pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_on_a_filesystem_without_locks_the_block_runs_and_leaves_nothing(tmp_path, monkeypatch, number):
    def none_here(file, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", none_here)
    assert take(tmp_path / "a.lock") is None
    with alone_in(tmp_path / "run"), alone_in(tmp_path / "run"):
        (tmp_path / "run" / "written").write_text("")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["written"]


def test_where_nothing_can_be_written_it_is_the_block_that_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with alone_in(tmp_path / "file"):
        pass
    with alone_in(tmp_path / "file" / "below"):
        pass
    assert (tmp_path / "file").read_text() == ""


def test_a_lock_that_cannot_be_opened_is_an_error_and_not_no_lock(tmp_path):
    (tmp_path / "elsewhere").write_text("precious")
    (tmp_path / LOCK).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"\.lock"), alone_in(tmp_path):
        pass
    assert (tmp_path / "elsewhere").read_text() == "precious"


def test_who_waits_while_the_holder_leaves_and_removes_the_directory_is_alone_in_it(tmp_path, monkeypatch):
    """It went in without a lock, and removed that of the next one."""
    monkeypatch.setattr(locks, "PATIENCE", 5.0)
    run, entered, leave = tmp_path / "runs" / "run", threading.Event(), threading.Event()

    def leaves():
        with alone_in(run):
            entered.set()
            leave.wait()

    thread = threading.Thread(target=leaves)
    thread.start()
    assert entered.wait(60)
    threading.Timer(0.3, leave.set).start()
    with alone_in(run):
        assert (run / LOCK).is_file()
        with pytest.raises(BlockingIOError):
            take(run / LOCK)
        monkeypatch.setattr(locks, "PATIENCE", 0.0)
        with pytest.raises(BlockingIOError, match="is in use"), alone_in(run):
            pass
        assert (run / LOCK).is_file()
    thread.join()
    assert not (run / LOCK).exists()


def test_who_could_not_take_the_lock_does_not_remove_that_of_another(tmp_path, monkeypatch):
    def fails(path, wait=0.0):
        raise OSError(errno.EROFS, "read-only")

    with monkeypatch.context() as patch:
        patch.setattr(locks, "take", fails)
        with alone_in(tmp_path):
            (tmp_path / LOCK).touch()  # of one who came meanwhile
    assert (tmp_path / LOCK).exists()
