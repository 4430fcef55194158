"""What a cell is trained and measured on: vectors on disk by document and position, or by prompt."""

from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bae_lens.activations.dataset import ActivationDataset
from bae_lens.activations.manifest import read_manifest


class Vectors(NamedTuple):
    """Vectors in memory, fp32."""

    train: Float[Tensor, "train d_in"]
    held_out: Float[Tensor, "held_out d_in"]
    documents: Int[Tensor, " held_out"]
    """What each held-out vector is of: confidence intervals are over documents."""

    @property
    def everything(self) -> Float[Tensor, "both d_in"]:
        """Both sides, as A.2 measures."""
        return torch.cat([self.train, self.held_out])


class DocumentSource(NamedTuple):
    """Vectors of one hook point of a harvest, at some positions; documents are either trained on or held out."""

    path: str
    hook: str
    positions: tuple[int, ...]
    """All that are traced: only documents that reach the last of them count, as in A.2, so every position has as many."""
    documents: int | None
    """At most so many documents, the first ones."""
    held_out: float
    """Share of the documents."""
    seed: int
    """Draws the split."""

    def split(self) -> tuple[ActivationDataset, ActivationDataset]:
        """Training and held-out vectors of all these positions, on disk.

        Raises:
            ValueError: If a position has no vectors, or fewer than two documents reach the last one.
        """
        dataset = ActivationDataset(self.path, hook=self.hook).at(self.positions)
        kept = reaching(dataset.documents, dataset.positions, max(self.positions), self.documents)
        if len(kept) < 2:
            raise ValueError(
                f"{len(kept)} documents of {self.path} reach position {max(self.positions)}: leave the last positions out, "
                "or harvest longer texts"
            )
        chosen = dataset.select(torch.isin(dataset.documents, kept).nonzero().squeeze(1))
        train, held_out = chosen.split(self.held_out, self.seed)
        return train, held_out

    def at(self, position: int) -> Vectors:
        """The vectors of one position."""
        train, held_out = (side.at([position]) for side in self.split())
        return Vectors(train.tensor(), held_out.tensor(), held_out.documents)


class PromptSource(NamedTuple):
    """Vectors that were saved in the order of their prompts, the held-out ones last."""

    path: str

    def read(self) -> Vectors:
        """All of them."""
        dataset = ActivationDataset(self.path)
        train, held_out = dataset.tensor().tensor_split([dataset.metadata["train"]])
        return Vectors(train, held_out, torch.tensor(dataset.metadata["documents"]))


def reaching(
    documents: Int[Tensor, " vector"], positions: Int[Tensor, " vector"], last: int, most: int | None = None
) -> Int[Tensor, " kept"]:
    """The documents that have a vector at a position, the first ones where there are more than wanted."""
    return documents[positions == last].unique()[:most]


def identity_of(path: str | Path) -> list[str]:
    """What tells a directory of activations from others: the checksums of its shards."""
    return sorted(file.sha256 for shard in read_manifest(Path(path)).shards for file in shard.files.values())
