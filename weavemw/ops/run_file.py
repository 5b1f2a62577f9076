"""Who runs: a small file in the run directory, which everybody may read, and a lock, which is nobody else's.

The file says which process it is, by its pid and the time of its start: so nobody
takes another process for it, and nobody needs the lock to know. The lock is POSIX's
(``fcntl``): the kernel drops it when the process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import struct
from pathlib import Path
from typing import Any

from weavemw.errors import Conflict, SettingsError
from weavemw.ops import files

__all__ = ["OUR_CONTAINERS", "PROXY", "RunFile", "last", "lock_of", "running", "terminate"]

#: The proxy's file in the run directory.
PROXY = "proxy.json"

#: The names of our own containers, proxy and router: they are never attached, and never counted.
OUR_CONTAINERS = ("weaveproxy", "weave")

_ELSEWHERE = "--run-dir names another directory"
_FLOCK = "hhqqi"  # struct flock: l_type, l_whence, l_start, l_len, l_pid
_PID, _BORN = "pid", "born"
_START_TIME = 22 - 3  # its place among what follows the name, of which the third field is the first (proc_pid_stat(5))


class RunFile:
    """Holds ``path`` for this process; ``what`` it is stands in the message for a second one.

    Raises :class:`~weavemw.errors.Conflict` if another process holds it, and
    :class:`~weavemw.errors.SettingsError` if it can't be had.
    """

    def __init__(self, path: Path, *, what: str) -> None:
        files.directory(path.parent, hint=_ELSEWHERE)
        self._path = path
        try:
            self._fd = files.open_private(lock_of(path))
        except OSError as error:
            raise SettingsError(f"can't write {lock_of(path)}: {error.strerror}", hint=_ELSEWHERE) from error
        self._lock(what)
        self.write({})

    def write(self, facts: dict[str, Any]) -> None:
        """Say what serves now. Everybody may read it: no secrets. Raises :class:`~weavemw.errors.SettingsError`."""
        self._write(facts | {_PID: os.getpid(), _BORN: _born(os.getpid())})

    def close(self) -> None:
        """Give the file up."""
        with contextlib.suppress(SettingsError):
            self._write(last(self._path))
        os.close(self._fd)

    def _write(self, facts: dict[str, Any]) -> None:
        try:
            files.replace(self._path, json.dumps(facts).encode())
        except OSError as error:
            raise SettingsError(f"can't write {self._path}: {error.strerror}", hint=_ELSEWHERE) from error

    def _lock(self, what: str) -> None:
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _holder(self._fd)
            os.close(self._fd)
            raise Conflict(f"{what} is already running (pid {holder})") from error


def running(path: Path) -> dict[str, Any] | None:
    """The facts of whoever holds ``path``, with its ``pid``; nothing but that while it starts; ``None`` if nobody.

    Raises :class:`~weavemw.errors.SettingsError` if the file can't be read, or others could have written it.
    """
    facts = _read(path)
    if not _is_alive(facts.get(_PID), facts.pop(_BORN, None)):
        return None
    return facts


def last(path: Path) -> dict[str, Any]:
    """The facts of whoever held ``path`` last, whether it runs or not; empty if nothing is known."""
    facts = _read(path)
    return {name: value for name, value in facts.items() if name not in (_PID, _BORN)}


def terminate(path: Path) -> None:
    """Send SIGTERM to whoever holds ``path``, and to nobody else.

    That is the process that the file names, if it is as old as the file says and has the lock, which only we can
    take. Raises :class:`~weavemw.errors.Conflict` for another, and ``PermissionError`` if it is not ours to end.
    """
    facts = _read(path)
    pid, born = facts.get(_PID, 0), facts.get(_BORN, 0)
    if not _is_alive(pid, born):
        return
    process = os.pidfd_open(pid)
    try:
        if not _is_alive(pid, born) or _lock_holder(path) != pid:
            raise Conflict(f"process {pid}, which {path} names, does not hold {lock_of(path)}: it is left alone")
        signal.pidfd_send_signal(process, signal.SIGTERM)
    finally:
        os.close(process)


def lock_of(path: Path) -> Path:
    """The file whose lock goes with a run file."""
    return path.with_suffix(".lock")


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(files.read(path))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SettingsError(f"can't read {path}: {error.strerror}") from error
    except ValueError:  # another version's
        return {}
    return found if isinstance(found, dict) else {}


def _is_alive(pid: object, born: object) -> bool:
    """Whether there is such a process, and not a later one with the same pid."""
    return type(pid) is int and pid > 1 and born is not None and _born(pid) == born


def _born(pid: int) -> int | None:
    """When a process was started, in clock ticks since boot; ``None`` if it does not run (any more)."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if words[0] in "ZX" else int(words[_START_TIME])


def _lock_holder(path: Path) -> int:
    descriptor = os.open(lock_of(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        return _holder(descriptor)
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> int:
    question = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, *_, pid = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, question))
    return 0 if kind == fcntl.F_UNLCK else int(pid)
