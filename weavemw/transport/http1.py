"""HTTP/1.1 messages as bytes, without a socket (RFC 9112): request heads out, response heads and bodies in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

__all__ = ["HOP_BY_HOP", "BodyDecoder", "Headers", "ProtocolError", "ResponseHead", "decoder_for", "request_head"]

Headers = list[tuple[str, str]]

#: Headers that speak of one connection, not of the message (RFC 9110 section 7.6.1).
HOP_BY_HOP = frozenset({"connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"})

_STATUS_LINE = re.compile(r"HTTP/(\d\.\d) (\d{3})(?: (.*))?")


class ProtocolError(Exception):
    """The peer's bytes are not HTTP/1.1."""


def request_head(method: str, target: str, headers: Iterable[tuple[str, str]], version: str = "HTTP/1.1") -> bytes:
    """The bytes of a request's head; ``target`` goes out as it is."""
    lines = [f"{method} {target} {version}", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


class ResponseHead:
    """Status line and headers of a response; ``raw`` is both as they were sent, without the empty line."""

    __slots__ = ("_values", "headers", "raw", "reason", "status", "version")

    def __init__(self, version: str, status: int, reason: str, headers: Headers, raw: bytes = b"") -> None:
        self.raw = raw
        self.version = version
        self.status = status
        self.reason = reason
        self.headers = headers
        self._values: dict[str, str] = {}
        for name, value in headers:
            key = name.lower()
            self._values[key] = f"{self._values[key]}, {value}" if key in self._values else value

    @classmethod
    def parse(cls, head: bytes) -> ResponseHead:
        """Read a head, without its empty line; raises :class:`ProtocolError`."""
        status_line, *lines = head.decode("latin-1").split("\r\n")
        match = _STATUS_LINE.fullmatch(status_line)
        if not match:
            raise ProtocolError(f"not a status line: {status_line[:80]!r}")
        version, status, reason = match.groups()
        return cls(version, int(status), reason or "", [_field(line) for line in lines], head)

    @property
    def status_line(self) -> str:
        """Code and reason as WSGI wants them."""
        return f"{self.status} {self.reason}"

    def get(self, name: str) -> str:
        """All values of a header, joined by commas; empty if it is not there. ``name`` is in lower case."""
        return self._values.get(name, "")

    def has_token(self, name: str, token: str) -> bool:
        """Whether a comma-separated header lists ``token``, in any case."""
        return token in (part.strip().lower() for part in self.get(name).split(","))

    @property
    def keeps_alive(self) -> bool:
        """Whether the connection can carry another request after this response."""
        return self.version == "1.1" and not self.has_token("connection", "close")


def _field(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon:
        raise ProtocolError(f"not a header line: {line[:80]!r}")
    return name, value.strip(" \t")


class BodyDecoder:
    """A response's body out of the bytes of its connection; ``done`` once the body has ended."""

    done = False
    #: Whether the body ends with the connection, which then carries nothing else (RFC 9112 section 6.3, case 8).
    ends_with_connection = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The pieces of body that these bytes hold; empty ``data`` is the end of the connection."""
        raise NotImplementedError

    @property
    def length(self) -> int | None:
        """The number of bytes still to come, where the head told."""
        return None


class _Length(BodyDecoder):
    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0

    @property
    def length(self) -> int | None:
        return self._left

    def feed(self, data: bytes) -> Iterator[bytes]:
        if not data:
            raise ProtocolError(f"the connection ended {self._left} bytes early")
        self._left -= len(data)
        if self._left < 0:
            raise ProtocolError("more bytes than Content-Length says")
        self.done = self._left == 0
        yield data


class _UntilClose(BodyDecoder):
    ends_with_connection = True

    def feed(self, data: bytes) -> Iterator[bytes]:
        self.done = not data
        if data:
            yield data


class _Chunked(BodyDecoder):
    """RFC 9112 section 7.1; extensions and trailers are read and dropped."""

    def __init__(self) -> None:
        self._buffer = b""
        self._left = 0
        self._in_trailers = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        if not data:
            raise ProtocolError("the connection ended within a chunked body")
        self._buffer += data
        while self._buffer and not self.done:
            if self._left > 2:
                yield from self._data()
            elif not self._take_line():
                return

    def _data(self) -> Iterator[bytes]:
        piece, self._buffer = self._buffer[: self._left - 2], self._buffer[self._left - 2 :]
        self._left -= len(piece)
        yield piece

    def _take_line(self) -> bool:
        """Take the line end after a chunk, a chunk's size, or a trailer; False if it is not all there yet."""
        line, end, rest = self._buffer.partition(b"\r\n")
        if not end:
            return False
        self._buffer = rest
        if self._in_trailers:
            self.done = not line
        elif self._left:
            if line:
                raise ProtocolError("a chunk is longer than its size")
            self._left = 0
        else:
            self._begin_chunk(line)
        return True

    def _begin_chunk(self, line: bytes) -> None:
        size = line.partition(b";")[0].strip()
        if not re.fullmatch(rb"[0-9A-Fa-f]{1,16}", size):
            raise ProtocolError(f"not a chunk size: {line[:80]!r}")
        # The two bytes of the line end that follows the data count with it.
        self._left = int(size, 16) + 2 if int(size, 16) else 0
        self._in_trailers = not self._left


def decoder_for(method: str, head: ResponseHead) -> BodyDecoder:
    """How to read the body that follows this head (RFC 9112 section 6.3)."""
    if method == "HEAD" or head.status in (204, 304) or head.status < 200:
        return _Length(0)
    if head.has_token("transfer-encoding", "chunked"):
        return _Chunked()
    length = head.get("content-length")
    if not length:
        return _UntilClose()
    if not re.fullmatch(r"\d+", length):
        raise ProtocolError(f"Content-Length {length!r}")
    return _Length(int(length))
