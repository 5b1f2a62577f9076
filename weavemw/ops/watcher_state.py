"""What the watcher knows, for whoever asks: a file in the run directory."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from weavemw.errors import SettingsError

__all__ = ["STATE_FILE", "Pending", "State", "read_state"]

#: Its name in the run directory.
STATE_FILE = "watcher.json"
_FIRST_RETRY, _GROWTH, _LAST_RETRY = 1.0, 1.5, 60.0


@dataclass(slots=True)
class Pending:
    """A running container of ours that could not be attached yet, or one that could not be cleaned up after."""

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
    """What the watcher shows; times are Unix times. ``left_alone``: reasons, by container id.

    Of the containers ``found`` when it connected to Docker, it has ``looked`` at so many.
    """

    pid: int = field(default_factory=os.getpid)
    since: float = field(default_factory=time.time)
    connected: bool = False
    error: str = ""
    pending: dict[str, Pending] = field(default_factory=dict)
    left_alone: dict[str, dict[str, str]] = field(default_factory=dict)
    found: int = 0
    looked: int = 0
    counters: dict[str, int] = field(default_factory=lambda: dict.fromkeys(
        ("connections", "attached", "detached", "released", "retries", "swept_interfaces", "swept_names",
         "swept_addresses"), 0))


def read_state(run_dir: Path) -> State | None:
    """What the host's watcher wrote last; ``None`` if there never was one.

    Raises :class:`~weavemw.errors.SettingsError` if it can't be read.
    """
    path = run_dir / STATE_FILE
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingsError(f"can't read {path}: {error.strerror}: try again as root") from error
    pending = {key: Pending(**_known(Pending, row)) for key, row in (stored.get("pending") or {}).items()}
    return State(**{**_known(State, stored), "pending": pending})


def _known(kind: type[State] | type[Pending], row: Mapping[str, Any]) -> dict[str, Any]:
    """What this version knows of a row that another version may have written."""
    return {each.name: row[each.name] for each in fields(kind) if each.name in row}
