"""HTTP messages as bytes. What is accepted and refused was compared with Go's net/http."""

from __future__ import annotations

import pytest

from weavemw.transport.http1 import (
    LONGEST_HEAD,
    HeadReader,
    ProtocolError,
    ResponseHead,
    decoder_for,
    request_head,
)

_OK = b"HTTP/1.1 200 OK\r\n"
_CHUNKED = _OK + b"Transfer-Encoding: chunked"


def test_a_request_head() -> None:
    """Target and headers go out as they are."""
    assert request_head("GET", "/a b", [("Host", "docker")]) == b"GET /a b HTTP/1.1\r\nHost: docker\r\n\r\n"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_head_in_pieces(size: int) -> None:
    """It is found wherever it is cut, past interim ones, with what follows it."""
    data = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nX: 1\r\n\r\nHTTP/1.1 201 C\r\nX: 2\r\n\r\nbody"
    reader, found = HeadReader(), None
    pieces = iter([data[place : place + size] for place in range(0, len(data), size)])
    while found is None:
        found = reader.feed(next(pieces))
    assert (found.status, found.reason, found.get("x")) == (201, "C", "2")
    assert reader.rest + b"".join(pieces) == b"body"
    assert data.startswith(bytes(reader.read))


@pytest.mark.parametrize("length", [LONGEST_HEAD, LONGEST_HEAD + 1])
def test_a_head_has_a_limit(length: int) -> None:
    """One that is longer is refused, whether or not it ends."""
    head = _OK + b"X: ".ljust(length - len(_OK) - 4, b"y")
    for ending in (b"\r\n\r\n", b"yyyy"):
        reader = HeadReader()
        if length == LONGEST_HEAD and ending == b"\r\n\r\n":
            assert reader.feed(head + ending)
        else:
            with pytest.raises(ProtocolError, match="longer than"):
                reader.feed(head + ending)


@pytest.mark.parametrize("head", [
    b"", b"HTTP/2.0 200 OK", b"HTTP/1.1 20 OK", b"HTTP/1.1 2000 OK", b"HTTP/1.1 \xb2\xb2\xb2 OK", b"HTTP/1.1  200 OK",
    b"ICY 200 OK", b"HTTP/1.1 200 OK\r\nX", b"HTTP/1.1 200 OK\r\n: x", b"HTTP/1.1 200 OK\r\nX : y",
    b"HTTP/1.1 200 OK\r\n X: y", b"HTTP/1.1 200 OK\r\nX: \x01", b"HTTP/1.1 200 OK\r\nX: a\rb",
    b"HTTP/1.1 200 OK\r\nX: a\nY: b", b"HTTP/1.1 200 O\x7fK",
])
def test_what_is_no_head(head: bytes) -> None:
    """It is refused, and quoted in ASCII alone if at all."""
    with pytest.raises(ProtocolError) as refused:
        ResponseHead.parse(head)
    assert str(refused.value).isascii()
    assert str(refused.value).isprintable()


def decoded(method: str, head: bytes, body: bytes, size: int) -> tuple[bytes, bytes, bool]:
    """Body, surplus, and whether it has ended, read in pieces of ``size``."""
    decoder = decoder_for(method, ResponseHead.parse(head))
    found = b""
    place = 0
    while place < len(body) and not decoder.done:
        found += decoder.feed(body[place : place + size])
        place += size
    return found, decoder.surplus + body[place:], decoder.done


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize(("method", "head", "body", "expected"), [
    ("GET", _OK + b"Content-Length: 3", b"abcX", (b"abc", b"X", True)),
    ("GET", _OK + b"Content-Length: 3\r\nCONTENT-LENGTH:3", b"abc", (b"abc", b"", True)),
    ("GET", _OK + b"Content-Length: 4", b"abc", (b"abc", b"", False)),
    ("HEAD", _OK + b"Content-Length: 4", b"X", (b"", b"X", True)),
    ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4", b"X", (b"", b"X", True)),
    ("GET", _OK[:-2], b"abc", (b"abc", b"", False)),
    ("GET", _CHUNKED, b"3\r\nabc\r\n00A;x=\"\n\"\r\n0123456789\r\n0\r\n\r\nX", (b"abc0123456789", b"X", True)),
    ("GET", _CHUNKED, b"1 \t\r\na\r\n000\r\nA: b\r\nC: d\r\n\r\n", (b"a", b"", True)),
    ("GET", _CHUNKED, b"2\r\n\r\n\r\n0\r\n\r\n", (b"\r\n", b"", True)),
    ("GET", _CHUNKED, b"5\r\nabc", (b"abc", b"", False)),
    ("GET", _CHUNKED + b"\r\nContent-Length: 9", b"1\r\na\r\n0\r\n\r\n", (b"a", b"", True)),
    ("GET", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1", b"1", (b"1", b"", True)),
])
def test_bodies(method: str, head: bytes, body: bytes, expected: tuple[bytes, bytes, bool], size: int) -> None:
    """By whatever they are framed, and wherever they are cut."""
    assert decoded(method, head, body, size) == expected


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(("head", "body"), [
    (_OK + b"Content-Length: 1\r\nContent-Length: 2", b""),
    (_OK + b"Content-Length: 1, 1", b""), (_OK + b"Content-Length:", b""), (_OK + b"Content-Length: -1", b""),
    (_OK + b"Content-Length: \xb2", b""), (_OK + b"Content-Length: 9999999999999999999", b""),
    (_CHUNKED + b", gzip", b""), (_CHUNKED + b"\r\nTransfer-Encoding: chunked", b""),
    (_CHUNKED, b"\r\n"), (_CHUNKED, b"g\r\n"), (_CHUNKED, b"-1\r\n"), (_CHUNKED, b" 1\r\n"), (_CHUNKED, b"0x1\r\n"),
    (_CHUNKED, b"1" * 17 + b"\r\n"), (_CHUNKED, b"1\r\nab\r\n"), (_CHUNKED, b"1\r\na\n0\r\n\r\n"),
    (_CHUNKED, b"1" * 5000), (_CHUNKED, b"0\r\n" + b"x" * 5000),
])
def test_framing_that_is_refused(head: bytes, body: bytes, size: int) -> None:
    """What could be read in two ways, or has no end."""
    with pytest.raises(ProtocolError):
        decoded("GET", head, body, size)


@pytest.mark.parametrize("head", [_OK + b"Content-Length: 3", _CHUNKED])
def test_a_body_that_is_cut_short(head: bytes) -> None:
    """The end of the connection ends it with an error."""
    with pytest.raises(ProtocolError):
        decoder_for("GET", ResponseHead.parse(head)).feed(b"")
