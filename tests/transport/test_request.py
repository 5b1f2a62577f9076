"""Heads and bodies of requests, read as Go reads them."""

from __future__ import annotations

import os
import random
import sys

import goheads
import pytest

from weavemw.transport.request import LONGEST_HEAD, BodyScanner, RefusedError, RequestHead, end_of_head

#: How many heads are tried: `FUZZ_HEADS=1000000` is the long run.
_HEADS = int(os.environ.get("FUZZ_HEADS", "20000"))


def head(*lines: str, end: str = "\r\n") -> bytes:
    return end.join([*lines, "", ""]).encode("latin-1")


def test_a_head_says_what_follows() -> None:
    """Method, target and headers as they came; how long the body is, and whether the connection is kept."""
    found = RequestHead.parse(head("POST /x?y HTTP/1.1", "Host: d", "Content-Length: 5", "X-A:  b ", "X-A: c"))
    assert (found.method, found.target, found.version) == ("POST", "/x?y", "HTTP/1.1")
    assert found.headers == [("Host", "d"), ("Content-Length", "5"), ("X-A", "b"), ("X-A", "c")]
    assert (found.length, found.keeps_alive, found.expects_continue) == (5, True, False)


@pytest.mark.parametrize(("lines", "expected"), [
    pytest.param(["GET / HTTP/1.1", "Host: d", "Connection: TE, close"], (0, False), id="close among others"),
    pytest.param(["GET / HTTP/1.0"], (0, False), id="HTTP/1.0 ends"),
    pytest.param(["GET / HTTP/1.0", "Connection: Keep-Alive"], (0, True), id="HTTP/1.0 is kept"),
    pytest.param(["POST / HTTP/1.1", "Host: d", "Transfer-Encoding: Chunked"], (None, True), id="chunked"),
    pytest.param(["POST / HTTP/1.1", "Host: d", "Content-Length: 5", "Content-Length: 5"], (5, True),
                 id="twice the same"),
    pytest.param(["GET / HTTP/1.1", "Host: d", "X: a", "\tb"], (0, True), id="folded"),
    pytest.param(["GET / HTTP/1.1", "Host:"], (0, True), id="an empty Host"),
])
def test_framing(lines: list[str], expected: tuple[int | None, bool]) -> None:
    """By CRLF and by LF alone."""
    for end in ("\r\n", "\n"):
        found = RequestHead.parse(head(*lines, end=end))
        assert (found.length, found.keeps_alive) == expected


@pytest.mark.parametrize(("lines", "status"), [
    pytest.param(["GARBAGE"], 400, id="no HTTP"),
    pytest.param(["GET / HTTP/2.0", "Host: d"], 505, id="another version"),
    pytest.param(["GET / HTTP/1.1"], 400, id="no Host"),
    pytest.param(["GET / HTTP/1.1", "Host: a", "Host: b"], 400, id="two Hosts"),
    pytest.param(["POST / HTTP/1.1", "Host: a", "Content-Length: 5", "Content-Length: 6"], 400, id="two lengths"),
    pytest.param(["POST / HTTP/1.1", "Host: a", "Content-Length: 5", "Transfer-Encoding: chunked"], 400, id="both"),
    pytest.param(["POST / HTTP/1.1", "Host: a", "Transfer-Encoding: gzip"], 501, id="another coding"),
    pytest.param(["POST / HTTP/1.0", "Transfer-Encoding: chunked"], 400, id="chunks in HTTP/1.0"),
    pytest.param(["GET / HTTP/1.1", "Host: a", "Expect: tea"], 417, id="another expectation"),
    pytest.param(["GET / HTTP/1.1", " Host: a"], 400, id="folded from the beginning"),
    pytest.param(["GET / HTTP/1.1", "Host : a"], 400, id="a space before the colon"),
])
def test_what_is_refused(lines: list[str], status: int) -> None:
    """With the status that Go's server answers, or 400 where a head can be read in two ways."""
    with pytest.raises(RefusedError) as caught:
        RequestHead.parse(head(*lines))
    assert caught.value.status == status


@pytest.mark.timeout(900)
def test_heads_are_read_as_go_reads_them() -> None:
    """The same heads are refused, and the others say the same."""
    rng = random.Random(os.environ.get("FUZZ_SEED", "1"))
    read = 0
    for _ in range(_HEADS):
        data = goheads.head(rng)
        read += _same(data)
    assert read > _HEADS // 10, "too few heads are well formed"


def _same(data: bytes) -> bool:
    end = end_of_head(data)
    try:
        expected = goheads.read(data)
    except goheads.Refused:
        if end:
            with pytest.raises(RefusedError):
                RequestHead.parse(data[:end])
        return False
    assert end, data
    if any(name.lower() == "expect" for name, _ in expected.headers):
        return False
    found = RequestHead.parse(data[:end])
    assert found.headers == expected.headers, data
    assert (found.method, found.target, found.version, found.length, found.keeps_alive) == (
        expected.method, expected.target, expected.version, expected.length, not expected.close), data
    return True


@pytest.mark.parametrize(("data", "end"), [
    (b"GET / HTTP/1.1\r\nA: b\r\n\r\nrest", 24), (b"GET / HTTP/1.0\r\n\nrest", 17), (b"GET / HTTP/1.0\n\n\r\n", 16),
    (b"GET / HTTP/1.0\n\r\n\n", 17), (b"GET / HTTP/1.0\r\n\r", 0), (b"", 0),
])
def test_where_a_head_ends(data: bytes, end: int) -> None:
    """Behind the first empty line, whichever way lines end; and wherever the pieces are cut."""
    assert end_of_head(data) == end
    for cut in range(len(data)):
        if not end_of_head(data[:cut]):
            assert end_of_head(data, max(0, cut - 3)) == end


@pytest.mark.parametrize("line", [b"a:\n", b" x\n", b"a: b\r\n"], ids=repr)
def test_a_long_head_takes_time_in_proportion_to_its_length(line: bytes) -> None:
    """Twice the head, about twice the steps."""
    def steps(size: int) -> int:
        data = b"GET / HTTP/1.1\r\nHost: d\r\n" + line * (size // len(line)) + b"\r\n"
        count = 0

        def trace(*_: object) -> object:
            nonlocal count
            count += 1
            return trace

        before = sys.gettrace()
        sys.settrace(trace)  # type: ignore[arg-type]
        try:
            RequestHead.parse(data)
        finally:
            sys.settrace(before)
        return count

    assert steps(LONGEST_HEAD // 8) < 2.5 * steps(LONGEST_HEAD // 16)


def _scanned(data: bytes, length: int | None, piece: int) -> tuple[bytes, bytes, bool]:
    scanner, pending, found = BodyScanner(length), b"", b""
    for at in range(0, len(data), piece):
        pending += data[at : at + piece]
        taken, used = scanner.take(pending)
        found, pending = found + taken, pending[used:]
    return found, pending, scanner.done


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(("data", "length", "body"), [
    (b"hello", 5, b"hello"), (b"5\r\nhello\r\n0\r\n\r\n", None, b"hello"),
    (b"5;x=y\r\nhello\r\n1 \r\n!\r\n000\r\nTrailer: x\r\n\r\n", None, b"hello!"),
    (b"A\r\n0123\r\n5678\r\n0\r\n\r\n", None, b"0123\r\n5678"),
])
def test_bodies_are_taken_apart(data: bytes, length: int | None, body: bytes, piece: int) -> None:
    """However the bytes are cut, and what follows stays."""
    found, rest, done = _scanned(data, length, piece)
    assert (found, rest, done) == (body, b"", True)
    scanner = BodyScanner(length)
    taken, used = scanner.take(data + b"GET /")
    assert (taken, used, scanner.done) == (body, len(data), True)


@pytest.mark.parametrize("piece", [1, 1000])
@pytest.mark.parametrize("data", [
    b"5\nhello\n0\n\n", b"zz\r\n", b"+5\r\nhello\r\n", b"5\r\nhello!\r\n", b"5\r\nhello\n0\r\n\r\n", b"5\r\nhelloXX",
    b"F" * 17 + b"\r\n", b"5" * 5000, b"\r\n", b"5\rX\n", b"0\r\nX: y\n\r\n", b"5\r\nhello\rX",
], ids=repr)
def test_broken_chunks_are_refused(data: bytes, piece: int) -> None:
    """As soon as it is seen; the complaint says nothing of what the bytes were."""
    with pytest.raises(RefusedError) as caught:
        _scanned(data, None, piece)
    assert "hello" not in str(caught.value)
