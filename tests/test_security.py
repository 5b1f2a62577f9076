"""Attacks on a proxy that looks into requests, each by its name: what the daemon takes as a create was seen as one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from attacked import Attacked, attacked, creates, is_wrapped

pytestmark = pytest.mark.root

_SECRET = "hunter2"
_PLAIN = {"Image": "busybox", "Env": [f"PASSWORD={_SECRET}"]}
_BODY = json.dumps(_PLAIN).encode()


@pytest.fixture(scope="module")
def _attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    with attacked(tmp_path_factory.mktemp("attacked")) as proxy:
        yield proxy
        assert _SECRET not in proxy.log.read_text(), "no body and no credential reaches a log, at any level"


@pytest.fixture
def proxy(_attacked: Attacked) -> Attacked:
    """The proxy, with nothing seen yet."""
    _attacked.daemon.requests.clear()
    return _attacked


def _post(target: str = "/v1.41/containers/create", body: bytes = _BODY, *headers: str, length: bool = True,
          line: str = "POST {} HTTP/1.1") -> bytes:
    lines = [line.format(target), "Host: docker", "Content-Type: application/json", f"X-Registry-Auth: {_SECRET}"]
    lines += [f"Content-Length: {len(body)}"] if length else []
    return "\r\n".join([*lines, *headers, "", ""]).encode("latin-1") + body


def _chunked(body: bytes, size: str | None = None) -> bytes:
    return (size or f"{len(body):x}").encode() + b"\r\n" + body + b"\r\n0\r\n\r\n"


def _with(**fields: object) -> bytes:
    return json.dumps(_PLAIN | fields).encode()


_TE = "Transfer-Encoding: chunked"

#: Requests that Docker takes as creates, or nearly: each reaches it with its command held back.
_DISGUISES = {
    "an ordinary create": _post(),
    "a double slash": _post("//containers/create"),
    "a double slash after the version": _post("/v1.41//containers/create"),
    "up and down again": _post("/v1.41/../containers/create"),
    "up from another call": _post("/images/../containers/create"),
    "dots that stand for here": _post("/./containers/./create"),
    "an encoded letter": _post("/%63ontainers/%63reate"),
    "an encoded slash": _post("/containers%2fcreate"),
    "an encoded way up": _post("/images/%2e%2e/containers/create"),
    "a version of its own": _post("/v1.9999/containers/create"),
    "an absolute target": _post("http://docker/v1.41/containers/create"),
    "an absolute target without a path of its own": _post("http://evil/containers/create?a=/b"),
    "a fragment in the query": _post("/containers/create?name=x#/json"),
    "a question mark twice": _post("/containers/create??name=/_ping"),
    "a name that looks like a path": _post("/containers/create?name=../../_ping"),
    "a method override": _post("/containers/create", _BODY, "X-HTTP-Method-Override: GET"),
    "a path in headers": _post("/containers/create", _BODY, "X-Original-URL: /_ping", "X-Rewrite-Url: /_ping",
                               "Path-Info: /_ping", "Script-Name: /containers"),
    "an upgrade to tcp": _post("/containers/create", _BODY, "Connection: Upgrade", "Upgrade: tcp"),
    "an upgrade to h2c": _post("/containers/create", _BODY, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c",
                               "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"),
    "a connection header that names the length": _post("/containers/create", _BODY,
                                                       "Connection: Content-Length, Content-Type"),
    "keys in another case": _post(body=b'{"image":"busybox","ENTRYPOINT":["sh"],"cMd":["-c","id"]}'),
    "a key twice": _post(body=b'{"Image":"busybox","Entrypoint":["/dev/w","x"],"entrypoint":["sh"]}'),
    "a key twice, null last": _post(body=b'{"Image":"busybox","Entrypoint":["/dev/w","x"],"entrypoint":null}'),
    "an escaped key": _post(body=b'{"\\u0049mage":"busybox","\\u0045ntrypoint":["sh"]}'),
    "a second document": _post(body=b'{"Image":"busybox"}{"Image":"busybox","Entrypoint":["sh"]}'),
    "white space first": _post(body=b"\r\n\t  " + _BODY),
    "our own entrypoint, forged": _post(body=_with(Entrypoint=["/dev/w", "sh"])),
    "WEAVE_CIDR in a label": _post(body=_with(Labels={"WEAVE_CIDR": "none"})),
    "WEAVE_CIDR as an argument": _post(body=_with(Cmd=["-e", "WEAVE_CIDR=none"])),
    "WEAVE_CIDR in lower case": _post(body=_with(Env=["weave_cidr=none"])),
    "WEAVE_CIDR within another name": _post(body=_with(Env=["MY_WEAVE_CIDR=none", "X=WEAVE_CIDR=none"])),
    "chunks": _post("/containers/create", _chunked(_BODY), _TE, length=False),
    "chunks with extensions": _post("/containers/create", _chunked(_BODY, f"{len(_BODY):x};a=b"), _TE, length=False),
    "no length, in HTTP/1.0": _post("/containers/create", _BODY, line="POST {} HTTP/1.0"),
    "an underscore for a dash": _post("/containers/create", _BODY, "Transfer_Encoding: chunked", "Content_Length: 3"),
    "behind another request": b"GET /version HTTP/1.1\r\nHost: docker\r\n\r\n" + _post(),
    "a folded header": _post("/containers/create", _BODY, "X: a\r\n Transfer-Encoding: chunked"),
    "bare line feeds": _post().replace(b"\r\n", b"\n"),
    "too many headers": _post("/containers/create", _BODY, *[f"X-{n}: y" for n in range(2000)]),
}


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in _DISGUISES.items()])
def test_a_create_in_disguise_is_seen(proxy: Attacked, data: bytes) -> None:
    """Whatever it looks like, the daemon gets it with the command held back."""
    answer = proxy.send(data, after=lambda: any(map(creates, proxy.seen)))
    made = [request for request in proxy.seen if creates(request)]
    assert len(made) == 1, answer
    assert is_wrapped(made[0])


#: Requests that could be read in two ways: the daemon hears nothing.
_AMBIGUOUS = {
    "a length and chunks": _post("/containers/create", _chunked(_BODY), _TE),
    "two lengths": _post("/containers/create", _BODY, "Content-Length: 3"),
    "a list of lengths": _post("/containers/create", _BODY, f"Content-Length: {len(_BODY)}, 3", length=False),
    "a signed length": _post("/containers/create", _BODY, f"Content-Length: +{len(_BODY)}", length=False),
    "a hexadecimal length": _post("/containers/create", _BODY, "Content-Length: 0x10", length=False),
    "a length in other digits": _post("/containers/create", _BODY, "Content-Length: \xb2", length=False),
    "a negative length": _post("/containers/create", _BODY, "Content-Length: -1", length=False),
    "an unknown coding": _post("/containers/create", _chunked(_BODY), "Transfer-Encoding: xchunked", length=False),
    "two codings": _post("/containers/create", _chunked(_BODY), "Transfer-Encoding: chunked, identity", length=False),
    "chunks twice": _post("/containers/create", _chunked(_BODY), _TE, _TE, length=False),
    "a space before the colon": _post("/containers/create", _chunked(_BODY), "Transfer-Encoding : chunked"),
    "a bare CR": _post("/containers/create", _BODY, "X: a\rTransfer-Encoding: chunked"),
    "a NUL": _post("/containers/create", _BODY, "X: a\0b"),
    "a space in the target": _post("/containers/create HTTP/1.1 x"),
    "a NUL in the target": _post("/containers/\0create"),
    "HTTP/0.9": b"POST /containers/create\r\n\r\n" + _BODY,
    "another version": _post(line="POST {} HTTP/3.0"),
    "HTTP/2 by prior knowledge": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0",
    "a size that overflows": _post("/containers/create", _chunked(_BODY, "F" * 17), _TE, length=False),
    "a signed chunk size": _post("/containers/create", _chunked(_BODY, f"+{len(_BODY):x}"), _TE, length=False),
    "a chunk that is shorter than it says": _post("/containers/create", _chunked(_BODY, "ffff"), _TE, length=False),
    "a body that is shorter than it says": _post("/containers/create", _BODY, "Content-Length: 9999", length=False),
    "a body that is too large": _post("/containers/create", b"{", f"Content-Length: {64 << 20}", length=False),
    "a head that is too large": _post("/containers/create", _BODY, "X: " + "y" * (3 << 20)),
    "JSON that is too deep": _post(body=b'{"Image":"busybox","x":' + b"[" * 100_000),
}


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in _AMBIGUOUS.items()])
def test_what_can_be_read_in_two_ways_is_refused(proxy: Attacked, data: bytes) -> None:
    """With an error that a docker client shows, or by hanging up; the daemon hears nothing of it."""
    answer = proxy.send(data)
    assert not proxy.seen
    assert not answer or answer.split(b" ", 2)[1][:1] in b"45"


#: What comes after the request proper must not become one.
_BEHIND = {
    "a body behind a length of 0 (CVE-2024-41110)":
        _post("/containers/create", _BODY, "Content-Length: 0", length=False),
    "a create behind an upgraded attach": _post("/containers/x/attach", b"", "Connection: Upgrade", "Upgrade: tcp")
        + _post(),
    "a create behind an attach without an upgrade": _post("/containers/x/attach", b"") + _post(),
    "a create behind a stream": b"GET /events HTTP/1.1\r\nHost: docker\r\n\r\n" + _post(),
    "a create behind an unknown upgrade": _post("/future", b"", "Connection: Upgrade", "Upgrade: x") + _post(),
    "a create in the body of a build": _post("/build", b"", f"Content-Length: {len(_post())}", length=False) + _post(),
    "a create behind the last chunk": _post("/build", _chunked(b"x"), _TE, length=False) + _post(),
    "a create in a trailer": _post("/build", b"1\r\nx\r\n0\r\nX: y\r\n\r\n", _TE, length=False) + _post(),
}


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in _BEHIND.items()])
def test_nothing_is_smuggled_past(proxy: Attacked, data: bytes) -> None:
    """The daemon takes no create that we have not seen: none at all, or one whose command is held back."""
    proxy.send(data, after=lambda: proxy.seen)
    assert proxy.seen
    assert all(is_wrapped(request) for request in proxy.seen if creates(request))


@pytest.mark.parametrize("target", ["/containers/create/start", "/containers/create/json", "/containers/create/",
                                    "/containers/create%00", "/v/containers/create", "/vX/containers/create",
                                    "/containers/createx", "/Containers/create"])
def test_what_only_looks_like_a_create_is_left_alone(proxy: Attacked, target: str) -> None:
    """The daemon has another opinion of it, and so have we: byte for byte."""
    proxy.send(_post(target), after=lambda: proxy.seen)
    for request in proxy.seen:
        assert not is_wrapped(request)


def test_a_socket_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    """A link planted where our socket is to be is neither followed nor replaced."""
    from weavemw.dockerapi import hosts
    from weavemw.errors import SettingsError
    from weavemw.serving import listeners

    (tmp_path / "weave.sock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SettingsError, match="a symbolic link"):
        listeners.bind(hosts.parse(f"{tmp_path}/weave.sock"), tmp_path.stat())
    assert not (tmp_path / "elsewhere").exists()
