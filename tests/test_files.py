import json
import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bae_lens.files import check_output_directory, check_output_file, new_directory, write_json, write_text


def test_a_directory_appears_whole(tmp_path):
    with new_directory(tmp_path / "a" / "run") as directory:
        (directory / "file").write_text("x")
        assert not (tmp_path / "a" / "run").exists()
    assert (tmp_path / "a" / "run" / "file").read_text() == "x"
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["run"]


def test_others_may_read_what_is_in_a_directory_as_far_as_the_umask_says(tmp_path):
    before = os.umask(0o027)
    try:
        with new_directory(tmp_path / "run") as directory:
            (directory / "inner").mkdir()
            save_file({"x": torch.zeros(3)}, directory / "inner" / "x.safetensors")  # makes files that the owner alone reads
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "run" / "inner" / "x.safetensors").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o750


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_directory_appears_not_at_all_when_its_block_fails(tmp_path, error):
    def fill():
        with new_directory(tmp_path / "run") as directory:
            (directory / "file").write_text("x")
            raise error

    with pytest.raises(error):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_replacing_keeps_the_old_directory_until_the_new_one_is_whole(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "old").write_text("old")
    with pytest.raises(ZeroDivisionError), new_directory(tmp_path / "run", replace=["old"]):
        raise ZeroDivisionError
    assert (tmp_path / "run" / "old").read_text() == "old"
    with new_directory(tmp_path / "run", replace=["old"]) as directory:
        (directory / "new").write_text("new")
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_a_directory_that_holds_more_than_an_earlier_run_is_never_replaced(tmp_path):
    (tmp_path / "results.json").write_text("{}")
    (tmp_path / "src").mkdir()
    with pytest.raises(FileExistsError, match=r"more than an earlier run \(src\)"):
        check_output_directory(tmp_path, replace=["results.json"])
    assert (tmp_path / "src").is_dir()


def test_a_full_directory_or_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(FileExistsError, match=str(path)):
            check_output_directory(path)
    (tmp_path / "empty").mkdir()
    check_output_directory(tmp_path / "empty")


@pytest.mark.skipif(not Path("/sys").is_dir(), reason="needs a place where even root cannot write (tests/SKIPPED.md)")
def test_an_output_directory_that_cannot_be_written_is_refused():
    with pytest.raises(PermissionError, match="cannot write to /sys"):
        check_output_directory("/sys/run")
    with pytest.raises(PermissionError, match="cannot write to /sys"):
        check_output_file("/sys/out.json")


def test_an_output_file_may_be_there_but_no_directory(tmp_path):
    (tmp_path / "out.json").write_text("x")
    for name in ("out.json", "new.json", "new/out.json"):
        check_output_file(tmp_path / name)
    with pytest.raises(FileExistsError, match="is a directory: give a file"):
        check_output_file(tmp_path)


def test_a_file_is_replaced_in_one_step_or_stays(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1.5})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1.5}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1.5}
    write_text(tmp_path / "a.json", "new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
