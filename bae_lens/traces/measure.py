"""Trains the BAE of one cell and measures it: entropy on all of its vectors as in A.2, held-out bits, and FVU beside each."""

import shutil
from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE

from bae_lens.activations.dataset import ActivationDataset
from bae_lens.analyze.description_length import code_length
from bae_lens.analyze.statistics import code_statistics
from bae_lens.files import new_directory
from bae_lens.model.bae import BAE
from bae_lens.traces.rows import Figures, Row
from bae_lens.traces.sources import DocumentSource, PromptSource, Vectors
from bae_lens.training.config import Recipe
from bae_lens.training.trainer import train

def position_cell(source: DocumentSource, position: int, recipe: Recipe, keep: str | None) -> dict[str, Any]:
    """A BAE of one hook point and position, as in A.2."""
    vectors = source.at(position)
    bae = trained(vectors.train, recipe, source.hook, keep)
    return _cell(Row({"hook": source.hook, "position": position, "bae": "of the cell"}, measure(bae, vectors)))


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
    vectors = source.read()
    return _cell(Row(place, measure(trained(vectors.train, recipe, place["hook"], keep), vectors)))


def _cell(*rows: Row) -> dict[str, Any]:
    return {"rows": [row._asdict() for row in rows]}


def measure(sae: SAE[Any], vectors: Vectors) -> Figures:
    """The figures of a code: fvu, entropy and counts over all vectors, as in A.2; the others held out."""
    everything = code_statistics(sae, torch.cat(vectors))
    length = code_length(sae, vectors.train, vectors.held_out)
    return {
        "vectors": everything.tokens,
        "fvu": everything.fvu,
        "entropy": everything.entropy,
        "fvu_held_out": length.fvu,
        "bits_held_out": length.bits,
        "l0": everything.l0,
        "live": everything.live,
        "dead": everything.dead,
        "dense": everything.dense,
    }


def trained(vectors: torch.Tensor | ActivationDataset, recipe: Recipe, hook: str | None, keep: str | None) -> BAE:
    """A BAE, saved where it is to be kept."""
    bae = train(vectors, recipe, metadata={"hook_name": hook}, progress=False).bae
    if keep is not None:
        shutil.rmtree(Path(keep), ignore_errors=True)  # of a cell that was interrupted after its BAE was saved
        with new_directory(keep) as directory:
            bae.save_model(directory)
    return bae
