"""A harvest to disk: what is in it, how it goes on, how processes share it, and what is refused."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bae_lens.activations import harvest_disk
from bae_lens.activations.dataset import ActivationDataset
from bae_lens.activations.harvest_directory import HarvestDirectory
from bae_lens.activations.harvest_disk import harvest_to_disk
from bae_lens.activations.hugging_face import load_hugging_face
from bae_lens.activations.readers import reader_of
from bae_lens.demo import demo_model_dir

TEXT = [f"Return the number of items in list {n}, or raise an error. " * (1 + n % 5) for n in range(30)] + ["A."]
HOOKS = ["blocks.1.hook_resid_pre", "blocks.3.hook_resid_post"]


@pytest.fixture(scope="module")
def hugging_face():
    return load_hugging_face(demo_model_dir())


@pytest.fixture
def harvest(hugging_face, tmp_path):
    def run(name="acts", text=TEXT, hooks=HOOKS, **options):
        options = {"context_size": 32, "batch_tokens": 256, "shard_bytes": 100_000, "progress": False, **options}
        return harvest_to_disk(hugging_face, text, hooks=hooks, out=tmp_path / name, **options)

    return run


def in_order(dataset):
    """All vectors by document, then place; those of a second half of a document lie between those of its first."""
    key = dataset.documents * 10**6 + dataset.positions
    return dataset.tensor()[key.argsort(stable=True)]


def same(one, two, hook=HOOKS[0]):
    one, two = ActivationDataset(one, hook), ActivationDataset(two, hook)
    return torch.equal(one.tensor(), two.tensor()) and torch.equal(one.tokens, two.tokens)


def test_every_vector_is_that_of_its_token_at_its_place_in_its_document(harvest, hugging_face):
    result = harvest(context_size=128)
    assert result.finished
    assert len(list(result.path.glob("shard-*"))) > 2
    tokenizer = hugging_face.tokenizer
    for hook in HOOKS:
        dataset = ActivationDataset(result.path, hook)
        assert (dataset.hook_name, dataset.d_in, len(dataset)) == (hook, 128, result.vectors)
        for number in (0, 7, 14):
            own = dataset.select((dataset.documents == number).nonzero().squeeze(1))
            ids = tokenizer(TEXT[number], add_special_tokens=False)["input_ids"]
            assert own.tokens.tolist() == ids
            assert own.positions.tolist() == list(range(1, len(ids) + 1))
            tokens = torch.tensor([[tokenizer.bos_token_id, *ids]])
            expected = reader_of(hugging_face).read(tokens, torch.ones_like(tokens, dtype=torch.bool), [hook])[hook][1:]
            torch.testing.assert_close(own.tensor(), expected, atol=1e-4, rtol=1e-4)
    total = sum(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in TEXT)
    assert result.vectors == total


def test_the_manifest_says_what_was_harvested_how_and_what_the_vectors_are_like(harvest):
    result = harvest(model_name="tiny", revision="abc", seed=3)
    manifest = json.loads((result.path / "manifest.json").read_text())
    settings = manifest["settings"]
    assert (settings["model"], settings["revision"], settings["dtype"], settings["seed"]) == ("tiny", "abc", "fp32", 3)
    assert settings["hooks"] == dict.fromkeys(HOOKS, 128)
    assert {"torch", "transformers", "bae_lens"} <= manifest["versions"].keys()
    assert manifest["metadata"] == {
        "model_name": "tiny",
        "context_size": 32,
        "prepend_bos": True,
        "dataset_path": "31 documents in memory",
    }
    for hook in HOOKS:
        x = ActivationDataset(result.path, hook).tensor().double()
        assert manifest["hooks"][hook]["energy"] == pytest.approx(x.square().sum(1).mean().item(), rel=1e-6)
        torch.testing.assert_close(torch.tensor(manifest["hooks"][hook]["mean"]), x.mean(0).float())
        for shard in manifest["shards"]:
            assert len(shard["files"][hook]["sha256"]) == 64


@pytest.mark.parametrize(("dtype", "kind"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_vectors_are_stored_in_the_dtype_that_is_asked_for(harvest, dtype, kind):
    whole, half = harvest("whole"), harvest("half", dtype=dtype)
    dataset = ActivationDataset(half.path, HOOKS[0])
    assert dataset.dtype == kind
    assert torch.equal(in_order(dataset), in_order(ActivationDataset(whole.path, HOOKS[0])).to(kind).float())


def test_a_number_of_tokens_is_kept_exactly(harvest):
    assert harvest(tokens=100).vectors == 100
    assert len(ActivationDataset(harvest("more", tokens=101).path, HOOKS[1])) == 101


def test_chosen_positions_and_the_last_token_are_views_of_all(harvest):
    everything = ActivationDataset(harvest("all", context_size=128).path, HOOKS[0])
    chosen = ActivationDataset(harvest("chosen", positions=[1, 2, 8]).path, HOOKS[0])
    torch.testing.assert_close(in_order(chosen.at([2])), in_order(everything.at([2]))[:-1], atol=1e-4, rtol=1e-4)
    last = ActivationDataset(harvest("last", positions="last", context_size=128).path, HOOKS[0])
    assert last.documents.sort().values.tolist() == list(range(31))
    ends = torch.stack([everything.tensor()[(everything.documents == n).nonzero().flatten()[-1]] for n in range(31)])
    torch.testing.assert_close(in_order(last), ends, atol=1e-4, rtol=1e-4)


def test_a_number_of_tokens_is_not_of_the_shortest_documents(harvest):
    text = [TEXT[4] * 3 if n % 3 == 0 else "Return it." for n in range(200)]
    whole = ActivationDataset(harvest("whole", text, hooks=HOOKS[:1], context_size=256).path)
    some = ActivationDataset(harvest("some", text, hooks=HOOKS[:1], context_size=256, tokens=len(whole) // 4).path)
    assert some.positions.double().mean().item() == pytest.approx(whole.positions.double().mean().item(), rel=0.1)
    assert some.documents.max() < 60


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


def test_another_configuration_over_an_old_directory_is_refused_with_the_fields_that_differ(harvest, hugging_face):
    path = harvest().path
    before = {file: file.read_bytes() for file in path.rglob("*.*") if file.is_file()}
    with pytest.raises(ValueError, match=r"dtype was 'fp32' and is 'bf16'; positions was 'all' and is \[1, 2\]"):
        harvest(dtype="bf16", positions=[1, 2], min_tokens=1)
    with pytest.raises(ValueError, match=r"text.fingerprint was"):
        harvest(text=[*TEXT[:-1], "B."])
    with pytest.raises(ValueError, match=r"hooks.blocks.1.hook_resid_pre was 128 and is None"):
        harvest(hooks=HOOKS[1:])
    with torch.no_grad():
        hugging_face.model.norm.weight[0] += 1
    with pytest.raises(ValueError, match="weights was"):
        harvest()
    with torch.no_grad():
        hugging_face.model.norm.weight[0] -= 1
    assert before == {file: file.read_bytes() for file in path.rglob("*.*") if file.is_file()}


def test_a_directory_that_holds_something_else_is_left_alone(harvest, tmp_path):
    (tmp_path / "acts").mkdir()
    (tmp_path / "acts" / "thesis.txt").write_text("x")
    with pytest.raises(FileExistsError, match="already holds something"):
        harvest()
    assert [path.name for path in (tmp_path / "acts").iterdir()] == ["thesis.txt"]


def test_text_without_a_sequence_that_is_long_enough_is_refused_with_what_was_left_out(harvest, tmp_path):
    with pytest.raises(ValueError, match=r"of 32 documents, 31 sequences were too short, 1 documents had no token; 100 tokens"):
        harvest(text=[*TEXT, ""], positions=[1, 100], context_size=128)
    with pytest.raises(ValueError, match=r"3 documents were longer than the context; .* longest document has \d+"):
        harvest(text=[TEXT[4]] * 3, positions="last", context_size=16)
    with pytest.raises(ValueError, match="0 documents in memory holds no text"):
        harvest(text=[])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positions": [1, 256]}, "position 256 is beyond the model's context of 256 tokens: its last position is 255"),
        ({"context_size": 512}, "a context of 512 tokens is longer than the model's, which has 256"),
        ({"positions": [1, 32]}, "positions 32 are beyond the context: 1 to 31"),
        ({"dtype": "int8"}, "unknown dtype 'int8'"),
        ({"tokens": 0}, "tokens must be at least 1"),
        ({"hooks": ["blocks.*.hook_resid_prr"]}, "did you mean 'blocks"),
    ],
)
def test_what_cannot_be_harvested_is_refused_and_leaves_nothing(harvest, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        harvest(**options)
    assert not list(tmp_path.iterdir())


def test_the_size_on_disk_is_said_first_and_refused_where_the_disk_cannot_hold_it(harvest, tmp_path):
    said = []
    result = harvest(say=said.append, positions=[1, 2])
    assert "2 hook points of a Hugging Face model" in said[0]
    assert "BOS is left out" in said[0]
    assert f"about {result.vectors} vectors a hook point: {result.vectors * 1040 / 1024:.3g} KiB on disk" in said[1]
    with pytest.raises(
        OSError, match=r"cannot hold this harvest: .* TiB are needed, .* free, .* missing; ask for fewer"
    ) as raised:
        harvest("huge", tokens=10**13)
    assert raised.value.errno == errno.ENOSPC
    assert not (tmp_path / "huge").exists()


@pytest.mark.parametrize("rank", [0, 7])
def test_what_is_needed_on_disk_is_that_of_all_processes(harvest, monkeypatch, tmp_path, rank):
    vector = 2 * 128 * 4 + 16
    tokens = 2 * shutil.disk_usage(tmp_path).free // vector  # each of eight processes alone would have room
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("RANK", str(rank))
    said = []
    with pytest.raises(OSError, match=r"cannot hold this harvest: .* are needed, .* are missing"):
        harvest(tokens=tokens, say=said.append)
    assert f"at most {tokens:,} vectors a hook point of all 8 processes: " in said[1]
    assert not (tmp_path / "acts").exists()


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


def test_two_processes_share_the_text_and_write_one_manifest(harvest, tmp_path, hugging_face):
    script = f"""
from test_harvest_disk import TEXT, HOOKS
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


def test_what_fp16_cannot_hold_is_refused(harvest, hugging_face):
    with torch.no_grad():
        hugging_face.model.embed_tokens.weight.mul_(1e7)
    try:
        with pytest.raises(ValueError, match="too large for float16: harvest in bf16 or fp32"):
            harvest(hooks=["hook_embed"], dtype="fp16")
    finally:
        with torch.no_grad():
            hugging_face.model.embed_tokens.weight.div_(1e7)
