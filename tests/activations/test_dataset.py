import json
import shutil

import datasets
import pytest
import torch
from sae_lens import CacheActivationsRunner, CacheActivationsRunnerConfig
from safetensors.torch import load_file, save_file

import bae_lens
from bae_lens.activations.dataset import ActivationDataset
from bae_lens.activations.harvest_disk import harvest_to_disk
from bae_lens.activations.hugging_face import load_hugging_face
from bae_lens.demo import demo_model_dir


def vectors(samples=100, d=6, seed=0):
    return torch.randn(samples, d, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def saved(tmp_path):
    bae_lens.save_activations(tmp_path / "acts", vectors().split(17), metadata={"hook_name": "h"}, shard_vectors=30)
    return tmp_path / "acts"


def test_vectors_come_back_by_place_and_in_order(saved):
    dataset = ActivationDataset(saved)
    assert (len(dataset), dataset.d_in, dataset.metadata) == (100, 6, {"hook_name": "h"})
    assert len(list(saved.glob("shard-*"))) == 4
    index = torch.tensor([99, 0, 29, 30, 30, 61, 89, 90])
    assert torch.equal(dataset.rows(index), vectors()[index])
    assert torch.equal(torch.cat(list(dataset.chunks(7))), vectors())
    dataset.verify()


@pytest.mark.parametrize("place", [-1, 100])
def test_a_place_that_is_not_there_is_refused(saved, place):
    dataset = ActivationDataset(saved)
    for taken in (dataset.rows, dataset.select):
        with pytest.raises(IndexError, match=f"has vectors 0 to 99; asked for were .*{place}"):
            taken(torch.tensor([place, 5]))
    view = dataset.select(torch.arange(10))
    with pytest.raises(IndexError, match="has vectors 0 to 9"):
        view.rows(torch.tensor([10]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_dtype_is_kept(tmp_path, dtype):
    dataset = bae_lens.save_activations(tmp_path / "acts", [vectors().to(dtype)])
    assert torch.equal(dataset.rows(torch.arange(100)), vectors().to(dtype))


def test_a_shard_that_is_cut_short_altered_or_missing_is_named(saved):
    shard = saved / "shard-00002.safetensors"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"shard-00002.safetensors was altered"):
        ActivationDataset(saved).verify()
    shard.write_bytes(content[:-100])
    with pytest.raises(ValueError, match=r"shard-00002.safetensors cannot be read"):
        ActivationDataset(saved)
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=r"shard-00002.safetensors is missing"):
        ActivationDataset(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format="parquet"), "of another format"),
        (lambda m: m.update(d_in=7), "its manifest says"),
        (lambda m: m.pop("shards"), "not a whole manifest"),
        (lambda m: m["shards"][0].update(file="../shard-00000.safetensors"), "outside it"),
        (lambda m: m["shards"].clear(), "not a whole manifest"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(saved, change, message):
    manifest = json.loads((saved / "manifest.json").read_text())
    change(manifest)
    (saved / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=message):
        ActivationDataset(saved)


def test_a_directory_without_activations_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no activations"):
        ActivationDataset(tmp_path)


def test_what_cannot_be_saved_leaves_nothing(tmp_path):
    for chunks, message in (([], "no vectors"), ([vectors(), vectors(d=5)], "width|size"), ([vectors() / 0], "infinite")):
        with pytest.raises((ValueError, RuntimeError), match=message):
            bae_lens.save_activations(tmp_path / "acts", chunks, shard_vectors=100)
        assert not list(tmp_path.iterdir())


TEXT = [f"Return the number of items in list {n}. " * (1 + n % 4) for n in range(20)]
HOOKS = ["blocks.0.hook_resid_pre", "blocks.1.hook_resid_pre"]


@pytest.fixture(scope="module")
def harvested(tmp_path_factory):
    path = tmp_path_factory.mktemp("dataset") / "acts"
    model = load_hugging_face(demo_model_dir())
    harvest_to_disk(model, TEXT, hooks=HOOKS, out=path, shard_bytes=100_000, progress=False)
    return path


@pytest.fixture
def copied(harvested, tmp_path):
    return shutil.copytree(harvested, tmp_path / "acts")


def test_of_several_hook_points_one_must_be_named(harvested):
    with pytest.raises(
        ValueError, match=r"holds 2 hook points: say which one with hook=...: blocks.0.hook_resid_pre, blocks.1"
    ):
        ActivationDataset(harvested)
    with pytest.raises(ValueError, match=r"no activations of 'blocks.2.hook_resid_pre'; did you mean 'blocks"):
        ActivationDataset(harvested, "blocks.2.hook_resid_pre")
    assert ActivationDataset(harvested, HOOKS[1]).metadata["hook_name"] == HOOKS[1]


def test_a_view_of_positions_is_the_vectors_there(harvested):
    dataset = ActivationDataset(harvested, HOOKS[0])
    view = ActivationDataset(harvested, HOOKS[0], positions=[1, 4])
    rows = [n for n, position in enumerate(dataset.positions.tolist()) if position in (1, 4)]
    assert len(view) == len(rows) == 2 * len(TEXT)
    assert torch.equal(view.tensor(), dataset.tensor()[rows])
    assert torch.equal(torch.cat(list(view.chunks(7))), view.tensor())
    assert torch.equal(view.tensor(limit=9), dataset.tensor()[rows[:9]])
    assert torch.equal(view.rows(torch.tensor([5, 0])), view.tensor()[[5, 0]])
    assert torch.equal(view.at([4]).documents, dataset.documents[dataset.positions == 4])
    with pytest.raises(ValueError, match=r"no vectors at position 99: there are 1 to \d+"):
        dataset.at([1, 99])


def test_a_split_has_no_document_on_both_sides_and_is_the_seeds(harvested):
    dataset = ActivationDataset(harvested, HOOKS[0])
    train, held_out = dataset.split(0.25, seed=1)
    assert set(train.documents.tolist()) | set(held_out.documents.tolist()) == set(range(20))
    assert len(set(held_out.documents.tolist())) == 5
    assert not set(train.documents.tolist()) & set(held_out.documents.tolist())
    assert len(train) + len(held_out) == len(dataset)
    assert torch.equal(dataset.split(0.25, seed=1).held_out.tensor(), held_out.tensor())
    assert not torch.equal(dataset.split(0.25, seed=2).held_out.documents.unique(), held_out.documents.unique())
    assert set(dataset.at([1]).split(0.25, seed=1).held_out.documents.tolist()) == set(held_out.documents.tolist())
    for share in (0.0, 1.0):
        with pytest.raises(ValueError, match="over 0 and under 1"):
            dataset.split(share)
    with pytest.raises(ValueError, match="vectors of 1 document"):
        dataset.select(torch.zeros(3, dtype=torch.long)).split()


def test_vectors_without_places_are_split_one_by_one_and_say_so(saved):
    dataset = ActivationDataset(saved)
    train, held_out = dataset.split(0.2)
    assert (len(train), len(held_out)) == (80, 20)
    with pytest.raises(ValueError, match="does not say which token each vector is of"):
        dataset.positions  # noqa: B018


def test_a_sample_is_random_and_the_seeds(harvested):
    dataset = ActivationDataset(harvested, HOOKS[0])
    one = dataset.sample(40, seed=1)
    assert one.shape == (40, 128)
    assert torch.equal(one, dataset.sample(40, seed=1))
    assert not torch.equal(one, dataset.sample(40, seed=2))
    assert torch.equal(dataset.sample(10**6), dataset.tensor())


@pytest.mark.parametrize("which", [f"{HOOKS[0]}.safetensors", "places.safetensors"])
def test_a_shard_that_is_altered_is_named_before_training_starts(copied, which):
    recipe = bae_lens.recipes.recommended(128, 1, steps=2, batch_size=64)
    shard = copied / "shard-000-00001" / which
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"shard-000-00001/.*safetensors was altered"):
        bae_lens.train(ActivationDataset(copied, HOOKS[0]).split().train, recipe, progress=False)
    bae_lens.train(ActivationDataset(copied, HOOKS[1]), recipe, progress=False) if "places" not in which else None
    shard.write_bytes(content[:-100])
    with pytest.raises(ValueError, match=r"cannot be read .*: it was cut short or altered"):
        ActivationDataset(copied, HOOKS[0]).documents  # noqa: B018
    shard.unlink()
    with pytest.raises(FileNotFoundError, match="is missing: the manifest names it"):
        ActivationDataset(copied, HOOKS[0]).documents  # noqa: B018


def test_two_shards_of_different_widths_or_dtypes_are_refused_by_name(copied):
    file = copied / "shard-000-00001" / f"{HOOKS[0]}.safetensors"
    x = load_file(file)["activations"]
    save_file({"activations": x[:, :100].contiguous()}, file)
    with pytest.raises(ValueError, match=r"shard-000-00001/.* holds \(\d+, 100\), its manifest says \(\d+, 128\)"):
        ActivationDataset(copied, HOOKS[0])
    save_file({"activations": x.half()}, file)
    with pytest.raises(ValueError, match=r"shard-000-00001/.* holds torch.float16, the shards before it torch.float32"):
        ActivationDataset(copied, HOOKS[0])


@pytest.mark.parametrize("name", ["../elsewhere/x.safetensors", "/etc/passwd", "shard-000-00000/../../x.safetensors"])
@pytest.mark.parametrize("of", ["files", "places"])
def test_a_manifest_that_points_outside_its_directory_is_refused(copied, name, of):
    manifest = json.loads((copied / "manifest.json").read_text())
    shard = manifest["shards"][0]
    (shard["files"][HOOKS[0]] if of == "files" else shard["places"])["file"] = name
    (copied / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="names a file outside it"):
        ActivationDataset(copied, HOOKS[0])


def test_a_manifest_whose_shards_lack_a_hook_point_is_refused(copied):
    manifest = json.loads((copied / "manifest.json").read_text())
    del manifest["shards"][1]["files"][HOOKS[1]]
    (copied / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="shard 1 has other hook points"):
        ActivationDataset(copied, HOOKS[0])


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd"])
@pytest.mark.parametrize("of", ["files", "places"])
def test_records_of_an_unfinished_harvest_are_checked_as_a_manifest_is(copied, name, of):
    manifest = json.loads((copied / "manifest.json").read_text())
    (copied / "manifest.json").write_text(json.dumps(manifest | {"finished": False, "shards": []}))
    shutil.copy(copied / "shard-000-00000" / f"{HOOKS[0]}.safetensors", copied.parent / "outside.safetensors")
    file = copied / "shard-000-00000" / "shard.json"
    good = file.read_text()
    record = json.loads(good)
    (record["files"][HOOKS[0]] if of == "files" else record["places"])["file"] = name
    file.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="names a file outside"):
        ActivationDataset(copied, HOOKS[0], unfinished=True)
    record = json.loads(good)
    del record["files"][HOOKS[0]]
    file.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="shard 0 has other hook points"):
        ActivationDataset(copied, HOOKS[0], unfinished=True)


@pytest.fixture(scope="module")
def saelens_cache(tmp_path_factory):
    path = tmp_path_factory.mktemp("cache") / "acts"
    cfg = CacheActivationsRunnerConfig(
        dataset_path="",
        model_name=str(demo_model_dir()),
        model_class_name="AutoModelForCausalLM",
        model_batch_size=2,
        hook_name="model.layers.1",
        d_in=128,
        training_tokens=512,
        context_size=32,
        new_cached_activations_path=str(path),
        shuffle=False,
        device="cpu",
        streaming=False,
        buffer_size_gb=1e-4,
    )
    runner = CacheActivationsRunner(cfg, override_dataset=datasets.Dataset.from_dict({"text": TEXT * 4}))
    return path, runner.run()


def test_saelens_cached_activations_open_without_bos(saelens_cache):
    path, table = saelens_cache
    dataset = ActivationDataset(path)
    assert (dataset.hook_name, dataset.d_in, dataset.metadata["context_size"]) == ("model.layers.1", 128, 32)
    rows = table.with_format("torch")
    bos = rows[0]["token_ids"][0]
    expected = torch.cat([row["model.layers.1"][row["token_ids"] != bos] for row in rows])
    assert torch.equal(dataset.tensor(), expected)
    assert 0 not in dataset.positions.tolist()
    assert int(bos) not in dataset.tokens.tolist()
    assert dataset.documents.max() == len(rows) - 1
    assert torch.equal(torch.cat(list(dataset.epoch(1))).sort(0).values, expected.sort(0).values)
    bae_lens.train(dataset, bae_lens.recipes.recommended(128, 1, steps=2, batch_size=64), progress=False)


def test_other_datasets_and_other_hook_points_of_saelens_are_refused(saelens_cache, tmp_path):
    with pytest.raises(ValueError, match=r"no activations of 'model.layer.1'; did you mean 'model.layers.1'"):
        ActivationDataset(saelens_cache[0], "model.layer.1")
    datasets.Dataset.from_dict({"text": TEXT}).save_to_disk(str(tmp_path / "text"))
    with pytest.raises(ValueError, match="not of activations: its columns are text"):
        ActivationDataset(tmp_path / "text")
    broken = shutil.copytree(saelens_cache[0], tmp_path / "broken")
    arrow = next(broken.glob("*.arrow"))
    arrow.write_bytes(arrow.read_bytes()[:200])
    with pytest.raises(ValueError, match="cannot be read as SAELens' cached activations"):
        ActivationDataset(broken)


def test_a_record_that_is_not_whole_says_how_the_harvest_can_go_on(copied):
    manifest = json.loads((copied / "manifest.json").read_text())
    (copied / "manifest.json").write_text(json.dumps(manifest | {"finished": False, "shards": []}))
    (copied / "shard-000-00001" / "shard.json").write_text("{")
    with pytest.raises(ValueError, match="directory and those of the same process after it are removed; one that has ended is"):
        ActivationDataset(copied, HOOKS[0], unfinished=True)
