"""The last warnings and errors of our programs, kept in the run directory for ``weave status``.

Router and proxy log to stderr, which goes wherever their supervisor sends it.
What was worth a warning is also kept here, the newest lines of it: so that one
command shows it, whoever supervises, and whether they still run or not.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from weavemw.errors import SettingsError
from weavemw.ops.logs import escaped

__all__ = ["FILE", "Recorder", "Trouble", "latest", "record"]

_log = logging.getLogger(__name__)

#: Its name in the run directory.
FILE = "errors.jsonl"

_LARGEST, _KEPT, _LONGEST = 65536, 100, 500  # bytes of the file, lines that stay then, characters of a message


@dataclass(frozen=True, slots=True)
class Trouble:
    """What a program logged: ``time`` in Unix time, ``program`` is "proxy" or "router", ``level`` as in the log."""

    time: float
    program: str
    level: str
    message: str


class Recorder(logging.Handler):
    """Keeps what is logged at this level or above it; any number of processes may keep theirs in the same file."""

    def __init__(self, path: Path, program: str, level: int = logging.WARNING) -> None:
        super().__init__(level)
        self.path = path
        self.program = program

    def emit(self, record: logging.LogRecord) -> None:
        """Append one line."""
        try:
            _append(self.path, Trouble(record.created, self.program, record.levelname.lower(), _message(record)))
        except Exception:  # noqa: BLE001  # a program does not fail because it can't say so: logging's own rule
            self.handleError(record)


def record(run_dir: Path, program: str) -> None:
    """Keep warnings of ours, and errors of the server that we run in, for this process and those that it forks."""
    try:
        run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        _log.warning("the last errors are not kept: can't make %s: %s", run_dir, error.strerror)
        return
    logging.getLogger("weavemw").addHandler(Recorder(run_dir / FILE, program))
    logging.getLogger("gunicorn.error").addHandler(Recorder(run_dir / FILE, program, logging.ERROR))


def latest(run_dir: Path, count: int = 20) -> list[Trouble]:
    """The last of what was kept, the newest last. Raises :class:`~weavemw.errors.SettingsError` if it can't be read."""
    path = run_dir / FILE
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SettingsError(f"can't read {path}: {error.strerror}: try again as root") from error
    return [trouble for line in lines[-count:] if (trouble := _read(line))]


def _read(line: str) -> Trouble | None:
    try:
        return Trouble(**json.loads(line))
    except (ValueError, TypeError):  # cut off, or another version's
        return None


def _message(record: logging.LogRecord) -> str:
    said = record.getMessage()
    if record.exc_info and record.exc_info[1]:
        said = f"{said}: {record.exc_info[1]!r}"
    return escaped(said)[:_LONGEST]


def _append(path: Path, trouble: Trouble) -> None:
    line = json.dumps(asdict(trouble)).encode() + b"\n"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    with open(descriptor, "r+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_size + len(line) > _LARGEST:
            kept = file.read().splitlines(keepends=True)[-_KEPT:]
            file.truncate(0)
            line = b"".join((*kept, line))
        file.write(line)
