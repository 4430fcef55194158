"""Trains the BAE of one cell and measures it: entropy on all of its vectors as in A.2, held-out bits, and FVU beside each."""

import shutil
from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE

from bae_lens.activations.dataset import ActivationDataset
from bae_lens.analyze.entropy import EntropyEstimates, Estimate, entropy_estimates
from bae_lens.analyze.statistics import code_statistics
from bae_lens.files import new_directory
from bae_lens.model.bae import BAE
from bae_lens.traces.rows import Figures, Row
from bae_lens.traces.sources import DocumentSource, PromptSource, Vectors
from bae_lens.training.config import Recipe
from bae_lens.training.trainer import train

COUNTS = ("entropy", "fvu", "l0", "live", "dead", "stuck_at_one", "dense")
"""Over all vectors."""
HELD_OUT = ("fvu", *(name for name, kind in EntropyEstimates.__annotations__.items() if kind is Estimate))
"""Estimates of `entropy_estimates` that there always are."""


def position_cell(source: DocumentSource, position: int, recipe: Recipe, keep: str | None) -> dict[str, Any]:
    """A BAE of one hook point and position, as in A.2."""
    place = {"hook": source.hook, "position": position, "bae": "of the cell"}
    return _cell(Row(place, train_and_measure(source.at(position), recipe, source.hook, keep)))


def layer_cell(source: DocumentSource, recipe: Recipe, keep: str | None) -> dict[str, Any]:
    """A BAE of one hook point, trained on all traced positions together and measured at each."""
    bae = trained(source.split()[0], recipe, source.hook, keep)
    return _cell(
        *(
            Row({"hook": source.hook, "position": position, "bae": "of the layer"}, measure(bae, source.at(position)))
            for position in source.positions
        )
    )


def prompt_cell(source: PromptSource, place: dict[str, Any], recipe: Recipe, keep: str | None) -> dict[str, Any]:
    """A BAE of vectors that were saved in the order of their prompts; `place` says where they are from."""
    return _cell(Row(place, train_and_measure(source.read(), recipe, place["hook"], keep)))


def _cell(*rows: Row) -> dict[str, Any]:
    return {"rows": [row._asdict() for row in rows]}


def train_and_measure(vectors: Vectors, recipe: Recipe, hook: str, keep: str | None) -> Figures:
    """The figures of a BAE of its own; on vectors that are all equal nothing is trained."""
    return measure(None if _are_equal(vectors) else trained(vectors.train, recipe, hook, keep), vectors)


def measure(sae: SAE[Any] | None, vectors: Vectors) -> Figures:
    """The figures of a code: over all vectors, as in A.2, and by `entropy_estimates` over those that are held out.

    Vectors that are all equal carry 0 bits and leave nothing unexplained, whatever the code.

    Raises:
        ValueError: If the vectors of only one side are all equal.
    """
    if sae is None or _are_equal(vectors):
        nothing = dict.fromkeys((*COUNTS, *(f"held_out_{name}" for name in HELD_OUT)), 0)
        return {"vectors": len(vectors.everything), **nothing}
    everything = code_statistics(sae, vectors.everything).numbers()
    found = entropy_estimates(sae, vectors.train, vectors.held_out, documents=vectors.documents).numbers()
    estimates = {f"held_out_{name}": value for name, value in found.items() if not isinstance(value, str)}
    return {"vectors": everything["tokens"], **{name: everything[name] for name in COUNTS}, **estimates}


def _are_equal(vectors: Vectors) -> bool:
    return all(bool((side == vectors.train[0]).all()) for side in (vectors.train, vectors.held_out))


def trained(vectors: torch.Tensor | ActivationDataset, recipe: Recipe, hook: str | None, keep: str | None) -> BAE:
    """A BAE, saved where it is to be kept."""
    bae = train(vectors, recipe, metadata={"hook_name": hook}, progress=False).bae
    if keep is not None:
        shutil.rmtree(Path(keep), ignore_errors=True)  # of a cell that was interrupted after its BAE was saved
        with new_directory(keep) as directory:
            bae.save_model(directory)
    return bae
