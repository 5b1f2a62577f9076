"""Request heads as Go's ``net/http`` server reads them: a model, and heads to try it with.

Written after the documentation and the behaviour of Go 1.22's ``net/textproto``,
``net/http`` and ``net/url``, a line at a time where our parser works on the whole.
"""

from __future__ import annotations

import random
import string
from dataclasses import dataclass

_TOKEN = frozenset(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~")


class Refused(Exception):
    """Go answers 4xx or 5xx."""


class Ambiguous(Refused):
    """Go reads it, in one of two ways that are possible; we refuse it."""


@dataclass
class Head:
    method: str
    target: str
    version: str
    headers: list[tuple[str, str]]
    length: int | None
    close: bool


def _lines(data: bytes) -> list[str]:
    """Lines up to the first empty one (``textproto.Reader.ReadLine``)."""
    found = []
    for raw in data.split(b"\n")[:-1]:
        line = raw[:-1] if raw.endswith(b"\r") else raw
        if not line and found:
            return found
        found.append(line.decode("latin-1"))
    raise Refused("no end")


def read(data: bytes) -> Head:
    first, *rest = _lines(data)
    method, target, version = _request_line(first)
    headers = []
    for line in _unfolded(rest):
        name, colon, value = line.partition(":")
        if not colon or not name or set(name) - _TOKEN:
            raise Refused("header name")
        value = value.strip(" \t")
        if any((ord(c) < 32 and c != "\t") or ord(c) == 127 for c in value):
            raise Refused("header value")
        headers.append((name, value))
    hosts = [value for name, value in headers if name.lower() == "host"]
    if len(hosts) > 1 or (not hosts and version == "HTTP/1.1"):
        raise Refused("host")
    return Head(method, target, version, headers, _length(version, headers), _closes(version, headers))


def _request_line(line: str) -> tuple[str, str, str]:
    parts = line.split(" ", 2)
    if len(parts) < 3 or not parts[0] or set(parts[0]) - _TOKEN:
        raise Refused("request line")
    method, target, version = parts
    if version not in ("HTTP/1.0", "HTTP/1.1"):
        raise Refused("version")
    if any(ord(c) < 32 or ord(c) == 127 for c in target):
        raise Refused("target")
    if not target.startswith("/") and target != "*" and not _has_scheme(target):
        raise Refused("target")
    return method, target, version


def _has_scheme(target: str) -> bool:
    scheme, colon, _ = target.partition("://")
    return bool(colon) and bool(scheme) and scheme[0] in string.ascii_letters and not (
        set(scheme) - set(string.ascii_letters + string.digits + "+-."))


def _unfolded(lines: list[str]) -> list[str]:
    found: list[str] = []
    for line in lines:
        if line[:1] in (" ", "\t"):
            if not found:
                raise Refused("first line is folded")
            found[-1] += " " + line.strip(" \t")
        else:
            found.append(line.strip(" \t"))
    return found


def _length(version: str, headers: list[tuple[str, str]]) -> int | None:
    codings = [value for name, value in headers if name.lower() == "transfer-encoding"]
    lengths = [value for name, value in headers if name.lower() == "content-length"]
    if codings:
        if lengths or version == "HTTP/1.0":
            raise Ambiguous
        if len(codings) > 1 or codings[0].lower() != "chunked":
            raise Refused("coding")
        return None
    if not lengths:
        return 0
    values = {part.strip(" \t") for value in lengths for part in value.split(",")}
    if len(values) > 1:
        raise Refused("lengths")
    value = values.pop()
    if not value or set(value) - set(string.digits) or len(value) > 18:
        raise Refused("length")
    return int(value)


def _closes(version: str, headers: list[tuple[str, str]]) -> bool:
    tokens = {token.strip(" \t").lower() for name, value in headers if name.lower() == "connection"
              for token in value.split(",")}
    return "close" in tokens or (version == "HTTP/1.0" and "keep-alive" not in tokens)


_METHODS = ["GET", "POST", "HEAD", "DELETE", "G(T", "", "get", "PU T"]
_TARGETS = ["/", "/_ping", "/v1.41/containers/create?name=x", "*", "http://h/x", "x", "/a\x7f", "/\xff%41", "//", "1://x"]
_VERSIONS = ["HTTP/1.1"] * 6 + ["HTTP/1.0"] * 2 + ["HTTP/1.2", "HTTP/2.0", "http/1.1", "HTTP/1.1 ", ""]
_NAMES = ["Host", "host", "Content-Length", "content-length", "Transfer-Encoding", "Connection", "X-A", "X_A", "X A",
          "", "Expect:X", "É", "Accept", "X-Registry-Auth"]
_VALUES = ["a", "", "0", "5", "5, 5", "5,6", "+5", "0x1", "chunked", "Chunked", "gzip, chunked", "close", "TE, close",
           "keep-alive", " spaced\t", "a\tb", "a\x00", "a\rb", "\xe9", "9" * 20, "x:y"]
_ENDS = ["\r\n"] * 8 + ["\n"] * 2 + ["\r\r\n"]


def head(rng: random.Random) -> bytes:
    """A head that may be well formed, or not."""
    pick = rng.choice
    usual = rng.random() < 0.7
    line = ("GET / HTTP/1.1" if usual else f"{pick(_METHODS)} {pick(_TARGETS)} {pick(_VERSIONS)}") + pick(_ENDS)
    lines = [line] + (["Host: d\r\n"] if rng.random() < 0.8 else [])
    for _ in range(rng.randrange(5)):
        fold = rng.random() < 0.1
        lines.append((pick([" ", "\t"]) + pick(_VALUES) if fold else
                      f"{pick(_NAMES)}{pick([':', ': ', ':  ', ' :', ''])}{pick(_VALUES)}") + pick(_ENDS))
    text = "".join(lines) + pick(["\r\n"] * 8 + ["\n"])
    data = bytearray(text.encode("latin-1"))
    if rng.random() < 0.1:
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)
