"""Containers that were detached by hand, and stay so until they are started again: a file each, in a directory."""

from __future__ import annotations

import logging
from pathlib import Path

from weavemw.dockerapi.container import Container

__all__ = ["Detached"]

_log = logging.getLogger(__name__)


class Detached:
    """All of them; the directory is made when first needed. Callers hold the container's lock for a change."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def add(self, container: Container) -> None:
        """Let it stay detached as long as this run of it lasts. May raise OSError."""
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / container.id).write_text(container.started_at, encoding="utf-8")

    def holds(self, container: Container) -> bool:
        """Whether it was detached since it was started; where that can't be read, it was not, and that is logged."""
        try:
            return (self.directory / container.id).read_text(encoding="utf-8") == container.started_at
        except FileNotFoundError:
            return False
        except (OSError, ValueError) as error:
            _log.warning("container %s: whether it was detached by hand is not known: %s", container.short_id, error)
            return False

    def forget(self, container_id: str) -> None:
        """It was attached again, or is gone. May raise OSError."""
        (self.directory / container_id).unlink(missing_ok=True)
