"""The hidden states of the last token of sequences, at several hook points in one pass, kept on disk in their order."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens.hook_points import HookPoint

from bae_lens.activations.models import Reached, find_hook_point, hook_shape
from bae_lens.activations.saving import save_activations
from bae_lens.activations.text import Windows
from bae_lens.traces.sources import PromptSource


def save_last_token(
    path: Path, model: Any, windows: Windows, hooks: Sequence[str], *, train: int, batch_size: int = 32
) -> list[PromptSource]:
    """Activations of the last tokens under `path`, a directory a hook point; what is there already stays as it is.

    Args:
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
            save_activations(path / hook, [vectors], metadata={"hook_name": hook, "train": train})
    return [PromptSource(str(path / hook)) for hook in hooks]


@torch.no_grad()
def last_token(
    model: Any, windows: Windows, hooks: Sequence[str], *, batch_size: int = 32, label: str = "", progress: bool = True
) -> dict[str, Float[Tensor, "window d_in"]]:
    """Of every window the activation of its last token at each hook point, heads flattened; fp32, on the CPU.

    One forward pass a batch, which ends at the last of the hook points; windows of like length run together.

    Raises:
        ValueError: If the model has no such hook point, a window is longer than the context, or a hook point does not fire.
    """
    points = {find_hook_point(model, hook).name: hook for hook in hooks}
    if windows.tokens.shape[1] > model.cfg.n_ctx:
        raise ValueError(
            f"sequences of {windows.tokens.shape[1]} tokens are longer than the model's context of {model.cfg.n_ctx}"
        )
    found = {hook: torch.empty(len(windows.lengths), torch.Size(hook_shape(model, hook)).numel()) for hook in hooks}
    device = next(model.parameters()).device
    order = windows.lengths.argsort(stable=True)
    for rows in tqdm(order.split(batch_size), desc=f"harvest {label}", unit="batch", disable=not progress):
        lengths = windows.lengths[rows]
        tokens = windows.tokens[rows, : int(lengths.max())]
        mask = (torch.arange(tokens.shape[1]) < lengths.unsqueeze(1)).long().to(device)
        missing = set(points.values())

        def keep(
            activation: Tensor, hook: HookPoint, rows: Tensor = rows, lengths: Tensor = lengths, missing: set = missing
        ) -> None:
            name = points[str(hook.name)]
            last = activation[torch.arange(len(rows)), lengths - 1].detach()
            found[name][rows] = last.flatten(1).float().cpu()
            missing.discard(name)
            if not missing:
                raise Reached

        try:
            model.run_with_hooks(tokens.to(device), fwd_hooks=[(name, keep) for name in points], attention_mask=mask)
        except Reached:
            continue
        raise ValueError(f"{', '.join(sorted(missing))} does not fire in this model as it is configured")
    return found
