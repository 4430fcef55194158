"""SAELens' cached activations (`CacheActivationsRunner`): a `datasets` directory of Arrow files, memory-mapped."""

import warnings
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from bae_lens.activations.shards import Places, Shards
from bae_lens.checks import near

TOKENS = "token_ids"


class SAELensShards(Shards):
    """The vectors of such a directory. A document is a context there, and a position a place in it."""

    def __init__(self, path: Path, hook: str | None):
        import datasets

        try:
            table: Any = datasets.load_from_disk(str(path))
        except Exception as error:  # pyarrow and datasets raise kinds of their own
            raise ValueError(f"{path} cannot be read as SAELens' cached activations: {error}") from error
        features = getattr(table, "features", {})
        hooks = [name for name, kind in features.items() if isinstance(kind, datasets.Array2D)]
        if not hooks:
            raise ValueError(f"{path} is a dataset, but not of activations: its columns are {', '.join(features)}")
        if hook is not None and hook not in hooks:
            raise ValueError(f"{path} holds no activations of {hook!r}; {near(hook, hooks)}")
        if hook is None and len(hooks) > 1:
            raise ValueError(f"{path} holds {len(hooks)} hook points: say which one with hook=...: {', '.join(hooks)}")
        if table._indices is not None:
            raise ValueError(f"{path} was saved shuffled, by a list of places: save dataset.flatten_indices() instead")
        self.table, name = table, hook or hooks[0]
        self.context_size, width = features[name].shape
        if self.context_size < 1 or width < 1:
            raise ValueError(f"{path} says that {name} has contexts of {self.context_size} tokens and {width} numbers a vector")
        parts = [_vectors(chunk.storage, width) for chunk in table.data.column(name).chunks if len(chunk)]
        if not parts:
            raise ValueError(f"{path} holds no vectors")
        if sum(map(len, parts)) != self.context_size * len(self.table):
            raise ValueError(f"{path} does not hold the {len(self.table)} contexts of {self.context_size} tokens that it says")
        super().__init__(path, name, {"hook_name": name, "context_size": self.context_size}, parts)

    def chosen(self) -> Int[Tensor, " some"] | None:
        """As `Shards` says: all but BOS, where every context begins with the same token."""
        tokens = self.places().tokens
        first = tokens.view(-1, self.context_size)[:, 0]
        is_bos = len(first) > 1 and first[0] >= 0 and bool((first == first[0]).all())
        return (tokens != first[0]).nonzero().squeeze(1) if is_bos else None

    def places(self) -> Places:
        """As `Shards` says; the token is -1 where the directory has no token ids."""
        positions = torch.arange(self.context_size, dtype=torch.int32).repeat(len(self.table))
        documents = torch.arange(len(self.table)).repeat_interleave(self.context_size)
        tokens = torch.full_like(positions, -1)
        if TOKENS in self.table.column_names:
            chunks = [chunk.flatten() for chunk in self.table.data.column(TOKENS).chunks if len(chunk)]
            tokens = torch.cat([torch.from_numpy(chunk.to_numpy(zero_copy_only=False).copy()) for chunk in chunks])
        return Places(tokens.to(torch.int32), documents, positions)


def _vectors(storage: Any, width: int) -> Tensor:
    """The numbers of a list of lists, where they lie."""
    flat = storage.flatten().flatten()
    if flat.null_count:
        raise ValueError("these cached activations have gaps")
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # PyTorch warns of memory that cannot be written; nothing here writes to it
        return torch.from_numpy(flat.to_numpy(zero_copy_only=True)).view(-1, width)
