"""What the watcher knows, for whoever asks: a file in the run directory."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from weavemw.errors import SettingsError, WeaveError
from weavemw.ops import files
from weavemw.ops.run_dir import STATUS

__all__ = ["LOCK_FILE", "STATE_FILE", "Pending", "State", "StateFile", "read_state"]

_log = logging.getLogger(__name__)

#: Its name in the run directory.
STATE_FILE = f"{STATUS}/watcher.json"
#: Who holds its lock is the host's watcher; in the run directory too.
LOCK_FILE = "watcher.lock"
_FIRST_RETRY, _GROWTH, _LAST_RETRY = 1.0, 1.5, 60.0
_BEAT, _SILENT = 5.0, 20.0  # seconds: it writes so often at least, and has stopped if it did not for so long
_DAMAGED = (ValueError, TypeError, AttributeError, RecursionError)


@dataclass(slots=True)
class Pending:
    """A running container of ours that could not be attached yet, one that could not be cleaned up after, or a task.

    ``name`` is the container's.
    """

    name: str
    error: str
    attempts: int = 1
    since: float = field(default_factory=time.time)

    @property
    def delay(self) -> float:
        """Seconds until the next attempt."""
        return float(min(_LAST_RETRY, _FIRST_RETRY * _GROWTH ** min(self.attempts - 1, 40)))


@dataclass(slots=True)
class State:
    """What the watcher shows; times are Unix times. ``beat``: when it wrote this.

    ``pending``, ``left_alone`` (with reasons): by container id. ``failing``: what it can't do that is of no single
    container, by what that is. ``in_the_way``: networks of Docker's that overlap ours. ``at_work``: ids of those that
    it attaches now, or soon. Of the containers ``found`` when it connected to Docker, it has ``looked`` at so many.
    """

    pid: int = field(default_factory=os.getpid)
    since: float = field(default_factory=time.time)
    beat: float = field(default_factory=time.time)
    connected: bool = False
    error: str = ""
    pending: dict[str, Pending] = field(default_factory=dict)
    failing: dict[str, Pending] = field(default_factory=dict)
    left_alone: dict[str, dict[str, str]] = field(default_factory=dict)
    in_the_way: list[str] = field(default_factory=list)
    at_work: list[str] = field(default_factory=list)
    found: int = 0
    looked: int = 0
    counters: dict[str, int] = field(default_factory=lambda: dict.fromkeys(
        ("connections", "attached", "mended", "detached", "released", "retries", "swept_interfaces", "swept_names",
         "swept_addresses"), 0))

    def seen_at(self, now: float) -> State:
        """What is to be thought of it at this time: a watcher that has long not written follows nothing any more."""
        silent = now - self.beat
        if silent < _SILENT:
            return self
        return replace(self, connected=False, error=f"it stopped {silent:.0f} s ago")


class StateFile:
    """The state of the watcher of ``run_dir``, in memory and in the file. Thread-safe."""

    def __init__(self, run_dir: Path) -> None:
        self.state = State()
        self._run_dir = run_dir
        self._lock = threading.Lock()
        self._changed = True
        self._fails = False

    @contextlib.contextmanager
    def changing(self) -> Iterator[State]:
        """Change the state; it is written soon."""
        with self._lock:
            yield self.state
            self._changed = True

    def count(self, counter: str, count: int = 1) -> None:
        """Add to a sum."""
        with self.changing() as state:
            state.counters[counter] = state.counters.get(counter, 0) + count

    def begin(self) -> None:
        """Begin to watch: the sums go on, since they don't end with a process. Everything else is as it is now."""
        try:
            before = read_state(self._run_dir)
        except WeaveError as error:
            _log.warning("the watcher counts anew: %s", error)
            before = None
        with self.changing() as state:
            state.since = time.time()
            state.counters.update(before.counters if before else {})

    def write(self) -> None:
        """Write the file if the state has changed, and now and then; what fails is logged once, and tried again."""
        with self._lock:
            if not self._changed and 0 <= time.time() - self.state.beat < _BEAT:
                return
            self.state.beat, self._changed = time.time(), False
            text = json.dumps(asdict(self.state), indent=1)
        error = self._replace(text)
        if error and not self._fails:
            _log.warning("can't write the watcher's state: %s", error)
        self._fails = error is not None

    def _replace(self, text: str) -> OSError | SettingsError | None:
        path = self._run_dir / STATE_FILE
        try:
            files.directory(path.parent, 0o750)
            files.replace(path, text.encode())
        except (OSError, SettingsError) as error:
            return error
        return None


def read_state(run_dir: Path) -> State | None:
    """What the host's watcher wrote last, as it is to be understood now; ``None`` if there never was one.

    A damaged file is logged, and as good as none: a watcher soon writes it anew. Raises
    :class:`~weavemw.errors.SettingsError` if it can't be read.
    """
    path = run_dir / STATE_FILE
    try:
        return _state_of(json.loads(files.read(path))).seen_at(time.time())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingsError(f"can't read {path}: {error.strerror}") from error
    except _DAMAGED as error:
        _log.warning("%s is damaged, and not used: %s", path, error)
        return None


def _state_of(stored: Any) -> State:
    state = State(**_known(State(), stored))
    state.pending, state.failing = _all_pending(state.pending), _all_pending(state.failing)
    if not all(isinstance(count, int) for count in state.counters.values()):
        raise TypeError("a counter is no number")
    if not all(isinstance(row, dict) for row in state.left_alone.values()):
        raise TypeError("left_alone has something that is no row")
    return state


def _all_pending(rows: Mapping[str, Any]) -> dict[str, Pending]:
    return {key: Pending(**_known(Pending("", ""), row)) for key, row in rows.items()}


def _known(example: State | Pending, row: Any) -> dict[str, Any]:
    """What this version knows of a row that another version may have written. Raises TypeError for another type."""
    if not isinstance(row, dict):
        raise TypeError(f"a {type(row).__name__} stands where a row should")
    found = {each.name: row[each.name] for each in fields(example) if each.name in row}
    for name, value in found.items():
        kind = type(getattr(example, name))
        if not isinstance(value, (int, float) if kind is float else kind):
            raise TypeError(f"{name} is no {kind.__name__}")
    return found
