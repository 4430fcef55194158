"""A BAE on disk: a SAELens directory (cfg.json, sae_weights.safetensors), written whole and read with care."""

import json
from pathlib import Path

from bae_lens.files import new_directory
from bae_lens.model.bae import BAE
from bae_lens.model.config import BAEConfig

BAE_FILES = ("sae_weights.safetensors", "cfg.json")
"""In the order in which they are put in place: a directory with a configuration is whole."""


def save(bae: BAE, out: str | Path) -> Path:
    """Writes a SAELens directory (cfg.json, sae_weights.safetensors), whole or not at all.

    Raises:
        FileExistsError, PermissionError: If `out` already holds something, or cannot be written.
    """
    out = Path(out)
    with new_directory(out) as directory:
        bae.save_model(directory)
    return out


def load(path: str | Path, device: str = "cpu", dtype: str | None = None) -> BAE:
    """Reads a BAE from a SAELens directory, as `SAE.load_from_disk` does, with errors that name the file.

    Raises:
        FileNotFoundError: If the directory or one of its files is missing.
        ValueError: If a file is truncated, of another architecture, or does not belong to this configuration.
    """
    from safetensors import SafetensorError

    path = Path(path).expanduser()
    for name in ("cfg.json", "sae_weights.safetensors"):
        if not (path / name).is_file():
            raise FileNotFoundError(f"{path} is no SAE's directory: it has no {name}")
    try:
        cfg = json.loads((path / "cfg.json").read_text(encoding="utf-8"))
        architecture = cfg.get("architecture")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path / 'cfg.json'} is not whole: {error}") from error
    if architecture != BAEConfig.architecture():
        raise ValueError(f"{path / 'cfg.json'} is of architecture {architecture!r}, not 'bae': load it with SAE.load_from_disk")
    try:
        return BAE.load_from_disk(path, device=device, dtype=dtype)
    except SafetensorError as error:
        raise ValueError(f"{path / 'sae_weights.safetensors'} cannot be read: {error}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: {error}") from error
