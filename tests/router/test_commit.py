from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from weavemw.errors import BadRequest
from weavemw.router.commit import GroupCommit, StorageError
from weavemw.router.store import Database, SqliteStore


class Counting(Database):
    """Counts commits, and fails them on demand."""

    commits = 0
    failing = False
    thread = ""

    def commit(self) -> None:
        self.commits += 1
        self.thread = threading.current_thread().name
        if self.failing:
            raise sqlite3.OperationalError("database or disk is full")
        super().commit()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Counting]:
    database = Counting(tmp_path / "router.db")
    yield database
    database.close()


def gather(database: Database, *changes: Callable[[], Any], on_loss: Callable[[], None] = lambda: None) -> list[Any]:
    """What each change returns or raises, when all come at once."""
    async def run() -> list[Any]:
        writer = GroupCommit(database, on_loss)
        try:
            return await asyncio.gather(*map(writer.run, changes), return_exceptions=True)
        finally:
            await writer.close()

    return asyncio.run(run())


def noting(database: Database, name: str, error: Exception | None = None) -> Callable[[], str]:
    def change() -> str:
        SqliteStore(database).put_note(name, name)
        if error:
            raise error
        return name

    return change


def noted(database: Database) -> list[str]:
    return [row[0] for row in database.execute("SELECT name FROM note ORDER BY name")]


def test_one_commit_for_many(database: Counting) -> None:
    """Changes that come together are one transaction, and each gets what it returned."""
    names = [f"n{number}" for number in range(50)]
    assert gather(database, *(noting(database, name) for name in names)) == names
    assert database.commits == 1
    assert noted(database) == sorted(names)


def test_only_what_changes_something_waits_for_the_disk(database: Counting) -> None:
    """A container that had no names has them removed at each of its ends."""
    assert gather(database, lambda: noted(database)) == [[]]
    assert database.thread == threading.current_thread().name
    assert gather(database, noting(database, "a")) == ["a"]
    assert database.thread.startswith("commit")


def test_a_change_that_fails_is_undone_alone(database: Counting) -> None:
    """A change that raises changes nothing, and takes no other with it."""
    error = BadRequest("no")
    assert gather(database, noting(database, "a"), noting(database, "b", error), noting(database, "c")) == [
        "a", error, "c"]
    assert noted(database) == ["a", "c"]


def test_a_full_disk(database: Counting) -> None:
    """If the disk refuses, everyone is told, nothing has changed, what was read is read anew, and it goes on."""
    losses: list[None] = []
    database.failing = True
    outcomes = gather(database, noting(database, "a"), noting(database, "b"), on_loss=lambda: losses.append(None))
    assert [type(outcome) for outcome in outcomes] == [StorageError, StorageError]
    assert (noted(database), losses) == ([], [None])
    database.failing = False
    assert gather(database, noting(database, "c")) == ["c"]


def test_a_client_that_left(database: Counting) -> None:
    """A change whose caller was cancelled is made all the same, and disturbs nobody."""
    async def run() -> str:
        writer = GroupCommit(database)
        leaving = asyncio.create_task(writer.run(noting(database, "a")))
        staying = asyncio.create_task(writer.run(noting(database, "b")))
        await asyncio.sleep(0)
        leaving.cancel()
        try:
            return await staying
        finally:
            await writer.close()

    assert asyncio.run(run()) == "b"
    assert noted(database) == ["a", "b"]


@pytest.mark.parametrize("error", [sqlite3.OperationalError("disk I/O error"),
                                   sqlite3.DatabaseError("database disk image is malformed")])
def test_a_disk_that_can_not_be_read(database: Counting, error: sqlite3.Error) -> None:
    """Whatever SQLite says of the file is an answer for all who wait, also if nothing can be read anew then."""
    def broken() -> None:
        raise error

    first, second = gather(database, noting(database, "a"), broken, on_loss=broken)
    assert isinstance(first, StorageError)
    assert isinstance(second, StorageError)
    assert noted(database) == []


def test_what_a_change_breaks_is_its_own(database: Counting) -> None:
    """A rule of the tables that a change breaks costs no other change anything."""
    first, second = gather(database, noting(database, "a"), noting(database, "b", sqlite3.IntegrityError("twice")))
    assert first == "a"
    assert isinstance(second, sqlite3.IntegrityError)
    assert noted(database) == ["a"]
