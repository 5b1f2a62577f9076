"""Who runs: a small file in the run directory, locked as long as its writer lives.

The lock is POSIX's (``fcntl``): the kernel drops it when the process ends,
however it ends, and tells anybody who may read the file who holds it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
from pathlib import Path
from typing import Any

from weavemw.errors import Conflict, SettingsError

__all__ = ["OUR_CONTAINERS", "PROXY", "RunFile", "last", "running"]

#: The proxy's file in the run directory.
PROXY = "proxy.json"

#: The names of our own containers, proxy and router: they are never attached, and never counted.
OUR_CONTAINERS = ("weaveproxy", "weave")

_FLOCK = "hhqqi"  # struct flock: l_type, l_whence, l_start, l_len, l_pid


class RunFile:
    """Holds ``path`` for this process; ``what`` it is stands in the message for a second one.

    Raises :class:`~weavemw.errors.Conflict` if another process holds it.
    """

    def __init__(self, path: Path, *, what: str) -> None:
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise SettingsError(f"can't write {path}: {error.strerror}") from error
        self._path = path
        self._lock(what)
        os.ftruncate(self._fd, 0)

    def write(self, facts: dict[str, Any]) -> None:
        """Say what serves now. Everybody may read it: no secrets. Raises :class:`~weavemw.errors.SettingsError`."""
        try:
            os.pwrite(self._fd, json.dumps(facts).encode(), 0)
        except OSError as error:
            raise SettingsError(f"can't write {self._path}: {error.strerror}") from error

    def close(self) -> None:
        """Give the file up."""
        os.close(self._fd)

    def _lock(self, what: str) -> None:
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _holder(self._fd)
            self.close()
            raise Conflict(f"{what} is already running (pid {holder})") from error


def running(path: Path) -> dict[str, Any] | None:
    """The facts of whoever holds ``path``, with its ``pid``; nothing but that while it starts; ``None`` if nobody."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingsError(f"can't read {path}: {error.strerror}: try again as root") from error
    try:
        holder = _holder(fd)
        return _facts(fd) | {"pid": holder} if holder else None
    finally:
        os.close(fd)


def last(path: Path) -> dict[str, Any]:
    """The facts of whoever held ``path`` last, whether it runs or not; empty if nothing is known."""
    try:
        return dict(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SettingsError(f"can't read {path}: {error.strerror}: try again as root") from error
    except ValueError:  # it ended before it served
        return {}


def _holder(fd: int) -> int:
    question = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, *_, pid = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, question))
    return 0 if kind == fcntl.F_UNLCK else int(pid)


def _facts(fd: int) -> dict[str, Any]:
    with contextlib.suppress(ValueError):  # held by one that doesn't serve yet
        return dict(json.loads(os.pread(fd, 1 << 20, 0)))
    return {}
