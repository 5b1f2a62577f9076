"""Keys, transactions and changes of a key-value store with revisions, as etcd has them: values only. Pure.

What is thought out about blocks and names speaks of these; the client of etcd
carries them over the wire, and a stand-in can keep them in memory.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "Absent",
    "Change",
    "Changes",
    "Compare",
    "Delete",
    "Holds",
    "Listing",
    "Operation",
    "Outcome",
    "Pair",
    "Present",
    "Put",
    "Txn",
    "Unchanged",
    "after_prefix",
]


@dataclass(frozen=True, slots=True)
class Pair:
    """A key and its value; ``revision`` is that of its last change, ``lease`` 0 for none."""

    key: str
    value: str
    revision: int = 0
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Absent:
    """Nothing is kept under this key or, with ``end``, under any key from ``key`` up to but without ``end``."""

    key: str
    end: str = ""


@dataclass(frozen=True, slots=True)
class Present:
    """Something is kept under this key."""

    key: str


@dataclass(frozen=True, slots=True)
class Holds:
    """Exactly this value is kept under this key."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The key was changed last at this revision."""

    key: str
    revision: int


@dataclass(frozen=True, slots=True)
class Put:
    """Keep this value, for as long as the lease lives if one is given."""

    key: str
    value: str
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Forget a key or, with ``end``, all keys from ``key`` up to but without ``end``."""

    key: str
    end: str = ""


Compare = Absent | Present | Holds | Unchanged
Operation = Put | Delete


@dataclass(frozen=True, slots=True)
class Txn:
    """All operations at one revision if all comparisons hold, else none. etcd takes 128 of each at most."""

    compare: tuple[Compare, ...]
    then: tuple[Operation, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether a transaction was done, and the store's revision afterwards."""

    succeeded: bool
    revision: int


@dataclass(frozen=True, slots=True)
class Listing:
    """All pairs of a prefix, by key, as they were together at one revision of the cluster ``cluster``."""

    pairs: tuple[Pair, ...]
    revision: int
    cluster: str


@dataclass(frozen=True, slots=True)
class Change:
    """A key has this value now; ``None``: it is gone."""

    key: str
    value: str | None
    revision: int


@dataclass(frozen=True, slots=True)
class Changes:
    """What came to be up to a revision, that included, in this order."""

    changes: tuple[Change, ...]
    revision: int


def after_prefix(prefix: str) -> str:
    """The end of the range of all keys that begin so: prefixes end in ASCII here, and are not empty."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)
