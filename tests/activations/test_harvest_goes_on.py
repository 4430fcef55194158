"""A harvest to disk that is interrupted, that fails, or that several processes share: it goes on and ends as if it had not."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from harvests import HOOKS, in_order, same

from bae_lens.activations import harvest_disk
from bae_lens.activations.dataset import ActivationDataset
from bae_lens.activations.harvest_directory import HarvestDirectory


class Stop(Exception):
    pass


@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize("batches", [0, 1, 3])
def test_an_interrupted_harvest_goes_on_after_its_last_whole_shard(harvest, monkeypatch, batches, seed):
    whole = harvest("whole", seed=seed, tokens=900)
    left = iter(range(batches))

    def places(batch, own=harvest_disk._places):
        if next(left, None) is None:
            raise Stop
        return own(batch)

    with monkeypatch.context() as patch:
        patch.setattr(harvest_disk, "_places", places)
        with pytest.raises(Stop):
            harvest(seed=seed, tokens=900)
    there = {path: path.stat().st_mtime_ns for path in whole.path.with_name("acts").glob("shard-*/*")}
    (whole.path.with_name("acts") / ".shard-000-00099-left").mkdir()
    result = harvest(seed=seed, tokens=900)
    assert all(path.stat().st_mtime_ns == time for path, time in there.items())
    assert bool(there) == (batches > 0)
    assert same(result.path, whole.path)
    assert result.dropped == whole.dropped
    assert not list(result.path.glob(".shard*"))
    again = harvest(seed=seed, tokens=900)
    assert again[:4] == result[:4]


@pytest.mark.parametrize("full", [True, False])
def test_a_harvest_that_failed_while_ending_is_ended_by_the_same_command(harvest, monkeypatch, full):
    def fail(self, records):
        raise OSError(errno.ENOSPC if full else errno.EIO, "it failed")

    with monkeypatch.context() as patch:
        patch.setattr(HarvestDirectory, "_totals", fail)
        message = r"is full: \d+ whole shards with [\d,]+ vectors stay" if full else "it failed"
        with pytest.raises(OSError, match=message):
            harvest()
        with pytest.raises(OSError, match="it failed"):
            harvest()
    result, whole = harvest(), harvest("whole")
    assert (result.finished, result.vectors, result.dropped) == (True, whole.vectors, whole.dropped)
    assert same(result.path, whole.path)
    assert (result.path / "manifest.json").read_bytes() == (whole.path / "manifest.json").read_bytes()


def test_an_unfinished_harvest_opens_only_when_that_is_asked_for(harvest):
    path = harvest().path
    whole = ActivationDataset(path, HOOKS[0]).tensor()
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"finished": False, "shards": []}))
    for later in sorted(path.glob("shard-000-*"))[2:]:
        shutil.rmtree(later)
    with pytest.raises(ValueError, match=r"has not ended: 2 whole shards with \d+ vectors .*unfinished=True"):
        ActivationDataset(path, HOOKS[0])
    partly = ActivationDataset(path, HOOKS[0], unfinished=True)
    assert torch.equal(partly.tensor(), whole[: len(partly)])
    shutil.rmtree(path / "shard-000-00000")
    (path / "done-000.json").unlink()
    with pytest.raises(ValueError, match="shard-000-00000 is missing: put it back"):
        harvest()


DISK_SCRIPT = """
import shutil, sys
from pathlib import Path
from bae_lens.activations.dataset import ActivationDataset
from bae_lens.activations.harvest_disk import harvest_to_disk
from bae_lens.activations.hugging_face import load_hugging_face
from bae_lens.activations.sources import TextSource
from bae_lens.demo import demo_model_dir
disk, fill = Path(sys.argv[1]), True

def documents():
    for number in range(2000):
        if number == 450 and fill:
            (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - 100_000))
        yield "Return the number of items. " * 2

model = load_hugging_face(demo_model_dir())
options = {"hooks": ["blocks.0.hook_resid_pre"], "tokens": 6000, "batch_tokens": 128, "shard_bytes": 500_000, "progress": False}
text = TextSource("documents", documents, "1")
try:
    harvest_to_disk(model, text, out=disk / "acts", **options)
except OSError as error:
    print(error)
print(len(ActivationDataset(disk / "acts", unfinished=True)), *sorted(p.name for p in (disk / "acts").iterdir()))
(disk / "filler").unlink()
fill = False
print(harvest_to_disk(model, text, out=disk / "acts", **options).vectors)
ActivationDataset(disk / "acts").verify()
"""


def test_on_a_disk_that_fills_up_the_whole_shards_stay_and_it_is_said_what_is_missing(tmp_path):
    mounted = f"mount -t tmpfs -o size=4m bae_lens {tmp_path} && exec {sys.executable} -c '{DISK_SCRIPT}' {tmp_path}"
    shell = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mounted]
    done = subprocess.run(shell, capture_output=True, text=True, check=False)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip("this machine lets no test mount a small disk (tests/SKIPPED.md)")
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    message, there, after = lines[-3:]
    assert "is full: " in message
    assert "whole shards with" in message
    assert "are missing. Make room, and the same command goes on from there" in message
    vectors, *names = there.split()
    assert 0 < int(vectors) < 6000
    assert "manifest.json" in names
    assert all(name == "manifest.json" or name.startswith("shard-000-") for name in names)
    assert after == "6000"


def test_processes_that_find_no_vector_say_so_each_time(harvest, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for again in (False, True):
        monkeypatch.setenv("RANK", "0")
        if again:
            with pytest.raises(ValueError, match="none of the documents gave a vector: 31 sequences were too short"):
                harvest(positions=[200], context_size=256)
        else:
            assert not harvest(positions=[200], context_size=256).finished
        monkeypatch.setenv("RANK", "1")
        with pytest.raises(ValueError, match="none of the documents gave a vector: 31 sequences were too short"):
            harvest(positions=[200], context_size=256)


def test_two_processes_share_the_text_and_write_one_manifest(harvest, tmp_path, hugging_face):
    script = f"""
from harvests import TEXT, HOOKS
from bae_lens.activations.harvest_disk import harvest_to_disk
from bae_lens.activations.hugging_face import load_hugging_face
from bae_lens.demo import demo_model_dir
model = load_hugging_face(demo_model_dir())
options = {{"context_size": 128, "batch_tokens": 256, "shard_bytes": 100_000, "progress": False}}
harvest_to_disk(model, TEXT, hooks=HOOKS, out={str(tmp_path / "shared")!r}, **options)
"""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environments = [{**os.environ, "PYTHONPATH": path, "RANK": str(rank), "WORLD_SIZE": "2"} for rank in range(2)]
    running = [subprocess.Popen([sys.executable, "-c", script], env=environment) for environment in environments]
    assert [process.wait() for process in running] == [0, 0]
    alone, shared = (
        ActivationDataset(tmp_path / name, HOOKS[1]) for name in (harvest("alone", context_size=128).path.name, "shared")
    )
    shared.verify()
    assert {shard["places"]["file"][:9] for shard in json.loads((shared.path / "manifest.json").read_text())["shards"]} == {
        "shard-000",
        "shard-001",
    }
    assert len(alone) == len(shared)
    torch.testing.assert_close(in_order(shared), in_order(alone), atol=1e-4, rtol=1e-4)
    assert alone._store.energy == pytest.approx(shared._store.energy, rel=1e-5)
