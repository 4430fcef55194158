"""Metrics of a run: rows of a JSON Lines file, and wandb or TensorBoard where they are asked for."""

import importlib.util
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bae_lens.checks import check_known
from bae_lens.files import append_text, write_text

LOGGERS = ("wandb", "tensorboard")
MODULES = {"wandb": "wandb", "tensorboard": "tensorboard"}


class HistoryRow(NamedTuple):
    """A minibatch's losses and metrics at one step."""

    step: int
    loss: float
    mse_loss: float
    entropy_loss: float
    covariance_loss: float
    fvu: float
    entropy: float
    live: int
    dense: int
    l0: float
    learning_rate: float
    rate_loss: float = 0.0
    encoder_loss: float = 0.0
    """These two are the objective "rate_distortion"'s; entropy_loss and covariance_loss then are 0."""


LOSSES = ("mse_loss", "entropy_loss", "covariance_loss", "rate_loss", "encoder_loss")


class ValidationRow(NamedTuple):
    """Metrics of the validation vectors after so many steps."""

    step: int
    fvu: float
    entropy: float
    live: int
    dense: int
    l0: float


class Log:
    """Where rows go, each as it is made; `rows` are those of this run, before an interruption too."""

    def __init__(self, path: Path | None, loggers: Sequence[str] = (), config: dict[str, Any] | None = None):
        self.path = path
        self.rows: list[HistoryRow | ValidationRow] = []
        self.sinks = {name: _SINKS[name](path, config or {}) for name in loggers}

    @classmethod
    def read(cls, path: Path) -> "Log":
        """The rows of a run that has ended."""
        log = cls(path)
        log.rows = _rows(path)
        return log

    def resume_at(self, step: int) -> None:
        """Takes back the rows of an interrupted run up to a step, and drops what it had written after it.

        wandb keeps what it was told. TensorBoard is told all of it again: a killed process may not have written it out.
        """
        if self.path is None or not self.path.exists():
            return
        self.rows = [row for row in _rows(self.path) if _made(row) <= step]
        write_text(self.path, "".join(_line(row) for row in self.rows))
        if "tensorboard" in self.sinks:
            for row in self.rows:
                _tell(self.sinks["tensorboard"], row)

    def add(self, row: HistoryRow | ValidationRow) -> None:
        """Writes a row everywhere."""
        self.rows.append(row)
        if self.path is not None:
            append_text(self.path, _line(row))
        for sink in self.sinks.values():
            _tell(sink, row)

    def lines(self) -> list[str]:
        """The rows, each as a line of the file."""
        return [_line(row) for row in self.rows]

    def take(self, lines: list[str]) -> None:
        """Takes up the rows of another process's log."""
        self.rows = [row for row in map(_row, lines) if row]

    def close(self) -> None:
        """Ends wandb and TensorBoard."""
        for _, close in self.sinks.values():
            close()


def check_loggers(names: Sequence[str]) -> None:
    """Raises unless every logger is known and installed.

    Raises:
        ValueError: If one is unknown.
        ModuleNotFoundError: If one is not installed.
    """
    for name in names:
        check_known("logger", name, LOGGERS)
        if importlib.util.find_spec(MODULES[name]) is None:
            raise ModuleNotFoundError(f"the logger {name!r} needs the package {MODULES[name]}: pip install {MODULES[name]}")


def _split(row: HistoryRow | ValidationRow) -> str:
    return "train" if isinstance(row, HistoryRow) else "validation"


def _line(row: HistoryRow | ValidationRow) -> str:
    values = {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in row._asdict().items()}
    return json.dumps({"split": _split(row), **values}, allow_nan=False) + "\n"


def _rows(path: Path) -> list[HistoryRow | ValidationRow]:
    return [row for row in map(_row, path.read_text(encoding="utf-8").splitlines()) if row]


def _made(row: HistoryRow | ValidationRow) -> int:
    """Steps that were made when a row was: its own too, for one of a minibatch."""
    return row.step + isinstance(row, HistoryRow)


def _row(line: str) -> HistoryRow | ValidationRow | None:
    """A row of the file; None for a line that a killed process did not finish."""
    try:
        values = json.loads(line)
        kind = {"train": HistoryRow, "validation": ValidationRow}[values.pop("split")]
        return kind(**{name: math.nan if v is None else v for name, v in values.items()})
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


Sink = tuple[Callable[[dict[str, Any], int], Any], Callable[[], Any]]
"""What takes values at a step, and what ends it."""


def _tell(sink: Sink, row: HistoryRow | ValidationRow) -> None:
    sink[0]({f"{_split(row)}/{name}": value for name, value in row._asdict().items() if name != "step"}, row.step)


def _wandb(path: Path | None, config: dict[str, Any]) -> Sink:
    import wandb

    name, directory = (path.parent.name, path.parent) if path else (None, None)
    run = wandb.init(project="bae_lens", name=name, id=config.get("run"), resume="allow", config=config, dir=directory)
    return lambda values, step: run.log(values, step=step), run.finish


def _tensorboard(path: Path | None, config: dict[str, Any]) -> Sink:
    from torch.utils.tensorboard.writer import SummaryWriter

    # purge_step=0: what an interrupted run left there counts no more, see `Log.resume_at`
    writer = SummaryWriter(str(path.parent / "tensorboard") if path else None, purge_step=0)

    def log(values: dict[str, Any], step: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    return log, writer.close


_SINKS: dict[str, Callable[[Path | None, dict[str, Any]], Sink]] = {"wandb": _wandb, "tensorboard": _tensorboard}
