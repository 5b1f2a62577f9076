"""Heads of HTTP/1.x requests, and where their bodies end, without a socket (RFC 9112).

A head is read as Go's ``net/http`` server reads it, which is what clients of
Docker talk to: lines may end with LF alone, a line that begins with white space
goes on with the one before, the header's name is a token, its value has no
control characters. Where a head can be read in two ways it is refused instead:

* both ``Content-Length`` and ``Transfer-Encoding`` (Go takes the latter),
* ``Transfer-Encoding`` in HTTP/1.0 (Go takes no notice of it),
* a chunk that does not end with CRLF, or whose size is followed by anything
  but an extension (older Go versions let LF pass).

Everything takes time in proportion to its length.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from weavemw.transport.http1 import Headers

__all__ = ["LONGEST_HEAD", "BodyScanner", "RefusedError", "RequestHead", "end_of_head"]

#: The longest head, in bytes: Go's default (``http.DefaultMaxHeaderBytes``).
LONGEST_HEAD = 1 << 20
#: The longest line of a chunk's size with its extensions, and of all trailers, in bytes (Go's are 4,096 and 1 MB).
_LONGEST_CHUNK_LINE, _LONGEST_TRAILERS = 4096, 65536

_FRAMING = frozenset({"connection", "content-length", "transfer-encoding", "expect"})
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_REQUEST_LINE = re.compile(r"([^ ]*) ([^ ]*) (.*)", re.DOTALL)
_TARGET = re.compile(r"(?:/|\*$|[A-Za-z][A-Za-z0-9+.-]*://)[^\t]*")
_VERSION = re.compile(r"HTTP/\d\.\d")
_DIGITS = re.compile(r"[0-9]{1,18}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?")


class RefusedError(Exception):
    """A request that can't be read; ``status`` and ``reason`` are what to answer."""

    def __init__(self, message: str, status: int = 400, reason: str = "Bad Request") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True)
class RequestHead:
    """Request line and headers; ``length`` is the body's in bytes, ``None`` if it is chunked."""

    method: str
    target: str
    version: str
    headers: Headers
    length: int | None = 0
    keeps_alive: bool = True
    expects_continue: bool = False

    @classmethod
    def parse(cls, head: bytes) -> RequestHead:
        """Read a head, up to and with its empty line; raises :class:`RefusedError`."""
        text = head.decode("latin-1").replace("\r\n", "\n")
        if _CONTROL.search(text):
            raise RefusedError("invalid header value: a control character in the request's head")
        line, *rest = text.split("\n")
        method, target, version = _request_line(line)
        headers = _fields(rest)
        values = _joined(headers)
        _check_host(version, headers)
        connection = _tokens(values.get("connection", ""))
        return cls(method, target, version, headers, _length(version, values),
                   "close" not in connection and (version == "HTTP/1.1" or "keep-alive" in connection),
                   _expects_continue(version, values.get("expect", "")))


def end_of_head(data: bytes | bytearray, start: int = 0) -> int:
    """Where a head ends that begins at 0 (behind its empty line); 0 if it is not all there.

    ``start`` is where the search begins: three bytes before what is new suffice.
    """
    end = data.find(b"\n\r\n", start)
    bare = data.find(b"\n\n", start, end + 1 if end >= 0 else len(data))
    if bare >= 0:
        return bare + 2
    return end + 3 if end >= 0 else 0


class BodyScanner:
    """Takes a request's body apart as its bytes come; ``begun`` once it has, ``done`` once the body has ended.

    ``take`` is given all bytes that were not used yet.
    """

    def __init__(self, length: int | None) -> None:
        self._left = length
        self._chunk_left = 0
        self._in_trailers = False
        self.begun = False
        self.done = length == 0

    def take(self, data: bytes | bytearray) -> tuple[bytes, int]:
        """The payload that these bytes hold, and how many of them were used; raises :class:`RefusedError`."""
        self.begun = True
        if self._left is not None:
            piece = bytes(data[: self._left])
            self._left -= len(piece)
            self.done = not self._left
            return piece, len(piece)
        return self._take_chunks(data)

    def _take_chunks(self, data: bytes | bytearray) -> tuple[bytes, int]:
        pieces: list[bytes] = []
        used = 0
        while not self.done:
            step: Callable[[bytes | bytearray, int, list[bytes]], int] = self._data if self._chunk_left else self._line
            count = step(data, used, pieces)
            if not count:
                break
            used += count
        return b"".join(pieces), used

    def _data(self, data: bytes | bytearray, at: int, pieces: list[bytes]) -> int:
        """A chunk's data; its line end is counted with it in ``_chunk_left``."""
        piece = bytes(data[at : at + self._chunk_left])
        keep = max(0, len(piece) - max(0, 2 - (self._chunk_left - len(piece))))
        tail = piece[keep:]
        expected = b"\r\n"[2 - self._chunk_left :] if self._chunk_left < 2 else b"\r\n"
        if tail and not expected.startswith(tail):
            raise RefusedError("malformed chunked encoding")
        pieces.append(piece[:keep])
        self._chunk_left -= len(piece)
        return len(piece)

    def _line(self, data: bytes | bytearray, at: int, pieces: list[bytes]) -> int:
        """A chunk's size, or a trailer."""
        end = data.find(b"\n", at)
        limit = _LONGEST_TRAILERS if self._in_trailers else _LONGEST_CHUNK_LINE
        if (end if end >= 0 else len(data)) - at > limit:
            raise RefusedError("malformed chunked encoding: a line is too long")
        if end < 0:
            return 0
        line = bytes(data[at:end])
        if not line.endswith(b"\r") or b"\r" in line[:-1]:
            raise RefusedError("malformed chunked encoding: a line does not end with CRLF")
        self._take_line(line[:-1])
        return end + 1 - at

    def _take_line(self, line: bytes) -> None:
        if self._in_trailers:
            self.done = not line
            return
        match = _CHUNK_SIZE.fullmatch(line)
        if not match:
            raise RefusedError("malformed chunked encoding: not a chunk's size")
        size = int(match[1], 16)
        self._chunk_left = size + 2 if size else 0
        self._in_trailers = not size


def _request_line(line: str) -> tuple[str, str, str]:
    match = _REQUEST_LINE.fullmatch(line)
    if not match or not _TOKEN.fullmatch(match[1]):
        raise RefusedError("malformed HTTP request")
    method, target, version = match.groups()
    if not _VERSION.fullmatch(version):
        raise RefusedError("malformed HTTP version")
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise RefusedError("unsupported protocol version", 505, "HTTP Version Not Supported")
    if not _TARGET.fullmatch(target):
        raise RefusedError("invalid URI for request")
    return method, target, version


def _fields(lines: list[str]) -> Headers:
    """Names and values up to the empty line; continuation lines are joined by a space."""
    headers: list[tuple[str, list[str]]] = []
    for line in lines:
        if not line:
            break
        if line[0] in " \t":
            _last_value(headers).append(line.strip(" \t"))
            continue
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name):
            raise RefusedError("invalid header name")
        headers.append((name, [value.strip(" \t")]))
    return [(name, value[0] if len(value) == 1 else " ".join(value).strip(" \t")) for name, value in headers]


def _last_value(headers: list[tuple[str, list[str]]]) -> list[str]:
    if not headers:
        raise RefusedError("malformed MIME header initial line")
    return headers[-1][1]


def _joined(headers: Headers) -> dict[str, str]:
    """The headers that say how to read a request; those given several times joined by commas."""
    values: dict[str, list[str]] = {}
    for name, value in headers:
        if (key := name.lower()) in _FRAMING:
            values.setdefault(key, []).append(value)
    return {key: ", ".join(several) for key, several in values.items()}


def _tokens(value: str) -> frozenset[str]:
    return frozenset(token.strip().lower() for token in value.split(",")) if value else frozenset()


def _check_host(version: str, headers: Headers) -> None:
    """RFC 9112 section 3.2; what it says does not matter, since another one goes to the daemon."""
    count = sum(name.lower() == "host" for name, _ in headers)
    if count > 1:
        raise RefusedError("too many Host headers")
    if not count and version == "HTTP/1.1":
        raise RefusedError("missing required Host header")


def _length(version: str, values: dict[str, str]) -> int | None:
    coding = values.get("transfer-encoding")
    if coding is None:
        return _content_length(values.get("content-length"))
    if "content-length" in values:
        raise RefusedError("Content-Length and Transfer-Encoding in one request")
    if version == "HTTP/1.0":
        raise RefusedError("Transfer-Encoding in a request of HTTP/1.0")
    if coding.lower() != "chunked":
        raise RefusedError(f"unsupported transfer encoding: {coding[:80]!r}", 501, "Not Implemented")
    return None


def _content_length(value: str | None) -> int:
    """A length that is said several times must be the same (RFC 9112 section 6.3)."""
    if value is None:
        return 0
    lengths = {each.strip(" \t") for each in value.split(",")} if "," in value else {value}
    if len(lengths) != 1 or not _DIGITS.fullmatch(only := lengths.pop()):
        raise RefusedError("bad Content-Length")
    return int(only)


def _expects_continue(version: str, expect: str) -> bool:
    if expect and expect.lower() != "100-continue":
        raise RefusedError("unknown expectation", 417, "Expectation Failed")
    return bool(expect) and version == "HTTP/1.1"
