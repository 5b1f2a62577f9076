"""Where the router keeps what must outlive it: a small interface, in memory and in SQLite.

Addresses are kept as numbers of 128 bits, so that both families share one order:
IPv6 as it is, IPv4 as its mapped form ``::ffff:a.b.c.d`` (RFC 4291, 2.5.5.2).

The free part of a range is a set of maximal disjoint intervals, keyed by their
**high** end. Taking the lowest address of an interval then changes one row in
place, "the lowest free address from here" is one look into an ordered index,
and giving back merges with at most two neighbours: all O(log n).
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left, insort
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path
from typing import Any, Protocol

from weavemw.errors import SettingsError
from weavemw.router.client import Interface

__all__ = [
    "Address",
    "AddressLease",
    "Database",
    "Interval",
    "MemoryStore",
    "Network",
    "SqliteStore",
    "Store",
    "address_of",
    "key_of",
]

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Interval = tuple[int, int]

_MAPPED = 0xFFFF << 32


def key_of(address: Address) -> int:
    """The number under which an address is kept."""
    return int(address) | (_MAPPED if address.version == 4 else 0)


def address_of(key: int) -> Address:
    """The address that :func:`key_of` made the number from."""
    return IPv4Address(key & 0xFFFFFFFF) if key >> 32 == 0xFFFF else IPv6Address(key)


@dataclass(frozen=True, slots=True)
class AddressLease:
    """An address and its owner; ``outside`` means that it is only recorded, not taken from a range."""

    key: int
    prefix: int
    owner: str
    outside: bool = False

    @property
    def interface(self) -> Interface:
        """The address with its prefix length."""
        address = address_of(self.key)
        if isinstance(address, IPv4Address):
            return IPv4Interface((address, self.prefix))
        return IPv6Interface((address, self.prefix))


class Store(Protocol):
    """What the allocator needs to have kept. Within a range, each address is in one interval, or rests, or is leased.

    Grouping changes into transactions is the caller's business: see :class:`Database`.
    """

    def interval_from(self, key: int) -> Interval | None:
        """The free interval (low, high) with the lowest high end that is not below ``key``."""

    def put_interval(self, low: int, high: int) -> None:
        """Keep this interval, in place of one with the same high end."""

    def drop_interval(self, high: int) -> None:
        """Forget the interval that ends here."""

    def rest(self, key: int, pool: str) -> int:
        """Note that an address of this pool was given back; the number grows by one with each note."""

    def rested_longest(self, pool: str) -> int | None:
        """The address of this pool that was given back first."""

    def resting_from(self, key: int) -> int | None:
        """The lowest resting address that is not below ``key``."""

    def rested_until(self, note: int) -> int | None:
        """An address that was given back with this note or an earlier one."""

    def wake(self, key: int) -> bool:
        """The address rests no more; whether it did."""

    def leases_at(self, key: int) -> tuple[AddressLease, ...]:
        """Who holds an address: one lease of a range, or any number of records outside."""

    def leases_of(self, owner: str) -> tuple[AddressLease, ...]:
        """What an owner holds, lowest address first."""

    def leases(self) -> Iterator[AddressLease]:
        """Every lease, lowest address first."""

    def lease_count(self) -> int:
        """How many leases there are."""

    def leases_between(self, low: int, high: int) -> int:
        """How many leases of a range there are between two addresses, both included."""

    def put_lease(self, lease: AddressLease) -> None:
        """Keep a lease, in place of one of the same owner for the same address."""

    def drop_lease(self, lease: AddressLease) -> None:
        """Forget a lease."""

    def clear_free(self) -> None:
        """Forget all intervals and all that rests."""

    def note(self, name: str) -> str | None:
        """A text kept under a name."""

    def put_note(self, name: str, text: str) -> None:
        """Keep a text under a name."""


class MemoryStore:
    """:class:`Store` that forgets; for tests and for programs that embed the allocator."""

    def __init__(self) -> None:
        self._highs: list[int] = []
        self._lows: dict[int, int] = {}
        self._resting: dict[int, tuple[int, str]] = {}
        self._leases: dict[tuple[int, str], AddressLease] = {}
        self._notes: dict[str, str] = {}

    def interval_from(self, key: int) -> Interval | None:
        index = bisect_left(self._highs, key)
        return (self._lows[self._highs[index]], self._highs[index]) if index < len(self._highs) else None

    def put_interval(self, low: int, high: int) -> None:
        if high not in self._lows:
            insort(self._highs, high)
        self._lows[high] = low

    def drop_interval(self, high: int) -> None:
        del self._lows[high]
        del self._highs[bisect_left(self._highs, high)]

    def rest(self, key: int, pool: str) -> int:
        note = max((note for note, _ in self._resting.values()), default=0) + 1
        self._resting[key] = (note, pool)
        return note

    def rested_longest(self, pool: str) -> int | None:
        return min((key for key, (_, of) in self._resting.items() if of == pool),
                   key=lambda key: self._resting[key], default=None)

    def resting_from(self, key: int) -> int | None:
        return min((resting for resting in self._resting if resting >= key), default=None)

    def rested_until(self, note: int) -> int | None:
        return next((key for key, (rested, _) in self._resting.items() if rested <= note), None)

    def wake(self, key: int) -> bool:
        return self._resting.pop(key, None) is not None

    def leases_at(self, key: int) -> tuple[AddressLease, ...]:
        return tuple(lease for lease in self.leases() if lease.key == key)

    def leases_of(self, owner: str) -> tuple[AddressLease, ...]:
        return tuple(lease for lease in self.leases() if lease.owner == owner)

    def leases(self) -> Iterator[AddressLease]:
        return iter([self._leases[place] for place in sorted(self._leases)])

    def lease_count(self) -> int:
        return len(self._leases)

    def leases_between(self, low: int, high: int) -> int:
        return sum(not lease.outside and low <= lease.key <= high for lease in self._leases.values())

    def put_lease(self, lease: AddressLease) -> None:
        self._leases[lease.key, lease.owner] = lease

    def drop_lease(self, lease: AddressLease) -> None:
        del self._leases[lease.key, lease.owner]

    def clear_free(self) -> None:
        self._highs, self._lows, self._resting = [], {}, {}

    def note(self, name: str) -> str | None:
        return self._notes.get(name)

    def put_note(self, name: str, text: str) -> None:
        self._notes[name] = text


_SCHEMA_VERSION = 1
# The partial index is the last guard: no address of a range has two owners, whatever the code above it does.
_SCHEMA = f"""
BEGIN;
CREATE TABLE free (high BLOB PRIMARY KEY, low BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE resting (note INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, pool TEXT NOT NULL) STRICT;
CREATE INDEX resting_pool ON resting (pool, note);
CREATE TABLE lease (key BLOB NOT NULL, owner TEXT NOT NULL, prefix INTEGER NOT NULL, outside INTEGER NOT NULL,
                    PRIMARY KEY (key, owner)) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX lease_once ON lease (key) WHERE outside = 0;
CREATE INDEX lease_owner ON lease (owner);
CREATE TABLE name (owner TEXT NOT NULL, key BLOB NOT NULL, fqdn TEXT NOT NULL COLLATE NOCASE,
                   PRIMARY KEY (owner, key, fqdn)) STRICT, WITHOUT ROWID;
CREATE TABLE note (name TEXT PRIMARY KEY, text TEXT NOT NULL) STRICT, WITHOUT ROWID;
PRAGMA user_version = {_SCHEMA_VERSION};
COMMIT;
"""


class Database:
    """The router's SQLite file: write-ahead log, every commit on the disk before it returns.

    It may be used from several threads, one at a time. Raises
    :class:`~weavemw.errors.SettingsError` for a file that can't be used.
    """

    def __init__(self, path: Path) -> None:
        self._changes_before = 0
        try:
            self.connection = self._open(path)
        except sqlite3.Error as error:
            raise SettingsError(f"can't use {path}: {error}", hint="--state-dir names another directory") from error

    def _open(self, path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > _SCHEMA_VERSION:
            raise SettingsError(f"{path} is of a newer version (format {version}, here {_SCHEMA_VERSION}): "
                                "install that version again")
        if version == 0:
            connection.executescript(_SCHEMA)
        return connection

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        """Run one statement."""
        return self.connection.execute(statement, values)

    def begin(self) -> None:
        """Open a transaction."""
        self.connection.execute("BEGIN IMMEDIATE")
        self._changes_before = self.connection.total_changes

    @property
    def has_changes(self) -> bool:
        """Whether a row was changed since the transaction was opened: if not, its end doesn't wait for the disk."""
        return self.connection.total_changes != self._changes_before

    def commit(self) -> None:
        """End the transaction; what it changed is on the disk afterwards."""
        self.connection.execute("COMMIT")

    def rollback(self) -> None:
        """End the transaction, if there is one, and forget what it changed."""
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Within a transaction: all changes of the block, or none if it raises."""
        self.connection.execute("SAVEPOINT change")
        try:
            yield
        except BaseException:
            self.connection.execute("ROLLBACK TO change")
            raise
        finally:
            self.connection.execute("RELEASE change")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All changes of the block on the disk when it ends, or none if it raises."""
        self.begin()
        try:
            yield
            self.commit()
        except BaseException:
            self.rollback()
            raise

    def close(self) -> None:
        """Close the file."""
        self.connection.close()


class SqliteStore:
    """:class:`Store` in a :class:`Database`."""

    def __init__(self, database: Database) -> None:
        self._execute = database.execute

    def interval_from(self, key: int) -> Interval | None:
        row = self._execute("SELECT low, high FROM free WHERE high >= ? ORDER BY high LIMIT 1", blob(key)).fetchone()
        return (number(row[0]), number(row[1])) if row else None

    def put_interval(self, low: int, high: int) -> None:
        self._execute("INSERT INTO free (high, low) VALUES (?, ?) ON CONFLICT DO UPDATE SET low = excluded.low",
                      blob(high), blob(low))

    def drop_interval(self, high: int) -> None:
        self._execute("DELETE FROM free WHERE high = ?", blob(high))

    def rest(self, key: int, pool: str) -> int:
        note = self._execute("INSERT INTO resting (key, pool) VALUES (?, ?)", blob(key), pool).lastrowid
        return note or 0

    def rested_longest(self, pool: str) -> int | None:
        return self._key("SELECT key FROM resting WHERE pool = ? ORDER BY note LIMIT 1", pool)

    def resting_from(self, key: int) -> int | None:
        return self._key("SELECT key FROM resting WHERE key >= ? ORDER BY key LIMIT 1", blob(key))

    def rested_until(self, note: int) -> int | None:
        return self._key("SELECT key FROM resting WHERE note <= ? ORDER BY note LIMIT 1", note)

    def wake(self, key: int) -> bool:
        return self._execute("DELETE FROM resting WHERE key = ?", blob(key)).rowcount > 0

    def leases_at(self, key: int) -> tuple[AddressLease, ...]:
        return self._leases("WHERE key = ?", blob(key))

    def leases_of(self, owner: str) -> tuple[AddressLease, ...]:
        return self._leases("WHERE owner = ? ORDER BY key", owner)

    def leases(self) -> Iterator[AddressLease]:
        return iter(self._leases("ORDER BY key"))

    def lease_count(self) -> int:
        return int(self._execute("SELECT count(*) FROM lease").fetchone()[0])

    def leases_between(self, low: int, high: int) -> int:
        row = self._execute("SELECT count(*) FROM lease WHERE outside = 0 AND key BETWEEN ? AND ?", blob(low),
                            blob(high)).fetchone()
        return int(row[0])

    def put_lease(self, lease: AddressLease) -> None:
        self._execute("INSERT INTO lease (key, owner, prefix, outside) VALUES (?, ?, ?, ?) "
                      "ON CONFLICT (key, owner) DO UPDATE SET prefix = excluded.prefix, outside = excluded.outside",
                      blob(lease.key), lease.owner, lease.prefix, int(lease.outside))

    def drop_lease(self, lease: AddressLease) -> None:
        self._execute("DELETE FROM lease WHERE key = ? AND owner = ?", blob(lease.key), lease.owner)

    def clear_free(self) -> None:
        self._execute("DELETE FROM free")
        self._execute("DELETE FROM resting")

    def note(self, name: str) -> str | None:
        row = self._execute("SELECT text FROM note WHERE name = ?", name).fetchone()
        return str(row[0]) if row else None

    def put_note(self, name: str, text: str) -> None:
        self._execute("INSERT OR REPLACE INTO note (name, text) VALUES (?, ?)", name, text)

    def _key(self, statement: str, value: object) -> int | None:
        row = self._execute(statement, value).fetchone()
        return number(row[0]) if row else None

    def _leases(self, where: str, *values: object) -> tuple[AddressLease, ...]:
        rows = self._execute(f"SELECT key, prefix, owner, outside FROM lease {where}", *values)  # noqa: S608  # constants
        return tuple([AddressLease(number(key), prefix, owner, bool(outside)) for key, prefix, owner, outside in rows])


def blob(key: int) -> bytes:
    """A number as SQLite orders it: 16 bytes, the highest first."""
    return key.to_bytes(16, "big")


def number(raw: bytes) -> int:
    """The number that :func:`blob` made the bytes from."""
    return int.from_bytes(raw, "big")
