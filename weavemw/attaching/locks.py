"""Locks between processes and threads, one per name: ``flock`` on a file that exists only while somebody holds it.

The kernel lets go of a lock whose holder dies. Nobody who holds one ever waits
for a second, so none can wait for another: who claims the address of an ended
container takes that one's lock only if it is free at once.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from weavemw.errors import Conflict, SettingsError
from weavemw.ops import files

__all__ = ["Busy", "Locks"]


class Busy(Conflict):
    """Somebody else holds the lock, and went on holding it."""


class Locks:
    """Locks by name in a directory, which is made when first needed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._held = threading.local()

    @contextlib.contextmanager
    def hold(self, name: str, timeout: float = 0.0) -> Iterator[None]:
        """Hold the lock; again within the same thread is fine.

        Raises :class:`Busy` if it is not to be had within ``timeout`` seconds, and
        :class:`~weavemw.errors.SettingsError` where there is no right or room for it.
        """
        mine: set[str] = self._held.__dict__.setdefault("names", set())
        if name in mine:
            yield
            return
        with self._locked(name, timeout):
            mine.add(name)
            try:
                yield
            finally:
                mine.discard(name)

    def tidy(self) -> None:
        """Remove the files of those who died while they held a lock."""
        for name in os.listdir(self.directory) if self.directory.is_dir() else ():
            with contextlib.suppress(Busy, SettingsError), self.hold(name):
                pass

    @contextlib.contextmanager
    def _locked(self, name: str, timeout: float) -> Iterator[None]:
        descriptor = self._wait_for(name, timeout)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # a file that stays hinders nobody, and is tidied away
                os.unlink(self.directory / name)  # while it is held: who waits for this file sees that it's not the one
            os.close(descriptor)

    def _wait_for(self, name: str, timeout: float) -> int:
        files.directory(self.directory, 0o700)
        try:
            descriptor = files.lock(self.directory / name, timeout)
        except OSError as error:
            raise SettingsError(f"can't lock {name[:12]} in {self.directory}: {error.strerror}") from error
        if descriptor is None:
            raise Busy(f"{name[:12]} is being started, attached or detached by somebody else")
        return descriptor
