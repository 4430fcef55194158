"""Splices BAEs (or any SAELens SAE) into a hooked model, and takes them out again without a trace."""

import math
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from sae_lens import SAE
from sae_lens.analysis.hooked_sae_transformer import _SAEWrapper
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from bae_lens.activations.models import find_hook_point, hook_points, hook_shape, is_bridge, is_probing

_ATTACHED: WeakSet[SAE[Any]] = WeakSet()
STEERED: WeakKeyDictionary[HookPoint, int] = WeakKeyDictionary()
"""How many steerings are on at a hook point."""


class Attachment:
    """SAEs spliced into a model. As a context manager it takes them out at the end, also after an exception.

    The model's own hook points stay where they are, with the hooks that are on them: the SAE runs first, what it gives back
    is what those hooks and the rest of the model see. While attached, the SAE's hook points are the model's, under
    ``{hook_name}.hook_sae_acts_post`` and so on (a BAE's bits at ``{hook_name}.hook_sae_bits``).
    """

    def __init__(self, model: Any, splices: list["Splice"]):
        self.model = model
        self.splices = splices
        self._attached: list[Splice] = []
        try:
            for splice in splices:
                splice.attach()
                self._attached.append(splice)
        except BaseException:
            self.detach()
            raise

    def detach(self) -> None:
        """Takes the SAEs out; the model gives bit-equal logits to before. Harmless when they are out already."""
        while self._attached:
            self._attached.pop().detach()

    def __enter__(self) -> Any:
        if not self._attached:
            raise RuntimeError("these SAEs were detached already: call bae_lens.attach again")
        return self.model

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        idle = [splice.hook_name for splice in self._attached if not splice.fired]
        ousted = [splice.hook_name for splice in self._attached if splice.is_ousted()]
        self.detach()
        if ousted and kind is None:
            raise RuntimeError(
                f"the hook point {', '.join(ousted)} was replaced inside this `with` block (run_with_saes and add_sae do so): "
                "from then on the SAE was not in the model"
            )
        if idle and kind is None:
            raise RuntimeError(
                f"the SAE at {', '.join(idle)} never ran: no forward pass reached its hook point inside this `with` block"
            )


class Splice:
    """One SAE at one hook point of a model."""

    def __init__(self, model: Any, sae: SAE[Any], hook_name: str, hook_point: HookPoint, use_error_term: bool):
        self.model = model
        self.sae = sae
        self.hook_name = hook_name
        self.hook_point = hook_point
        self.wrapper = _SAEWrapper(sae, use_error_term=use_error_term)
        self.fired = False

    def attach(self) -> None:
        """Puts the SAE in, before any other hook at its hook point."""
        _ATTACHED.add(self.sae)
        before = list(self.hook_point.fwd_hooks)
        self.hook_point.add_hook(self._run, is_permanent=True, prepend=True)
        (self._handle,) = [handle for handle in self.hook_point.fwd_hooks if handle not in before]
        for name, point in self.wrapper.named_children():
            self.hook_point.add_module(name, point)
        self._register()

    def detach(self) -> None:
        """Takes the SAE out and gives every hook point its own name back."""
        _ATTACHED.discard(self.sae)
        self._handle.hook.remove()
        if self._handle in self.hook_point.fwd_hooks:
            self.hook_point.fwd_hooks.remove(self._handle)
        for name, _ in self.wrapper.named_children():
            self.hook_point._modules.pop(name, None)
            for site in self._names() if is_bridge(self.model) else []:
                self.model._hook_registry.pop(f"{site}.{name}", None)
        if not is_bridge(self.model):
            self.model.setup()
        self.sae.setup()  # its hook points get their own names back

    def is_ousted(self) -> bool:
        """Whether something else stands where the hook point was."""
        return hook_points(self.model).get(self.hook_name) is not self.hook_point

    def _run(self, tensor: Tensor, *, hook: HookPoint) -> Tensor:
        if is_probing():
            return tensor
        self.fired = True
        return self.wrapper(tensor).to(tensor.dtype)

    def _names(self) -> set[str]:
        """A bridge knows a hook point by its own name and by an alias; the SAE's hook points have both as their prefix."""
        return {self.hook_name, self.hook_point.name or self.hook_name}

    def _register(self) -> None:
        if not is_bridge(self.model):
            self.model.setup()  # finds the children of the hook point
            return
        for name, point in self.wrapper.named_children():
            assert isinstance(point, HookPoint)
            point.name = f"{self.hook_name}.{name}"
            for site in self._names():
                self.model._hook_registry[f"{site}.{name}"] = point


def attach(
    model: Any,
    *saes: SAE[Any],
    hook_name: str | None = None,
    use_error_term: bool = False,
) -> Attachment:
    """Splices one SAE or several into a model, at the hook points that their metadata name.

    Args:
        model: HookedTransformer, HookedSAETransformer, TransformerBridge or SAETransformerBridge.
        saes: BAEs or any other SAELens SAEs.
        hook_name: Another hook point than the metadata's; for a single SAE only.
        use_error_term: Add what the reconstruction misses, so that the output changes only where features are changed.

    Raises:
        ValueError: If there is no such hook point (near names are said), its width is not the SAE's d_in, it is a bridge's
            hook_resid_mid (writing there would not change the residual stream), or something is attached there already.
        RuntimeError: On leaving the `with` block, if no forward pass reached a hook point.

    Examples:
        >>> import bae_lens
        >>> from bae_lens.demo import demo_model_dir
        >>> model = bae_lens.load_model(demo_model_dir())
        >>> bae = bae_lens.BAE(bae_lens.BAEConfig(d_in=128, d_sae=512))
        >>> bae.cfg.metadata.hook_name = "blocks.1.hook_resid_pre"
        >>> with bae_lens.attach(model, bae):
        ...     logits, cache = model.run_with_cache("Return the number of items")
        >>> cache["blocks.1.hook_resid_pre.hook_sae_bits"].shape
        torch.Size([1, 6, 512])
        >>> attachment = bae_lens.attach(model, bae)  # stays until
        >>> attachment.detach()
    """
    if not saes:
        raise ValueError("no SAE given to attach")
    if hook_name is not None and len(saes) > 1:
        raise ValueError("hook_name goes with a single SAE: several are attached where their metadata say")
    splices = []
    for sae in saes:
        name = hook_name or sae.cfg.metadata.hook_name
        point = check_site(model, sae, name)
        if any(s.hook_point is point for s in splices) or spliced_at(point) is not None:
            raise ValueError(f"an SAE is attached at {name} already: detach it first (or leave its `with` block)")
        if sae in _ATTACHED or any(s.sae is sae for s in splices):
            raise ValueError(f"this SAE is attached already, and has one set of hook points: load it again for {name}")
        if STEERED.get(point):
            raise ValueError(f"steering is on at {name}: attach first and steer inside that block")
        splices.append(Splice(model, sae, name, point, use_error_term))
    return Attachment(model, splices)


def check_site(model: Any, sae: SAE[Any], hook_name: str | None) -> HookPoint:
    """The hook point at which an SAE reads and writes a model; ValueError where it does not belong."""
    if hook_name is not None and hook_name in getattr(model, "acts_to_saes", {}):
        raise ValueError(f"an SAE is attached at {hook_name} already (by add_sae): call model.reset_saes() first")
    point = find_hook_point(model, hook_name, writing=True)
    assert hook_name is not None
    if (sae.cfg.metadata.hook_name_out or hook_name) != hook_name:
        raise ValueError(f"this is a transcoder, from {hook_name} to {sae.cfg.metadata.hook_name_out}: use the model's add_sae")
    shape = hook_shape(model, hook_name)
    if math.prod(shape) != sae.cfg.d_in:
        raise ValueError(
            f"{hook_name} has width {' x '.join(map(str, shape))}, this SAE's d_in is {sae.cfg.d_in}: "
            f"it was trained at {sae.cfg.metadata.hook_name!r} of {sae.cfg.metadata.model_name!r}"
        )
    by_head = sae.cfg.reshape_activations == "hook_z"
    if by_head != (len(shape) == 2):
        raise ValueError(
            f"{hook_name} has width {' x '.join(map(str, shape))}, and this SAE has reshape_activations="
            f"{sae.cfg.reshape_activations!r}: an SAE of the heads' outputs is configured with 'hook_z', any other with 'none'"
        )
    return point


def spliced_at(hook_point: HookPoint) -> HookPoint | None:
    """The hook point of the features of an SAE that `attach` put at this hook point, if one is there."""
    child = hook_point._modules.get("hook_sae_acts_post")
    return child if isinstance(child, HookPoint) else None
