from __future__ import annotations

import pytest

from weavemw.errors import Forbidden
from weavemw.middleware.origin import OriginGuard, objection


def _names() -> set[str]:
    return {"Host1.Example.com"}


@pytest.mark.parametrize(("host", "headers", "allowed"), [
    pytest.param("127.0.0.1:12375", {}, True, id="an address"),
    pytest.param("[::1]:12375", {}, True, id="an IPv6 address"),
    pytest.param("localhost:12375", {}, True, id="localhost"),
    pytest.param("host1:12375", {}, True, id="docker -H tcp://host1:12375"),
    pytest.param("host1.example.com:12375", {}, True, id="the host's own name"),
    pytest.param("HOST1.example.COM.:12375", {}, True, id="in any case, with the root's dot"),
    pytest.param("", {}, True, id="no Host at all: no browser"),
    pytest.param("evil.example.net:12375", {}, False, id="a name that was made to point here"),
    pytest.param("host1.example.com.evil.net", {}, False, id="the host's name as another's beginning"),
    pytest.param("127.0.0.1.evil.net", {}, False, id="an address as a name's beginning"),
    pytest.param("0x7f.1", {}, False, id="an address in a form that only browsers read"),
    pytest.param("localhost", {"HTTP_ORIGIN": "http://evil.net"}, False, id="a page of another origin"),
    pytest.param("localhost", {"HTTP_ORIGIN": "null"}, False, id="a page without one"),
    pytest.param("localhost:1", {"HTTP_ORIGIN": "http://localhost:2"}, False, id="a page of another port"),
    pytest.param("localhost:1", {"HTTP_ORIGIN": "http://localhost:1"}, True, id="docker-py's websocket"),
    pytest.param("login:12375", {"HTTP_ORIGIN": "http://login:12375"}, False, id="a page of a name without a dot"),
    pytest.param("login:12375", {"HTTP_ACCEPT_LANGUAGE": "en"}, False, id="its GET, which has no Origin"),
    pytest.param("login:12375", {"HTTP_ACCEPT_LANGUAGE": ""}, False, id="its GET, in no language"),
    pytest.param("login:12375", {"HTTP_REFERER": "http://login:12375/"}, False, id="its GET, with where it was"),
    pytest.param("host1.example.com:1", {"HTTP_ACCEPT_LANGUAGE": "en"}, True, id="our name in a browser"),
    pytest.param("127.0.0.1:1", {"HTTP_ORIGIN": "http://127.0.0.1:1"}, True, id="a page of an address of ours"),
    pytest.param("host1.example.com:1", {"HTTP_ORIGIN": "http://host1.example.com:1"}, True, id="a page of our name"),
    pytest.param("localhost", {"HTTP_SEC_FETCH_SITE": "cross-site"}, False, id="a form on another site"),
    pytest.param("localhost", {"HTTP_SEC_FETCH_SITE": "none"}, True, id="typed by the user"),
])
def test_only_clients_that_mean_this_host_are_served(host: str, headers: dict[str, str], allowed: bool) -> None:
    """What a web page can make a browser send is refused; what docker clients send is not."""
    assert bool(objection({"HTTP_HOST": host, **headers}, _names)) is not allowed


@pytest.mark.parametrize(("host", "origin", "allowed"), [
    ("127.0.0.1:12375", "http://localhost", True), ("127.0.0.1:12375", "HTTP://LocalHost", True),
    ("127.0.0.1:12375", "http://localhost:80", False), ("127.0.0.1:12375", "http://localhost.evil.net", False),
    ("evil.net", "http://localhost", False), ("127.0.0.1:12375", "null", False),
])
def test_an_origin_may_be_allowed(host: str, origin: str, allowed: bool) -> None:
    """As aiodocker's websockets say it, whatever they call; nothing that only looks like it, and no strange host."""
    assert bool(objection({"HTTP_HOST": host, "HTTP_ORIGIN": origin}, _names, {"http://localhost"})) is not allowed


def test_who_is_refused_hears_of_the_option() -> None:
    """Where the origin is one that can be named."""
    refused = objection({"HTTP_HOST": "127.0.0.1:1", "HTTP_ORIGIN": "http://localhost"}, _names)
    assert refused == ("web pages may not call Docker (Origin: http://localhost); "
                       "`weave launch-proxy --allow-origin http://localhost` lets it")
    assert "allow-origin" not in objection({"HTTP_HOST": "127.0.0.1:1", "HTTP_ORIGIN": "null"}, _names)


def test_with_tls_the_certificate_settles_the_name() -> None:
    """Any Host is fine then, but no other origin."""
    assert not objection({"HTTP_HOST": "alias.example.org"}, None)
    assert objection({"HTTP_HOST": "alias.example.org", "HTTP_ORIGIN": "https://evil.net"}, None)


@pytest.mark.parametrize("remote", ["", "<local>", "unix"])
def test_unix_sockets_are_not_looked_at(remote: str) -> None:
    """Old clients send a path as Host there, and tools hand on their own visitors' Origin."""
    app = OriginGuard(lambda environ, start_response: [b"served"], names=_names)
    environ = {"REMOTE_ADDR": remote, "HTTP_HOST": "/var/run/weave.sock", "HTTP_ORIGIN": "http://evil.net"}
    assert app(environ, lambda *_: lambda _: None) == [b"served"]
    with pytest.raises(Forbidden, match="web pages may not call Docker"):
        app({**environ, "REMOTE_ADDR": "192.0.2.1"}, lambda *_: lambda _: None)
