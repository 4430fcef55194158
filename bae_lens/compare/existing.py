"""SAEs that exist already, put side by side as they are: nothing is trained, and nothing is tuned to an FVU."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from sae_lens import SAE

from bae_lens.cells import CellDirectory
from bae_lens.compare.data import CompareData
from bae_lens.compare.evaluate import Vectors, measure, open_vectors
from bae_lens.compare.job import read_cell
from bae_lens.compare.lines import Line
from bae_lens.compare.report import pictures_of, without_ce, write_files
from bae_lens.compare.results import Cell, Result
from bae_lens.compare.table import tables
from bae_lens.model.bae import BinaryCode
from bae_lens.model.store import load, load_sae
from bae_lens.settings import differences
from bae_lens.training.data import hash_of

BY_VECTOR = ("layer_norm", "constant_norm_rescale")
"""Normalisations of which a code alone does not say the reconstruction."""


class Existing(NamedTuple):
    """An SAE, and what it is called."""

    name: str
    sae: SAE[Any]


class Measured(NamedTuple):
    """What `compare_existing` gives back."""

    lines: list[Line]
    written: list[Path]


def open_saes(
    baes: Sequence[str | Path], saes: Sequence[str | Path], hook: str | None = None, device: str = "cpu"
) -> list[Existing]:
    """Loads BAEs and other SAEs; each is called by the end of its path, or its release.

    Args:
        baes: Directories of BAEs (or of the training runs that made them).
        saes: Directories of SAEs, or RELEASE:SAE_ID.
        hook: Hook point of those whose configuration names none.

    Raises:
        FileNotFoundError: If there is no such directory or release.
        ValueError: If none is given, one names no hook point and `hook` neither, they are of different hook points, or one
            cannot be measured as an SAE (a transcoder; one that normalises each vector by itself).
    """
    if not [*baes, *saes]:
        raise ValueError("no SAE is given to compare (--sae, --bae)")
    sources: list[str | Path] = [*baes, *saes]
    loaded: list[SAE[Any]] = [load(path, device=device) for path in baes]
    for path, bae in zip(baes, loaded, strict=True):
        _say_hook(path, bae, hook)
    loaded += [load_sae(source, hook_name=hook, device=device) for source in saes]
    for source, sae in zip(sources, loaded, strict=True):
        _check_measurable(source, sae)
    _check_one_hook(sources, loaded)
    return [Existing(name, sae) for name, sae in zip(_names(sources), loaded, strict=True)]


def compare_existing(
    found: Sequence[Existing],
    data: CompareData,
    out: Path,
    *,
    refine: bool = True,
    device: str = "cpu",
    say: Callable[[str], None] = print,
) -> Measured:
    """Measures SAEs on activations of their hook point; writes report.md, results and pictures into `out`.

    Raises:
        ValueError: If an SAE is of another hook point or width than the activations, or `out` holds another comparison.
        FileExistsError, PermissionError: If `out` holds something else, or cannot be written.
    """
    check_fit(found, data)
    directory = CellDirectory.open(out, "compare existing", {**data.fingerprint(), "refine": refine})
    vectors: Vectors | None = None
    results = []
    for one in found:
        result = _known(directory, one)
        if result is None:
            vectors = vectors or open_vectors(data, device)
            measured = measure(one.sae, vectors, refine=refine)
            result = Result(_cell(one), measured.figures, measured.frequency, 0.0, 0.0, 0.0, _settings(one))
            directory.write(one.name, result.to_dict())
            say(f"{one.name}: FVU {result.figures.fvu:.4f}, {result.figures.bits:.1f} bits a token")
        results.append(result)
    lines = [_line(one, result) for one, result in zip(found, results, strict=True)]
    ce = "" if data.windows is not None else f" {without_ce(data)}"
    about = (
        f"{data.source or data.hook_name}, {len(data.held_out)} vectors held out. Nothing was trained or tuned: bits/token "
        f"says nothing without the FVU beside it.{ce}"
    )
    pictures = pictures_of(data, lines, [(one.name, one.sae) for one in found[:6]])
    text = f"# Comparison of SAEs as they are\n\n{about}\n\n{tables(lines)}"
    return Measured(lines, write_files(out, text, lines, {}, pictures))


def check_fit(found: Sequence[Existing], data: CompareData) -> None:
    """Raises ValueError unless every SAE is of these activations' hook point and width."""
    for name, sae in found:
        if sae.cfg.metadata.hook_name != data.hook_name:
            raise ValueError(f"{name} was trained at {sae.cfg.metadata.hook_name}, the activations are of {data.hook_name}")
        if sae.cfg.d_in != data.train.shape[1]:
            raise ValueError(
                f"{name} takes vectors of width {sae.cfg.d_in}, the activations are {data.train.shape[1]} wide: "
                "is it of another model?"
            )


def _say_hook(path: str | Path, bae: SAE[Any], hook: str | None) -> None:
    known = bae.cfg.metadata.hook_name
    if not (known or hook):
        raise ValueError(f"{path} does not say at which hook point it was trained: give it (--hook)")
    if known and hook and known != hook:
        raise ValueError(f"{path} was trained at {known}, not at {hook}")
    bae.cfg.metadata.hook_name = known or hook


def _check_measurable(source: str | Path, sae: SAE[Any]) -> None:
    if hasattr(sae.cfg, "d_out"):
        raise ValueError(f"{source} is a transcoder: it does not reconstruct its input (see `bae-lens transcoder`)")
    if sae.cfg.normalize_activations in BY_VECTOR:
        raise ValueError(
            f"{source} normalises each vector by itself ({sae.cfg.normalize_activations}): its code alone does not say what it "
            "stands for, so bits a token would leave that out"
        )


def _check_one_hook(sources: Sequence[str | Path], saes: Sequence[SAE[Any]]) -> None:
    hooks = [sae.cfg.metadata.hook_name for sae in saes]
    for source, hook in zip(sources, hooks, strict=True):
        if hook != hooks[0]:
            raise ValueError(
                f"{sources[0]} is of {hooks[0]} and {source} of {hook}: SAEs are compared at one hook point, on equal vectors"
            )


def _names(sources: Sequence[str | Path]) -> list[str]:
    """The end of each source, with a number where several end alike."""
    ends = [Path(str(source).replace(":", "_")).name.replace(" ", "_") or "sae" for source in sources]
    return [end if ends.count(end) == 1 else f"{end}-{number}" for number, end in enumerate(ends, 1)]


def _cell(one: Existing) -> Cell:
    return Cell(one.sae.cfg.d_sae / one.sae.cfg.d_in, one.name, 0.0, 0)


def _settings(one: Existing) -> dict[str, Any]:
    """What tells an SAE from another under the same name."""
    weights = torch.cat([p.detach().flatten()[:: max(1, p.numel() // 4096)].double().cpu() for p in one.sae.parameters()])
    return {"architecture": one.sae.cfg.architecture(), "weights": hash_of(weights.unsqueeze(0))}


def _known(directory: CellDirectory, one: Existing) -> Result | None:
    if directory.read(one.name) is None:
        return None
    result = read_cell(directory, one.name)
    if differences(result.settings, _settings(one)):
        raise ValueError(f"{directory.cell(one.name)} is of another SAE of this name: remove it, or choose another directory")
    return result


def _line(one: Existing, result: Result) -> Line:
    return Line(
        name=one.name,
        width=f"x{result.cell.expansion:g}",
        family="bae" if isinstance(one.sae, BinaryCode) else "saelens",
        tuned="as it is",
        figures=[result.figures],
        frequency=result.frequency,
    )
