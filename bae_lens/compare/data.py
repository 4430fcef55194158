"""What a comparison is made on: vectors of one hook point in two parts, and what it takes to splice into the model.

The model is the one that the activations' metadata names, or another that is given; without one, CE recovered is not measured.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bae_lens.activations.dataset import ActivationDataset
from bae_lens.activations.harvest import activations_at
from bae_lens.activations.models import find_hook_point, hook_shape, load_model
from bae_lens.activations.text import Windows, read_documents, tokenize
from bae_lens.training.data import hash_of

CE_TOKENS = 8192
"""Held-out tokens that CE losses are measured on, the first ones."""
CLOSE = 0.05
"""Activations of the model that is named lie so near to those on disk, relatively; bf16 is off by 0.004."""


class CompareData(NamedTuple):
    """The vectors of a comparison."""

    hook_name: str
    train: Float[Tensor, "token d_in"]
    held_out: Float[Tensor, "held_out_token d_in"]
    model: str | None = None
    """Directory or name of the model to splice into."""
    windows: Windows | None = None
    """Held-out windows, for CE losses."""
    without_model: str = "no model was given"
    """Why CE recovered is not measured, where it is not."""
    source: str = ""
    """What the vectors are of, in words."""

    def fingerprint(self) -> dict[str, Any]:
        """What tells these data from others, as JSON values."""
        return {
            "hook_name": self.hook_name,
            "train": [len(self.train), hash_of(_spread(self.train))],
            "held_out": [len(self.held_out), hash_of(_spread(self.held_out))],
            "model": None if self.model is None or self.windows is None else Path(self.model).name,
        }

    def metadata(self) -> dict[str, Any]:
        """For SAELens: where an SAE of these vectors belongs."""
        known = {"hook_name": self.hook_name}
        return known if self.model is None else {**known, "model_name": self.model}


def open_data(
    path: str | Path,
    hook: str | None = None,
    *,
    model: str | None = None,
    text: str | Path | None = None,
    tokens: int | None = None,
    held_out_tokens: int | None = None,
    device: str = "cpu",
) -> CompareData:
    """Activations on disk, split by document, and their model.

    Args:
        path: A directory of activations.
        hook: Hook point; needed where there are several, or the directory names none.
        model: Directory or name; the one that the activations were harvested from if not given.
        text: A text that the activations are not of, to measure CE losses on, where the directory does not say which tokens its
            vectors are of.
        tokens: Training vectors at most, the first ones; all if not given.
        held_out_tokens: Held-out vectors at most.

    Raises:
        FileNotFoundError: If there is no such directory, model or text.
        ValueError: If the hook point is not known or not in the model, or the activations are not that model's.
    """
    for what, number in (("tokens", tokens), ("held_out_tokens", held_out_tokens)):
        if number is not None and number < 2:
            raise ValueError(f"{what} must be at least 2, got {number}")
    dataset = ActivationDataset(path, hook)
    if hook and dataset.hook_name and hook != dataset.hook_name:
        raise ValueError(f"the activations in {path} are of {dataset.hook_name}, not of {hook}")
    hook_name = dataset.hook_name or hook
    if not hook_name:
        raise ValueError(f"{path} does not say which hook point its activations are of: give it (--hook)")
    train, held_out = dataset.split()
    source = f"{path}, {hook_name}"
    data = CompareData(hook_name, train.tensor(tokens), held_out.tensor(held_out_tokens), source=source)
    return with_model(data, held_out, model, text, device)


def with_model(
    data: CompareData, held_out: ActivationDataset, model: str | None, text: str | Path | None, device: str
) -> CompareData:
    """The same with a model to splice into, or why there is none."""
    name = model or held_out.metadata.get("model_name")
    if name is None:
        return data._replace(without_model="the activations do not say which model they are of (--model)")
    try:
        loaded = load_model(name, device=device)
    except (OSError, ValueError) as error:
        if model is not None:
            raise
        return data._replace(without_model=f"the model that the activations name cannot be loaded ({error})")
    check_belongs(loaded, data.hook_name, data.train.shape[1])
    windows = windows_of(loaded, held_out, text)
    if isinstance(windows, str):
        return data._replace(without_model=windows)
    return data._replace(model=str(name), windows=windows)


def check_belongs(model: Any, hook_name: str, d_in: int) -> None:
    """Raises ValueError unless the model has such a hook point, to which vectors of this width can be written."""
    find_hook_point(model, hook_name, writing=True)
    width = torch.Size(hook_shape(model, hook_name)).numel()
    if width != d_in:
        raise ValueError(
            f"the activations are {d_in} wide, but {hook_name} of this model is {width} wide: is it another model?"
        )


def windows_of(model: Any, held_out: ActivationDataset, text: str | Path | None) -> Windows | str:
    """The first windows that vectors were harvested from, or of a text; or why there are none.

    Raises:
        ValueError: If the activations are not this model's.
    """
    if text is not None:
        return first_windows(tokenize(model.tokenizer, read_documents(text), min(256, model.cfg.n_ctx)), CE_TOKENS)
    try:
        places = held_out.places
    except ValueError as error:
        return f"{error}; give a text to measure on (--text)"
    rows = (places.positions > 0).nonzero().squeeze(1)  # BOS, where it was kept, is in every window anyway
    windows = rebuild_windows(model.tokenizer, *(column[rows] for column in places))
    if isinstance(windows, str):
        return windows
    _check_same_model(model, windows, held_out, rows)
    return windows


def rebuild_windows(
    tokenizer: Any, tokens: Int[Tensor, " token"], documents: Int[Tensor, " token"], positions: Int[Tensor, " token"]
) -> Windows | str:
    """The first windows that vectors were harvested from, of their tokens without BOS; or why they cannot be known."""
    unknown = "the activations are not of every token of their windows: give a text to measure CE losses on (--text)"
    if not len(tokens) or (tokens < 0).any():
        return unknown
    starts = torch.ones(len(positions), dtype=torch.bool)
    starts[1:] = positions[1:] != positions[:-1] + 1
    first = starts.nonzero().squeeze(1)
    if (positions[first] != 1).any():
        return unknown
    lengths = torch.diff(torch.cat([first, torch.tensor([len(positions)])]))
    shown = int((first < CE_TOKENS).sum())
    bos = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    padded = torch.full((shown, int(lengths[:shown].max()) + 1), bos, dtype=torch.long)
    for row, begin, length in zip(padded, first.tolist(), lengths.tolist(), strict=False):
        row[1 : length + 1] = tokens[begin : begin + length]
    return Windows(padded, lengths[:shown] + 1, documents[first[:shown]].long())


def first_windows(windows: Windows, tokens: int) -> Windows:
    """The first windows, that hold about so many tokens."""
    before = (windows.lengths - 1).cumsum(0) - (windows.lengths - 1)
    return Windows(*(part[before < tokens] for part in windows))


def _check_same_model(model: Any, windows: Windows, held_out: ActivationDataset, rows: Tensor) -> None:
    length = int(windows.lengths[0])
    found = activations_at(model, windows.tokens[:1, :length], held_out.hook_name)[0, 1:].float().cpu()
    stored = held_out.rows(rows[: length - 1]).float()
    error = ((found - stored).norm() / stored.norm()).item()
    if not error < CLOSE:
        raise ValueError(
            f"the activations in {held_out.path} are not this model's: it makes others of the same tokens, {error:.0%} away"
        )


def _spread(vectors: Tensor) -> Tensor:
    return vectors[torch.linspace(0, len(vectors) - 1, min(256, len(vectors))).long()]
