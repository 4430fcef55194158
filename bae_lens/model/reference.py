"""Reads checkpoints of the published code (github.com/hc495/Binary_Autoencoder): their tensors, never pickled objects."""

import json
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from sae_lens.saes.sae import SAEMetadata
from torch import Tensor

from bae_lens.model.bae import BAE
from bae_lens.model.config import BAEConfig

TENSORS = ("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias")


def load_reference(
    path: str | Path, *, bits_per_feature: int = 1, parameters: str | Path | None = None, metadata: dict[str, Any] | None = None
) -> BAE:
    """A BAE from a state dict of the published code: two `nn.Linear`, step at x > 0, its backward.

    Args:
        path: File written by `torch.save(model.state_dict(), path)`; read with `weights_only=True`. The configuration that the
            published code pickles is never read: give what it says by hand or by JSON.
        bits_per_feature: C of section 6.
        parameters: JSON file with "bits_per_feature" and, optionally, "metadata", instead of the arguments.
        metadata: SAELens' metadata (hook_name, model_name, ...), which the checkpoint does not have.

    Raises:
        ValueError: If the file is no plain state dict (a pickle that would run code is refused, not run), a tensor is missing,
            unknown or of a shape that does not fit, C does not divide the bits, or the JSON is not as described.
        FileNotFoundError: If there is no such file.
    """
    if parameters is not None:
        bits_per_feature, metadata = _read_parameters(Path(parameters))
    state = _read_state(Path(path))
    d_bits, d_in = state["encoder.weight"].shape
    if bits_per_feature < 1 or d_bits % bits_per_feature:
        raise ValueError(f"{path}: {bits_per_feature} bits a feature do not divide the {d_bits} bits of the encoder")
    d_sae = d_bits // bits_per_feature
    for name, shape in (("encoder.bias", (d_bits,)), ("decoder.weight", (d_in, d_sae)), ("decoder.bias", (d_in,))):
        if tuple(state[name].shape) != shape:
            raise ValueError(
                f"{path}: {name} has shape {tuple(state[name].shape)} where {shape} is expected "
                f"(encoder {d_in} to {d_bits} bits, {bits_per_feature} a feature)"
            )
    dtype = "float64" if state["encoder.weight"].dtype == torch.float64 else "float32"
    cfg = BAEConfig(
        d_in=d_in,
        d_sae=d_sae,
        dtype=dtype,
        bits_per_feature=bits_per_feature,
        surrogate="reference_code",
        metadata=SAEMetadata(**(metadata or {})),
    )
    with torch.random.fork_rng(devices=[]):
        bae = BAE(cfg)
    bae.W_enc.data.copy_(state["encoder.weight"].T)
    bae.b_enc.data.copy_(state["encoder.bias"])
    bae.W_dec.data.copy_(state["decoder.weight"].T)
    bae.b_dec.data.copy_(state["decoder.bias"])
    return bae


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ValueError(
            f"{path} is no plain state dict: save the published model's state_dict() with torch.save "
            f"(pickled models and configurations are refused) [{type(error).__name__}]"
        ) from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} is no state dict: a dictionary of tensors is expected")
    missing, unknown = sorted(set(TENSORS) - set(state)), sorted(map(str, set(state) - set(TENSORS)))
    if missing or unknown:
        raise ValueError(f"{path} is no checkpoint of the published code: missing {missing}, unknown {unknown}")
    if any(state[name].dim() != (2 if name.endswith("weight") else 1) for name in TENSORS):
        raise ValueError(f"{path}: weights must have two dimensions and biases one")
    return state


def _read_parameters(path: Path) -> tuple[int, dict[str, Any]]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        bits, metadata = values["bits_per_feature"], values.get("metadata", {})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'{path}: a JSON object with "bits_per_feature" is expected ({error})') from None
    if isinstance(bits, bool) or not isinstance(bits, int) or not isinstance(metadata, dict):
        raise ValueError(f'{path}: "bits_per_feature" must be a whole number and "metadata" an object')
    return bits, metadata
