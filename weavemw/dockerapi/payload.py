"""Docker's JSON as the daemon reads it, and request bodies: in, judged, perhaps changed, out.

The daemon decodes with Go's ``encoding/json``, which differs from Python's
``json`` where a proxy that only looks at the obvious would be fooled:

* A field matches in any case, and U+017F is an ``s``, the Kelvin sign
  U+212A a ``k``.
* A field given twice: scalars and lists take the last value, objects are merged
  field by field; ``null`` empties lists and objects but leaves scalars alone.
* Bytes that are not UTF-8 and lone surrogates read as U+FFFD.
* Only the first JSON value of the body counts; NaN and Infinity are no JSON.

What nobody changed is forwarded byte for byte. What was changed keeps its
unknown fields, their order, and every digit of every number. What nobody asks
for is not even read (:mod:`weavemw.dockerapi.jsontext`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any

from weavemw.context import BODY
from weavemw.dockerapi.jsontext import Text, object_at_start
from weavemw.errors import BadRequest, PayloadTooLarge, Unsupported

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["LIMIT", "Body", "Number", "Object", "body_of", "check_framing", "encode", "fold", "parse", "read_input"]

#: The largest body, in bytes, that is read whole; a create is a few kilobytes.
LIMIT = 4 * 1024 * 1024

_FOLDED = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)} | {0x17F: ord("s"), 0x212A: ord("k")}


class Number(str):
    """A JSON number, kept as the digits that it was written with."""

    __slots__ = ()


class Object:
    """A JSON object with the fields in their order, read by the rules of Go's ``encoding/json``.

    The accessors raise :class:`~weavemw.errors.BadRequest` for a value of another
    type than the daemon's, as the daemon would. ``path`` ("HostConfig.") is for complaints.
    """

    __slots__ = ("_places", "changed", "pairs", "path")

    def __init__(self, pairs: Iterable[tuple[str, Any]] = (), path: str = "") -> None:
        self.pairs = list(pairs)
        self.path = path
        self.changed = False
        self._places: dict[str, list[int]] | None = None

    def has(self, name: str) -> bool:
        """Whether the field is there, ``null`` included."""
        return bool(self._places_of(name))

    def string(self, name: str) -> str:
        """A string; missing and ``null`` read as empty."""
        found = ""
        for value in self._values(name):
            if value is not None:
                found = self._expect(name, value, str, "a string")
        return found

    def boolean(self, name: str) -> bool:
        """``true`` or ``false``; missing and ``null`` read as false."""
        found = False
        for value in self._values(name):
            if value is not None:
                found = self._expect(name, value, bool, "a boolean")
        return found

    def integer(self, name: str) -> int:
        """A whole number; missing and ``null`` read as 0."""
        found = 0
        for value in self._values(name):
            if value is not None:
                found = self._whole_number(name, value)
        return found

    def strings(self, name: str) -> list[str] | None:
        """A list of strings, ``None`` if it is missing or ``null``; ``null`` within it reads as empty."""
        items = self._list(name, "a list of strings")
        if items is None:
            return None
        return [self._text(f"{name}[{number}]", item) for number, item in enumerate(items)]

    def command(self, name: str) -> list[str] | None:
        """A list of strings or a single string, as ``Entrypoint`` and ``Cmd`` may be."""
        found: list[str] | None = None
        for value in self._values(name):
            words = [value] if type(value) is str else value
            found = None if words is None else Object([(name, words)], self.path).strings(name)
        return found

    def child(self, name: str) -> Object | None:
        """An object, ``None`` if it is missing or ``null``. Changes to it take effect by :meth:`set`."""
        found: Object | None = None
        for value in self._values(name):
            if value is None:
                found = None
            else:
                found = found or Object(path=f"{self.path}{name}.")
                found.pairs += self._expect(name, value, Object, "an object").pairs
        return found

    def objects(self, name: str) -> list[Object]:
        """A list of objects; missing and ``null`` read as an empty list, ``null`` within it as an empty object."""
        items = self._list(name, "a list of objects") or []
        return [self._object(f"{name}[{number}]", item) for number, item in enumerate(items)]

    def keys(self, name: str) -> list[str]:
        """The keys of a map (case counts in them); missing and ``null`` read as none."""
        found = self.child(name)
        return list(dict(found.pairs)) if found else []

    def labels(self, name: str) -> dict[str, str]:
        """A map of strings; missing and ``null`` read as empty."""
        found = self.child(name)
        pairs = found.pairs if found else []
        return {key: self._text(f"{name}.{key}", value) for key, value in pairs}

    def set(self, name: str, value: object) -> None:
        """Give the field this value, in one spelling, where its first spelling stood."""
        first, *others = self._places_of(name) or [len(self.pairs)]
        self.pairs[first : first + 1] = [(name, value)]
        self._drop(others)
        self.changed = True

    def remove(self, name: str) -> None:
        """Take the field away, in all its spellings."""
        self.changed |= self.has(name)
        self._drop(self._places_of(name))

    def _drop(self, places: list[int]) -> None:
        dropped = {*places}
        self.pairs = [pair for place, pair in enumerate(self.pairs) if place not in dropped]
        self._places = None

    def _places_of(self, name: str) -> list[int]:
        if self._places is None:
            self._places = {}
            for place, (key, _) in enumerate(self.pairs):
                self._places.setdefault(fold(key), []).append(place)
        return self._places.get(fold(name), [])

    def _values(self, name: str) -> list[Any]:
        return [_read(self.pairs[place][1]) for place in self._places_of(name)]

    def _list(self, name: str, expected: str) -> list[Any] | None:
        found: list[Any] | None = None
        for value in self._values(name):
            if value is not None:
                self._expect(name, value, list, expected)
                self._refuse_leftovers(name, found, value)
            found = value
        return found

    def _refuse_leftovers(self, name: str, before: list[Any] | None, now: list[Any]) -> None:
        # Go decodes a second list into the elements of the first: what is null
        # or left out in the second keeps the first one's value.
        if before and any(item is None or isinstance(item, Object) for item in map(_read, now)):
            raise BadRequest(f"{self.path}{name}: given twice")

    def _object(self, name: str, value: Any) -> Object:
        value = _read(value)
        pairs = () if value is None else self._expect(name, value, Object, "an object").pairs
        return Object(pairs, f"{self.path}{name}.")

    def _text(self, name: str, value: Any) -> str:
        value = _read(value)
        return "" if value is None else self._expect(name, value, str, "a string")

    def _whole_number(self, name: str, value: Any) -> int:
        digits = self._expect(name, value, Number, "a number")
        if not re.fullmatch(r"-?[0-9]{1,19}", digits):
            raise BadRequest(f"{self.path}{name}: expected a whole number, got {digits}")
        return int(digits)

    def _expect(self, name: str, value: Any, kind: type, expected: str) -> Any:
        value = _read(value)
        if type(value) is not kind:
            raise BadRequest(f"{self.path}{name}: expected {expected}, got {_kind_of(value)}")
        return value


class Body:
    """The body of a request, parsed once.

    ``document`` is the JSON object that it holds, or ``None`` for anything else:
    that is not ours to judge, the daemon answers it.
    """

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.document, self._rest = parse(raw)

    @property
    def data(self) -> bytes:
        """The bytes to forward: those that came, unless the document was changed."""
        if self.document is None or not self.document.changed:
            return self.raw
        return encode(self.document) + self._rest

    def replace(self, document: Object) -> Object:
        """Put another document in the place of the whole body, and return it."""
        self.document, self._rest = document, b""
        document.changed = True
        return document

    def store(self, environ: WSGIEnvironment) -> None:
        """Make it the body of the request for everything that is inside."""
        environ[BODY] = self
        data = self.data
        if environ.pop("HTTP_TRANSFER_ENCODING", None) or data or environ.get("CONTENT_LENGTH"):
            environ["CONTENT_LENGTH"] = str(len(data))
        environ["wsgi.input"] = BytesIO(data)


def body_of(environ: WSGIEnvironment, *, limit: int = LIMIT) -> Body:
    """The request's body, read whole the first time, then shared.

    Everything inside finds an ordinary body in its place. Raises
    :class:`~weavemw.errors.PayloadTooLarge` beyond ``limit`` bytes and
    :class:`~weavemw.errors.BadRequest` for a body whose extent or JSON can't be told.
    """
    if BODY not in environ:
        Body(_whole(environ, limit)).store(environ)
    found: Body = environ[BODY]
    return found


def check_framing(environ: WSGIEnvironment) -> None:
    """Raise :class:`~weavemw.errors.BadRequest` for a body whose extent can be told in two ways, or in none.

    And :class:`~weavemw.errors.Unsupported` for chunks where the server leaves them as they are, or drops them.
    """
    coding = environ.get("HTTP_TRANSFER_ENCODING")
    if not coding:
        return
    if environ.get("CONTENT_LENGTH"):
        raise BadRequest("the request has both a Content-Length and a Transfer-Encoding")  # RFC 9112 section 6.3
    if coding.strip().lower() != "chunked":
        raise BadRequest(f"Transfer-Encoding {coding!r} is not supported")
    if not environ.get("wsgi.input_terminated"):
        raise Unsupported("the proxy's WSGI server does not read chunked bodies: send a Content-Length")


def read_input(environ: WSGIEnvironment, size: int) -> bytes:
    """Read from the request's body as the server gives it, at most ``size`` bytes.

    Raises :class:`~weavemw.errors.BadRequest` for a body whose chunks are wrong. Servers each have errors of
    their own for that; they may quote the body, so they are not kept.
    """
    try:
        found: bytes = environ["wsgi.input"].read(size)
    except (ConnectionError, TimeoutError):
        raise
    except Exception:  # noqa: BLE001  # see above
        raise BadRequest("the request's body is not framed as its head says") from None
    return found


def parse(raw: bytes) -> tuple[Object | None, bytes]:
    """The JSON object at the beginning of a body, if there is one, and the bytes after it.

    Nothing in it is read before it is asked for. Raises :class:`~weavemw.errors.BadRequest` for what Go refuses
    as too deep, :class:`~weavemw.errors.PayloadTooLarge` for what has too many fields.
    """
    text = object_at_start(raw)
    return (Object(text.fields()), raw[text.end :]) if text else (None, raw)


def encode(value: object) -> bytes:
    """Compact JSON of plain values, :class:`Object` and :class:`Number`; what was not read stays as it came."""
    if isinstance(value, Text):
        return bytes(value)
    if isinstance(value, Number):
        return value.encode()
    if isinstance(value, Object):
        return _fields(value.pairs)
    if isinstance(value, Mapping):
        return _fields(value.items())
    if isinstance(value, list | tuple):
        return b"[%b]" % b",".join(map(encode, value))
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


def fold(name: str) -> str:
    """A field's name as Go compares it."""
    return name.lower() if name.isascii() else name.translate(_FOLDED)


def _fields(pairs: Iterable[tuple[str, Any]]) -> bytes:
    return b"{%b}" % b",".join(b"%b:%b" % (json.dumps(key, ensure_ascii=False).encode(), encode(value))
                               for key, value in pairs)


def _read(value: Any) -> Any:
    """The value of a text, one level deep; of anything else the value is itself."""
    if type(value) is not Text:
        return value
    if value.value is None:
        value.value = _READERS.get(value.first, _number)(value)
    return value.value


def _number(text: Text) -> Number:
    return Number(bytes(text).decode())


_READERS: Mapping[str, Callable[[Text], Any]] = {
    "{": lambda text: Object(text.fields()), "[": Text.items, '"': Text.string,
    "t": lambda text: True, "f": lambda text: False, "n": lambda text: None,
}


def _kind_of(value: Any) -> str:
    kinds = {bool: "boolean", Number: "number", str: "string", list: "list", Object: "object"}
    return kinds.get(type(value), "null")


def _whole(environ: WSGIEnvironment, limit: int) -> bytes:
    check_framing(environ)
    length = environ.get("CONTENT_LENGTH")
    if length:
        return _read_exactly(environ, _length(length), limit)
    return _read_to_end(environ, limit) if environ.get("wsgi.input_terminated") else b""


def _length(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise BadRequest(f"Content-Length {text!r} is no length")
    return int(text)


def _read_exactly(environ: WSGIEnvironment, length: int, limit: int) -> bytes:
    if length > limit:
        raise PayloadTooLarge(f"the body has {length} bytes, and the proxy has to read it whole: at most {limit}")
    raw = _read_up_to(environ, length)
    if len(raw) < length:
        raise BadRequest(f"the body ended after {len(raw)} of {length} bytes")
    return raw


def _read_to_end(environ: WSGIEnvironment, limit: int) -> bytes:
    raw = _read_up_to(environ, limit + 1)
    if len(raw) > limit:
        raise PayloadTooLarge(f"the body has more than {limit} bytes, and the proxy has to read it whole")
    return raw


def _read_up_to(environ: WSGIEnvironment, length: int) -> bytes:
    pieces: list[bytes] = []
    while length > 0 and (piece := read_input(environ, min(length, 65536))):
        pieces.append(piece)
        length -= len(piece)
    return b"".join(pieces)
