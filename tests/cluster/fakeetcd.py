"""An etcd of one history in memory: transactions, leases, lists."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable

from weavemw.cluster.kv import Absent, Change, Compare, Delete, Holds, Operation, Outcome, Pair, Present, Put, Txn


class FakeEtcd:
    """What etcd keeps. ``watchers`` are told of each change."""

    def __init__(self) -> None:
        self.pairs: dict[str, Pair] = {}
        self.revision = 1
        self.watchers: list[Callable[[Change], None]] = []
        self._keys: list[str] = []
        self._by_value: dict[str, set[str]] = defaultdict(set)
        self._by_lease: dict[int, set[str]] = defaultdict(set)

    def txn(self, txn: Txn) -> Outcome:
        if not all(map(self._holds, txn.compare)):
            return Outcome(False, self.revision)
        self.revision += 1
        for operation in txn.then:
            self._do(operation)
        return Outcome(True, self.revision)

    def get(self, key: str) -> Pair | None:
        return self.pairs.get(key)

    def with_value(self, prefix: str, value: str) -> tuple[Pair, ...]:
        return tuple(self.pairs[key] for key in sorted(self._by_value[value]) if key.startswith(prefix))

    def listed(self, prefix: str) -> tuple[Pair, ...]:
        start = bisect_left(self._keys, prefix)
        found = []
        while start < len(self._keys) and self._keys[start].startswith(prefix):
            found.append(self.pairs[self._keys[start]])
            start += 1
        return tuple(found)

    def revoke(self, lease: int) -> None:
        for key in tuple(self._by_lease[lease]):
            self.txn(Txn((), (Delete(key),)))

    def _holds(self, compare: Compare) -> bool:
        pair = self.pairs.get(compare.key)
        match compare:
            case Absent(key, end) if end:
                at = bisect_left(self._keys, key)
                return at == len(self._keys) or self._keys[at] >= end
            case Absent():
                return pair is None
            case Present():
                return pair is not None
            case Holds(_, value):
                return pair is not None and pair.value == value
        return pair is not None and pair.revision == compare.revision

    def _do(self, operation: Operation) -> None:
        if isinstance(operation, Delete):
            keys = [operation.key] if not operation.end else [
                key for key in self._keys if operation.key <= key < operation.end]
            for key in keys:
                self._forget(key)
                self._tell(Change(key, None, self.revision))
            return
        self._forget(operation.key)
        insort(self._keys, operation.key)
        self.pairs[operation.key] = Pair(operation.key, operation.value, self.revision, operation.lease)
        self._by_value[operation.value].add(operation.key)
        if operation.lease:
            self._by_lease[operation.lease].add(operation.key)
        self._tell(Change(operation.key, operation.value, self.revision))

    def _forget(self, key: str) -> None:
        pair = self.pairs.pop(key, None)
        if pair:
            del self._keys[bisect_left(self._keys, key)]
            self._by_value[pair.value].discard(key)
            self._by_lease[pair.lease].discard(key)

    def _tell(self, change: Change) -> None:
        for watcher in self.watchers:
            watcher(change)


__all__ = ["FakeEtcd", "Put"]
