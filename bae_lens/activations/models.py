"""A Llama by name or from a local directory, as TransformerLens or SAELens wants it; and its hook points by name."""

import contextlib
import json
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.hook_points import HookPoint
from transformer_lens.loading_from_pretrained import get_official_model_name
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.supported_models import OFFICIAL_MODEL_NAMES

from bae_lens.checks import near
from bae_lens.files import at_home

HookedModel = HookedTransformer | TransformerBridge
"""The kinds of model that everything here takes; SAELens' HookedSAETransformer and SAETransformerBridge are among them."""

MAX_CONTEXT = 2048
"""TransformerLens builds an n_ctx x n_ctx mask a layer, so long contexts are capped unless asked for."""
WIDTH_OF_SUFFIX = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out", "hook_embed")


def load_model(
    name_or_dir: str | Path,
    model_class: type = HookedTransformer,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    n_ctx: int | None = None,
) -> Any:
    """A Llama with its tokenizer, its weights untouched (nothing folded, nothing centred): logits are Hugging Face's.

    Args:
        name_or_dir: A directory in Hugging Face's format, or a name that TransformerLens knows ("meta-llama/Llama-3.2-1B").
        model_class: `HookedTransformer` (default), SAELens' `HookedSAETransformer`, TransformerLens' `TransformerBridge`, or
            SAELens' `SAETransformerBridge`.
        device: Where to put it; a GPU if there is one, where not given.
        dtype: Of weights and activations.
        n_ctx: Longest context; by default the model's own, at most 2,048. (A bridge keeps the model's own.)

    Raises:
        FileNotFoundError: If a path is given that does not exist.
        ValueError: If the directory holds no model, or one that TransformerLens' Llama cannot represent.

    Examples:
        >>> import bae_lens
        >>> from bae_lens.demo import demo_model_dir
        >>> model = bae_lens.load_model(demo_model_dir())
        >>> model.cfg.n_layers, model.cfg.d_model
        (4, 128)
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {str(device)!r} is not there: this torch sees no CUDA device; use 'cpu'")
    path = at_home(name_or_dir)
    if path.is_dir():
        config = _read_config(path)
        if issubclass(model_class, TransformerBridge):
            hf_model = _hugging_face_model(path, dtype).to(device)
            tokenizer = _tokenizer(path)
            return model_class.boot_transformers(str(path), hf_model=hf_model, tokenizer=tokenizer, device=device, dtype=dtype)
        return _hooked_from_directory(path, config, model_class, device, dtype, n_ctx)
    if path.exists() or str(name_or_dir).startswith((".", "/", "~")):
        raise FileNotFoundError(f"{path} is no directory: give a model directory, or a name that TransformerLens knows")
    if issubclass(model_class, TransformerBridge):
        return model_class.boot_transformers(str(name_or_dir), device=device, dtype=dtype)
    if str(name_or_dir) not in OFFICIAL_MODEL_NAMES and get_official_model_name_or_none(str(name_or_dir)) is None:
        raise ValueError(
            f"{str(name_or_dir)!r} is neither a directory nor a name that TransformerLens knows; "
            f"{near(str(name_or_dir), OFFICIAL_MODEL_NAMES)}"
        )
    limit = {} if n_ctx is None else {"n_ctx": n_ctx}
    return model_class.from_pretrained_no_processing(str(name_or_dir), device=str(device), dtype=dtype, **limit)


def get_official_model_name_or_none(name: str) -> str | None:
    """TransformerLens' own name of a model, by name or alias; None where it knows none."""
    try:
        return get_official_model_name(name)
    except ValueError:
        return None


def _read_config(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    if not file.is_file():
        raise ValueError(f"{path} holds no model: it has no config.json (a directory in Hugging Face's format is needed)")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not whole: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{file} holds no JSON object")
    if not any(path.glob("*.safetensors")):
        pickled = any(path.glob("*.bin"))
        raise ValueError(
            f"{path} holds no weights (model.safetensors)"
            + (": pickled ones (pytorch_model.bin) are not read; save the model again by transformers" if pickled else "")
        )
    return config


def _hooked_from_directory(
    path: Path, config: dict[str, Any], model_class: type, device: Any, dtype: torch.dtype, n_ctx: int | None
) -> Any:
    from transformer_lens.pretrained.weight_conversions.llama import convert_llama_weights

    if config.get("model_type") != "llama":
        raise ValueError(
            f"{path} is a {config.get('model_type')!r} model; only 'llama' is read as a {model_class.__name__} "
            "(TransformerBridge takes others; a harvest does with --via bridge)"
        )
    for field in ("attention_bias", "mlp_bias"):
        if config.get(field):
            raise ValueError(f"{path}: {field} is set, which TransformerLens' Llama has no place for; use TransformerBridge")
    tokenizer = _tokenizer(path)
    hf_model = _hugging_face_model(path, dtype)
    cfg = HookedTransformerConfig(**_hooked_config(hf_model.config, device, dtype, n_ctx), model_name=path.name)
    model = model_class(cfg, tokenizer, move_to_device=False, default_padding_side="right" if tokenizer else None)
    model.load_and_process_state_dict(
        convert_llama_weights(hf_model, cfg),
        fold_ln=False,
        center_writing_weights=False,
        center_unembed=False,
        fold_value_biases=False,
    )
    return model.to(device, print_details=False).eval()


def _tokenizer(path: Path) -> Any:
    from transformers import AutoTokenizer

    has_tokenizer = (path / "tokenizer.json").is_file() or (path / "tokenizer.model").is_file()
    return AutoTokenizer.from_pretrained(path, trust_remote_code=False) if has_tokenizer else None


def hugging_face_directory(name_or_dir: str | Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """A plain Hugging Face model, by name or from a directory, with PyTorch's own attention; and its tokenizer, if it has one.

    Raises:
        FileNotFoundError, ValueError: As `load_model`.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = at_home(name_or_dir)
    if path.is_dir():
        _read_config(path)
        return _hugging_face_model(path, dtype, "sdpa"), _tokenizer(path)
    if path.exists() or str(name_or_dir).startswith((".", "/", "~")):
        raise FileNotFoundError(f"{path} is no directory: give a model directory, or the name of a model on the hub")
    try:
        model = AutoModelForCausalLM.from_pretrained(str(name_or_dir), dtype=dtype, trust_remote_code=False)
        return model.eval(), AutoTokenizer.from_pretrained(str(name_or_dir), trust_remote_code=False)
    except OSError as error:
        raise ValueError(f"{str(name_or_dir)!r} is no directory, and the hub gives no model of that name: {error}") from error


def _hugging_face_model(path: Path, dtype: torch.dtype, attention: str = "eager") -> Any:
    """The model of a directory; ValueError unless its weights are exactly those of its configuration."""
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=dtype,
            attn_implementation=attention,
            output_loading_info=True,
            use_safetensors=True,
            trust_remote_code=False,
        )
    except SafetensorError as error:
        raise ValueError(f"{path}: the weights cannot be read: {error}") from error
    except RuntimeError as error:
        raise ValueError(f"{path}: the weights are not those of its config.json: {error}") from error
    model, report = loaded
    problems = [f"{kind.removesuffix('_keys')}: {', '.join(sorted(map(str, report[kind])))}" for kind in report if report[kind]]
    if problems:
        raise ValueError(f"{path}: the weights are not those of its config.json ({'; '.join(problems)[:400]})")
    return model.eval()


def _hooked_config(hf: Any, device: Any, dtype: torch.dtype, n_ctx: int | None) -> dict[str, Any]:
    d_head = getattr(hf, "head_dim", None) or hf.hidden_size // hf.num_attention_heads
    # transformers 5 keeps both in rope_parameters, 4 had rope_theta and rope_scaling
    rope = getattr(hf, "rope_parameters", None) or {
        "rope_theta": hf.rope_theta,
        **(getattr(hf, "rope_scaling", None) or {}),
    }
    kind = rope.get("rope_type", rope.get("type", "default"))
    scaling: dict[str, Any] = {}
    if kind == "llama3":
        scaling = {
            "use_NTK_by_parts_rope": True,
            "NTK_by_parts_low_freq_factor": rope["low_freq_factor"],
            "NTK_by_parts_high_freq_factor": rope["high_freq_factor"],
            "NTK_by_parts_factor": rope["factor"],
            "NTK_original_ctx_len": rope["original_max_position_embeddings"],
        }
    elif kind != "default":
        raise ValueError(f"RoPE of type {kind!r} is not read as a HookedTransformer ('default' and 'llama3' are)")
    return {
        "n_layers": hf.num_hidden_layers,
        "d_model": hf.hidden_size,
        "d_head": d_head,
        "n_heads": hf.num_attention_heads,
        "n_key_value_heads": hf.num_key_value_heads if hf.num_key_value_heads != hf.num_attention_heads else None,
        "d_mlp": hf.intermediate_size,
        "d_vocab": hf.vocab_size,
        "n_ctx": n_ctx or min(hf.max_position_embeddings, MAX_CONTEXT),
        "act_fn": hf.hidden_act,
        "eps": hf.rms_norm_eps,
        "gated_mlp": True,
        "normalization_type": "RMS",
        "final_rms": True,
        "positional_embedding_type": "rotary",
        "rotary_base": rope["rope_theta"],
        "rotary_dim": d_head,
        "rotary_adjacent_pairs": False,
        "original_architecture": "LlamaForCausalLM",
        "tokenizer_prepends_bos": True,
        "device": str(device),
        "dtype": dtype,
        **scaling,
    }


def is_bridge(model: Any) -> bool:
    """Whether a model is a TransformerBridge (or SAELens' SAETransformerBridge)."""
    return isinstance(model, TransformerBridge)


def hook_points(model: Any) -> dict[str, HookPoint]:
    """A model's hook points by every name that it takes for them (SAETransformerBridge.hook_dict leaves out the aliases)."""
    return TransformerBridge.hook_dict.fget(model) if is_bridge(model) else model.hook_dict  # type: ignore[attr-defined]


def find_hook_point(model: Any, hook_name: str | None, *, writing: bool = False) -> HookPoint:
    """A model's hook point by name or alias. Its `.name` is the name by which `model.run_with_hooks` knows it.

    Args:
        writing: Whether what it returns will change the activations there.

    Raises:
        ValueError: If it does not exist (near names are said), or, where writing, if that would not do what it says.
    """
    known = hook_points(model)
    if not hook_name:
        raise ValueError(
            "no hook point given, and the SAE's metadata names none: pass hook_name='blocks.0.hook_resid_pre' or the like"
        )
    if hook_name not in known:
        shown = [name for name in known if ".hook_sae_" not in name]
        raise ValueError(f"this model has no hook point {hook_name!r}; {near(hook_name, shown)}")
    if writing and is_bridge(model) and known[hook_name].name != hook_name and hook_name.endswith("hook_resid_mid"):
        raise ValueError(
            f"{hook_name} of a TransformerBridge is an alias of {known[hook_name].name}: writing to it would change only "
            "the MLP's input and not the residual stream; use hook_resid_pre or hook_resid_post, or load a HookedTransformer"
        )
    return known[hook_name]


def layer_of(hook_name: str) -> int | None:
    """The block that a hook point belongs to, None for those outside the blocks."""
    parts = hook_name.split(".")
    return int(parts[1]) if parts[0] == "blocks" and len(parts) > 2 and parts[1].isdigit() else None


def hook_shape(model: Any, hook_name: str) -> tuple[int, ...]:
    """Shape of one token's activation at a hook point: ``(d_model,)``, or ``(n_heads, d_head)`` at a hook_z."""
    if hook_name.endswith(WIDTH_OF_SUFFIX):
        return (model.cfg.d_model,)
    shape: list[tuple[int, ...]] = []

    def look(activation: Tensor, hook: HookPoint) -> None:
        shape.append(tuple(activation.shape[2:]))
        raise Reached

    token = _PROBING.set(True)
    try:
        run_until(model, torch.zeros(1, 1, dtype=torch.long), find_hook_point(model, hook_name), look)
    finally:
        _PROBING.reset(token)
    if not shape:
        raise ValueError(f"{hook_name} does not fire in this model as it is configured")
    return shape[0]


_PROBING: ContextVar[bool] = ContextVar("bae_lens_probing", default=False)


def is_probing() -> bool:
    """Whether the forward pass under way only looks at a shape: splices and steerings let it pass."""
    return _PROBING.get()


class Reached(Exception):
    """Raised by a hook that has what it came for, to end the forward pass there."""


def run_until(model: Any, tokens: Tensor, hook_point: HookPoint, hook: Callable[..., None], **kwargs: Any) -> None:
    """A forward pass without gradients that ends quietly where the hook raises `Reached`."""
    device = next(model.parameters()).device
    with torch.no_grad(), contextlib.suppress(Reached):
        model.run_with_hooks(tokens.to(device), fwd_hooks=[(hook_point.name, hook)], **kwargs)
