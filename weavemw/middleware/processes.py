"""How far a container's processes are, seen in ``/proc``, which must be that of the daemon's pid namespace."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from weavemw.dockerapi.wait_mount import path_in

if TYPE_CHECKING:
    from weavemw.dockerapi.container import Container

__all__ = ["Progress", "progress_of", "still_waiting"]

_WAITING = "weave-wait"  # what the wait program calls itself once it has found the command
_RUNTIME = "runc:"  # runc's own process, before it executes the container's


class Progress(Enum):
    """What a container's first process is doing."""

    STARTING = "has yet to look the command up"
    WAITING = "waits, and found the command"
    OTHER = "executes something else, the command or an init"
    ENDED = "has ended"


def progress_of(pid: int) -> Progress:
    """How far the process is. Wait programs of earlier versions never say that they wait."""
    head, _, tail = _read(f"/proc/{pid}/stat").rpartition(")")
    name, state = head.partition("(")[2], tail.strip()[:1]
    if state in ("", "Z", "X"):
        return Progress.ENDED
    if name == _WAITING:
        return Progress.WAITING
    # While it executes a program, and while it ends, a process has no command line.
    program = _program_of(str(pid))
    is_before = name.startswith(_RUNTIME) or not program or bool(path_in(program))
    return Progress.STARTING if is_before else Progress.OTHER


def still_waiting(container: Container) -> bool:
    """Whether a running container's command has not begun: its process, or that of its ``--init``, is the wait program.
    """
    if not container.pid:
        return False
    children = _read(f"/proc/{container.pid}/task/{container.pid}/children").split()
    return any(path_in(_program_of(pid)) for pid in (str(container.pid), *children))


def _program_of(pid: str) -> str:
    return _read(f"/proc/{pid}/cmdline").partition("\0")[0]


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
