import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # the processes find it too
import jobs_of_tests as work

from bae_lens.cells import CellDirectory
from bae_lens.jobs import Job, run_jobs


@pytest.fixture
def directory(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
    return CellDirectory.open(tmp_path / "out", "test", {})


def jobs(count=4, **settings):
    return [Job(f"part/cell{i}", work.double, (i,), settings) for i in range(count)]


def test_cells_that_fail_are_reported_and_stop_no_other(directory):
    said = []
    bad = [Job("nan", work.not_finite, (), {}), Job("raises", work.fail, ("loss is NaN",), {})]
    failures = run_jobs(directory, [bad[0], *jobs(2), bad[1]], processes=1, say=said.append)
    assert [f.name for f in failures] == ["nan", "raises"]
    assert failures[0].reason == "FloatingPointError: rows[0].figures.fvu is nan"
    assert failures[1].reason == "FloatingPointError: loss is NaN"
    assert any("raises failed, and the others go on: FloatingPointError: loss is NaN" in line for line in said)
    assert directory.names() == ["part/cell0", "part/cell1"]
    assert run_jobs(directory, [bad[1]], processes=1) == [failures[1]]  # tried again, as it was not written


def test_what_is_there_is_not_made_again(directory):
    run_jobs(directory, jobs(2), processes=1)
    before = directory.read("part/cell0")
    said = []
    assert run_jobs(directory, jobs(3), processes=1, say=said.append) == []
    assert said == ["2 of 3 cells are there already"]
    assert directory.read("part/cell0") == before
    assert directory.read("part/cell2")["twice"] == 4
    assert directory.read("part/cell2")["seconds"] >= 0


def test_a_cell_of_other_settings_is_refused_with_what_differs(directory):
    run_jobs(directory, jobs(1, steps=3), processes=1)
    with pytest.raises(ValueError, match="made with other settings: steps was 3 and is 4"):
        run_jobs(directory, jobs(1, steps=4), processes=1)
    with pytest.raises(ValueError, match="one process at least"):
        run_jobs(directory, jobs(2, steps=3), processes=0)


def test_several_processes_make_the_same_cells_and_one_that_is_killed_takes_no_other_with_it(directory):
    failing = [Job("killed", work.killed, (), {}), Job("raises", work.fail, ("x",), {})]
    failures = run_jobs(directory, [failing[0], *jobs(4), failing[1]], processes=2)
    assert {f.name: f.reason.split(":")[0] for f in failures} == {
        "killed": "its process was killed",
        "raises": "FloatingPointError",
    }
    found = [directory.read(f"part/cell{i}") for i in range(4)]
    assert [cell["twice"] for cell in found] == [0, 2, 4, 6]
    assert os.getpid() not in {cell["pid"] for cell in found}


@pytest.mark.slow  # three processes import torch
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_ctrl_c_and_even_a_kill_leave_no_process_behind(directory, tmp_path, how):
    mark = tmp_path / "pid"
    code = (
        "from pathlib import Path; import sys; import jobs_of_tests as work\n"
        "from bae_lens.cells import CellDirectory; from bae_lens.jobs import Job, run_jobs\n"
        "if __name__ == '__main__':\n"
        f"    jobs = [Job('long', work.wait_for_ever, (Path({str(mark)!r}),), {{}}), Job('short', work.double, (1,), {{}})]\n"
        f"    run_jobs(CellDirectory.open({str(directory.path)!r}, 'test', {{}}), jobs, processes=2)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # whoever runs the tests may ignore it
    )
    deadline = time.monotonic() + 600
    try:
        while not mark.is_file() or not mark.read_text() or directory.read("short") is None:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.kill(process.pid, how)
        assert process.wait(timeout=120) != 0
    finally:
        process.kill()
    assert directory.names() == ["short"]
    worker = int(mark.read_text())
    while time.monotonic() < deadline and Path(f"/proc/{worker}").exists():
        time.sleep(0.1)
    assert not Path(f"/proc/{worker}").exists()


def test_as_many_processes_as_torch_would_use_threads(directory, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    run_jobs(directory, jobs(2))
    assert directory.read("part/cell1")["pid"] == os.getpid()
