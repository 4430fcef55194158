"""Readers of what jobs found: results, cells and rows that reports, figures and grids are made of. Part of `file_readers`."""

import json
from pathlib import Path
from typing import Any

import torch

import bae_lens
from bae_lens.activations.sources import text_source
from bae_lens.benchmark.codec_table import SizeRow
from bae_lens.benchmark.hits import TracePoint
from bae_lens.benchmark.more_bit import Measured
from bae_lens.benchmark.synthetic import Cell, CellResult, Found, Merged
from bae_lens.cells import CellDirectory
from bae_lens.compare.decoder import DecoderCovariance
from bae_lens.compare.evaluate import Figures
from bae_lens.compare.figures import Magnitudes, magnitudes_bytes, read_magnitudes
from bae_lens.compare.job import read_cell
from bae_lens.compare.lines import BitsAt, Line
from bae_lens.compare.results import Cell as CompareCell
from bae_lens.compare.results import Result
from bae_lens.compare.search import Try
from bae_lens.compare.table import line_as_json
from bae_lens.files import write_json
from bae_lens.report.figures import results
from bae_lens.report.figures.entries import ENTRIES
from bae_lens.report.figures.gallery import draw_entry
from bae_lens.report.figures.results import find_results
from bae_lens.report.results import read_compare, read_comsem, read_entropy, read_run
from bae_lens.sweeps.task_report import as_json as sweep_as_json
from bae_lens.sweeps.task_vectors import Curve, TaskSweep
from bae_lens.traces.shots import Accuracy

HOOK = "blocks.1.hook_resid_pre"
READ = {
    "synthetic": results.read_cells,
    "trace by position": results.read_trace,
    "trace by shots": lambda found: (results.read_trace(found), results.read_shares(found)),
    "two tokens": results.read_trace,
    "rate against distortion": results.read_trace,
    "compare": results.read_compared,
    "compare existing": results.read_compared,
    "transcoder": results.read_compared,
    "comsem": results.read_named,
    "task vectors": results.read_sweep,
    "codec table": results.read_table,
    "more-bit": results.read_bits,
}


def read_figures(path: Path) -> None:
    """Everything below a directory, and every figure that can be drawn of it."""
    found = find_results(path)
    assert set(READ) == set(results.KINDS)
    by_kind: dict[str, list[Any]] = {}
    for one in found:
        by_kind.setdefault(one.kind, []).append(one)
        READ[one.kind](one)
    for entry in ENTRIES:
        draw_entry(entry, by_kind)


def synthetic(path: Path) -> None:
    directory = CellDirectory.open(path / "synthetic", "synthetic", {"d": 8})
    found = Found(2.0, 0.1, 1.0, 0.3, 4)
    for entropy in (True, False):
        cell = Cell("synthetic", 4.0, 2, entropy, 0)
        one = CellResult(cell, found, Merged(2.0, 3), 20, [TracePoint(10, found), TracePoint(20, found)], 1.5, {"x": 1})
        directory.write(cell.name, one.to_dict())


def trace(path: Path) -> None:
    directory = CellDirectory.open(path / "entropy", "trace by position", {"x": 1})
    directory.write("layer1", {"settings": {}, "rows": [row(position=n) for n in (1, 2)]})


def shots(path: Path) -> None:
    directory = CellDirectory.open(path / "icl", "trace by shots", {"x": 1})
    directory.write("layer1", {"settings": {}, "rows": [row(shots=n) for n in (0, 2)]})
    directory.write("accuracy/0", {"settings": {}, "rows": [], "accuracy": Accuracy(0, 0.5, 0.4, 0.6, 9, 10, 0, 0.5)._asdict()})


def pairs(path: Path) -> None:
    directory = CellDirectory.open(path / "pairs", "two tokens", {"x": 1})
    directory.write("layer1", {"settings": {}, "rows": [row(features=n, r=2) for n in (4, 8)]})


def rates(path: Path) -> None:
    directory = CellDirectory.open(path / "rates", "rate against distortion", {"x": 1})
    directory.write(
        "layer1", {"settings": {}, "rows": [row(code=code, weight=w) for code, w in (("bae", 0.1), ("pca", 8), ("bae", 0.2))]}
    )


def row(**place: Any) -> dict[str, Any]:
    numbers = {"held_out_fvu": 0.3, "held_out_tree": 4.0, "held_out_code_length": 5.0, "l0": 3.0}
    figures = {"vectors": 9, "fvu": 0.25, "entropy": 9.5, "live": 5, "dense": 1, **numbers}
    return {"place": {"bae": "of the layer", "hook": HOOK, **place}, "figures": figures}


LINE = Line(
    name="bae",
    width="x4",
    family="bae",
    tuned="alpha = 0.1",
    figures=[Figures(fvu=0.1, loss=1.0, bits=90.0, bits_fvu=0.11, dense=3, cov=DecoderCovariance(1.0, 2.0, 3.0, 4.0))],
    frequency=torch.tensor([0.0, 1.0, 0.05, 0.2], dtype=torch.float64),
    stability=0.5,
    seconds=[3.0],
    tries=(Try(8.0, 0.11),),
    points=((0.11, 90.0), (0.2, 40.0)),
    refined_points=((0.12, 60.0),),
    at=(BitsAt(0.1, [95.0], None),),
)


def compare(path: Path) -> None:
    directory = CellDirectory.open(path / "compare", "compare", {"hook_name": HOOK})
    write_json(directory.path / "results.json", {"at": [0.1], "lines": [line_as_json(LINE)]})
    shown = [Magnitudes("bae, x4", -torch.rand(6, 4), True, 6, 4), Magnitudes("topk, x4", torch.rand(6, 4), False, 6, 4)]
    (directory.path / "magnitudes.safetensors").write_bytes(magnitudes_bytes(shown))


def compare_cells(path: Path) -> None:
    directory = CellDirectory.open(path / "compare", "compare", {"hook_name": HOOK})
    cell = CompareCell(4.0, "bae", 0.1, 0)
    one = Result(cell, LINE.figures[0], LINE.frequency, 2.0, 3.0, 1.0, {"x": 1})
    directory.write(cell.name, one.to_dict())


def read_compare_cells(path: Path) -> None:
    directory = CellDirectory(path / "compare")
    for name in directory.names():
        read_cell(directory, name)


def comsem(path: Path) -> None:
    features = [
        {"feature": 0, "status": "scored", "reason": None, "phrase": "words", "score": 0.75, "interval": [0.4, 0.9]},
        {"feature": 1, "status": "failed", "reason": "no answer", "phrase": None, "score": None, "interval": None},
    ]
    more = {"shuffled": {"score": 0.125}, "detection": {"balanced_accuracy": 0.8}, "dispersion": 0.5}
    summary = {"activated": 2, "interpretable": 1, "score": 0.75, "counts": {"features": 8}, "name": "a bae"}
    settings = {"study": {"sae": {"hook_name": HOOK, "architecture": "bae"}}}
    (path / "features.jsonl").write_text("\n".join(json.dumps({**feature, **more}) for feature in features), encoding="utf-8")
    write_json(path / "summary.json", {**summary, "settings": settings})
    write_json(path / "umap.json", [{"name": name, "at": [[0.0, 1.0], [1.0, 0.5]], "active": [True, False]} for name in "ab"])


def sweep(path: Path) -> None:
    curves = [Curve(name, 1.0, kept, [0.2, 0.4], [0.2, 0.5]) for name, kept in (("bae", 3), ("mean difference", 0))]
    directory = CellDirectory.open(path / "task", "task vectors", {"x": 1})
    found = TaskSweep("antonyms", HOOK, 4, [0.0, 1.0], 0.1, 0.9, 20, curves)
    write_json(directory.path / "results.json", sweep_as_json(found))


def codec_table(path: Path) -> None:
    directory = CellDirectory.open(path / "codec", "codec table", {"x": 1})
    rows = [SizeRow("none", "fp32", 32.0, 0, 0.0, 0.0, 1.0), SizeRow("bae", "code", 3.0, 640, 0.1, 0.2, None)]
    directory.write("0-numbers", {"rows": [one._asdict() for one in rows]})


def more_bit(path: Path) -> None:
    directory = CellDirectory.open(path / "bits", "more-bit", {"x": 1})
    for code, same, bits in (("powers", "features", 1), ("powers", "features", 2), ("nested", "bits", 2)):
        directory.write(f"{code}/{same}/C{bits}", Measured(32, 32, 0.5, 0.1, 9.0, 10.0, 20, 4, 0.5)._asdict())


def reported(path: Path) -> None:
    """What `bae-lens report` takes besides a BAE."""
    comsem(path)
    write_json(path / "compare" / "results.json", {"at": [0.1], "lines": [line_as_json(LINE)]})
    write_json(path / "entropy" / "results.json", {"rows": [row(position=1)]})
    write_json(path / "recipe.json", {"recipe": {"trainer": {"steps": 3}}})
    rows = [{"split": split, "step": step, "fvu": 0.5, "entropy": 3.0} for split in ("train", "validation") for step in (0, 1)]
    (path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


def read_reported(path: Path) -> None:
    for found in read_comsem(path, 8).values():
        assert all(number is None or isinstance(number, float | int) for number in (*found[1:4], *found[6:]))
    read_compare(path / "compare")
    read_entropy(path / "entropy")
    read_run(path)


def grid_options(path: Path) -> bae_lens.GridOptions:
    given = {"activations": path / "acts", "out": path / "grid", "seeds": [0, 1], "steps": 3, "processes": 1}
    return bae_lens.GridOptions(**given, recipe="paper", changes={"batch_size": 16}, expansion=1)


def grid(path: Path) -> None:
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    bae_lens.save_activations(path / "acts", [x])
    bae_lens.train_grid(grid_options(path), say=lambda line: None)
    write_json(path / "grid" / "failed" / "of-an-older-grid.json", {"reason": "FloatingPointError: loss is nan"})


def read_grid(path: Path) -> None:
    bae_lens.train_grid(grid_options(path), say=lambda line: None)


def dataset(path: Path) -> None:
    import datasets

    table = datasets.Dataset.from_dict({"text": ["One document.", "Another one.", "And a third."]})
    table.save_to_disk(str(path / "saved"))
    (path / "tables").mkdir()
    table.to_parquet(str(path / "tables" / "train.parquet"))


def read_saved(path: Path) -> None:
    assert all(isinstance(text, str) for text in text_source(path / "saved").open())


def read_parquet(path: Path) -> None:
    assert all(isinstance(text, str) for text in text_source(path / "tables").open())


def read_shown_magnitudes(path: Path) -> None:
    read_magnitudes(path / "compare" / "magnitudes.safetensors")
