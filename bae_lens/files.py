"""Files that appear whole or not at all: written under a temporary name, synced, then renamed."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def check_output_directory(path: str | Path) -> Path:
    """Refuses an output directory before any work is done for it.

    Raises:
        FileExistsError: If it already holds something (another run), or is a file.
        PermissionError: If it cannot be created or written.
    """
    path = Path(path).expanduser().absolute()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"{path} already holds something: choose another directory, or remove it first")
    try:
        _existing_parent(path.parent).joinpath(".").resolve(strict=True)
        with tempfile.TemporaryDirectory(prefix=".bae_lens-", dir=_existing_parent(path.parent)):
            pass
    except OSError as error:
        raise PermissionError(f"cannot write to {path.parent}: {error.strerror}") from error
    return path


@contextmanager
def new_directory(path: str | Path) -> Iterator[Path]:
    """Yields a temporary directory that becomes `path` when the block ends well, and disappears when it does not."""
    path = check_output_directory(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _sync(file)
        temporary.chmod(0o777 & ~_umask())
        if path.exists():
            path.rmdir()  # empty, as checked at the door; refuses if someone filled it since
        temporary.rename(path)
        _sync(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_text(path: str | Path, text: str) -> None:
    """Writes a whole text file, replacing what was there in one step."""
    path = Path(path).expanduser().absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: str | Path, value: Any) -> None:
    """Writes strict JSON (no NaN), indented."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def _existing_parent(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
