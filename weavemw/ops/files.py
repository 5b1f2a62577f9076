"""Files that only we may touch, and files that others may read.

Whoever may open a file may lock it (flock(2), fcntl(2)), for as long as they like. So what we lock is closed to
all others, and what others may read is never locked. What we believe stands in directories where nobody else writes.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

from weavemw.errors import SettingsError

__all__ = ["directory", "lock", "make_private", "open_private", "read", "replace"]

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def directory(path: Path, mode: int = 0o755, *, hint: str = "") -> None:
    """Make a directory unless it is there.

    Raises :class:`~weavemw.errors.SettingsError` if it can't be made, or if others than root and ourselves could
    put files there. ``hint`` says what helps then.
    """
    try:
        if not path.parent.exists():
            directory(path.parent, hint=hint)
        path.mkdir(mode, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"can't make {path}: {error.strerror}", hint=hint) from error
    _require_trusted(path, path.lstat())


def read(path: Path) -> bytes:
    """What stands in a file that only root or we can have written. Raises ``OSError``.

    Raises :class:`~weavemw.errors.SettingsError` for a file that others could have written.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK)) as file:
        _require_trusted(path.parent, path.parent.lstat())
        _require_trusted(path, os.fstat(file.fileno()))
        return file.read()


def replace(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file whole or not at all; whoever has it open keeps what it was. Raises ``OSError``."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def open_private(path: Path) -> int:
    """A descriptor of a file that nobody else can open; it is made if need be. Raises ``OSError``.

    One that others could open is replaced by an empty one: somebody may hold a lock on it.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        if _is_private(os.fstat(descriptor)):
            return descriptor
        os.close(descriptor)
        path.unlink(missing_ok=True)


def make_private(path: Path) -> None:
    """Close a file to others, if it is there; who has it open keeps what it was. Raises ``OSError``."""
    if path.exists() and not _is_private(path.lstat()):
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with open(descriptor, "wb") as copy, path.open("rb") as file:
            shutil.copyfileobj(file, copy)
            os.fsync(descriptor)
        os.replace(temporary, path)


def lock(path: Path, timeout: float = 0.0) -> int | None:
    """The descriptor that holds the lock of a file as long as it is open.

    ``None`` if others hold it for ``timeout`` seconds. Raises ``OSError``.
    """
    deadline = time.monotonic() + timeout
    while (descriptor := _locked(path)) is None:
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.01)  # flock waits for ever or not at all
    return descriptor


def _locked(path: Path) -> int | None:
    descriptor = open_private(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_held = _is_at(descriptor, path)
    except BlockingIOError:
        is_held = False
    except BaseException:
        os.close(descriptor)
        raise
    if is_held:
        return descriptor
    os.close(descriptor)
    return None


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _is_private(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and not found.st_mode & _OTHERS and found.st_uid in (0, os.geteuid())


def _require_trusted(path: Path, found: os.stat_result) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise SettingsError(f"{path} is a symbolic link: name what it points to")
    if found.st_uid not in (0, os.geteuid()):
        raise SettingsError(f"{path} belongs to user {found.st_uid}, and can't be trusted: `chown root {path}`, or "
                            "remove it")
    if found.st_mode & _OTHERS_WRITE:
        raise SettingsError(f"{path} can be written by others, and can't be trusted: `chmod go-w {path}`, or remove it")
