"""Checkpoints of a run: everything that training goes on from, bit for bit; written whole or not at all, the last few kept."""

import hashlib
import json
import shutil
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bae_lens.files import new_directory, sha256, write_json
from bae_lens.objective.training_bae import TrainingBAE
from bae_lens.training.data import Source

FILES = ("sae_weights.safetensors", "optimizer.safetensors", "cfg.json")
"""The first and the last make it a directory that `TrainingSAE.load_from_disk` takes."""


class Checkpoint(NamedTuple):
    """What one holds."""

    path: Path
    step: int
    """Steps that were made before it."""
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    data: dict[str, Any]
    """Position in the data and its generator."""
    prior_samples: int

    def restore(self, sae: TrainingBAE, optimizer: torch.optim.Optimizer, source: Source) -> None:
        """Puts a run back to where it was."""
        sae.load_state_dict(self.weights)
        sae.cfg.prior_samples = self.prior_samples
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in self.optimizer.items():
            number, field = name.split(".")
            state.setdefault(int(number), {})[field] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        source.load_state(self.data)


def write_checkpoint(
    directory: Path, step: int, sae: TrainingBAE, optimizer: torch.optim.Optimizer, source: Source, keep: int
) -> Path:
    """Writes ``step-XXXXXXXX/`` into a directory, then removes all but the last `keep`."""
    path = directory / f"step-{step:08d}"
    if path.exists():  # a run that was resumed and interrupted before its next step
        return path
    moments = {
        f"{number}.{field}": tensor.contiguous()
        for number, fields in optimizer.state_dict()["state"].items()
        for field, tensor in fields.items()
    }
    weights = {name: tensor.contiguous() for name, tensor in sae.state_dict().items()}
    with new_directory(path) as new:
        save_file(weights, new / FILES[0])
        save_file(moments, new / FILES[1])
        write_json(new / FILES[2], sae.cfg.to_dict())
        checksums = {name: sha256(new / name) for name in FILES}
        state = {"step": step, "data": source.state(), "prior_samples": sae.cfg.prior_samples, "sha256": checksums}
        write_json(new / "state.json", {**state, "own_sha256": _checksum(state)})
    for old in list_checkpoints(directory)[:-keep]:
        shutil.rmtree(old)
    return path


def list_checkpoints(directory: Path) -> list[Path]:
    """Checkpoints of a directory, oldest first."""
    return sorted(p for p in directory.glob("step-????????") if p.is_dir())


def step_of(checkpoint: Path) -> int:
    """Steps that were made before a checkpoint, by its name."""
    return int(checkpoint.name.removeprefix("step-"))


def read_last_checkpoint(directory: Path) -> Checkpoint | None:
    """The last checkpoint that is whole; None where there is none at all.

    Warns of each that is not whole, that the one before it is used, and renames it ``damaged-step-XXXXXXXX``.

    Raises:
        ValueError: If there are checkpoints, and none of them is whole.
    """
    found = list_checkpoints(directory)
    problems = []
    for path in reversed(found):
        try:
            checkpoint = _read(path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            problems.append((path, error))
            continue
        for damaged, problem in problems:
            warnings.warn(f"this checkpoint is not whole, {path.name} is used instead: {damaged}: {problem}", stacklevel=2)
            shutil.rmtree(damaged.with_name(f"damaged-{damaged.name}"), ignore_errors=True)
            damaged.rename(damaged.with_name(f"damaged-{damaged.name}"))
        return checkpoint
    if found:
        raise ValueError(f"none of the checkpoints is whole: {'; '.join(f'{path}: {error}' for path, error in problems)}")
    return None


def _read(path: Path) -> Checkpoint:
    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    own = state.pop("own_sha256", None)  # older versions wrote none
    if own not in (None, _checksum(state)) or state["step"] != step_of(path):
        raise ValueError("state.json was altered: it is not what its checksum says")
    for name in FILES:
        if sha256(path / name) != state["sha256"][name]:
            raise ValueError(f"{name} was cut short or altered: its checksum is not the one in state.json")
    weights, optimizer = (load_file(path / name) for name in FILES[:2])
    return Checkpoint(path, state["step"], weights, optimizer, state["data"], state["prior_samples"])


def _checksum(state: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
