"""Every reader of files of the package, with a good directory of what it reads, for tests that alter these files."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import result_readers
import torch
from embedded import HOOK

import bae_lens
from bae_lens import codec
from bae_lens.activations.dataset import ActivationDataset
from bae_lens.activations.prompts import read_task
from bae_lens.analyze.counts import BitCounter
from bae_lens.analyze.counts_store import load_counts, save_counts
from bae_lens.cells import CellDirectory
from bae_lens.comsem.backends.protocol import Reply
from bae_lens.comsem.journal import Journal
from bae_lens.comsem.ledger import read_prices
from bae_lens.model.reference import load_reference
from bae_lens.training.checkpoints import read_last_checkpoint
from bae_lens.training.metrics import Log

DOCUMENTED = (ValueError, TypeError, IndexError, OSError, MemoryError, FloatingPointError)
"""What a reader may raise for a file that is not what it wrote."""


class Reader(NamedTuple):
    """Something that reads files."""

    name: str
    make: Callable[[Path], None]
    """Fills an empty directory."""
    read: Callable[[Path], Any]
    """Reads the directory, all that is in it."""
    extra: tuple[str, ...] = ()
    """Names of files that the reader would look at too, if they were there."""
    is_long: bool = False
    """Whether reading takes longer than a tenth of a second."""


def vectors(samples: int = 64, width: int = 8) -> torch.Tensor:
    return torch.randn(samples, width, generator=torch.Generator().manual_seed(0))


def small_recipe(steps: int = 6) -> Any:
    recipe = bae_lens.recipes.recommended(8, 2, steps=steps, batch_size=16)
    return bae_lens.Recipe(recipe.sae, recipe.trainer)


def _bae(path: Path) -> None:
    bae_lens.train(vectors(), small_recipe(), metadata={"hook_name": HOOK}, out=path / "run", progress=False)
    for name in ("cfg.json", "sae_weights.safetensors"):
        shutil.copy(path / "run" / name, path / name)
    shutil.rmtree(path / "run")


def _read_bae(path: Path) -> None:
    bae = bae_lens.load(path)
    bae.encode(torch.zeros(2, bae.cfg.d_in))


def _activations(path: Path) -> None:
    bae_lens.save_activations(path / "a", [vectors()])


def _read_activations(path: Path) -> None:
    data = ActivationDataset(path)
    data.rows(torch.arange(len(data)))
    data.tensor(3)
    data.verify()


def _harvest(path: Path) -> None:
    model = bae_lens.load_model(bae_lens.demo.demo_model_dir())
    text = ["Return the number of items in the list.", "The module raises an error if the file is not open."]
    bae_lens.harvest_to_disk(model, text, hooks=[HOOK], out=path / "acts", context_size=16, progress=False)
    for file in (path / "acts").iterdir():
        file.rename(path / file.name)
    (path / "acts").rmdir()


def _read_harvest(path: Path) -> None:
    _read_activations(path)
    _ = ActivationDataset(path).places
    data = ActivationDataset(path, positions=[1])
    data.split(0.5)


def _saelens_cache(path: Path) -> None:
    features = datasets.Features(
        {"hook": datasets.Array2D((4, 8), "float32"), "token_ids": datasets.List(datasets.Value("int32"))}
    )
    rows = {"hook": torch.randn(5, 4, 8).numpy(), "token_ids": [[0, 1, 2, 3]] * 5}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(path))


def _run(path: Path) -> None:
    recipe = small_recipe()
    recipe.trainer.checkpoint_every = 2
    bae_lens.train(vectors(), recipe, out=path / "run", progress=False)


def _read_run(path: Path) -> None:
    recipe = small_recipe()
    recipe.trainer.checkpoint_every = 2
    bae_lens.train(vectors(), recipe, out=path / "run", resume=True, progress=False)


def _interrupted(path: Path) -> None:
    _run(path)
    for name in ("cfg.json", "sae_weights.safetensors", "result.json"):
        (path / "run" / name).unlink()


def _read_log(path: Path) -> None:
    Log.read(path / "metrics.jsonl")


def _log(path: Path) -> None:
    _run(path)
    shutil.copy(path / "run" / "metrics.jsonl", path / "metrics.jsonl")
    shutil.rmtree(path / "run")


def _cells(path: Path) -> None:
    CellDirectory.open(path / "cells", "b", {"x": 1}).write("a/b", {"y": 2.0})


def _read_cells(path: Path) -> None:
    cells = CellDirectory.open(path / "cells", "b", {"x": 1})
    for name in cells.names():
        cells.read(name)


def _counts(path: Path) -> None:
    counter = BitCounter(6)
    counter.add(vectors(40, 6) > 0, torch.arange(40) % 3)
    save_counts(path / "counts", counter.counts())


def _journal(path: Path) -> None:
    journal = Journal(path / "journal.jsonl", {"x": 1})
    journal.add("key", "model", "name", Reply("a phrase", False, 3, 2, (0.5, 0.25)))
    journal.add_spent("model", Reply("", False, 3, 2))
    journal.close()


def _read_journal(path: Path) -> None:
    journal = Journal(path / "journal.jsonl", {"x": 1})
    list(journal.usage())
    journal.close()


def _baez(path: Path) -> None:
    bae_lens.train(vectors(400), small_recipe(), out=path / "bae", progress=False)
    codec.compress(bae_lens.load(path / "bae"), vectors(400), path / "a.baez", progress=False)
    shutil.rmtree(path / "bae")


def _read_baez(path: Path) -> None:
    codec.decompress(path / "a.baez", path / "out", progress=False)


def _task(path: Path) -> None:
    lines = [{"text": f"a film {n}", "label": str(n % 2)} for n in range(8)]
    (path / "task.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    (path / "task.tsv").write_text("\n".join(f"a film {n}\t{n % 2}" for n in range(8)), encoding="utf-8")
    (path / "task.txt").write_text("\n".join(f"{n % 2} a film {n}" for n in range(8)), encoding="utf-8")


def _text(path: Path) -> None:
    (path / "text.txt").write_text("One.\nTwo.\n", encoding="utf-8")
    (path / "text.jsonl").write_text('{"text": "One."}\n{"text": "Two."}\n', encoding="utf-8")


def _reference(path: Path) -> None:
    tensors = {"encoder.weight": (16, 8), "encoder.bias": (16,), "decoder.weight": (8, 16), "decoder.bias": (8,)}
    torch.save({name: torch.randn(shape) for name, shape in tensors.items()}, path / "model.pt")
    (path / "parameters.json").write_text('{"bits_per_feature": 1}', encoding="utf-8")


READERS = (
    Reader("bae", _bae, _read_bae, ("sae_weights.pt", "pytorch_model.bin", "sparsity.safetensors")),
    Reader("sae", _bae, lambda path: bae_lens.load_sae(path, hook_name=HOOK)),
    Reader(
        "activations",
        lambda path: _activations(path),
        lambda path: _read_activations(path / "a"),
        is_long=True,
    ),
    Reader("harvest", _harvest, _read_harvest, is_long=True),
    Reader("saelens_cache", _saelens_cache, _read_activations),
    Reader("finished_run", _run, _read_run, is_long=True),
    Reader("interrupted_run", _interrupted, _read_run, is_long=True),
    Reader("checkpoints", _run, lambda path: read_last_checkpoint(path / "run" / "checkpoints")),
    Reader("metrics", _log, _read_log),
    Reader("cells", _cells, _read_cells),
    Reader("counts", _counts, lambda path: load_counts(path / "counts")),
    Reader("journal", _journal, _read_journal),
    Reader(
        "prices",
        lambda path: (path / "p.json").write_text('{"m": [0.4, 1.6]}') and None,
        lambda path: read_prices(path / "p.json"),
    ),
    Reader("baez", _baez, _read_baez),
    Reader("task_jsonl", _task, lambda path: read_task(path / "task.jsonl")),
    Reader("task_tsv", _task, lambda path: read_task(path / "task.tsv")),
    Reader("task_txt", _task, lambda path: read_task(path / "task.txt")),
    Reader("text", _text, lambda path: bae_lens.read_documents(path / "text.txt")),
    Reader("text_jsonl", _text, lambda path: bae_lens.read_documents(path / "text.jsonl")),
    Reader("reference", _reference, lambda path: load_reference(path / "model.pt")),
    *(
        Reader(f"figures_{make.__name__}", make, result_readers.read_figures)
        for make in (
            result_readers.synthetic,
            result_readers.trace,
            result_readers.shots,
            result_readers.pairs,
            result_readers.rates,
            result_readers.compare,
            result_readers.comsem,
            result_readers.sweep,
            result_readers.codec_table,
            result_readers.more_bit,
        )
    ),
    Reader("compare_cells", result_readers.compare_cells, result_readers.read_compare_cells),
    Reader("magnitudes", result_readers.compare, result_readers.read_shown_magnitudes),
    Reader("reported", result_readers.reported, result_readers.read_reported),
    Reader("grid", result_readers.grid, result_readers.read_grid, is_long=True),
    Reader("dataset", result_readers.dataset, result_readers.read_saved),
    Reader("parquet", result_readers.dataset, result_readers.read_parquet),
    Reader("parameters", _reference, lambda path: load_reference(path / "model.pt", parameters=path / "parameters.json")),
)
BY_NAME = {reader.name: reader for reader in READERS}


def files_of(path: Path) -> list[str]:
    """Every file of a directory, relative to it."""
    return sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
