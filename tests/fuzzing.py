"""Random creates in random disguises, and a model of what Go makes of them.

``python tests/fuzzing.py bodies COUNT [SEED]`` fuzzes the middlewares with targets and bodies,
``python tests/fuzzing.py heads COUNT [SEED]`` (as root) the whole proxy with bytes on its socket.
Each case is a function of its seed: a failure names it.
"""

from __future__ import annotations

import io
import json
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attacked import Attacked, attacked, creates, is_create_target, is_wrapped

from weavemw.dockerapi import routes
from weavemw.middleware.cidr import CidrParser
from weavemw.middleware.entrypoint import EntrypointWrapper
from weavemw.middleware.errors import ErrorResponder
from weavemw.testing import FakeDocker

_WAIT = "/wait/0123456789ab"


# What Go makes of a body: fields in any case, one after the other, each into what is there already.

class WrongTypeError(ValueError):
    """The daemon answers 400."""


class AmbiguousError(ValueError):
    """Versions of Go differ, or the daemon's answer is an error in any case: refusing is right."""


def _fold(name: str) -> str:
    return name.replace("\u017f", "s").replace("\u212a", "k").lower() if name.isascii() or \
        set(name) & {"\u017f", "\u212a"} else name


def _text(value: Any, old: str = "") -> str:
    if value is None:
        return old
    if not isinstance(value, str) or isinstance(value, _Number):
        raise WrongTypeError
    return re.sub("[\ud800-\udfff]", "\ufffd", value)


def _list(value: Any, old: list[str] | None) -> list[str] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise WrongTypeError
    if old and None in value:
        raise AmbiguousError
    return [_text(item) for item in value]


def _command(value: Any, old: list[str] | None) -> list[str] | None:
    if value is None:
        return None
    return [_text(value)] if isinstance(value, str) else _list(value, None)


def _map(value: Any, old: dict[str, str] | None) -> dict[str, str] | None:
    if value is None:
        return None
    if not isinstance(value, _Pairs):
        raise WrongTypeError
    return (old or {}) | {_text(key): _text(item) for key, item in value.pairs}


def _host(value: Any, old: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if value is None else _struct(value, _HOST_CONFIG, old)


def _struct(value: Any, schema: dict[str, Any], old: dict[str, Any] | None = None) -> dict[str, Any]:
    if not isinstance(value, _Pairs):
        raise WrongTypeError
    made = dict(old or {})
    for key, item in value.pairs:
        name = next((name for name in schema if name.lower() == _fold(key)), None)
        if name:
            before = made.get(name)
            made[name] = schema[name](item, before if before is not None or schema[name] is not _text else "")
    return made


_HOST_CONFIG = {"Binds": _list, "NetworkMode": _text, "Dns": _list}
_CREATE = {"Image": _text, "Entrypoint": _command, "Cmd": _command, "Env": _list, "Labels": _map, "User": _text,
           "HostConfig": _host}


class _Pairs:
    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        self.pairs = pairs


class _Number(str):
    __slots__ = ()


def _constant(name: str) -> None:
    raise ValueError(name)


_DECODER = json.JSONDecoder(object_pairs_hook=_Pairs, parse_int=_Number, parse_float=_Number, parse_constant=_constant)


def decode(body: bytes) -> dict[str, Any] | None:
    """The configuration that Go reads; ``None`` for what is no JSON object."""
    text = body.decode("utf-8", "surrogateescape").lstrip(" \t\r\n")  # Go: one U+FFFD for each bad byte
    try:
        value, _ = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return _struct(value, _CREATE) if isinstance(value, _Pairs) else None


def predict(body: bytes) -> dict[str, Any] | str:
    """The configuration that the daemon is to get, or "untouched", "refused", "either", or "error": the daemon's."""
    try:
        config = decode(body)
    except WrongTypeError:
        return "error"
    except AmbiguousError:
        return "either"
    if not config or not any(config.get(name) for name in ("Image", "Entrypoint", "Cmd")):
        return "untouched"
    host = config.get("HostConfig") or {}
    mode = host.get("NetworkMode") or "default"
    if mode == "host" or mode.startswith("container:"):
        return "untouched"
    if config.get("Image") not in ("busybox", "", None):
        return "refused"
    cidr = [env.partition("=")[2] for env in config.get("Env") or () if env.startswith("WEAVE_CIDR=")]
    if cidr and cidr[-1].strip(" ,") == "none":
        return "untouched"
    if cidr and cidr[-1] not in ("", "10.2.1.1/24", "net:default"):
        return "refused" if cidr[-1] == "nonsense" else "either"
    if mode not in ("default", "bridge", "none"):
        return "untouched"
    return _with_network(config, host)


def _with_network(config: dict[str, Any], host: dict[str, Any]) -> dict[str, Any] | str:
    entrypoint, cmd = config.get("Entrypoint"), config.get("Cmd")
    if entrypoint and entrypoint[0] == "/dev/w":
        entrypoint = entrypoint[1:] or [""]
    if not entrypoint and not cmd and config.get("Image"):
        cmd = ["sh"]
    if entrypoint == [""]:  # docker run --entrypoint ""
        entrypoint = None
        if not cmd:
            return "untouched"
    binds = host.get("Binds") or []
    place = "/.dockerenv" if any(bind.split(":")[1:2] == ["/dev"] for bind in binds) else "/dev/w"
    mode = "ro,rprivate" if host.get("Binds") == [] else "ro"
    host = host | {"Binds": [*binds, f"{_WAIT}/w:{place}:{mode}"]}
    for_empty = {"/dev/w": "/dev/./w", "/.dockerenv": "/./.dockerenv"}[place]
    wrapped = [for_empty if entrypoint == [] else place, *(entrypoint or [])]
    return config | {"Entrypoint": wrapped, "Cmd": cmd, "HostConfig": host}


def _said(config: Any) -> Any:
    """Without what says nothing."""
    return {key: _said(value) for key, value in config.items() if value} if isinstance(config, dict) else config


def _is_error(body: bytes) -> bool:
    try:
        decode(body)
    except (WrongTypeError, AmbiguousError):
        return True
    return False


def _waits(body: bytes) -> bool:
    config = decode(body) or {}
    return (config.get("Entrypoint") or [""])[0] in ("/dev/w", "/.dockerenv")


# Random requests

def target(rng: random.Random) -> str:
    """A target that is a create, nearly one, or anything."""
    path = rng.choice(["/containers/create"] * 6 + ["/v1.41/containers/create"] * 6 +
                      ["/containers/create/", "/containers/json", "/containers/create/start", "/images/create", "/"])
    for _ in range(rng.choice([0, 0, 1, 1, 2, 3])):
        path = rng.choice(_PATH_CHANGES)(rng, path)
    path = path if path.startswith("/") else "/" + path
    return rng.choice(["", "", "", "http://docker"]) + path + rng.choice(_QUERIES)


_QUERIES = ["", "", "", "?name=web", "?name=../../x", "??", "?a=/containers/create", "#x", "?#/json"]
_ODD = ["%00", "%0a", "%20", "%ff", "%", "%2", "%zz", ";"]
_PATH_CHANGES = [
    lambda rng, path: path.replace("/", rng.choice(["//", "/./", "/x/../", "/%2e/", "/%2E%2e/", "%2f", "%2F"]), 1),
    lambda rng, path: "/" + rng.choice(["", "..", ".", "v1.2", "v", "v1.41/..", "%2e%2e"]) + path,
    lambda rng, path: _at(rng, path, lambda char: f"%{ord(char):02x}"),
    lambda rng, path: _at(rng, path, lambda char: f"%{ord(char):02X}"),
    lambda rng, path: _at(rng, path, str.swapcase),
    lambda rng, path: _at(rng, path, lambda char: char + rng.choice(_ODD)),
]


def _at(rng: random.Random, text: str, change: Any) -> str:
    place = rng.randrange(len(text))
    return text[:place] + change(text[place]) + text[place + 1 :]


def body(rng: random.Random) -> bytes:
    """A body that is a configuration, nearly one, or anything."""
    fields = [_field(rng, "Image", rng.choice(['"busybox"'] * 8 + ['"missing"', "null", '""', "7"]))]
    for _ in range(rng.choice([0, 1, 2, 3, 5])):
        name = rng.choice([*_CREATE, "Memory", "Unknown"])
        fields.append(_field(rng, name, _value(rng, name)))
    rng.shuffle(fields)
    text = rng.choice(["", "", " ", "\r\n\t"]) + "{" + ",".join(fields) + "}" + rng.choice(["", "", "\n", "{}", "x"])
    data = text.encode("utf-8", "surrogatepass")
    return _damaged(rng, data) if rng.random() < 0.15 else data


def _damaged(rng: random.Random, data: bytes) -> bytes:
    place = rng.randrange(len(data))
    return rng.choice([data[:place], data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :],
                       data[:place] + rng.choice([b"\xff", b"\0", b"\xef\xbb\xbf", b",", b'"', b"{"]) + data[place:]])


def _field(rng: random.Random, name: str, value: str) -> str:
    return f'"{_spelled(rng, name)}"{rng.choice([":", " : "])}{value}'


def _spelled(rng: random.Random, name: str) -> str:
    how = rng.randrange(10)
    if how == 0:
        return name.swapcase()
    if how == 1:
        return _at(rng, name, lambda char: f"\\u{ord(char):04x}")
    if how == 2:
        return name.replace("s", "\u017f").replace("k", "\u212a")
    return _at(rng, name, str.swapcase) if how == 3 else name


def _value(rng: random.Random, name: str) -> str:
    if rng.random() < 0.08:
        return rng.choice(["null", "7", "1.50", '"x"', "[]", "{}", "true", '["a",null]', "[7]"])
    if name == "HostConfig":
        inner = [rng.choice([*_HOST_CONFIG, "Memory"]) for _ in range(rng.randrange(4))]
        return "{" + ",".join(_field(rng, each, _value(rng, each)) for each in inner) + "}"
    return rng.choice(_VALUES.get(name, ['"x"', "9007199254740993", "[1,2]", '{"a":{}}']))


_VALUES = {
    "Image": ['"busybox"', '"busybox"', '"missing"'],
    "Entrypoint": ['["sh","-c"]', '"sh"', "[]", "null", '["/dev/w","sh"]', '[""]'],
    "Cmd": ['["ls","-l"]', '"ls"', "[]", "null", '["\\ud800"]', '["\u00e9"]'],
    "Env": ['["A=b"]', '["WEAVE_CIDR=none"]', '["WEAVE_CIDR=10.2.1.1/24"]', '["WEAVE_CIDR="]', '["weave_cidr=none"]',
            '["WEAVE_CIDR=nonsense"]', '["WEAVE_CIDR=none","WEAVE_CIDR=net:default"]', '["X=WEAVE_CIDR=none"]', "[]",
            '["WEAVE_CIDR=\\u006eone"]'],
    "Labels": ['{"WEAVE_CIDR":"none"}', '{"a":"b","A":"c"}', '{"a":null}'],
    "User": ['"nobody"', '""'],
    "NetworkMode": ['"host"', '"bridge"', '"default"', '"none"', '"container:x"', '"mine"', '""', '"Host"'],
    "Binds": ['["/a:/b"]', '["/a:/dev"]', "[]", '["/a:/x:ro","v:/y"]'],
    "Dns": ['["10.0.0.1"]', "[]"],
}


# Cases against the middlewares

class Bodies:
    """The middlewares around a daemon that keeps what it is sent."""

    def __init__(self) -> None:
        docker = FakeDocker()
        docker.images = {"busybox": {"Cmd": ["sh"], "Env": ["PATH=/bin"]}}
        wrapped = EntrypointWrapper(self._daemon, wait_dir=Path(_WAIT), docker=docker)
        self.app = ErrorResponder(CidrParser(wrapped, docker=docker))
        self.sent: tuple[str, bytes] | None = None
        self.status = ""

    def _daemon(self, environ: Any, start_response: Any) -> list[bytes]:
        self.sent = routes.target_of(environ), environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start_response("201 Created", [])
        return []

    def check(self, where: str, data: bytes) -> None:
        """Send one request and compare with the model."""
        self.sent, self.status = None, ""
        self.app({"REQUEST_METHOD": "POST", "RAW_URI": where, "CONTENT_LENGTH": str(len(data)),
                  "wsgi.input": io.BytesIO(data), "PATH_INFO": "/", "QUERY_STRING": ""}, self._start_response)
        expected = predict(data) if is_create_target(f"POST {where} HTTP/1.1") else "untouched"
        if expected in ("error", "either"):
            sent = self.sent[1] if self.sent else data
            assert sent == data or _is_error(sent) or _waits(sent)
            return
        if expected == "refused":
            assert self.sent is None, "sent, not refused"
            assert self.status[:1] == "4", self.status
            return
        assert self.sent is not None, f"refused: {self.status}"
        assert self.sent[0] == where.removeprefix("http://docker")
        if expected == "untouched":
            assert self.sent[1] == data
        else:
            assert _said(decode(self.sent[1])) == _said(expected), (decode(self.sent[1]), expected)

    def _start_response(self, status: str, headers: Any, exc_info: Any = None) -> Any:
        self.status = status

    def case(self, rng: random.Random) -> None:
        """One random case."""
        where, data = target(rng), body(rng)
        try:
            self.check(where, data)
        except Exception as error:
            error.add_note(f"target {where!r}, body {data!r}")
            raise


# Cases against the whole proxy

def head(rng: random.Random, data: bytes) -> bytes:
    """A request with this body, its head disturbed."""
    where = target(rng).encode("latin-1")
    lines = [b"POST " + where + b" HTTP/1.1", b"Host: docker", b"Content-Type: application/json"]
    if rng.random() < 0.7:
        lines.append(b"Content-Length: %d" % len(data))
    else:
        lines.append(b"Transfer-Encoding: chunked")
        data = _chunks(rng, data)
    for _ in range(rng.choice([0, 0, 1, 1, 2])):
        lines.insert(rng.randrange(1, len(lines) + 1), rng.choice(_LINES))
    made = b"\r\n".join([*lines, b"", b""]) + data
    for _ in range(rng.choice([0, 0, 0, 1, 2])):
        place = rng.randrange(min(len(made), 200))
        made = made[:place] + rng.choice(_BYTES) + made[place + rng.randrange(2) :]
    return made + (rng.choice([b"", made]) if rng.random() < 0.2 else b"")


def _chunks(rng: random.Random, data: bytes) -> bytes:
    made = b""
    while data:
        size = rng.randrange(1, len(data) + 1)
        made += rng.choice([b"%x", b"%X", b"0%x", b"%x;a=b", b"%x "]) % size + b"\r\n" + data[:size] + b"\r\n"
        data = data[size:]
    return made + rng.choice([b"0\r\n\r\n", b"00\r\n\r\n", b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n"])


_BYTES = [b"\r", b"\n", b"\r\n", b"\0", b" ", b"\t", b":", b"\xff", b"\x0b", b",", b"_", b"-", b"0", b"+", b";", b"%"]
_LINES = [b"Content-Length: 0", b"Content-Length: 5", b"content-length: +3", b"Transfer-Encoding: chunked",
          b"Transfer-Encoding: identity", b"Transfer-Encoding: xchunked", b"transfer_encoding: chunked", b" folded",
          b"Connection: close", b"Connection: keep-alive, Content-Length", b"Connection: Upgrade", b"Upgrade: tcp",
          b"Upgrade: h2c", b"Expect: 100-continue", b"Host: other", b"X: y", b"X-HTTP-Method-Override: GET",
          b"Content-Encoding: gzip", b"TE: trailers", b"Trailer: Content-Length", b"Keep-Alive: 5", b": nameless"]


def check_heads(proxy: Attacked, data: bytes) -> None:
    """Send bytes; whatever create comes out at the daemon has its command held back, or is to be left alone."""
    proxy.daemon.requests.clear()
    proxy.send(data, after=None, timeout=20)
    for request in proxy.seen:
        assert b"\n" not in request.head.replace(b"\r\n", b""), request.head
        if creates(request) and not is_wrapped(request):
            assert predict(request.body) in ("untouched", "either", "error"), (request.head, request.body)


def _run(kind: str, count: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        if kind == "bodies":
            repeat(count, seed, Bodies().case)
        else:
            with attacked(Path(directory)) as proxy:
                repeat(count, seed, lambda rng: check_heads(proxy, head(rng, body(rng))))


def repeat(count: int, seed: int, case: Callable[[random.Random], object]) -> None:
    """Try a case so many times, each with random numbers of its own; tells which failed, and goes on."""
    failed, began, step = 0, time.monotonic(), max(count // 20, 1)
    for number in range(count):
        try:
            case(random.Random(f"{seed}-{number}"))
        except Exception as error:  # noqa: BLE001  # each is told, and the run goes on
            failed += 1
            print(f"case {seed}-{number}: {error!r} {getattr(error, '__notes__', '')}", flush=True)
        if (number + 1) % step == 0:
            print(f"{number + 1} cases, {failed} failed, {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    _run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 1)
