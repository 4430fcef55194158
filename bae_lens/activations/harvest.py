"""Runs a model over text and keeps what passes one hook point."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens.hook_points import HookPoint

from bae_lens.activations.models import Reached, find_hook_point, run_until
from bae_lens.activations.readers import HookedReader, reader_of
from bae_lens.activations.text import Windows
from bae_lens.checks import near


class Activations(NamedTuple):
    """Activations at one hook point, BOS and padding left out, in the order of the windows."""

    vectors: Float[Tensor, "token d_in"]
    window: Int[Tensor, " token"]
    """Row of `Windows.tokens` that each vector belongs to."""
    position: Int[Tensor, " token"]
    """Its position there; BOS is at 0, so these begin at 1."""


def harvest(
    model: Any,
    windows: Windows,
    hook_name: str | None,
    *,
    batch_size: int = 32,
    max_tokens: int | None = None,
    progress: bool = True,
) -> Activations:
    """The activations of every token but BOS at one hook point, in fp32, on the CPU; `harvest_to_disk` writes any number.

    The forward pass ends at the hook point. Windows of like length run together, so little is spent on padding.

    Args:
        batch_size: Windows a forward pass.
        max_tokens: Stop after the windows that hold so many tokens.

    Raises:
        ValueError: If the model has no such hook point, or it does not fire.

    Examples:
        >>> import bae_lens
        >>> from bae_lens.demo import demo_model_dir
        >>> model = bae_lens.load_model(demo_model_dir())
        >>> windows = bae_lens.tokenize(model.tokenizer, ["Return the number of items in the list."], context_size=8)
        >>> bae_lens.harvest(model, windows, "blocks.1.hook_resid_pre", progress=False).vectors.shape
        torch.Size([9, 128])
    """
    hook_name = _known(model, hook_name)
    if batch_size < 1 or (max_tokens is not None and max_tokens < 1) or not windows.n_tokens:
        raise ValueError(
            f"nothing to harvest: {windows.n_tokens} tokens besides BOS, batch_size {batch_size}, max_tokens {max_tokens}"
        )
    chosen = _first_windows(windows, max_tokens)
    order = chosen[windows.lengths[chosen].argsort(stable=True)]
    reader, found = reader_of(model), dict[int, Tensor]()
    _check_length(windows.tokens.shape[1], reader.context)
    with tqdm(total=int(windows.lengths[order].sum()), desc=f"harvest {hook_name}", unit="tok", disable=not progress) as bar:
        for rows in order.split(batch_size):
            lengths = windows.lengths[rows]
            tokens = windows.tokens[rows, : int(lengths.max())]
            places = torch.arange(tokens.shape[1])
            keep = (places >= 1) & (places < lengths.unsqueeze(1))
            vectors = reader.read(tokens, keep, [hook_name])[hook_name].float().cpu()
            for row, own in zip(rows.tolist(), vectors.split((lengths - 1).tolist()), strict=True):
                found[row] = own.clone()
            bar.update(int(lengths.sum()))
    kept = sorted(found)
    lengths = torch.tensor([len(found[row]) for row in kept])
    return Activations(
        vectors=torch.cat([found[row] for row in kept]),
        window=torch.tensor(kept).repeat_interleave(lengths),
        position=torch.cat([torch.arange(1, n + 1) for n in lengths.tolist()]),
    )


def activations_at(
    model: Any, tokens: Int[Tensor, "batch pos"], hook_name: str | None, mask: Int[Tensor, "batch pos"] | None = None
) -> Float[Tensor, "batch pos d_in"]:
    """Activations of a batch of tokens at one hook point, heads flattened; the forward pass ends there.

    Raises:
        ValueError: If the model has no such hook point, or it does not fire.
    """
    hook_point = find_hook_point(model, hook_name)
    _check_length(tokens.shape[1], model.cfg.n_ctx)
    found: list[Tensor] = []

    def keep(activation: Tensor, hook: HookPoint) -> None:
        found.append(activation.detach().flatten(2))
        raise Reached

    run_until(model, tokens, hook_point, keep, **({} if mask is None else {"attention_mask": mask}))
    if not found:
        raise ValueError(f"{hook_name} does not fire in this model as it is configured")
    return found[0]


def _known(model: Any, hook_name: str | None) -> str:
    reader = reader_of(model)
    if isinstance(reader, HookedReader):
        find_hook_point(model, hook_name)
    elif hook_name not in reader.hook_names():
        raise ValueError(f"this model has no hook point {hook_name!r}; {near(str(hook_name), reader.hook_names())}")
    return str(hook_name)


def _check_length(tokens: int, context: int) -> None:
    if tokens > context:
        raise ValueError(f"windows of {tokens} tokens are longer than the model's context of {context}")


def _first_windows(windows: Windows, max_tokens: int | None) -> Int[Tensor, " window"]:
    if max_tokens is None:
        return torch.arange(len(windows.lengths))
    before = (windows.lengths - 1).cumsum(0) - (windows.lengths - 1)
    return (before < max_tokens).nonzero().flatten()
