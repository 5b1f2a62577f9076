"""The last warnings and errors of our programs, kept in the run directory for ``weave status``.

Router and proxy log to stderr, which goes wherever their supervisor sends it.
What was worth a warning is also kept here, the newest lines of it: so that one
command shows it, whoever supervises, and whether they still run or not.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from weavemw.errors import SettingsError
from weavemw.ops import files
from weavemw.ops.logs import escaped
from weavemw.ops.run_dir import STATUS

__all__ = ["FILE", "LOCK", "Recorder", "Trouble", "latest", "record"]

_log = logging.getLogger(__name__)

#: Its name in the run directory.
FILE = f"{STATUS}/errors.jsonl"
#: Who holds its lock may write; in the run directory too.
LOCK = "errors.lock"

_LARGEST, _KEPT, _LONGEST = 65536, 100, 500  # bytes of the file, lines that stay then, characters of a message
_PATIENCE = 0.2  # seconds that a program waits for the lock: it does not stop because another one did


@dataclass(frozen=True, slots=True)
class Trouble:
    """What a program logged: ``time`` in Unix time, ``program`` is "proxy" or "router", ``level`` as in the log."""

    time: float
    program: str
    level: str
    message: str


class Recorder(logging.Handler):
    """Keeps what is logged at this level or above it; any number of processes may keep theirs in the same file."""

    def __init__(self, run_dir: Path, program: str, level: int = logging.WARNING) -> None:
        super().__init__(level)
        self.run_dir = run_dir
        self.program = program

    def emit(self, record: logging.LogRecord) -> None:
        """Append one line."""
        try:
            _append(self.run_dir, Trouble(record.created, self.program, record.levelname.lower(), _message(record)))
        except Exception:  # noqa: BLE001  # a program does not fail because it can't say so: logging's own rule
            self.handleError(record)


def record(run_dir: Path, program: str) -> None:
    """Keep warnings of ours, and errors of the server that we run in, for this process and those that it forks."""
    try:
        files.directory((run_dir / FILE).parent, 0o750)
    except SettingsError as error:
        _log.warning("the last errors are not kept: %s", error)
        return
    logging.getLogger("weavemw").addHandler(Recorder(run_dir, program))
    logging.getLogger("gunicorn.error").addHandler(Recorder(run_dir, program, logging.ERROR))


def latest(run_dir: Path, count: int = 20) -> list[Trouble]:
    """The last of what was kept, the newest last. Raises :class:`~weavemw.errors.SettingsError` if it can't be read."""
    path = run_dir / FILE
    try:
        lines = files.read(path).decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SettingsError(f"can't read {path}: {error.strerror}") from error
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


def _append(run_dir: Path, trouble: Trouble) -> None:
    path, line = run_dir / FILE, json.dumps(asdict(trouble)).encode() + b"\n"
    with _alone(run_dir / LOCK):
        if _size(path) + len(line) > _LARGEST:
            kept = files.read(path).splitlines(keepends=True)[-_KEPT:]
            files.replace(path, b"".join((*kept, line)))
        else:
            _write_at_end(path, line)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """While nobody else holds a lock; if somebody does for long, all the same."""
    held = files.lock(path, _PATIENCE)
    try:
        yield
    finally:
        if held is not None:
            os.close(held)


def _write_at_end(path: Path, line: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    with open(descriptor, "ab", buffering=0) as file:
        file.write(line)


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0
