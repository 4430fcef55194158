"""What a file says cannot make a reader read, or a writer write, outside of its directory."""

import json
import os
import shutil

import pytest
import torch
from file_readers import BY_NAME, _read_activations, _read_harvest, vectors

import bae_lens
from bae_lens.activations.dataset import ActivationDataset
from bae_lens.activations.harvest_directory import HarvestDirectory
from bae_lens.activations.manifest import is_inside, read_record
from bae_lens.comsem.journal import Journal
from bae_lens.files import append_text, write_text

WAYS = {
    "up": lambda outside: f"../{outside.name}",
    "up and down": lambda outside: f"shard-0/../../{outside.name}",
    "absolute": str,
}


def renamed(manifest, name):
    """A manifest that names another file for its first shard."""
    content = json.loads(manifest.read_text())
    shard = content["shards"][0]
    file = shard if "file" in shard else next(iter(shard["files"].values()))
    file["file"] = name
    manifest.write_text(json.dumps(content))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("reader", "folder"), [("activations", "a"), ("harvest", ".")])
def test_a_manifest_that_names_a_file_elsewhere_is_refused(reader, folder, way, good_files, tmp_path):
    good_files(reader, tmp_path / "in")
    place = tmp_path / "in" / folder
    shard = next(place.rglob("*.safetensors"))
    outside = shutil.copy(shard, place.parent / "outside.safetensors")
    renamed(place / "manifest.json", WAYS[way](outside))
    with pytest.raises(ValueError, match="outside it"):
        _read_activations(place)


@pytest.mark.parametrize(("reader", "folder"), [("activations", "a"), ("harvest", ".")])
def test_a_shard_that_is_a_link_to_elsewhere_is_refused(reader, folder, good_files, tmp_path):
    good_files(reader, tmp_path / "in")
    place = tmp_path / "in" / folder
    shard = next(place.rglob("*.safetensors"))
    target = shutil.move(shard, tmp_path / "outside.safetensors")
    shard.symlink_to(target)
    with pytest.raises(ValueError, match="outside it"):
        _read_activations(place)


@pytest.mark.parametrize("way", WAYS)
def test_a_shards_record_that_names_a_file_elsewhere_is_refused(way, good_files, tmp_path):
    """Of a harvest that was interrupted: it is taken up by the records of its shards."""
    good_files("harvest", tmp_path / "in")
    record = next((tmp_path / "in").glob("shard-*/shard.json"))
    content = json.loads(record.read_text())
    next(iter(content["files"].values()))["file"] = WAYS[way](tmp_path / "outside.safetensors")
    record.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="outside the directory"):
        read_record(record.parent)
    manifest = tmp_path / "in" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"finished": False, "shards": []}))
    with pytest.raises(ValueError, match="outside the directory"):
        ActivationDataset(tmp_path / "in", unfinished=True)
    assert HarvestDirectory  # its `records` reads by `read_record` alone


def test_names_are_inside_only_if_they_are(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "loop").symlink_to("loop")
    (tmp_path / "in" / "out").symlink_to("..")
    inside = [name for name in ("a", "b/../a", "./c/d", "../in/a") if is_inside(tmp_path / "in", name)]
    assert inside == ["a", "b/../a", "./c/d", "../in/a"]
    for name in ("..", "../a", "/etc/passwd", "out/a", "a\0b"):
        assert not is_inside(tmp_path / "in", name), name


def test_the_metadata_of_a_baez_do_not_choose_where_it_is_unpacked(good_files, tmp_path):
    from bae_lens import codec

    good_files("baez", tmp_path / "in")
    codec.decompress(tmp_path / "in" / "a.baez", tmp_path / "out", progress=False)
    written = [path for path in tmp_path.rglob("*") if path.is_file() and tmp_path / "in" not in path.parents]
    assert written
    assert all(tmp_path / "out" in path.parents for path in written)


def test_hook_names_of_a_file_never_become_paths(tmp_path):
    metadata = {"hook_name": "../../evil", "model_name": "/etc/x"}
    bae_lens.save_activations(tmp_path / "acts", [vectors()], metadata=metadata)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["acts"]
    assert all(path.resolve().is_relative_to(tmp_path / "acts") for path in (tmp_path / "acts").rglob("*"))


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="the system has no flag against links (tests/SKIPPED.md)")
def test_nothing_is_appended_through_a_link(tmp_path):
    target = tmp_path / "profile"
    target.write_text("mine\n")
    for name in ("metrics.jsonl", "journal.jsonl"):
        (tmp_path / name).symlink_to(target)
    with pytest.raises(OSError, match="symbolic"):
        append_text(tmp_path / "metrics.jsonl", "evil")
    with pytest.raises(OSError, match="symbolic"):
        Journal(tmp_path / "journal.jsonl", {})
    assert target.read_text() == "mine\n"


def test_a_file_that_is_written_whole_takes_a_links_place_and_not_its_targets(tmp_path):
    (tmp_path / "profile").write_text("mine\n")
    (tmp_path / "recipe.json").symlink_to(tmp_path / "profile")
    write_text(tmp_path / "recipe.json", "{}")
    assert (tmp_path / "profile").read_text() == "mine\n"
    assert not (tmp_path / "recipe.json").is_symlink()


def test_a_harvest_says_where_its_vectors_are(good_files, tmp_path):
    good_files("harvest", tmp_path / "in")
    _read_harvest(tmp_path / "in")
    assert BY_NAME["harvest"].read is _read_harvest
    assert torch.is_tensor(ActivationDataset(tmp_path / "in").tensor())
