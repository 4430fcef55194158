"""A plain Hugging Face decoder read with forward hooks: the fastest way to the residual stream.

Hugging Face's last `hidden_states` is after the final norm; the hooks here take what leaves the last block. Names are those
that TransformerLens gives.
"""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from transformer_lens import HookedTransformer
from transformer_lens.model_bridge import TransformerBridge

from bae_lens.activations.models import Reached, hugging_face_directory, load_model
from bae_lens.activations.readers import check_found, expand_hooks, take_kept
from bae_lens.checks import check_known

LLAMA_LIKE = ("llama", "mistral", "qwen2", "qwen3")
"""Model types whose blocks are: norm, attention, add, norm, MLP, add. Of others, only a block's input and output are read."""
OUTER = ("hook_resid_pre", "hook_resid_post")
INNER = ("hook_attn_out", "hook_resid_mid", "hook_mlp_out")
IN_ORDER = ("hook_resid_pre", "hook_attn_out", "hook_resid_mid", "hook_mlp_out", "hook_resid_post")


class HuggingFaceReader:
    """A decoder whose blocks are in `model.layers` of its base model, as those of Llama and most that came after."""

    kind = "Hugging Face"

    def __init__(self, model: Any):
        self.base: Any = getattr(model, "base_model", None)
        layers = getattr(self.base, "layers", None)
        if not isinstance(layers, nn.ModuleList):
            raise TypeError(
                "a HookedTransformer, a TransformerBridge or a Hugging Face decoder with its blocks in model.layers is "
                f'expected, got {type(model).__name__}; a TransformerBridge (via="bridge", --via bridge) takes more kinds'
            )
        self.layers = layers
        self.model = model
        self.context: int = model.config.max_position_embeddings
        self.device = next(model.parameters()).device
        self.is_llama_like = model.config.model_type in LLAMA_LIKE

    def hook_names(self) -> list[str]:
        """As `Reader` says."""
        parts = IN_ORDER if self.is_llama_like else OUTER
        inner = [f"blocks.{layer}.{part}" for layer in range(len(self.layers)) for part in parts]
        return (["hook_embed"] if self.is_llama_like else []) + inner

    def read(
        self, tokens: Int[Tensor, "batch pos"], keep: Bool[Tensor, "batch pos"], hooks: Sequence[str]
    ) -> dict[str, Tensor]:
        """As `Reader` says."""
        found: dict[str, Tensor] = {}
        keep = keep.to(self.device)
        with torch.no_grad(), contextlib.suppress(Reached), contextlib.ExitStack() as stack:
            for name in hooks:
                handle = self._hook(name, lambda x, name=name: take_kept(found, name, x, keep, len(hooks)))
                stack.callback(handle.remove)
            self.base(tokens.to(self.device), use_cache=False)
        return check_found(found, hooks)

    def _hook(self, name: str, take: Callable[[Tensor], None]) -> Any:
        """Registers what takes a hook point's activation."""
        if name == "hook_embed":
            return _after(self.base.embed_tokens, take)
        _, layer, part = name.split(".")
        block: Any = self.layers[int(layer)]
        places: dict[str, Callable[[], Any]] = {
            "hook_resid_pre": lambda: _before(block, take),
            "hook_resid_mid": lambda: _before(block.post_attention_layernorm, take),
            "hook_attn_out": lambda: _after(block.self_attn, take),
            "hook_mlp_out": lambda: _after(block.mlp, take),
            "hook_resid_post": lambda: _after(block, take),
        }
        return places[part]()


def suits_hugging_face(patterns: Sequence[str]) -> bool:
    """Whether patterns of hook points can only mean those that a plain Hugging Face model has.

    >>> suits_hugging_face(["blocks.*.hook_resid_*"]), suits_hugging_face(["blocks.0.attn.hook_z"])
    (True, False)
    """
    return all(
        pattern == "hook_embed" or (pattern.count(".") == 2 and pattern.split(".")[2] in (*OUTER, *INNER, "hook_resid_*"))
        for pattern in patterns
    )


def load_hugging_face(
    name_or_dir: str | Path, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> Any:
    """A plain Hugging Face model with its tokenizer as `.tokenizer`, or as None where it has none.

    Raises:
        FileNotFoundError, ValueError: As `load_model`.
    """
    model, tokenizer = hugging_face_directory(name_or_dir, dtype)
    model = model.to(device).eval()
    model.tokenizer = tokenizer
    return model


VIA = ("auto", "hugging_face", "hooked_transformer", "bridge")


def load_for_harvest(
    name_or_dir: str | Path,
    patterns: Sequence[str],
    *,
    via: str = "auto",
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Any:
    """A model as the fastest kind that has these hook points: plain Hugging Face before HookedTransformer.

    A TransformerBridge takes more kinds of models than either; it is never chosen by itself.

    Args:
        patterns: Names or patterns of hook points.
        via: One of `VIA`.

    Raises:
        FileNotFoundError, ValueError: As `load_model`; if `via` is another.
    """
    check_known("kind of model", via, VIA)
    if via == "hugging_face" or (via == "auto" and suits_hugging_face(patterns)):
        model = load_hugging_face(name_or_dir, device=device, dtype=dtype)
        if via == "hugging_face" or _has_hooks(model, patterns):
            return model
    kind = TransformerBridge if via == "bridge" else HookedTransformer
    return load_model(name_or_dir, kind, device=device, dtype=dtype)


def _has_hooks(model: Any, patterns: Sequence[str]) -> bool:
    """Whether a plain Hugging Face model can be read at all of them."""
    try:
        return bool(expand_hooks(patterns, HuggingFaceReader(model).hook_names()))
    except (TypeError, ValueError):
        return False


def _before(module: nn.Module, take: Callable[[Tensor], None]) -> Any:
    def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
        take(args[0] if args else kwargs["hidden_states"])

    return module.register_forward_pre_hook(hook, with_kwargs=True)


def _after(module: nn.Module, take: Callable[[Tensor], None]) -> Any:
    def hook(module: nn.Module, args: Any, output: Any) -> None:
        take(output if isinstance(output, Tensor) else output[0])

    return module.register_forward_hook(hook)
