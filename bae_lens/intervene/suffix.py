"""A model from a hook point on: what stands before it runs once, whatever is then done to the activations there."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from sae_lens import SAE
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from bae_lens.activations.harvest import activations_at
from bae_lens.activations.models import find_hook_point, hook_shape, is_bridge, layer_of
from bae_lens.activations.prompts import padded_windows
from bae_lens.activations.text import Windows
from bae_lens.chunks import ENTRIES
from bae_lens.intervene.attach import STEERED, check_site, spliced_at
from bae_lens.intervene.edits import LINEAR_DECODERS

Prompts = Any
"""Text or a list of texts, tokens ``(pos,)`` or ``(prompt, pos)``, a list of tokens ``(pos,)``, or `Windows`."""


class Suffix(NamedTuple):
    """What a model does after a hook point."""

    model: Any
    hook_name: str
    shape: tuple[int, ...]
    """Of one token's activation."""
    start_layer: int | None
    """The first block that is still to run; None where the model runs as a whole and the activations are put in by a hook."""


def suffix_at(model: Any, hook_name: str | None) -> Suffix:
    """A model from a hook point on.

    Raises:
        ValueError: If there is no such hook point, writing to it would not do what it says, or something is spliced or steered
            there.
    """
    point = find_hook_point(model, hook_name, writing=True)
    assert hook_name is not None
    if spliced_at(point) is not None or STEERED.get(point):
        raise ValueError(f"an SAE is attached or steering is on at {hook_name}: leave that block first")
    return Suffix(model, hook_name, hook_shape(model, hook_name), _start_layer(model, hook_name, point))


def suffix_of(model: Any, sae: SAE[Any], hook_name: str | None = None) -> Suffix:
    """A model from an SAE's hook point on.

    Raises:
        ValueError: If the SAE does not belong to the model's hook point, or its decoder rows have no fixed size there.
    """
    hook_name = hook_name or sae.cfg.metadata.hook_name
    check_site(model, sae, hook_name)
    check_linear_decoder(sae)
    return suffix_at(model, hook_name)


def check_linear_decoder(sae: SAE[Any]) -> None:
    """Raises ValueError where the SAE rescales each activation by itself."""
    if sae.cfg.normalize_activations not in LINEAR_DECODERS:
        raise ValueError(
            f"this SAE normalises each activation ({sae.cfg.normalize_activations}), so its decoder rows have no fixed size "
            "in the residual stream"
        )


@torch.no_grad()
def activations_of(suffix: Suffix, windows: Windows, batch_size: int = 32) -> Float[Tensor, "prompt pos *shape"]:
    """What passes the hook point in these windows; the forward passes end there."""
    found = []
    for tokens in windows.tokens.split(batch_size):
        mask = torch.ones_like(tokens, device=_device(suffix.model))
        found.append(activations_at(suffix.model, tokens, suffix.hook_name, mask))
    return torch.cat(found).unflatten(2, suffix.shape)


def logits_from(
    suffix: Suffix, activations: Float[Tensor, "prompt pos *shape"], tokens: Int[Tensor, "prompt pos"]
) -> Float[Tensor, "prompt pos vocab"]:
    """The model's logits where these activations pass the hook point.

    Tokens that pad on the right change nothing before them: attention is causal.
    """
    if suffix.start_layer is not None:
        return suffix.model(activations, start_at_layer=suffix.start_layer)
    tokens = tokens.to(activations.device)

    def put_in(tensor: Tensor, *, hook: HookPoint) -> Tensor:
        return activations.to(tensor.dtype)

    name = find_hook_point(suffix.model, suffix.hook_name).name
    return suffix.model.run_with_hooks(tokens, fwd_hooks=[(name, put_in)], attention_mask=torch.ones_like(tokens))


def token_windows(model: Any, prompts: Prompts) -> Windows:
    """Prompts as windows of tokens, each text after BOS.

    Raises:
        ValueError: If there is none, one has no token after BOS, or one is longer than the model's context.
    """
    if isinstance(prompts, Windows):
        rows = [row[:length] for row, length in zip(prompts.tokens, prompts.lengths.tolist(), strict=True)]
    elif isinstance(prompts, Tensor):
        rows = list(torch.atleast_2d(prompts).cpu())
    else:
        given = [prompts] if isinstance(prompts, str) else list(prompts)
        rows = [_tokens_of(model, prompt) for prompt in given]
    if not rows:
        raise ValueError("no prompt given")
    for number, row in enumerate(rows):
        if len(row) < 2:
            raise ValueError(f"prompt {number} is empty: it has no token after BOS")
        if len(row) > model.cfg.n_ctx:
            raise ValueError(f"prompt {number} has {len(row)} tokens, the model's context only {model.cfg.n_ctx}: shorten it")
    windows = padded_windows([row.tolist() for row in rows])
    return windows._replace(document=prompts.document) if isinstance(prompts, Windows) else windows


def rows_of(windows: Windows, index: Int[Tensor, " row"]) -> Windows:
    """Some of the windows, cut to the longest of them."""
    lengths = windows.lengths[index]
    return Windows(windows.tokens[index, : int(lengths.max())], lengths, windows.document[index])


def after_bos(windows: Windows) -> Tensor:
    """Which tokens are neither BOS nor padding: bool ``(prompt, pos)``."""
    places = torch.arange(windows.tokens.shape[1])
    return (places > 0) & (places < windows.lengths.unsqueeze(1))


def rows_a_pass(model: Any, length: int) -> int:
    """How many windows of so many tokens to run at a time: their logits are about 16 MiB, which a cache still holds."""
    return max(1, ENTRIES // (length * model.cfg.d_vocab))


def _tokens_of(model: Any, prompt: Any) -> Tensor:
    if not isinstance(prompt, str):
        return torch.as_tensor(prompt, dtype=torch.long).flatten().cpu()
    if model.tokenizer is None:
        raise ValueError("this model has no tokenizer: give tokens instead of text")
    return model.to_tokens(prompt, truncate=False)[0].cpu()


def _start_layer(model: Any, hook_name: str, point: HookPoint) -> int | None:
    """The block at which a HookedTransformer goes on; not where a hook of the user's would run a second time."""
    layer = layer_of(hook_name)
    if is_bridge(model) or layer is None or point.has_hooks():
        return None
    return {"hook_resid_pre": layer, "hook_resid_post": layer + 1}.get(hook_name.split(".", 2)[2])


def _device(model: Any) -> torch.device:
    return next(model.parameters()).device
