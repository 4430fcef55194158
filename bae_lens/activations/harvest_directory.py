"""The directory of a harvest: begun, taken up after the last whole shard of each process, and ended with a whole manifest."""

import json
import shutil
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open

from bae_lens.activations.manifest import FORMAT, MANIFEST, SHARD_RECORD, read_record
from bae_lens.activations.sequences import describe_dropped
from bae_lens.activations.shard_writer import SQUARES, SUM
from bae_lens.files import check_output_directory, check_writable, write_json
from bae_lens.settings import as_json, differences


class State(NamedTuple):
    """Where one process's harvest stands: the next vector is that many vectors into that batch of the pool."""

    documents: int = 0
    """Documents of the pools before."""
    batch: int = 0
    """Number of a batch in the pool that begins with the next document."""
    vectors: int = 0
    """Vectors of that batch that are in shards already."""
    before: int = 0
    """Vectors of the pools before."""
    dropped: dict[str, int] = {}  # noqa: RUF012 (never changed in place)
    """What the pools before left out."""


class HarvestDirectory(NamedTuple):
    """Where shards are written."""

    path: Path
    settings: dict[str, Any]
    widths: dict[str, int]
    metadata: dict[str, Any]
    versions: dict[str, str]

    def begin(self) -> None:
        """Makes the directory, or takes up what is there.

        Raises:
            ValueError: If it holds a harvest of other settings (each that differs is named).
            FileExistsError: If it holds something else.
            PermissionError: If it cannot be written.
        """
        manifest = self.path / MANIFEST
        if not self.exists():
            try:
                check_output_directory(self.path)
            except FileExistsError:
                if not self._is_begun_by_another():
                    raise
            else:
                self._write(finished=False, records=[], dropped=Counter(), hooks=self._hooks({}, 0))
                return
        check_writable(self.path)
        try:
            before = json.loads(manifest.read_text(encoding="utf-8"))
            settings = before["settings"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{manifest} is not whole ({error!r}): choose another directory, or remove this one") from error
        changed = differences(settings, as_json(self.settings))
        if changed:
            raise ValueError(f"{self.path} holds another harvest: {'; '.join(changed)}; choose another directory")

    def _is_begun_by_another(self) -> bool:
        """Whether another process of this harvest is just writing the manifest."""
        for _ in range(50):
            if self.exists():
                return True
            if not any(self.path.glob(f".{MANIFEST}-*")):
                return self.exists()
            time.sleep(0.1)
        return False

    def exists(self) -> bool:
        """Whether a harvest was begun here."""
        return (self.path / MANIFEST).is_file()

    def is_done(self, rank: int) -> bool:
        """Whether one process has done its share."""
        return self._done(rank).is_file()

    def is_finished(self) -> bool:
        """Whether all vectors are there."""
        return self.exists() and bool(json.loads((self.path / MANIFEST).read_text(encoding="utf-8"))["finished"])

    def shards_of(self, rank: int) -> list[Path]:
        """One process's whole shards, in order; what was not written to its end is removed.

        Raises:
            ValueError: If one between others is missing.
        """
        for leftover in self.path.glob(f".shard-{rank:03d}-*"):
            shutil.rmtree(leftover)
        found = sorted(record.parent for record in self.path.glob(f"shard-{rank:03d}-*/{SHARD_RECORD}"))
        for number, shard in enumerate(found):
            if shard != self.next_shard(rank, number):
                raise ValueError(f"{self.next_shard(rank, number)} is missing: put it back, or remove those after it too")
        return found

    def next_shard(self, rank: int, number: int) -> Path:
        """Where one process's shard of this number goes."""
        return self.path / f"shard-{rank:03d}-{number:05d}"

    def records(self) -> list[dict[str, Any]]:
        """The records of the whole shards of all processes, in order.

        Raises:
            ValueError: If one is not whole.
        """
        return [read_record(record.parent) for record in sorted(self.path.glob(f"shard-*/{SHARD_RECORD}"))]

    def end(self, rank: int, dropped: Mapping[str, int]) -> None:
        """Writes down that one process has done its share, and finishes where it is the last.

        Raises:
            ValueError: If there is no vector of any process.
        """
        write_json(self._done(rank), {"dropped": dict(dropped)})
        self.finish()

    def finish(self) -> None:
        """Writes the whole manifest, once all processes have done their shares; done again, it writes the same one.

        Raises:
            ValueError: If there is no vector of any process.
        """
        shares = [self._done(rank) for rank in range(self.settings["world_size"])]
        if not all(share.is_file() for share in shares):
            return
        total: Counter[str] = Counter()
        for share in shares:
            total.update(json.loads(share.read_text(encoding="utf-8"))["dropped"])
        records = self.records()
        vectors = sum(record["vectors"] for record in records)
        if not vectors:
            raise ValueError(f"none of the documents gave a vector: {describe_dropped(total)}")
        self._write(finished=True, records=records, dropped=total, hooks=self._hooks(self._totals(records), vectors))

    def _done(self, rank: int) -> Path:
        return self.path / f"done-{rank:03d}.json"

    def _totals(self, records: list[dict[str, Any]]) -> dict[str, tuple[torch.Tensor, float]]:
        totals = {}
        for hook, width in self.widths.items():
            mean, squares = torch.zeros(width, dtype=torch.float64), 0.0
            for record in records:
                with safe_open(self.path / record["files"][hook]["file"], framework="pt") as file:
                    mean += file.get_tensor(SUM)
                    squares += file.get_tensor(SQUARES).item()
            totals[hook] = (mean, squares)
        return totals

    def _hooks(self, totals: dict[str, tuple[torch.Tensor, float]], vectors: int) -> dict[str, Any]:
        found = {}
        for hook, width in self.widths.items():
            total, squares = totals.get(hook, (None, None))
            mean = None if total is None else (total / vectors).tolist()
            energy = None if squares is None else squares / vectors
            found[hook] = {"d_in": width, "mean": mean, "energy": energy}
        return found

    def _write(
        self, *, finished: bool, records: list[dict[str, Any]], dropped: Mapping[str, int], hooks: dict[str, Any]
    ) -> None:
        shards = [{name: value for name, value in record.items() if name != "state"} for record in records]
        content = {
            "format": FORMAT,
            "version": 2,
            "finished": finished,
            "vectors": sum(record["vectors"] for record in records),
            "dropped": dict(dropped),
            "settings": self.settings,
            "metadata": self.metadata,
            "versions": self.versions,
            "hooks": hooks,
            "shards": shards,
        }
        write_json(self.path / MANIFEST, content)


def state_of(shard: Path | None) -> State:
    """Where a harvest stood when it had written this shard.

    Raises:
        ValueError: If the shard's record is not whole.
    """
    if shard is None:
        return State()
    record = read_record(shard)
    try:
        return State(**record["state"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{shard / SHARD_RECORD} does not say where the harvest stood: remove {shard}") from error
