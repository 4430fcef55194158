"""A BAE, or any SAE, on disk: a SAELens directory (cfg.json, sae_weights.safetensors), written whole and read with care."""

import json
from pathlib import Path
from typing import Any

from sae_lens import SAE

from bae_lens.files import at_home, new_directory
from bae_lens.model.bae import BAE
from bae_lens.model.config import BAEConfig, check_device

BAE_FILES = ("sae_weights.safetensors", "cfg.json")
"""In the order in which they are put in place: a directory with a configuration is whole."""


def save(bae: BAE, out: str | Path) -> Path:
    """Writes a SAELens directory (cfg.json, sae_weights.safetensors), whole or not at all.

    Raises:
        FileExistsError, PermissionError: If `out` already holds something, or cannot be written.

    Examples:
        >>> import bae_lens
        >>> bae = bae_lens.BAE(bae_lens.BAEConfig(d_in=16, d_sae=64))
        >>> sorted(path.name for path in bae_lens.save(bae, "runs/small").iterdir())
        ['cfg.json', 'sae_weights.safetensors']
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

    Examples:
        >>> import bae_lens
        >>> bae = bae_lens.BAE(bae_lens.BAEConfig(d_in=16, d_sae=64))
        >>> directory = bae_lens.save(bae, "runs/small")
        >>> bae_lens.load(directory).cfg.d_sae
        64
    """
    path = at_home(path)
    architecture = _architecture(path)
    if architecture != BAEConfig.architecture():
        raise ValueError(f"{path / 'cfg.json'} is of architecture {architecture!r}, not 'bae': load it with load_sae")
    return _read(BAE, path, device, dtype)


def load_sae(source: str | Path, *, hook_name: str | None = None, device: str = "cpu", dtype: str | None = None) -> SAE[Any]:
    """Any SAELens SAE, a BAE among them: from a SAELens directory, or from a release.

    Args:
        source: A directory, or "RELEASE:SAE_ID" as `SAE.from_pretrained` takes them.
        hook_name: Where its configuration names none; if it names another, that is an error.

    Raises:
        FileNotFoundError: If the directory or one of its files is missing.
        ValueError: If a file is truncated or does not belong to its configuration, or the hook point is not known.
    """
    path = at_home(source)
    if path.is_dir():
        _architecture(path)
        sae = _read(SAE, path, device, dtype)
    elif ":" in str(source):
        release, sae_id = str(source).split(":", 1)
        sae = SAE.from_pretrained(release, sae_id, device=device)
    else:
        raise FileNotFoundError(f"{source} is no directory, and no release either, which are given as RELEASE:SAE_ID")
    known = sae.cfg.metadata.hook_name
    if known and hook_name and hook_name != known:
        raise ValueError(f"{source} was trained at {known}, not at {hook_name}")
    if not (known or hook_name):
        raise ValueError(f"{source} does not say at which hook point it was trained: give it (hook_name=..., or --hook)")
    sae.cfg.metadata.hook_name = known or hook_name
    return sae


def _architecture(path: Path) -> str:
    for name in ("cfg.json", "sae_weights.safetensors"):
        if not (path / name).is_file():
            raise FileNotFoundError(f"{path} is no SAE's directory: it has no {name} (`bae-lens train --out DIR` makes one)")
    try:
        return json.loads((path / "cfg.json").read_text(encoding="utf-8")).get("architecture")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path / 'cfg.json'} is not whole: {error}") from error


def _read(kind: Any, path: Path, device: str, dtype: str | None) -> Any:
    from safetensors import SafetensorError

    check_device(device)
    try:
        return kind.load_from_disk(path, device=device, dtype=dtype)
    except SafetensorError as error:
        raise ValueError(f"{path / 'sae_weights.safetensors'} cannot be read: {error}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{path}: {error}") from error
