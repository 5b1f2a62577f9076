"""One writer for the router's database: changes that come together share one commit.

A commit waits for the disk. It does so in a thread, so that the event loop goes
on answering DNS; the changes that arrive meanwhile are the next transaction.
Nobody is told of a change before it is on the disk.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from weavemw.errors import WeaveError
from weavemw.router.store import Database

__all__ = ["GroupCommit", "StorageError"]

log = logging.getLogger(__name__)
T = TypeVar("T")
Outcome = tuple["asyncio.Future[Any]", Any, Exception | None]


class StorageError(WeaveError):
    """The disk refused; nothing was changed."""

    status = 503


class GroupCommit:
    """Runs changes in the order they come. ``on_loss`` is called after a transaction was lost to the disk."""

    def __init__(self, database: Database, on_loss: Callable[[], None] = lambda: None) -> None:
        self._database = database
        self._on_loss = on_loss
        self._waiting: list[tuple[Callable[[], Any], asyncio.Future[Any]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "commit")

    async def run(self, change: Callable[[], T]) -> T:
        """What ``change`` returns, once it is on the disk; what it raises, with nothing changed.

        It reads and writes by the database, and must not wait for anything.
        Raises :class:`StorageError` when the disk is full or broken.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((change, future))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())
        return await future

    async def close(self) -> None:
        """Finish what was begun."""
        if self._writer:
            await self._writer
        self._thread.shutdown()

    async def _write(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                await self._transaction(batch)
        finally:
            self._writer = None

    async def _transaction(self, batch: list[tuple[Callable[[], Any], asyncio.Future[Any]]]) -> None:
        try:
            self._database.begin()
            outcomes = [(future, *self._attempt(change)) for change, future in batch]
            await self._commit()
        except sqlite3.Error as error:
            outcomes = self._lost(batch, error)
        for outcome in outcomes:
            _settle(*outcome)

    async def _commit(self) -> None:
        if self._database.has_changes:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._database.commit)
        else:  # and the disk has nothing to do
            self._database.commit()

    def _attempt(self, change: Callable[[], Any]) -> tuple[Any, Exception | None]:
        try:
            with self._database.savepoint():
                return change(), None
        except Exception as error:
            if isinstance(error, sqlite3.Error) and not isinstance(error, sqlite3.IntegrityError):
                raise
            return None, error  # it is raised where it belongs: in the caller of run()

    def _lost(self, batch: list[tuple[Callable[[], Any], asyncio.Future[Any]]], error: sqlite3.Error) -> list[Outcome]:
        log.error("a transaction was lost: %s", error)
        try:
            self._database.rollback()
            self._on_loss()
        except sqlite3.Error as another:
            log.error("what is kept can't be read: %s", another)
        return [(future, None, StorageError(f"can't write the router's state: {error}")) for _, future in batch]


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
