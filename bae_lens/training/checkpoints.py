"""Checkpoints of a run: everything that training goes on from, bit for bit; written whole or not at all, the last few kept.

However many processes train together there is one checkpoint, of the whole BAE: any other number of them can take it up.
"""

import copy
import dataclasses
import hashlib
import json
import shutil
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bae_lens.files import new_directory, sha256, write_json
from bae_lens.objective.training_bae import TrainingBAE
from bae_lens.training.data import Source
from bae_lens.training.distributed import ONE_PROCESS, Parallel
from bae_lens.training.feature_parallel import spread, whole_shape, wholes
from bae_lens.training.tensor_files import write_tensors

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
    directory: Path,
    step: int,
    sae: TrainingBAE,
    optimizer: torch.optim.Optimizer,
    source: Source,
    keep: int,
    parallel: Parallel = ONE_PROCESS,
) -> Path:
    """Writes ``step-XXXXXXXX/`` into a directory, then removes all but the last `keep`.

    All processes call it where they split the features; the first one writes.
    """
    path = directory / f"step-{step:08d}"
    if parallel.ranks.features is None and not parallel.is_first:
        return path
    splits = parallel.ranks.features is not None
    there = path.exists() if parallel.is_first else False
    if parallel.told(there) if splits else there:  # a run that was resumed and interrupted before its next step
        return path
    parts = {FILES[0]: sae.state_dict(), FILES[1]: _moments(sae, optimizer)}
    if not parallel.is_first:
        for tensors in parts.values():
            for _ in wholes(tensors, parallel):
                pass
        return path
    with new_directory(path) as new:
        for name, tensors in parts.items():
            kinds = {_plain(key): (whole_shape(key, tensor, parallel), tensor.dtype) for key, tensor in tensors.items()}
            found = ((_plain(key), tensor) for key, tensor in wholes(tensors, parallel) if tensor is not None)
            write_tensors(new / name, kinds, found)
        cfg = dataclasses.replace(copy.deepcopy(sae.cfg), d_sae=sae.cfg.d_sae * parallel.ranks.feature_size)
        write_json(new / FILES[2], cfg.to_dict())
        checksums = {name: sha256(new / name) for name in FILES}
        state = {"step": step, "data": source.state(), "prior_samples": sae.cfg.prior_samples, "sha256": checksums}
        write_json(new / "state.json", {**state, "own_sha256": _checksum(state)})
    for old in list_checkpoints(directory)[:-keep]:
        shutil.rmtree(old)
    return path


def _moments(sae: TrainingBAE, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What Adam holds, by number, field and the weight that it is of."""
    names = [name for name, weight in sae.named_parameters() if weight.requires_grad]
    states = optimizer.state_dict()["state"].items()
    return {f"{number}.{field}/{names[number]}": tensor for number, fields in states for field, tensor in fields.items()}


def _plain(name: str) -> str:
    """A tensor's name in a file."""
    return name.partition("/")[0]


def share_checkpoint(found: Checkpoint | None, sae: TrainingBAE, parallel: Parallel) -> Checkpoint | None:
    """Each process's part of the checkpoint that the first one has read."""
    if parallel.world == 1:
        return found
    head = parallel.told(
        None
        if found is None
        else {
            "path": str(found.path),
            "rest": [found.step, found.data, found.prior_samples],
            "moments": {name: [tensor.dim(), str(tensor.dtype)] for name, tensor in found.optimizer.items()},
        }
    )
    if head is None:
        return None
    weights = {name: (tensor.shape, tensor.dtype) for name, tensor in sae.state_dict().items()}
    trained = [(name, weight) for name, weight in sae.named_parameters() if weight.requires_grad]
    moments: dict[str, tuple[Any, torch.dtype]] = {}
    for name, (dimensions, dtype) in head["moments"].items():
        of, weight = trained[int(name.partition(".")[0])]
        moments[f"{name}/{of}"] = (weight.shape if dimensions else (), getattr(torch, dtype.removeprefix("torch.")))
    held = {} if found is None else found.weights
    held_moments = {} if found is None else {name: found.optimizer[_plain(name)] for name in moments}
    step, data, prior_samples = head["rest"]
    own = spread(held_moments, moments, sae.device, parallel)
    return Checkpoint(
        path=Path(head["path"]),
        step=step,
        weights=spread(held, weights, sae.device, parallel),
        optimizer={_plain(name): tensor for name, tensor in own.items()},
        data=data,
        prior_samples=prior_samples,
    )


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
