"""What Docker's answers tell of the wait program, and what they would tell without it. Pure.

All is computed from an answer itself: what a create asked for can be read back from what was put in its place
(:mod:`~weavemw.dockerapi.wait_mount`). The shapes are those of Docker Engine 20.10 to 29 (API 1.18 to 1.5x).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from typing import Any

from weavemw.dockerapi.configs import unwrapped
from weavemw.dockerapi.wait_mount import PLACES, path_in, program_of, spelled, starts_with_it, without_program

__all__ = ["READERS", "EventFilter", "holds_marks", "without_traces"]

Json = dict[str, Any]

_SPELLINGS = (*PLACES, *(spelled(place, []) for place in PLACES))
#: What is in every answer that tells of it. One that holds another need not be looked for.
_MARKS = (b"/wait/", *(path.encode() for path in _SPELLINGS if not any(other in path for other in {*PLACES} - {path})))
_encoded = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode
#: Between quotes that stand for themselves: within a string they are escaped.
_FIRST_ROW, _NEXT_ROW, _END_OF_ROWS = b'[{"Id":"', b'},{"Id":"', b"}]\n"
# Docker puts quotes around an argument with a blank in it, but not around the program.
_FIRST_WORD = re.compile(r"[^ ]+ (?:'([^']* [^']*)'(?![^ ]))?")
# A quote that follows a colon begins a value: within a string, quotes are escaped.
_EVENT = re.compile(rf':"(exec_(?:create|start): )(?:{"|".join(map(re.escape, _SPELLINGS))}) '.encode())


def without_traces(call: str, body: bytes) -> bytes:
    """The JSON that answers a call (named as in :mod:`~weavemw.dockerapi.routes`), as it would be without us.

    The very same bytes come back where nothing in them is ours. What was changed keeps its unknown fields and their
    order, and every number its value.
    """
    remove = _REMOVERS.get(call)
    if remove is None or not holds_marks(body):
        return body
    try:
        return (_rewritten_rows(body) if call == "container_list" else None) or _rewritten(body, remove) + b"\n"
    except ValueError:
        return body


def holds_marks(body: bytes) -> bool:
    """Whether an answer has any text that can be a trace of the wait program; else all of it is as without us."""
    return any(mark in body for mark in _MARKS)


def _rewritten_rows(body: bytes) -> bytes | None:
    """A list of containers as the daemon writes it, of which only rows with marks are read; ``None`` for any other.

    Raises ValueError as :func:`_rewritten` does.
    """
    if not (body.startswith(_FIRST_ROW) and body.endswith(_END_OF_ROWS)):
        return None
    rows = body[len(_FIRST_ROW):-len(_END_OF_ROWS)].split(_NEXT_ROW)
    try:
        return b"[%b]\n" % b",".join(map(_rewritten_row, (b'{"Id":"%b}' % row for row in rows)))
    except json.JSONDecodeError:  # it was split within a row
        return None


def _rewritten_row(row: bytes) -> bytes:
    if not holds_marks(row):
        return row
    try:
        return _rewritten(row, _remove_from_row)
    except _NothingFoundError:
        return row


def _rewritten(text: bytes, remove: Callable[[Any], bool]) -> bytes:
    """The JSON without traces; raises ValueError for what is no JSON, or has none."""
    document = json.loads(text)
    if not remove(document):
        raise _NothingFoundError
    # Objects of payload.py would take five times as long, and the daemon gives no field twice.
    return _encoded(document).encode()


class _NothingFoundError(ValueError):
    """The marks in a text are no traces."""


class EventFilter:
    """Takes the wait program out of a stream of events as its bytes pass: of what is executed while it waits.

    Nothing gets shorter, blanks fill the place: whatever frames the events stays right. A line is held back until
    its end has come, and nothing else. Empty bytes say that the stream ends.
    """

    def __init__(self) -> None:
        self._held = b""

    def __call__(self, data: bytes) -> bytes:
        lines, end, rest = data.rpartition(b"\n")
        if data and not end:
            self._held += data
            return b""
        whole, self._held = self._held + lines + end, rest
        return _EVENT.sub(_blanked, whole)


def _blanked(found: re.Match[bytes]) -> bytes:
    return b":" + b'"'.rjust(len(found[0]) - len(found[1]) - 1) + found[1]


def _remove_from_container(shown: Any) -> bool:
    """From what inspect answers."""
    host = _object(shown, "HostConfig")
    binds = _list(host, "Binds")
    programs = set(map(program_of, map(str, binds))) - {""}
    if programs:
        host["Binds"] = without_program(binds)
        _unwrap(_object(shown, "Config"), programs)
        _shift(shown, "Path", "Args", programs)
    return _remove_mounts(shown) or bool(programs)


def _remove_from_list(rows: Any) -> bool:
    """From a list of containers."""
    return sum(map(_remove_from_row, rows)) > 0 if isinstance(rows, list) else False


def _remove_from_row(row: Any) -> bool:
    if isinstance(row, dict) and starts_with_it(row):
        row["Command"] = _FIRST_WORD.sub(lambda found: found[1] or "", row["Command"], count=1)
    return _remove_mounts(row)


def _remove_from_df(shown: Any) -> bool:
    """From the list of containers within what ``/system/df`` answers; since API 1.52 it is one of several ``Items``."""
    usages = shown.values() if isinstance(shown, dict) else ()
    return sum(map(_remove_from_list, (_list(shown, "Containers"), *(_list(usage, "Items") for usage in usages)))) > 0


def _remove_from_exec(shown: Any) -> bool:
    """From an exec."""
    return _shift(_object(shown, "ProcessConfig"), "entrypoint", "arguments", PLACES)


def _remove_from_image(shown: Any) -> bool:
    """From an image, which up to API 1.44 holds the configuration of the container that it was committed from."""
    return _unwrap(_object(shown, "ContainerConfig"), PLACES)


def _unwrap(config: Json, programs: Collection[str]) -> bool:
    entrypoint = _list(config, "Entrypoint")
    own = unwrapped(entrypoint, programs)
    if own == entrypoint:
        return False
    config["Entrypoint"] = None if own == [""] else own
    return True


def _shift(process: Any, program: str, arguments: str, programs: Collection[str]) -> bool:
    """Let a process be what the wait program is to execute."""
    words = _list(process, arguments)
    if path_in(str(process.get(program))) not in programs or not words:
        return False
    process[program], process[arguments] = words[0], words[1:]
    return True


def _remove_mounts(shown: Any) -> bool:
    mounts = _list(shown, "Mounts")
    kept = [mount for mount in mounts if not _is_ours(mount)]
    if len(kept) == len(mounts):
        return False
    shown["Mounts"] = kept
    return True


def _is_ours(mount: Json) -> bool:
    # Without its mode, which is lost on the way by --volumes-from.
    return not mount.get("RW") and bool(program_of(f"{mount.get('Source')}:{mount.get('Destination')}:ro"))


def _object(parent: Any, name: str) -> Json:
    found = parent.get(name) if isinstance(parent, dict) else None
    return found if isinstance(found, dict) else {}


def _list(parent: Any, name: str) -> list[Any]:
    found = parent.get(name) if isinstance(parent, dict) else None
    return found if isinstance(found, list) else []


_REMOVERS: dict[str, Callable[[Any], bool]] = {
    "container_inspect": _remove_from_container,
    "container_list": _remove_from_list,
    "df": _remove_from_df,
    "exec_inspect": _remove_from_exec,
    "image_inspect": _remove_from_image,
}

#: The calls whose answers can tell of it. Events can, too: they are a stream.
READERS = frozenset(_REMOVERS)
