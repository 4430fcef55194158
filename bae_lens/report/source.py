"""What a report is made of: vectors at the SAE's hook point, the token that each is of, and the model that made them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from sae_lens import SAE
from torch import Tensor

from bae_lens.activations.dataset import ActivationDataset
from bae_lens.activations.harvest import harvest
from bae_lens.activations.models import load_model
from bae_lens.activations.shards import Places
from bae_lens.activations.text import Windows, tokenize
from bae_lens.compare.data import CE_TOKENS, check_belongs, first_windows, windows_of
from bae_lens.files import at_home

CONTEXT_SIZE = 256
CHARACTERS = 12
"""A token of natural text is far shorter: so many characters a token are enough to choose from."""


class Source(NamedTuple):
    """Vectors with their tokens."""

    vectors: Tensor | ActivationDataset
    """``(token, d_in)``, neighbours in a text one after the other."""
    places: Places
    """Token, document and position of each."""
    tokenizer: Any
    model: Any
    """None where there is none."""
    windows: Windows | None
    """To measure CE losses on; None where that cannot be."""
    without: str
    """Why there is no model, or there are no windows; empty where there are."""
    name: str
    """Of the vectors, in words."""
    model_name: str


def from_activations(
    path: str | Path,
    sae: SAE[Any],
    *,
    model: str | None = None,
    text: str | Path | None = None,
    held_out: float = 0.15,
    tokens: int = 200_000,
    seed: int = 0,
    with_model: bool = True,
    device: str = "cpu",
) -> Source:
    """Whole documents of a directory of activations, at random, that hold about so many tokens.

    Args:
        model: Directory or name; the one that the activations were harvested from if not given.
        text: To measure CE losses on, where the activations are not of every token.
        held_out: Only the documents that `bae-lens train` leaves out at this share and seed; 0 for all.
        with_model: False: only its tokenizer is loaded, and nothing that needs the model is measured.

    Raises:
        FileNotFoundError: If there is no such directory, model or text.
        ValueError: If the activations are of another hook point or width than the SAE, do not say which tokens they are of, or
            are not of the model that is given.
    """
    hook = str(sae.cfg.metadata.hook_name)
    dataset = ActivationDataset(path, hook)
    if dataset.hook_name and dataset.hook_name != hook:
        raise ValueError(f"the activations in {path} are of {dataset.hook_name}; this SAE is at {hook}")
    if dataset.d_in != sae.cfg.d_in:
        raise ValueError(f"{path} holds vectors of width {dataset.d_in}; this SAE's d_in is {sae.cfg.d_in}")
    name = model or dataset.metadata.get("model_name")
    if name is None:
        raise ValueError(f"{path} does not say which model its activations are of: give it (--model)")
    _check_tokens(dataset)
    part = dataset if held_out == 0 else dataset.split(held_out, seed=seed).held_out
    part = _some_documents(part, tokens, seed)
    what = f"{path}, {hook}" + (f", {held_out:.0%} of the documents held out" if held_out else "")
    source = Source(part, part.places, None, None, None, "the model was left away (--without-model)", what, str(name))
    if not with_model:
        return source._replace(tokenizer=_tokenizer(str(name)))
    try:
        loaded = load_model(name, device=device)
    except (OSError, ValueError) as error:
        if model is not None:
            raise
        without = f"the model that the activations name cannot be loaded ({error})"
        return source._replace(tokenizer=_tokenizer(str(name)), without=without)
    check_belongs(loaded, hook, sae.cfg.d_in)
    windows = windows_of(loaded, part, text)
    why = windows if isinstance(windows, str) else ""
    return source._replace(
        tokenizer=loaded.tokenizer, model=loaded, windows=None if isinstance(windows, str) else windows, without=why
    )


def from_text(model: Any, documents: Iterable[str], sae: SAE[Any], *, name: str, model_name: str, tokens: int) -> Source:
    """The activations that a text leaves at the SAE's hook point, in memory: so many tokens at most.

    Raises:
        ValueError: If the hook point is not this model's, or of another width, or there is less text than one context.
    """
    hook = str(sae.cfg.metadata.hook_name)
    check_belongs(model, hook, sae.cfg.d_in)
    chosen, characters = [], 0
    for document in documents:
        if characters > CHARACTERS * tokens:
            break
        chosen.append(document)
        characters += len(document)
    windows = tokenize(model.tokenizer, chosen, min(CONTEXT_SIZE, model.cfg.n_ctx))
    found = harvest(model, windows, hook, max_tokens=tokens)
    places = Places(windows.tokens[found.window, found.position], windows.document[found.window], found.position)
    return Source(
        found.vectors, places, model.tokenizer, model, first_windows(windows, CE_TOKENS), "", f"{name}, {hook}", model_name
    )


def _check_tokens(dataset: ActivationDataset) -> None:
    hint = "give --text (and --model) instead of --activations, and the report runs the model itself"
    try:
        unknown = bool((dataset.tokens < 0).any())
    except ValueError as error:
        raise ValueError(f"{error}; {hint}") from None
    if unknown:
        raise ValueError(f"{dataset.path} does not say which token each vector is of; {hint}")


def _some_documents(dataset: ActivationDataset, tokens: int, seed: int) -> ActivationDataset:
    """Whole documents by lot until so many tokens are there; of the last one a part."""
    if len(dataset) <= tokens:
        return dataset
    _, of, counts = dataset.documents.unique(return_inverse=True, return_counts=True)
    order = torch.randperm(len(counts), generator=torch.Generator().manual_seed(seed))
    before = counts[order].cumsum(0) - counts[order]
    chosen = torch.zeros(len(counts), dtype=torch.bool)
    chosen[order[before < tokens]] = True
    return dataset.select(chosen[of].nonzero().squeeze(1)[:tokens])


def _tokenizer(name: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(at_home(name) if at_home(name).is_dir() else name)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"there is no tokenizer of {name!r} to show the text with: give the model's directory or name (--model)"
        ) from error
