"""The directory of a run: recipe.json, metrics.jsonl, checkpoints/ and, once it has ended, the BAE in SAELens' format."""

import errno
import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from bae_lens.activations.shard_writer import is_full
from bae_lens.files import at_home, check_output_directory, check_writable, move_into, new_directory, write_json
from bae_lens.locks import LOCK, alone_in
from bae_lens.model.bae import BAE
from bae_lens.model.store import BAE_FILES, load
from bae_lens.settings import as_json, differences
from bae_lens.training.checkpoints import list_checkpoints, step_of
from bae_lens.training.config import Recipe
from bae_lens.training.metrics import Log
from bae_lens.version import __version__

RECIPE = "recipe.json"
RESULT = "result.json"
FIELDS = {RECIPE: {"run": str, "recipe": dict, "data": dict}, RESULT: {"flipped": list}}
"""What a run's files hold, and of which type."""


@dataclass
class RunDirectory:
    """One run's directory, which one training at a time has to itself.

    Attributes:
        path: The directory.
        metrics: Its metrics.jsonl.
        checkpoints: The directory of its checkpoints.
    """

    path: Path
    recipe: Recipe
    _held: ExitStack = field(default_factory=ExitStack, repr=False)

    @classmethod
    def open(cls, path: str | Path, recipe: Recipe, resume: bool) -> "RunDirectory":
        """The directory, before anything is written to it, kept from others until `leave`.

        A run that has ended is kept from nobody: any number may read it.

        Raises:
            BlockingIOError: If another process trains here: which, and what to do.
            FileExistsError: If it holds something else, or a run that is not to be resumed.
            ValueError: If it holds a run of another recipe (each field that differs is named), or its recipe.json is not whole.
            PermissionError: If it cannot be written.
        """
        directory = cls(at_home(path).absolute(), recipe)
        with ExitStack() as held:
            if not directory.is_finished():
                held.enter_context(alone_in(directory.path))
            directory._check(resume)
            directory._held = held.pop_all()
        return directory

    def leave(self) -> None:
        """Lets others train here; nothing is written any more."""
        self._held.close()

    @property
    def metrics(self) -> Path:
        """Metrics, a JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints are."""
        return self.path / "checkpoints"

    def check_same(self, data: dict[str, Any]) -> None:
        """Compares what a run that is there was begun on: activations, validation and metadata.

        Raises:
            ValueError: If they are others (each difference is named).
        """
        if (self.path / RECIPE).is_file():
            changed = differences(self._read(RECIPE)["data"], as_json(data))
            if changed:
                raise ValueError(f"the run in {self.path} was begun on other activations or metadata: {'; '.join(changed)}")

    def begin(self, data: dict[str, Any]) -> None:
        """Writes down what is trained on what, unless it is."""
        if not (self.path / RECIPE).is_file():
            self.path.mkdir(parents=True, exist_ok=True)
            run = {"bae_lens": __version__, "run": uuid.uuid4().hex[:12], "recipe": self.recipe.to_dict(), "data": data}
            write_json(self.path / RECIPE, run)

    def name(self) -> str:
        """What tells this run from all others."""
        return self._read(RECIPE)["run"]

    def last_checkpoint_before(self, step: int) -> Path | None:
        """The last one whose weights were not yet those of this step."""
        found = [path for path in list_checkpoints(self.checkpoints) if step_of(path) < step]
        return found[-1] if found else None

    @contextmanager
    def writing(self, what: str) -> Iterator[None]:
        """A block that writes here.

        Raises:
            OSError: If it cannot: what that was, how much is free, and what a run goes on from once there is room.
        """
        try:
            yield
        except (OSError, SafetensorError) as error:
            number = errno.ENOSPC if is_full(error) else getattr(error, "errno", None) or errno.EIO
            problem = (
                f"its disk is full ({_free(self.path)})" if is_full(error) else getattr(error, "strerror", None) or str(error)
            )
            good = list_checkpoints(self.checkpoints)
            goes_on = (
                f"with resume=True the same goes on from {good[-1]}" if good else "there is no checkpoint to go on from yet"
            )
            raise OSError(number, f"{what} cannot be written to {self.path}: {problem}; {goes_on}") from error

    def log(self) -> Log:
        """The metrics that were written."""
        return Log.read(self.metrics)

    def is_finished(self) -> bool:
        """Whether the BAE is there."""
        return (self.path / BAE_FILES[-1]).is_file()

    def finish(self, bae: BAE, flipped: list[int]) -> None:
        """Puts the BAE in place, its configuration last: with that, the run has ended."""
        write_json(self.path / RESULT, {"flipped": flipped})
        with new_directory(self.path / "bae", replace=BAE_FILES) as temporary:
            bae.save_model(temporary)
        move_into(self.path / "bae", self.path, BAE_FILES)

    def load_bae(self, device: str) -> BAE:
        """The BAE of a run that has ended."""
        return load(self.path, device)

    def flipped(self) -> list[int]:
        """The features that the polarity fold of a run that has ended turned round."""
        return self._read(RESULT)["flipped"]

    def _check(self, resume: bool) -> None:
        """Raises as `open` does; removes what a killed process did not finish writing."""
        holds_run = (self.path / RECIPE).is_file()
        if holds_run and not resume:
            raise FileExistsError(f"{self.path} already holds something, a run: resume=True goes on with it")
        if not holds_run:
            _sweep(self.path)
            check_output_directory(self.path, besides=[LOCK])
            return
        changed = differences(self._read(RECIPE)["recipe"], as_json(self.recipe.to_dict()), older=True)
        if changed:
            raise ValueError(f"the run in {self.path} has another recipe: {'; '.join(changed)}")
        if not self.is_finished():
            check_writable(self.path)
            _sweep(self.path)
            _sweep(self.checkpoints)

    def _read(self, name: str) -> dict[str, Any]:
        try:
            content = json.loads((self.path / name).read_text(encoding="utf-8"))
            _check_fields(content, FIELDS[name])
        except ValueError as error:
            raise ValueError(
                f"{self.path / name} is not whole: {error}; put it back as it was written, or choose another directory"
            ) from error
        return content


def _check_fields(content: Any, fields: dict[str, type]) -> None:
    """Raises ValueError unless this is a JSON object with these fields."""
    if not isinstance(content, dict):
        raise ValueError(f"a JSON object with {', '.join(fields)} is expected, not a {type(content).__name__}")
    problems = [f"it has no {name!r}" for name in fields if name not in content]
    problems += [
        f"{name!r} is a {type(content[name]).__name__} where a {kind.__name__} is expected"
        for name, kind in fields.items()
        if name in content and not isinstance(content[name], kind)
    ]
    if problems:
        raise ValueError(" and ".join(problems))


def _free(path: Path) -> str:
    return f"{shutil.disk_usage(path).free / 2**20:.3g} MiB are free"


def _sweep(path: Path) -> None:
    """Removes what a killed process did not finish writing."""
    for name in (RECIPE, RESULT, "metrics.jsonl", "step", "bae"):
        for leftover in path.glob(f".{name}-*"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
