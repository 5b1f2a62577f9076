"""Counting, so that it can be shown: sums by name and labels, in memory or in a file that outlives its process.

Each process of the proxy counts in a file of its own in the run directory, mapped
into its memory (the format is prometheus_client's). So counting is an addition, a
process that is killed takes nothing with it, and who shows the numbers (see
:mod:`weavemw.ops.metrics`) reads files and waits for nobody. A process that starts
goes on with the file of one that has ended: there are never more files than there
were processes at one time.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import struct
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from weavemw.errors import SettingsError
from weavemw.ops import files
from weavemw.ops.run_dir import STATUS

if TYPE_CHECKING:
    from prometheus_client.mmap_dict import MmapedDict

__all__ = ["ALLOCATE", "ALLOCATE_FAILURES", "ATTACH", "ATTACH_FAILURES", "BUCKET_NAMES", "DIRECTORY", "REQUESTS",
           "STREAMS", "STREAMS_ENDED", "STREAM_BYTES", "Cell", "SharedTally", "Tally", "read_shared", "remove_shared"]

_log = logging.getLogger(__name__)

#: Where the files of the proxy's processes are, in the run directory.
DIRECTORY = f"{STATUS}/metrics"

REQUESTS = "weave_proxy_requests"
STREAMS, STREAMS_ENDED = "weave_proxy_streams_opened", "weave_proxy_streams_ended"
STREAM_BYTES = "weave_proxy_stream_bytes"
ATTACH, ATTACH_FAILURES = "weave_proxy_attach_duration_seconds", "weave_proxy_attach_failures"
ALLOCATE, ALLOCATE_FAILURES = "weave_proxy_allocate_duration_seconds", "weave_proxy_allocate_failures"

#: A sum's name and the values of its labels; of times, the upper bound of a bucket.
Cell = tuple[str, tuple[str, ...]]

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds
BUCKET_NAMES = (*map(str, _BUCKETS), "+Inf")

_SIZE = 1 << 18  # bytes of a file: some 4,000 cells
_DAMAGED = (RuntimeError, ValueError, TypeError, IndexError, struct.error)


class _Sum:
    __slots__ = ("key", "value")

    def __init__(self, key: str, value: float = 0.0) -> None:
        self.key = key
        self.value = value


class Tally:
    """Sums by name and label values. Thread-safe."""

    def __init__(self) -> None:
        self._sums: dict[Cell, _Sum] = {}
        self._lock = threading.Lock()
        self._write: Callable[[str, float, float], None] | None = None

    def add(self, name: str, labels: tuple[str, ...] = (), amount: float = 1.0) -> None:
        """Add to a sum."""
        with self._lock:
            try:
                found = self._sums[name, labels]
            except KeyError:
                found = self._new((name, labels))
            found.value += amount
            if self._write is not None:
                self._write(found.key, found.value, 0.0)

    def observe(self, name: str, seconds: float) -> None:
        """Count a time in its bucket."""
        self.add(name, (BUCKET_NAMES[bisect_left(_BUCKETS, seconds)],))
        self.add(f"{name}_sum", (), seconds)

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Count the time that the block takes, unless it raises."""
        began = time.perf_counter()
        yield
        self.observe(name, time.perf_counter() - began)

    @contextmanager
    def failing(self, name: str, error: type[Exception], *others: type[Exception]) -> Iterator[None]:
        """Count if the block raises this error, but not if it is one of the others."""
        try:
            yield
        except error as raised:
            if not isinstance(raised, others):
                self.add(name)
            raise

    def numbers(self) -> dict[Cell, float]:
        """All sums."""
        with self._lock:
            return {cell: found.value for cell, found in self._sums.items()}

    def _new(self, cell: Cell) -> _Sum:
        return self._sums.setdefault(cell, _Sum(_key(cell)))


class SharedTally(Tally):
    """A :class:`Tally` in a file of ``directory``; the file is opened by the first addition (never before a fork).

    Without a directory to write in, the sums are kept in memory only, and that is logged.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory
        self._file: MmapedDict | None = None
        self._descriptor = -1
        self._opened = False

    def close(self) -> None:
        """Leave the file to the next process."""
        if self._file is not None:
            self._file.close()  # type: ignore[no-untyped-call]
            self._file = self._write = None
            os.close(self._descriptor)

    def _new(self, cell: Cell) -> _Sum:
        if not self._opened:
            self._opened = True
            self._open()
        return super()._new(cell)

    def _open(self) -> None:
        from prometheus_client.mmap_dict import MmapedDict  # not for commands that count nothing: it takes its time

        try:
            path, self._descriptor = _free_file(self._directory)
            before = _repaired(path)
            self._file = MmapedDict(str(path))  # type: ignore[no-untyped-call]
        except (OSError, SettingsError) as error:
            _log.warning("metrics are not kept: can't use %s: %s", self._directory, getattr(error, "strerror", error))
            return
        self._write = self._file.write_value
        self._sums = {cell: _Sum(_key(cell), value) for cell, value in before.items()}
        # The streams of whoever had this file ended with it.
        if began := before.get((STREAMS, ())):
            ended = self._new((STREAMS_ENDED, ()))
            ended.value = began
            self._write(ended.key, began, 0.0)  # type: ignore[no-untyped-call]


def read_shared(directory: Path) -> dict[Cell, float]:
    """What all processes counted, together; empty if none did."""
    sums: dict[Cell, float] = {}
    for path in sorted(directory.glob("*.db")):
        try:
            for cell, value in _read(path).items():
                sums[cell] = sums.get(cell, 0.0) + value
        except (*_DAMAGED, OSError) as error:
            _log.warning("metrics of one process can't be read: %s: %s", path, error)
    return sums


def remove_shared(directory: Path) -> None:
    """Remove the files of all processes, which have ended."""
    for path in (*directory.glob("*.db"), *directory.glob("*.lock")):
        path.unlink(missing_ok=True)


def _free_file(directory: Path) -> tuple[Path, int]:
    """A file that nobody counts in, and the descriptor that locks it: it is this process's while that is open."""
    files.directory(directory)
    for number in itertools.count():
        held = files.lock(directory / f"{number}.lock")
        if held is not None:
            return _made(directory / f"{number}.db"), held
    raise AssertionError  # numbers don't end


def _made(path: Path) -> Path:
    """Of full size: a full disk is an error now, and not a signal when it is written to."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        os.posix_fallocate(descriptor, 0, _SIZE)
    finally:
        os.close(descriptor)
    return path


def _repaired(path: Path) -> dict[Cell, float]:
    """What is in a file; one that is damaged is begun anew."""
    try:
        return _read(path)
    except _DAMAGED:
        _log.warning("metrics in %s are damaged: counting anew", path)
        path.write_bytes(bytes(_SIZE))
        return {}


def _read(path: Path) -> dict[Cell, float]:
    from prometheus_client.mmap_dict import MmapedDict

    with path.open("rb") as file:
        head = file.read(4)
    used, size = int.from_bytes(head, "little", signed=True), path.stat().st_size
    if not used:  # it was made just now
        return {}
    if not 8 <= used <= size:
        raise ValueError(f"{used} of {size} bytes are used")
    rows = MmapedDict.read_all_values_from_file(path)  # type: ignore[no-untyped-call]
    return {_cell(key): value for key, value, *_ in rows}


def _key(cell: Cell) -> str:
    return json.dumps([cell[0], *cell[1]])


def _cell(key: str) -> Cell:
    name, *labels = json.loads(key)
    return name, tuple(labels)
