"""HTTP/1.1 messages as bytes, without a socket (RFC 9112): request heads out, response heads and bodies in.

Responses are read as Go's client reads them, which is what the daemon is made
for; all that it refuses is a :class:`ProtocolError` here. Everything takes time in
proportion to its length, and no more memory than the limits below.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable

__all__ = [
    "HOP_BY_HOP",
    "LONGEST_HEAD",
    "BodyDecoder",
    "HeadReader",
    "Headers",
    "ProtocolError",
    "ResponseHead",
    "bad_gateway",
    "decoder_for",
    "error_body",
    "request_head",
]

Headers = list[tuple[str, str]]

#: Headers that speak of one connection, not of the message (RFC 9110 section 7.6.1).
HOP_BY_HOP = frozenset({"connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"})
#: The longest head of a response, in bytes, the interim ones before it included.
LONGEST_HEAD = 1 << 20

#: The longest line of a chunk's size with its extensions, as Go has it, and of a trailer, in bytes.
_LONGEST_LINE = 4096
_STATUS_LINE = re.compile(r"HTTP/(1\.\d) (\d{3})(?: (.*))?", re.ASCII)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROLS = bytes({*range(32), 127} - {*b"\t\r\n"})
_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;.*)?", re.DOTALL)


class ProtocolError(Exception):
    """The peer's bytes are not HTTP/1.1."""


def request_head(method: str, target: str, headers: Iterable[tuple[str, str]], version: str = "HTTP/1.1") -> bytes:
    """The bytes of a request's head; ``target`` goes out as it is."""
    lines = [f"{method} {target} {version}", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def error_body(message: str) -> bytes:
    """Docker's form of an error."""
    return json.dumps({"message": message}).encode() + b"\n"


def bad_gateway(message: str) -> bytes:
    """A whole response that says in Docker's form why there is no other; the connection ends with it."""
    body = error_body(message)
    return (b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
            b"Connection: close\r\n\r\n%b" % (len(body), body))


class HeadReader:
    """Finds the head of a response in the bytes of a connection, past interim ones (RFC 9110 section 15.2).

    ``read`` is all that it was fed with.
    """

    __slots__ = ("_begin", "_searched", "read")

    def __init__(self) -> None:
        self.read: bytes | bytearray = b""
        self._begin = 0
        self._searched = 0

    def feed(self, data: bytes) -> ResponseHead | None:
        """The final head (101 is one), once it is there; raises :class:`ProtocolError`."""
        if self.read:
            self.read = bytearray(self.read) if isinstance(self.read, bytes) else self.read
            self.read += data
        else:
            self.read = data  # as a rule it is all, and need not be copied
        if not self.read.startswith(b"HTTP/1."[: len(self.read)]):
            raise ProtocolError(f"not a status line: {_excerpt(self.read)}")
        while (end := self.read.find(b"\r\n\r\n", self._searched, LONGEST_HEAD)) >= 0:
            head = _parsed(bytes(self.read[self._begin : end]))
            self._begin = self._searched = end + 4
            if head.status >= 200 or head.status == 101:
                return head
        if len(self.read) >= LONGEST_HEAD:
            raise ProtocolError(f"a head longer than {LONGEST_HEAD} bytes")
        self._searched = max(self._begin, len(self.read) - 3)
        return None

    @property
    def rest(self) -> bytes:
        """What follows the head."""
        return bytes(self.read[self._begin :])


class ResponseHead:
    """Status line and headers of a response; ``raw`` is both as they were sent, without the empty line."""

    __slots__ = ("_values", "headers", "raw", "reason", "status", "version")

    def __init__(self, version: str, status: int, reason: str, headers: Headers, raw: bytes = b"") -> None:
        self.raw = raw
        self.version = version
        self.status = status
        self.reason = reason
        self.headers = headers
        keys = [_lower(name) for name, _ in headers]
        self._values = dict(zip(keys, (value for _, value in headers), strict=True))
        if len(self._values) < len(keys):
            self._values = _joined(keys, headers)

    @classmethod
    def parse(cls, head: bytes) -> ResponseHead:
        """Read a head, without its empty line; raises :class:`ProtocolError`."""
        status_line, *lines = head.decode("latin-1").split("\r\n")
        match = _STATUS_LINE.fullmatch(status_line)
        if not match:
            raise ProtocolError(f"not a status line: {_excerpt(head)}")
        if not len(lines) == head.count(b"\r") == head.count(b"\n") or head.translate(None, _CONTROLS) != head:
            raise ProtocolError("a control character in the head")
        version, status, reason = match.groups()
        return cls(version, int(status), reason or "", [_field(line) for line in lines], head)

    @property
    def status_line(self) -> str:
        """Code and reason as WSGI wants them."""
        return f"{self.status} {self.reason}"

    def get(self, name: str) -> str:
        """All values of a header, joined by commas; empty if it is not there. ``name`` is in lower case."""
        return self._values.get(name, "")

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def has_token(self, name: str, token: str) -> bool:
        """Whether a comma-separated header lists ``token``, in any case."""
        return token in (part.strip().lower() for part in self.get(name).split(","))

    @property
    def keeps_alive(self) -> bool:
        """Whether the connection can carry another request after this response."""
        return self.version == "1.1" and not self.has_token("connection", "close")


def _parsed(head: bytes) -> ResponseHead:
    """A daemon sends the same heads over and over, within a second: short ones are remembered, and never changed."""
    return _remembered_head(head) if len(head) < _LONGEST_REMEMBERED_HEAD else ResponseHead.parse(head)


_LONGEST_REMEMBERED_HEAD = 1024
_remembered_head = functools.lru_cache(64)(ResponseHead.parse)


def _joined(keys: Iterable[str], headers: Headers) -> dict[str, str]:
    """Values of headers that are given several times, joined by commas."""
    values: dict[str, list[str]] = {}
    for key, (_, value) in zip(keys, headers, strict=True):
        values.setdefault(key, []).append(value)
    return {key: ", ".join(several) for key, several in values.items()}


def _field(line: str) -> tuple[str, str]:
    """A daemon says the same lines over and over: short ones are remembered."""
    return _remembered_field(line) if len(line) < _LONGEST_REMEMBERED else _read_field(line)


def _read_field(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon:
        raise ProtocolError("a header line without a colon")
    return name, value.strip(" \t")


_LONGEST_REMEMBERED = 200
_remembered_field = functools.lru_cache(512)(_read_field)


@functools.lru_cache(256)
def _lower(name: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise ProtocolError("a header's name is no token")
    return name.lower()


def _excerpt(data: bytes | bytearray) -> str:
    """The beginning of what was said instead of HTTP; in ASCII, as it is shown at a terminal."""
    return ascii(bytes(data[:40]).decode("latin-1"))


class BodyDecoder:
    """A response's body out of the bytes of its connection; ``done`` once the body has ended.

    ``surplus`` is what came after its end: nobody asked for it, and the connection is of no further use.
    """

    done = False
    surplus = b""
    #: Whether the body ends with the connection, which then carries nothing else (RFC 9112 section 6.3, case 8).
    ends_with_connection = False

    def feed(self, data: bytes) -> bytes:
        """The body that these bytes hold; empty ``data`` is the end of the connection. Raises ProtocolError."""
        raise NotImplementedError


class _Length(BodyDecoder):
    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0

    def feed(self, data: bytes) -> bytes:
        if not data:
            raise ProtocolError(f"the connection ended {self._left} bytes early")
        body, self.surplus = data[: self._left], data[self._left :]
        self._left -= len(body)
        self.done = self._left == 0
        return body


class _UntilClose(BodyDecoder):
    ends_with_connection = True

    def feed(self, data: bytes) -> bytes:
        self.done = not data
        return data


class _Chunked(BodyDecoder):
    """RFC 9112 section 7.1; extensions and trailers are read and dropped."""

    def __init__(self) -> None:
        self._line = b""  # the beginning of a line that is not all there
        self._left = 0  # of the chunk, with the line end that follows its data
        self._in_trailers = False

    def feed(self, data: bytes) -> bytes:
        if not data:
            raise ProtocolError("the connection ended within a chunked body")
        data, self._line = self._line + data, b""
        pieces: list[bytes] = []
        place = 0
        while place < len(data) and not self.done:
            place = self._take_data(data, place, pieces) if self._left > 2 else self._take_line(data, place)
        self.surplus = data[place:]
        return b"".join(pieces)

    def _take_data(self, data: bytes, place: int, pieces: list[bytes]) -> int:
        piece = data[place : place + self._left - 2]
        self._left -= len(piece)
        pieces.append(piece)
        return place + len(piece)

    def _take_line(self, data: bytes, place: int) -> int:
        """Take the line end after a chunk, a chunk's size, or a trailer; returns where the next line begins."""
        end = data.find(b"\r\n", place, place + _LONGEST_LINE)
        if end < 0:
            self._line = data[place:]
            if len(self._line) >= (_LONGEST_LINE if not self._left else 2):
                raise ProtocolError("a line in a chunked body does not end")
            return len(data)
        self._read_line(data[place:end])
        return end + 2

    def _read_line(self, line: bytes) -> None:
        if self._in_trailers:
            self.done = not line
        elif self._left:
            if line:
                raise ProtocolError("a chunk is longer than its size")
            self._left = 0
        else:
            self._begin_chunk(line)

    def _begin_chunk(self, line: bytes) -> None:
        match = _CHUNK_SIZE.fullmatch(line)
        if not match:
            raise ProtocolError("not a chunk size")
        size = int(match[1], 16)
        # The two bytes of the line end that follows the data count with it.
        self._left = size + 2 if size else 0
        self._in_trailers = not size


def decoder_for(method: str, head: ResponseHead) -> BodyDecoder:
    """How to read the body that follows this head (RFC 9112 section 6.3); raises :class:`ProtocolError`."""
    length = _content_length(head)
    if method == "HEAD" or head.status in (204, 304) or head.status < 200:
        return _Length(0)
    if "transfer-encoding" in head and head.version != "1.0":  # which has none
        if head.get("transfer-encoding").lower() != "chunked":
            raise ProtocolError("a Transfer-Encoding other than chunked")
        return _Chunked()
    return _UntilClose() if length is None else _Length(length)


def _content_length(head: ResponseHead) -> int | None:
    """The length that the head tells, be it more than once; all have to be the same."""
    if "content-length" not in head:
        return None
    length = head.get("content-length")
    if "," in length:
        length, *others = {value for name, value in head.headers if _lower(name) == "content-length"}
        if others:
            raise ProtocolError("two Content-Length that differ")
    if not _LENGTH.fullmatch(length):
        raise ProtocolError("a Content-Length that is no number")
    return int(length)
