"""A model of any kind as a harvest sees it: tokens in, the vectors of some hook points out, by one forward pass."""

import contextlib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from bae_lens.activations.models import Reached, find_hook_point, hook_points, is_bridge
from bae_lens.checks import near


@runtime_checkable
class Reader(Protocol):
    """One model."""

    kind: str
    """"HookedTransformer", "TransformerBridge" or "Hugging Face"."""
    context: int
    """Tokens that the model takes at most."""
    device: torch.device
    """Where the model is."""

    def hook_names(self) -> list[str]:
        """Every hook point, in the order of the forward pass."""
        ...

    def read(
        self, tokens: Int[Tensor, "batch pos"], keep: Bool[Tensor, "batch pos"], hooks: Sequence[str]
    ) -> dict[str, Tensor]:
        """The vectors ``(kept, d_in)`` of each hook point at the kept tokens, heads flattened, on the model's device.

        The forward pass ends when the last hook point has been reached. Padding on the right needs no mask: a causal model's
        vectors do not depend on what comes later.
        """
        ...


class HookedReader:
    """A TransformerLens model, of either kind."""

    def __init__(self, model: Any):
        self.model = model
        self.kind = "TransformerBridge" if is_bridge(model) else "HookedTransformer"
        self.context: int = model.cfg.n_ctx
        self.device = next(model.parameters()).device

    def hook_names(self) -> list[str]:
        """As `Reader` says."""
        return [name for name in hook_points(self.model) if ".hook_sae_" not in name]

    def read(
        self, tokens: Int[Tensor, "batch pos"], keep: Bool[Tensor, "batch pos"], hooks: Sequence[str]
    ) -> dict[str, Tensor]:
        """As `Reader` says."""
        found: dict[str, Tensor] = {}
        keep = keep.to(self.device)

        def keeper(name: str) -> Any:
            def take(activation: Tensor, hook: HookPoint) -> None:
                take_kept(found, name, activation, keep, len(hooks))

            return take

        points = [(find_hook_point(self.model, name).name, keeper(name)) for name in hooks]
        with torch.no_grad(), contextlib.suppress(Reached):
            self.model.run_with_hooks(tokens.to(self.device), fwd_hooks=points)
        return check_found(found, hooks)


def take_kept(found: dict[str, Tensor], name: str, activation: Tensor, keep: Tensor, wanted: int) -> None:
    """Keeps a hook point's vectors, and ends the forward pass with the last one.

    Raises:
        ValueError: If what passes there is not one vector a token.
        Reached: When all that are wanted are found.
    """
    if activation.dim() < 3 or activation.shape[:2] != keep.shape:
        raise ValueError(
            f"{name} carries {tuple(activation.shape)} for {tuple(keep.shape)} tokens: not one vector a token, "
            "as residual streams, attention outputs and MLPs do"
        )
    found[name] = activation.detach().flatten(2)[keep]
    if len(found) == wanted:
        raise Reached


def check_found(found: dict[str, Tensor], hooks: Sequence[str]) -> dict[str, Tensor]:
    """Those that were found, in the order asked for; ValueError if any did not fire."""
    missing = [name for name in hooks if name not in found]
    if missing:
        raise ValueError(f"{', '.join(missing)} does not fire in this model as it is configured")
    return {name: found[name] for name in hooks}


def reader_of(model: Any) -> Reader:
    """The reader for a model.

    Raises:
        TypeError: If it is neither a TransformerLens model nor a decoder of Hugging Face's.
    """
    if isinstance(model, Reader):
        return model
    if hasattr(model, "run_with_hooks") and hasattr(model, "hook_dict"):
        return HookedReader(model)
    from bae_lens.activations.hugging_face import HuggingFaceReader

    return HuggingFaceReader(model)


def expand_hooks(patterns: Sequence[str], known: Sequence[str]) -> list[str]:
    """Names of hook points for patterns as file names have them ("blocks.*.hook_resid_pre"), in the forward pass's order.

    >>> expand_hooks(["blocks.*.hook_z"], ["blocks.0.hook_z", "blocks.0.hook_q", "blocks.1.hook_z"])
    ['blocks.0.hook_z', 'blocks.1.hook_z']

    Raises:
        ValueError: If a pattern matches none (near names are said), or there is no pattern.
    """
    chosen: set[str] = set()
    for pattern in patterns:
        matches = [name for name in known if fnmatchcase(name, pattern)]
        if not matches:
            raise ValueError(f"this model has no hook point {pattern!r}; {near(pattern, known)}")
        chosen.update(matches)
    if not chosen:
        raise ValueError("no hook point given: 'blocks.*.hook_resid_pre', for one, is the residual stream before each block")
    return [name for name in known if name in chosen]


def hook_widths(reader: Reader, hooks: Sequence[str]) -> dict[str, int]:
    """Width of the vectors at each hook point, found by a forward pass over a few tokens.

    Raises:
        ValueError: If a hook point does not fire, or carries no vector a token.
    """
    widths = []
    for length in (5, 7):  # a number of heads may be one of them
        tokens = torch.zeros(1, min(length, reader.context), dtype=torch.long)
        found = reader.read(tokens, torch.ones_like(tokens, dtype=torch.bool), hooks)
        widths.append({name: vectors.shape[1] for name, vectors in found.items()})
    return widths[0]
