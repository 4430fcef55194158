"""The doctor: what it looks at, what it calls broken, and what it tells to do; each time in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bae_lens import doctor
from bae_lens.cli import main
from bae_lens.doctor import BROKEN, NOTE, OK, Finding, describe, is_broken

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "bae_lens" / "doctor.py"


def examined(*, path=None, cwd=ROOT, **environment):
    """What the script finds in an environment, by name, and its exit status."""
    known = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "HF_", "TRANSFORMERS", "OMP"))}
    known |= {"PYTHONPATH": str(path) if path else "", "OMP_NUM_THREADS": "1", **environment}
    found = subprocess.run(
        [sys.executable, "-P", SCRIPT, "--json"], capture_output=True, text=True, env=known, cwd=cwd, check=False
    )
    assert found.returncode in (0, 1), found.stderr
    return {entry["name"]: Finding(**entry) for entry in json.loads(found.stdout)}, found.returncode


def installed(directory, name, version):
    """Makes a package seem installed at a version."""
    place = directory / f"{name}-{version}.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_the_command_prints_versions_devices_network_logging_disk_and_tools(capsys):
    status = main(["doctor"])
    shown = capsys.readouterr().out
    areas = [line for line in shown.splitlines() if line and line == line.strip() and " " not in line]
    assert areas == ["versions", "devices", "network", "logging", "disk", "tools"]
    for name in ("python", "torch", "sae-lens", "transformer-lens", "threads", "memory", "hub", "wandb", "browser", "cuda"):
        assert f" {name}: " in shown
    assert status == (1 if "broken  " in shown else 0)


def test_its_json_goes_to_the_terminal_or_into_a_file(tmp_path, capsys):
    main(["doctor", "--json"])
    shown = json.loads(capsys.readouterr().out)
    main(["doctor", "--json", str(tmp_path / "found.json")])
    kept = json.loads((tmp_path / "found.json").read_text())
    assert [entry["name"] for entry in kept] == [entry["name"] for entry in shown]
    assert set(kept[0]) == set(Finding._fields)


def test_everything_that_is_not_well_has_something_to_try():
    for finding in doctor.examine():
        assert bool(finding.fix) == (finding.status != OK), finding


def test_a_package_of_another_version_is_broken_and_the_line_to_install_it_is_said(tmp_path):
    installed(tmp_path, "transformer_lens", "4.0.0")
    found, status = examined(path=tmp_path)
    assert status == 1
    assert found["transformer-lens"].status == BROKEN
    assert found["transformer-lens"].value.startswith("4.0.0, needed ")
    assert found["transformer-lens"].fix.startswith("pip install 'transformer-lens")


def test_a_torch_that_cannot_be_imported_is_broken_and_the_rest_is_looked_at_all_the_same(tmp_path):
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so.13: cannot open shared object file')\n")
    found, status = examined(path=tmp_path)
    assert status == 1
    torch = [finding for finding in found.values() if "libcudart" in finding.value]
    assert [finding.status for finding in torch] == [BROKEN]
    assert "hub" in found
    assert "browser" in found


def test_what_the_environment_says_of_networks_is_told_and_no_key_is_shown(tmp_path):
    found, _ = examined(HF_HUB_OFFLINE="1", WANDB_MODE="online", WANDB_API_KEY="secret-key", HF_HOME=str(tmp_path))
    assert found["hub"].value.startswith("offline (HF_HUB_OFFLINE=1)")
    assert str(tmp_path) in found["cache"].value
    assert found["wandb"].status == OK
    assert "secret-key" not in str(found)


def test_an_unknown_mode_more_threads_than_cores_and_a_path_without_a_browser_are_notes(tmp_path):
    environment = {"HF_HUB_OFFLINE": "0", "WANDB_MODE": "on-line", "OMP_NUM_THREADS": "512", "PATH": str(tmp_path)}
    found, status = examined(**environment, HOME=str(tmp_path))
    assert found["hub"].value.startswith("online (HF_HUB_OFFLINE=0)")
    assert found["wandb"].status == NOTE
    assert "offline" in found["wandb"].fix
    assert found["threads"].status == NOTE
    assert "export OMP_NUM_THREADS=" in found["threads"].fix
    assert found["browser"].status == NOTE
    assert status == 0


def test_a_directory_that_cannot_be_written_is_a_note():
    if not Path("/sys").is_dir():
        pytest.skip("a place is needed where even root cannot write (tests/SKIPPED.md)")
    found, _ = examined(cwd="/sys/kernel")
    assert found["here"].status == NOTE
    assert "--out DIR" in found["here"].fix


def test_the_last_line_says_what_to_do_next():
    well = Finding("versions", "torch", "2.13.0")
    note = Finding("disk", "here", "1.0 GiB free", NOTE, "another disk")
    bad = Finding("devices", "cuda", "sees no GPU", BROKEN, "a newer driver")
    assert describe([well]).splitlines()[-1] == "Nothing is broken. Next: bae-lens demo"
    assert describe([well, note]).splitlines()[-1].endswith('What could be better: 1, marked "note".')
    assert "1 broken: mend the lines" in describe([well, note, bad]).splitlines()[-1]
    assert "          try: a newer driver" in describe([bad]).splitlines()
    assert is_broken([well, bad])
    assert not is_broken([well, note])
