"""Files that appear whole or not at all: written under a temporary name, synced, then renamed."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


def at_home(path: str | os.PathLike[str]) -> Path:
    """A path with ~ and ~user at its begin put in full; as it is, where there is no such user."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path's own fails without a user


def check_output_directory(path: str | Path, *, replace: Collection[str] = (), besides: Collection[str] = ()) -> Path:
    """Refuses an output directory before any work is done for it.

    Args:
        replace: Accept a directory that holds an earlier run, to be replaced later: nothing but files of these names.
        besides: Names that do not count as something.

    Raises:
        FileExistsError: If it already holds something (another run), or is a file.
        PermissionError: If it cannot be created or written.
    """
    path = at_home(path).absolute()
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"{path} is a file: choose another directory")
    foreign = sorted({p.name for p in path.iterdir()} - {*replace, *besides}) if path.exists() else []
    if foreign and replace:
        raise FileExistsError(f"{path} holds more than an earlier run ({', '.join(foreign[:3])}): it will not be replaced")
    if foreign:
        raise FileExistsError(f"{path} already holds something: choose another directory, or remove it first")
    check_writable(path.parent)
    return path


def check_writable(directory: str | Path) -> None:
    """Raises PermissionError unless files can be made in a directory (or in the nearest parent that exists)."""
    parent = _existing_parent(at_home(directory).absolute())
    try:
        with tempfile.TemporaryDirectory(prefix=".bae_lens-", dir=parent):
            pass
    except OSError as error:
        raise PermissionError(f"cannot write to {parent}: {error.strerror}") from error


def check_output_file(path: str | Path) -> None:
    """Refuses an output file before any work is done for it.

    Raises:
        FileExistsError: If it is a directory.
        PermissionError: If it cannot be written.
    """
    path = at_home(path).absolute()
    if path.is_dir():
        raise FileExistsError(f"{path} is a directory: give a file")
    check_writable(path.parent)


@contextmanager
def new_directory(path: str | Path, *, replace: Collection[str] = ()) -> Iterator[Path]:
    """Yields a temporary directory that becomes `path` when the block ends well, and disappears when it does not.

    With `replace` (see `check_output_directory`), what `path` held is removed once the new directory is in place.
    """
    path = check_output_directory(path, replace=replace)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    old = temporary.with_name(f"{temporary.name}-old")
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _sync(file)
                file.chmod(file.stat().st_mode & 0o777 | 0o666 & ~_umask())  # safetensors lets nobody else read
        temporary.chmod(0o777 & ~_umask())
        if path.exists():
            path.rename(old) if replace else path.rmdir()  # rmdir refuses if someone filled it since
        temporary.rename(path)
        _sync(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        if old.exists() and not path.exists():
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def move_into(source: Path, target: Path, names: Collection[str]) -> None:
    """Moves files from one directory into another of the same disk, in this order, and removes the first."""
    for name in names:
        (source / name).replace(target / name)
    _sync(target)
    shutil.rmtree(source)


def write_text(path: str | Path, text: str) -> None:
    """Writes a whole text file, replacing what was there in one step."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | Path, content: bytes) -> None:
    """Writes a whole file, replacing what was there in one step."""
    with new_file(path) as file:
        file.write(content)


@contextmanager
def new_file(path: str | Path) -> Iterator[BinaryIO]:
    """Yields a temporary file that becomes `path` when the block ends well, in one step, and disappears when it does not."""
    path = at_home(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def append_text(path: Path, text: str) -> None:
    """Adds to the end of a text file, or begins it.

    Raises:
        OSError: If it is a symbolic link: who gives a directory away could have others write elsewhere by one.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | NO_LINKS, 0o666)
    with os.fdopen(handle, "a", encoding="utf-8") as file:
        file.write(text)


NO_LINKS = getattr(os, "O_NOFOLLOW", 0)
"""Flag of `os.open` that refuses symbolic links, where the system has it."""


def write_json(path: str | Path, value: Any) -> None:
    """Writes strict JSON (no NaN), indented."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def sha256(path: Path) -> str:
    """Checksum of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
