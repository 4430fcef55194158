"""A pickle that would run a command is offered under each file name of each reader: none runs it."""

import contextlib
import io
import json
import pickle
import shutil
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from file_readers import DOCUMENTED, READERS, files_of

import bae_lens
from bae_lens.demo import demo_model_dir


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def plain(path: Path) -> bytes:
    return pickle.dumps({"encoder.weight": Bomb(path)})


def torch_file(path: Path) -> bytes:
    file = io.BytesIO()
    torch.save({"encoder.weight": Bomb(path)}, file)
    return file.getvalue()


def numpy_file(path: Path) -> bytes:
    import numpy as np

    file = io.BytesIO()
    np.save(file, np.array([Bomb(path)], dtype=object), allow_pickle=True)
    return file.getvalue()


KINDS = {"pickle": plain, "torch.save": torch_file, "numpy": numpy_file}


@pytest.mark.parametrize("kind", KINDS)
def test_the_bombs_go_off_where_something_unpickles(kind, tmp_path):
    import numpy as np

    content = io.BytesIO(KINDS[kind](tmp_path / "ran"))
    load = {
        "pickle": lambda: pickle.load(content),
        "torch.save": lambda: torch.load(content, weights_only=False),
        "numpy": lambda: np.load(content, allow_pickle=True),
    }
    load[kind]()
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_no_reader_runs_a_pickle_in_place_of_one_of_its_files(reader, good_files, tmp_path):
    good_files(reader.name, tmp_path / "good")
    reader.read(shutil.copytree(tmp_path / "good", tmp_path / "as it is"))  # the files are good
    for number, name in enumerate([*files_of(tmp_path / "good"), *reader.extra]):
        for kind, make in KINDS.items():
            place = shutil.copytree(tmp_path / "good", tmp_path / f"{number}-{kind}")
            (place / name).write_bytes(make(tmp_path / "ran"))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a checkpoint that is not whole
                with contextlib.suppress(*DOCUMENTED):
                    reader.read(place)
            assert not (tmp_path / "ran").exists(), f"{reader.name} ran the {kind} in {name}"


@pytest.fixture
def model_dir(tmp_path):
    return shutil.copytree(demo_model_dir(), tmp_path / "model")


def test_pickled_weights_of_a_model_are_refused_and_not_run(model_dir, tmp_path):
    (model_dir / "model.safetensors").unlink()
    (model_dir / "pytorch_model.bin").write_bytes(torch_file(tmp_path / "ran"))
    with pytest.raises(ValueError, match=r"pickled ones \(pytorch_model.bin\) are not read"):
        bae_lens.load_model(model_dir)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "generation_config.json"])
def test_a_pickle_in_place_of_a_models_file_is_not_run(name, model_dir, tmp_path):
    (model_dir / name).write_bytes(torch_file(tmp_path / "ran"))
    (model_dir / "pytorch_model.bin").write_bytes(torch_file(tmp_path / "ran"))
    (model_dir / "tokenizer.pkl").write_bytes(plain(tmp_path / "ran"))
    with contextlib.suppress(Exception):  # transformers' own, of whichever kind
        bae_lens.load_model(model_dir)
    assert not (tmp_path / "ran").exists()


def test_code_that_a_models_directory_brings_along_is_not_run(model_dir, tmp_path):
    config = json.loads((model_dir / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (model_dir / "config.json").write_text(json.dumps(config))
    (model_dir / "evil.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n")
    with contextlib.suppress(ValueError, OSError):
        bae_lens.load_model(model_dir)
    assert not (tmp_path / "ran").exists()


def test_a_zip_that_unpacks_elsewhere_writes_nothing_there(tmp_path):
    place = tmp_path / "in"
    place.mkdir()
    with zipfile.ZipFile(place / "a.baez", "w") as archive:
        archive.writestr("../out.txt", "x")
    from bae_lens import codec

    with pytest.raises(ValueError, match="baez"):
        codec.decompress(place / "a.baez", tmp_path / "acts", progress=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]
