"""The hidden states of the last token of sequences, at several hook points in one pass, kept on disk in their order."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from bae_lens.activations.readers import hook_widths, reader_of
from bae_lens.activations.saving import save_activations
from bae_lens.activations.text import Windows
from bae_lens.traces.sources import PromptSource


def save_last_token(
    path: Path, model: Any, windows: Windows, hooks: Sequence[str], *, train: int, batch_size: int = 32
) -> list[PromptSource]:
    """Activations of the last tokens under `path`, a directory a hook point; what is there already stays as it is.

    Args:
        windows: `document` is what each is of: a query that is asked again is one.
        train: How many sequences, the first ones, are trained on; the others are held out.

    Returns:
        Where those of each hook point are.

    Raises:
        ValueError: As `last_token`.
    """
    missing = [hook for hook in hooks if not (path / hook).is_dir()]
    if missing:
        found = last_token(model, windows, missing, batch_size=batch_size, label=path.name)
        for hook, vectors in found.items():
            metadata = {"hook_name": hook, "train": train, "documents": windows.document[train:].tolist()}
            save_activations(path / hook, [vectors], metadata=metadata)
    return [PromptSource(str(path / hook)) for hook in hooks]


def last_token(
    model: Any, windows: Windows, hooks: Sequence[str], *, batch_size: int = 32, label: str = "", progress: bool = True
) -> dict[str, Float[Tensor, "window d_in"]]:
    """Of every window the activation of its last token at each hook point, heads flattened; fp32, on the CPU.

    One forward pass a batch, which ends at the last of the hook points; windows of like length run together.

    Raises:
        ValueError: If the model has no such hook point, a window is longer than the context, or a hook point does not fire.
    """
    reader = reader_of(model)
    if windows.tokens.shape[1] > reader.context:
        raise ValueError(
            f"sequences of {windows.tokens.shape[1]} tokens are longer than the model's context of {reader.context}: "
            "give shorter ones"
        )
    found = {hook: torch.empty(len(windows.lengths), d_in) for hook, d_in in hook_widths(reader, hooks).items()}
    order = windows.lengths.argsort(stable=True)
    for rows in tqdm(order.split(batch_size), desc=f"harvest {label}", unit="batch", disable=not progress):
        lengths = windows.lengths[rows]
        tokens = windows.tokens[rows, : int(lengths.max())]
        is_last = torch.arange(tokens.shape[1]) == (lengths - 1).unsqueeze(1)
        for hook, vectors in reader.read(tokens, is_last, hooks).items():
            found[hook][rows] = vectors.float().cpu()
    return found
