"""Steering: edits chosen features of the residual stream while a model runs, with a BAE or any other SAELens SAE."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from sae_lens import SAE
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from bae_lens.activations.models import is_probing, layer_of
from bae_lens.intervene.attach import STEERED, check_site, spliced_at
from bae_lens.intervene.edits import (
    LINEAR_DECODERS,
    OPERATIONS,
    Edit,
    FeatureEdit,
    Positions,
    parse_edit,
    parse_positions,
)
from bae_lens.model.bae import BinaryCode

GENERATORS = ("generate", "generate_stream", "hf_generate")


class Steering:
    """The state of one `steer` block.

    Attributes:
        changed: How many tokens each feature's activation was changed on so far.
    """

    def __init__(self, model: Any, sae: SAE[Any], edits: list[FeatureEdit], positions: str | list[int], relative: bool):
        self.sae = sae
        self.edits = edits
        self.positions = positions
        self.changed = {edit.feature: 0 for edit in edits}
        self.fired = False
        self.moved = False
        """Whether any number in the model came out different."""
        self._padding = getattr(model.tokenizer, "pad_token_id", None)
        self._relative = relative
        self._norm: float | None = sae.cfg.metadata.mean_activation_norm
        self._cached = 0
        """Tokens that the keys and values of earlier passes stand for."""
        self._prompt: int | None = None
        """Tokens of the prompt; None until its pass."""
        self._generating = False

    def edited(self) -> Int[Tensor, " edits"]:
        """The features that are edited."""
        return torch.tensor([edit.feature for edit in self.edits])

    def see(self, residual: Tensor) -> None:
        """Takes the unit of `relative`, if the SAE does not know one, from the first prompt: the mean norm after BOS."""
        if self._norm is None and not is_probing():
            flat = residual.flatten(2) if residual.dim() > 3 else residual
            tokens = flat[:, 1:] if flat.shape[1] > 1 else flat
            self._norm = tokens.float().norm(dim=-1).mean().item()

    def on_features(self, acts: Float[Tensor, "batch pos d_sae"]) -> Tensor:
        """What to add to the activations of the edited features: ``(batch, pos, edits)``."""
        self.fired = True
        keep = self._mask(acts.shape[1]).to(acts.device)
        changes = []
        for edit in self.edits:
            value = edit.value
            if self._relative and edit.operation == "add":
                assert self._norm is not None
                value *= self._norm / self.sae.W_dec[edit.feature].float().norm().item()
            change = OPERATIONS[edit.operation].change(acts[..., edit.feature], value, self._fully_on(edit.feature))
            change = change * keep
            self.changed[edit.feature] += int((change != 0).sum())
            changes.append(change)
        return torch.stack(changes, -1)

    def _fully_on(self, feature: int) -> float:
        return self.sae.act_scale[feature].item() if isinstance(self.sae, BinaryCode) else math.nan

    def _mask(self, length: int) -> Tensor:
        """Which tokens of this pass to steer ``(length,)``, by their place in prompt and continuation."""
        if self._cached == 0 and (self._prompt is None or not self._generating):
            self._prompt = length
        prompt = self._prompt if self._prompt is not None else self._cached
        places = torch.arange(self._cached, self._cached + length)
        if self.positions == "all":
            return torch.ones(length)
        if self.positions == "last":
            return (places == prompt - 1).float()
        if self.positions == "generated":
            return (places >= prompt).float()
        assert not isinstance(self.positions, str)
        for place in self.positions:
            if not -prompt <= place < prompt:
                raise IndexError(f"position {place} is out of range: the prompt has {prompt} tokens")
        return torch.isin(places, torch.tensor([place % prompt for place in self.positions])).float()

    @contextmanager
    def generation(self) -> Iterator[None]:
        """Within it the first pass is the prompt's, and the later ones go on from it, with or without a cache."""
        self._generating, self._prompt = True, None
        try:
            yield
        finally:
            self._generating = False

    def note_cache(self, layer: int, kwargs: dict[str, Any]) -> None:
        """Reads from a block's arguments how many tokens its keys and values already stand for."""
        self._cached = _cached_tokens(layer, kwargs)

    def note_tokens(self, tokens: Tensor) -> None:
        """Refuses positions that padding makes ambiguous: rows of a batch would be steered at different words."""
        if len(tokens) == 1 or self._padding is None or (isinstance(self.positions, str) and self.positions != "last"):
            return
        pads = tokens == self._padding
        wanted = [-1] if isinstance(self.positions, str) else self.positions
        several = tokens.shape[1] > 1
        left = several and bool((pads[:, 0] & pads[:, 1]).any())  # one pad token alone at the start may be BOS
        right = several and bool(pads[:, -1].any())
        if (left and any(place >= 0 for place in wanted)) or (right and any(place < 0 for place in wanted)):
            raise ValueError(
                f"positions {self.positions!r} do not mean the same word in each row of a batch that is padded on the "
                f"{'left' if left else 'right'}: run the prompts one at a time, or pad on the other side"
            )

    def check_done(self) -> None:
        """Raises RuntimeError if nothing was changed although something was asked for."""
        if all(edit.is_neutral for edit in self.edits):
            return
        if not self.fired:
            raise RuntimeError("the steering never fired: no forward pass reached its hook point inside this `with` block")
        if not self.moved:
            names = ", ".join(f"{edit.feature} ({edit.operation})" for edit in self.edits)
            raise RuntimeError(
                f"the steering changed nothing on these tokens: feature {names}, positions {self.positions!r}. "
                "A feature that is off cannot be ablated or scaled; bae_lens.inspect shows where it is on"
            )


def _cached_tokens(layer: int, kwargs: dict[str, Any]) -> int:
    entry = kwargs.get("past_kv_cache_entry")  # HookedTransformer
    if entry is not None:
        return entry.past_keys.shape[1]
    for name in ("past_key_values", "past_key_value"):  # Hugging Face, inside a bridge
        cache = kwargs.get(name)
        if cache is not None:
            return int(cache.get_seq_length(layer))
    return 0


@contextmanager
def steer(
    model: Any,
    sae: SAE[Any],
    features: Mapping[Any, Edit],
    *,
    positions: Positions = "all",
    relative: bool = False,
    hook_name: str | None = None,
) -> Iterator[Steering]:
    """Edits features while the model runs inside the block: activations are changed, what the SAE misses is left as it is.

    Where the SAE is attached at the same hook point, its features are edited in the splice instead.

    Args:
        model: HookedTransformer, HookedSAETransformer, TransformerBridge or SAETransformerBridge.
        sae: A BAE or any other SAELens SAE.
        features: Index to edit: a number adds that many decoder rows; ("add", s), ("scale", s), ("clamp", activation),
            "ablate" (to 0), "flip" (a BAE's bits: on to off and off to on).
        positions: "all" tokens; the "last" of the prompt; every "generated" token; or indices into the prompt (negative ones
            from its end). The prompt is the first pass of a `generate` call, or each forward pass of its own. In a padded
            batch, "last" and negative indices want padding on the left, other indices padding on the right.
        relative: Numbers that are added are multiples of the mean norm of the residual stream (at training; for an SAE that
            does not know it, of the first prompt), in the direction of the decoder row.
        hook_name: Another hook point than the metadata's.

    Yields:
        A `Steering`, whose `changed` counts the tokens changed for each feature.

    Raises:
        ValueError: If there is no such hook point, an operation is unknown, a strength is not finite; in the model's forward
            pass, if padding makes the positions ambiguous.
        IndexError: If a feature or a position is out of range.
        RuntimeError: At the end, if nothing fired or nothing changed, unless the edits ask for nothing (strength 0).

    Examples:
        >>> import bae_lens
        >>> from bae_lens.demo import demo_model_dir
        >>> model = bae_lens.load_model(demo_model_dir())
        >>> bae = bae_lens.BAE(bae_lens.BAEConfig(d_in=128, d_sae=512))
        >>> bae.cfg.metadata.hook_name = "blocks.1.hook_resid_pre"
        >>> with bae_lens.steer(model, bae, {412: 4.0, 97: "flip"}, positions="last") as steering:
        ...     logits = model("Return the number of items")
        >>> steering.changed
        {412: 1, 97: 1}
    """
    hook_name = hook_name or sae.cfg.metadata.hook_name
    point = check_site(model, sae, hook_name)
    edits = _edits_of(sae, features, relative)
    state = Steering(model, sae, edits, parse_positions(positions), relative)
    editing = _editing_the_splice(state) if _is_spliced(sae, point, hook_name) else _editing_the_residual(state, point)
    with editing, _watched(model, hook_name, state):
        yield state
    state.check_done()


def _edits_of(sae: SAE[Any], features: Mapping[Any, Edit], relative: bool) -> list[FeatureEdit]:
    """The edits, each checked."""
    edits = [parse_edit(sae, index, edit) for index, edit in features.items()]
    if not edits:
        raise ValueError("no feature given to steer")
    if relative and (zero := [edit.feature for edit in edits if not sae.W_dec[edit.feature].any()]):
        raise ValueError(f"feature {zero[0]} has a decoder row of zeros: there is no direction to add multiples of")
    return edits


def _is_spliced(sae: SAE[Any], point: HookPoint, hook_name: str | None) -> bool:
    """Whether this SAE is attached at its hook point; another one must not be."""
    features = spliced_at(point)
    if features is not None and features is not sae.hook_sae_acts_post:
        raise ValueError(f"another SAE is attached at {hook_name}: steer with that one, or detach it first")
    return features is not None


@contextmanager
def _editing_the_residual(state: Steering, point: HookPoint) -> Iterator[None]:
    """Adds what the edits change in a reconstruction to the stream itself."""
    sae, index = state.sae, state.edited()
    if sae.cfg.normalize_activations not in LINEAR_DECODERS:
        raise ValueError(
            f"this SAE normalises each activation ({sae.cfg.normalize_activations}), so its decoder rows have no fixed size "
            "in the residual stream: attach it with use_error_term=True and steer inside that block"
        )

    def edit(tensor: Tensor, *, hook: HookPoint) -> Tensor:
        if is_probing():
            return tensor
        state.see(tensor)
        change = state.on_features(sae.encode(tensor))
        if not change.any():
            return tensor
        delta = (change.to(sae.W_dec.dtype) @ sae.W_dec[index.to(sae.W_dec.device)]).reshape(tensor.shape)
        steered = tensor + delta.to(tensor.dtype)
        state.moved |= not torch.equal(steered, tensor)
        return steered

    with _counted(point), _hooked(point, edit):
        yield


@contextmanager
def _editing_the_splice(state: Steering) -> Iterator[None]:
    """Edits the features of the attached SAE, which decodes them."""
    sae, index = state.sae, state.edited()

    def see(tensor: Tensor, *, hook: HookPoint) -> None:
        state.see(tensor)

    def edit(tensor: Tensor, *, hook: HookPoint) -> Tensor:
        steered = tensor.index_add(-1, index.to(tensor.device), state.on_features(tensor).to(tensor.dtype))
        state.moved |= not torch.equal(steered, tensor)
        return steered

    with _hooked(sae.hook_sae_input, see), _hooked(sae.hook_sae_acts_post, edit):
        yield


@contextmanager
def _counted(point: HookPoint) -> Iterator[None]:
    """Says to `attach` that steering is on here."""
    STEERED[point] = STEERED.get(point, 0) + 1
    try:
        yield
    finally:
        STEERED[point] -= 1


@contextmanager
def _hooked(point: HookPoint, hook: Callable[..., Tensor | None]) -> Iterator[None]:
    before = list(point.fwd_hooks)
    point.add_hook(hook, is_permanent=True)
    (handle,) = [h for h in point.fwd_hooks if h not in before]
    try:
        yield
    finally:
        handle.hook.remove()
        if handle in point.fwd_hooks:
            point.fwd_hooks.remove(handle)


@contextmanager
def _watched(model: Any, hook_name: str | None, state: Steering) -> Iterator[None]:
    """Lets the steering see the cache's length (from the block's arguments) and where a generation begins."""
    layer = layer_of(hook_name or "") or 0

    def note_cache(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        state.note_cache(layer, kwargs)

    def note_tokens(module: nn.Module, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], Tensor) and args[0].dim() == 2 and not args[0].is_floating_point():
            state.note_tokens(args[0])

    handle = model.blocks[layer].register_forward_pre_hook(note_cache, with_kwargs=True)
    tokens_handle = model.embed.register_forward_pre_hook(note_tokens)
    own = {name: model.__dict__[name] for name in GENERATORS if name in model.__dict__}
    for name in GENERATORS:
        if hasattr(model, name):
            model.__dict__[name] = _announced(getattr(model, name), state)
    try:
        yield
    finally:
        handle.remove()
        tokens_handle.remove()
        for name in GENERATORS:
            model.__dict__.pop(name, None)
        model.__dict__.update(own)


def _announced(generate: Callable[..., Any], state: Steering) -> Callable[..., Any]:
    def generate_steered(*args: Any, **kwargs: Any) -> Any:
        with state.generation():
            return generate(*args, **kwargs)

    def stream_steered(*args: Any, **kwargs: Any) -> Iterator[Any]:
        with state.generation():
            yield from generate(*args, **kwargs)

    return stream_steered if generate.__name__ == "generate_stream" else generate_steered
