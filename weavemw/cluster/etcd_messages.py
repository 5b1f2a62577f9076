"""etcd's v3 API as its JSON gateway has it: requests built, answers read. Pure.

The messages are those of etcd's ``rpc.proto``, in protobuf's JSON form: bytes in
base64, numbers of 64 bits as texts, fields that are zero left out.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from weavemw.cluster.kv import (
    Absent,
    Change,
    Changes,
    Compare,
    Delete,
    Holds,
    Operation,
    Outcome,
    Pair,
    Present,
    Put,
    Txn,
    Unchanged,
    after_prefix,
)

__all__ = ["changes_of", "number_of", "outcome_of", "pairs_of", "range_request", "revision_of", "txn_request",
           "watch_request"]

Json = Mapping[str, Any]


def range_request(key: str, end: str = "", *, limit: int = 0, revision: int = 0) -> dict[str, Any]:
    """A read of one key, or of all up to ``end``; at the newest revision unless one is given."""
    return _keys(key, end) | {"limit": str(limit), "revision": str(revision)}


def txn_request(txn: Txn) -> dict[str, Any]:
    """A transaction."""
    return {"compare": [_compare(each) for each in txn.compare], "success": [_operation(each) for each in txn.then]}


def watch_request(prefix: str, revision: int) -> dict[str, Any]:
    """A watch of all keys with a prefix, for what comes to be at this revision and later."""
    keys = _keys(prefix, after_prefix(prefix))
    return {"create_request": keys | {"start_revision": str(revision), "progress_notify": True}}


def outcome_of(answer: Json) -> Outcome:
    """What became of a transaction."""
    return Outcome(bool(answer.get("succeeded")), revision_of(answer))


def pairs_of(answer: Json) -> tuple[Pair, ...]:
    """The pairs in a read's answer."""
    return tuple([Pair(_text(each["key"]), _text(each.get("value", "")), number_of(each, "mod_revision"),
                       number_of(each, "lease")) for each in answer.get("kvs", ())])


def changes_of(result: Json, following: int) -> Changes:
    """What a message of a watch says. ``following`` is the revision that the watch waits for.

    A message with events says nothing of revisions after its last one, whatever its header says; one without events
    vouches for its header's, unless it is the first.
    """
    changes = tuple([_change(each) for each in result.get("events", ())])
    if changes:
        return Changes(changes, changes[-1].revision)
    return Changes((), following - 1 if result.get("created") else max(revision_of(result), following - 1))


def revision_of(answer: Json) -> int:
    """The store's revision when it answered."""
    return number_of(answer.get("header", {}), "revision")


def number_of(message: Json, name: str) -> int:
    """A field that is a number of 64 bits."""
    return int(message.get(name) or 0)


def _change(event: Json) -> Change:
    pair = event["kv"]
    value = None if event.get("type") == "DELETE" else _text(pair.get("value", ""))
    return Change(_text(pair["key"]), value, number_of(pair, "mod_revision"))


def _compare(compare: Compare) -> dict[str, Any]:
    match compare:
        case Absent(key, end):
            return _keys(key, end) | {"target": "CREATE", "result": "EQUAL", "create_revision": "0"}
        case Present(key):
            return _keys(key) | {"target": "CREATE", "result": "GREATER", "create_revision": "0"}
        case Holds(key, value):
            return _keys(key) | {"target": "VALUE", "result": "EQUAL", "value": _base64(value)}
        case Unchanged(key, revision):
            return _keys(key) | {"target": "MOD", "result": "EQUAL", "mod_revision": str(revision)}


def _operation(operation: Operation) -> dict[str, Any]:
    match operation:
        case Put(key, value, lease):
            return {"request_put": _keys(key) | {"value": _base64(value), "lease": str(lease)}}
        case Delete(key, end):
            return {"request_delete_range": _keys(key, end)}


def _keys(key: str, end: str = "") -> dict[str, Any]:
    return {"key": _base64(key)} | ({"range_end": _base64(end)} if end else {})


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _text(data: str) -> str:
    return base64.b64decode(data).decode(errors="replace")
