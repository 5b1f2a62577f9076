"""What is wrong with us, in sentences: for health checks of every kind, which say the same."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["of_directory", "of_watcher"]

_TRIED = 2  # attempts after which a container is cut off, and not just being attached
_BLOCK = bytes(4096)


def of_directory(path: Path) -> str:
    """Why nothing can be kept in a directory (no room, read-only, gone); empty if it can. It is tried."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=".health.", dir=path)
        try:
            os.write(descriptor, _BLOCK)
        finally:
            os.close(descriptor)
            os.unlink(name)
    except OSError as error:
        return f"can't write in {path}: {error.strerror}"
    return ""


def of_watcher(state: Mapping[str, Any] | None) -> list[str]:
    """What a watcher, by its state (``dataclasses.asdict``), can't do; ``None`` is one that has not begun. Pure."""
    if state is None or not state.get("connected"):
        return [f"it does not follow Docker's events: {(state or {}).get('error') or 'not yet'}"]
    cut_off = [f"container {row.get('name') or container_id[:12]} is cut off: {row.get('error', '')}"
               for container_id, row in (state.get("pending") or {}).items() if row.get("attempts", 0) >= _TRIED]
    return cut_off + [f"{what}: {row.get('error', '')}" for what, row in (state.get("failing") or {}).items()]
