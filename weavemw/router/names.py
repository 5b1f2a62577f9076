"""Which names resolve to which addresses: durable in the router's database, published in a zone.

A record belongs to a container, or to ``weave:extern`` where ``dns-add`` named
none. It stays until its owner's records are removed, over restarts as well.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from weavemw.router.store import Address, Database, address_of, blob, key_of, number
from weavemw.router.zone import Zone, canonical, is_within

__all__ = ["Names", "Record"]

K = TypeVar("K")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Record:
    """One name of one address of one container; ``fqdn`` with its final dot, in the case it was given."""

    owner: str
    address: Address
    fqdn: str

    @property
    def key(self) -> tuple[str, Address, str]:
        """What makes two records the same: names have no case (RFC 4343)."""
        return self.owner, self.address, self.fqdn.lower()


class Names:
    """All records, kept in ``database`` and published in ``zone``; changes belong into one of its transactions."""

    def __init__(self, database: Database, zone: Zone) -> None:
        self._execute = database.execute
        self.zone = zone
        self._records: dict[tuple[str, Address, str], Record] = {}
        self._by_name: dict[str, dict[tuple[str, Address, str], Record]] = {}
        self._by_address: dict[Address, dict[tuple[str, Address, str], Record]] = {}
        self._by_owner: dict[str, dict[tuple[str, Address, str], Record]] = {}
        self._remote: dict[str, tuple[Record, ...]] = {}
        self.load()

    def load(self) -> None:
        """Read all records anew."""
        rows = self._execute("SELECT owner, key, fqdn FROM name ORDER BY fqdn, owner, key").fetchall()
        for index in (self._records, self._by_name, self._by_address, self._by_owner):
            index.clear()
        self.zone.clear()
        for owner, key, fqdn in rows:
            if is_within(fqdn, self.zone.domain):
                self._index(Record(owner, address_of(number(key)), fqdn))
        for record in itertools.chain.from_iterable(self._remote.values()):
            self._index_remote(record)
        for name in self._by_name:
            self._publish_name(name)
        for address in self._by_address:
            self._publish_address(address)

    def add(self, owner: str, address: Address, fqdn: str) -> bool:
        """Make a name resolve to an address; whether it was kept, which names outside of the domain are not.

        Raises :class:`~weavemw.errors.BadRequest` for what is no host name.
        """
        record = Record(owner, address, canonical(fqdn))
        if not is_within(record.fqdn, self.zone.domain):
            return False
        if record.key not in self._records:
            self._execute("INSERT OR IGNORE INTO name (owner, key, fqdn) VALUES (?, ?, ?)", *_row(record))
            self._index(record)
            self._publish(record)
        return True

    def remove(self, owner: str | None = None, address: Address | None = None, fqdn: str | None = None) -> int:
        """Remove the records that match all that is given; how many they were."""
        name = canonical(fqdn).lower() if fqdn else None
        matching = [record for record in self._near(owner, address, name)
                    if record.key in self._records and owner in (None, record.owner)
                    and address in (None, record.address) and name in (None, record.fqdn.lower())]
        for record in matching:
            self._execute("DELETE FROM name WHERE owner = ? AND key = ? AND fqdn = ?", *_row(record))
            self._unindex(record)
            self._publish(record)
        return len(matching)

    def set_remote(self, peer: str, records: Iterable[Record]) -> None:
        """Let these be all names of another host that resolve here; they are not kept."""
        before = self._remote.pop(peer, ())
        after = tuple(record for record in records if is_within(record.fqdn, self.zone.domain))
        if after:
            self._remote[peer] = after
        for record in set(before) - set(after):
            _discard(self._by_name, record.fqdn.lower(), record)
            _discard(self._by_address, record.address, record)
            self._publish(record)
        for record in set(after) - set(before):
            self._index_remote(record)
            self._publish(record)

    def remote(self) -> dict[str, tuple[Record, ...]]:
        """The names of other hosts, by host."""
        return dict(self._remote)

    def records_of(self, owner: str) -> tuple[Record, ...]:
        """The records of one owner."""
        return tuple(self._by_owner.get(owner, {}).values())

    def records(self) -> tuple[Record, ...]:
        """All records of this host, by name."""
        return tuple(sorted(self._records.values(), key=lambda record: (record.fqdn.lower(), record.owner)))

    def __len__(self) -> int:
        return len(self._records)

    def _near(self, owner: str | None, address: Address | None, name: str | None) -> Iterable[Record]:
        if owner is not None:
            return self._by_owner.get(owner, {}).values()
        if name is not None:
            return self._by_name.get(name, {}).values()
        return self._by_address.get(address, {}).values() if address else self._records.values()

    def _index(self, record: Record) -> None:
        self._records[record.key] = record
        self._by_owner.setdefault(record.owner, {})[record.key] = record
        self._index_remote(record)

    def _index_remote(self, record: Record) -> None:
        """A record of another host is found by what is asked for only."""
        self._by_name.setdefault(record.fqdn.lower(), {})[record.key] = record
        self._by_address.setdefault(record.address, {})[record.key] = record

    def _unindex(self, record: Record) -> None:
        del self._records[record.key]
        _discard(self._by_owner, record.owner, record)
        _discard(self._by_name, record.fqdn.lower(), record)
        _discard(self._by_address, record.address, record)

    def _publish(self, record: Record) -> None:
        self._publish_name(record.fqdn.lower())
        self._publish_address(record.address)

    def _publish_name(self, name: str) -> None:
        records = self._by_name.get(name, {}).values()
        self.zone.publish(name, _once(records, lambda record: record.address))

    def _publish_address(self, address: Address) -> None:
        records = self._by_address.get(address, {}).values()
        self.zone.publish_reverse(address, _once(records, lambda record: record.fqdn))


def _row(record: Record) -> tuple[str, bytes, str]:
    return record.owner, blob(key_of(record.address)), record.fqdn


def _once(records: Iterable[Record], part: Callable[[Record], T]) -> list[T]:
    return list(dict.fromkeys(map(part, records)))


def _discard(index: dict[K, dict[tuple[str, Address, str], Record]], key: K, record: Record) -> None:
    del index[key][record.key]
    if not index[key]:
        del index[key]
