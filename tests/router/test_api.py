from __future__ import annotations

import http.client
import socket
from collections.abc import Callable
from ipaddress import ip_interface
from typing import Any

import pytest
import requests

from weavemw.errors import RouterError, RouterUnreachable
from weavemw.router.client import RouterClient


@pytest.fixture
def router(start: Callable[..., Any]) -> Any:
    return start(range6=None)


@pytest.fixture
def call(router: Any) -> Callable[..., tuple[int, str]]:
    """Status and text of a request."""
    def call(method: str, path: str, **options: Any) -> tuple[int, str]:
        reply = requests.request(method, f"http://{router.address}{path}", timeout=10, **options)
        if reply.status_code != 204 and "json" not in reply.headers["Content-Type"]:
            assert reply.headers["Content-Type"] == "text/plain; charset=utf-8"
        return reply.status_code, reply.text.removesuffix("\n")

    return call


def test_a_conversation_about_addresses(call: Callable[..., tuple[int, str]]) -> None:
    """Addresses are allocated, claimed, listed and freed as a Weave Net router does it, call by call."""
    for method, path, status, text in [
        ("GET", "/ipinfo/defaultsubnet", 200, "10.32.0.0/12"),
        ("GET", "/ip", 200, '{"owned": []}'),
        ("GET", "/ipinfo/objection?wanted=net:default", 200, ""),
        ("GET", "/ipinfo/objection?wanted=net:10.32.5.0/24", 200, ""),
        ("GET", "/ipinfo/objection?wanted=net:192.168.3.0/24", 200,
         "range 192.168.3.0/24 out of bounds: 10.32.0.0/12"),
        ("GET", "/ipinfo/objection?wanted=ip:192.168.3.1/24", 200, ""),
        ("GET", "/ipinfo/objection?wanted=ip:10.32.0.0/8", 200,
         "10.32.0.0 is the network address of the range 10.32.0.0/12"),
        ("GET", "/ipinfo/objection?wanted=10.32.0.1/12", 200, ""),
        ("GET", "/ipinfo/objection", 400,
         'invalid WEAVE_CIDR "": expected "none", ADDRESS/PREFIX, "ip:ADDRESS/PREFIX", "net:SUBNET/PREFIX" or '
         '"net:default"'),
        ("GET", "/ip/abc", 200, ""),
        ("POST", "/ip/abc", 200, "10.32.0.1/12"),
        ("POST", "/ip/abc", 200, "10.32.0.1/12"),
        ("POST", "/ip/def", 200, "10.32.0.2/12"),
        ("POST", "/ip/abc/10.32.5.0/24", 200, "10.32.5.1/24"),
        ("POST", "/ip/abc/10.32.5.7/24", 400,
         "invalid subnet - bits after network prefix are not all zero: 10.32.5.7/24"),
        ("POST", "/ip/abc/192.168.3.0/24", 400, "range 192.168.3.0/24 out of bounds: 10.32.0.0/12"),
        ("PUT", "/ip/def/10.32.0.99/12", 204, ""),
        ("PUT", "/ip/def/10.32.0.99/12?noErrorOnUnknown=true", 204, ""),
        ("PUT", "/ip/abc/10.32.0.99/12", 400,
         "Unable to claim: address 10.32.0.99/12 is already owned by def"),
        ("PUT", "/ip/abc/192.168.9.9/24", 204, ""),
        ("PUT", "/ip/abc/fd00::9/64", 204, ""),
        ("GET", "/ip/abc", 200, "10.32.0.1/12 10.32.5.1/24"),
        ("GET", "/ip/abc/10.32.5.0/24", 200, "10.32.5.1/24"),
        ("GET", "/ip/abc/fd00::/64", 200, "fd00::9/64"),
        ("GET", "/ip", 200, '{"owned": [{"containerid": "abc", "addrs": ["10.32.0.1/12", "10.32.5.1/24", '
                            '"192.168.9.9/24", "fd00::9/64"]}, {"containerid": "def", "addrs": ["10.32.0.2/12", '
                            '"10.32.0.99/12"]}]}'),
        ("DELETE", "/ip/def/10.32.0.99", 204, ""),
        ("DELETE", "/ip/def/10.32.0.99", 400, "Unable to free: address 10.32.0.99 is not owned by def"),
        ("DELETE", "/ip/abc", 204, ""),
        ("DELETE", "/ip/abc", 400, "Delete: no addresses for abc"),
    ]:
        assert (method, path, *call(method, path)) == (method, path, status, text)


def test_range_of_ipv6(start: Callable[..., Any]) -> None:
    """With a range of IPv6, its subnets are asked for as those of IPv4, by the same container."""
    from ipaddress import IPv6Network
    client = RouterClient(start(range6=IPv6Network("fd00::/48")).address)
    assert client.allocate("a", "fd00::/64") == ip_interface("fd00::1/64")
    assert client.allocate("a") == ip_interface("10.32.0.1/12")
    assert set(client.owned()["a"]) == {ip_interface("fd00::1/64"), ip_interface("10.32.0.1/12")}
    client.release("a", ip_interface("fd00::1/64"))
    assert client.addresses("a") == (ip_interface("10.32.0.1/12"),)


def test_check_alive(call: Callable[..., tuple[int, str]], engine: Any) -> None:
    """With check-alive, what Docker does not run gets nothing, and says "cancelled"."""
    engine.running, engine.stopped = {"up"}, {"down"}
    assert call("POST", "/ip/up?check-alive=true") == (200, "10.32.0.1/12")
    for container in ("down", "gone"):
        assert call("POST", f"/ip/{container}?check-alive=true") == (200, "cancelled")
        assert call("PUT", f"/ip/{container}/10.32.0.9/12?check-alive=true") == (200, "cancelled")
    assert call("GET", "/ip") == (200, '{"owned": [{"containerid": "up", "addrs": ["10.32.0.1/12"]}]}')


def test_check_alive_without_docker(call: Callable[..., tuple[int, str]], engine: Any) -> None:
    """If Docker can't be asked, the answer is an error that says so; nothing is given on a guess."""
    engine.down = True
    assert call("POST", "/ip/up?check-alive=true") == (502, "Docker at /nowhere did not answer")
    assert call("POST", "/ip/up") == (200, "10.32.0.1/12")


def test_a_conversation_about_names(call: Callable[..., tuple[int, str]]) -> None:
    """Names are registered and removed; what lies outside of the domain is accepted and not kept."""
    fqdn = {"data": {"fqdn": "Web.weave.local"}}
    assert call("GET", "/domain") == (200, "weave.local.")
    assert call("PUT", "/name/abc/10.32.0.1", **fqdn) == (204, "")
    assert call("PUT", "/name/abc/10.32.0.1", data={"fqdn": "web.WEAVE.local."}) == (204, "")
    assert call("PUT", "/name/abc/fd00::1?fqdn=web.weave.local") == (204, "")
    assert call("PUT", "/name/abc/10.32.0.1", data={"fqdn": "www.example.com"}) == (204, "")
    assert names(call) == [("abc", "10.32.0.1", "Web.weave.local."), ("abc", "fd00::1", "web.weave.local.")]
    assert call("DELETE", "/name/abc/10.32.0.1?fqdn=WEB.weave.local") == (204, "")
    assert call("DELETE", "/name/nobody") == (204, "")
    assert names(call) == [("abc", "fd00::1", "web.weave.local.")]
    assert call("DELETE", "/name") == (204, "")
    assert names(call) == []


def names(call: Callable[..., tuple[int, str]]) -> list[tuple[str, str, str]]:
    import json
    status, text = call("GET", "/name", headers={"Accept": "application/json"})
    assert status == 200
    return [(row["ContainerID"], row["Addr"], row["Hostname"]) for row in json.loads(text)]


def test_name_of_a_dead_container(call: Callable[..., tuple[int, str]], engine: Any) -> None:
    """With check-alive, the name of a container that does not run is not kept, and goes if it was."""
    form = {"data": {"fqdn": "web.weave.local", "check-alive": "true"}}
    engine.running = {"abc"}
    assert call("PUT", "/name/abc/10.32.0.1", **form) == (204, "")
    assert len(names(call)) == 1
    engine.running = set()
    assert call("PUT", "/name/abc/10.32.0.1", **form) == (204, "")
    assert names(call) == []


def test_dns_address(router: Any, call: Callable[..., tuple[int, str]]) -> None:
    """Clients learn where DNS is served."""
    assert call("GET", "/dns-address") == (200, "127.0.0.1")
    assert call("GET", "/dns-address?network=weave") == (200, "127.0.0.1")
    assert call("GET", "/dns-address-port") == (200, f"127.0.0.1:{router.settings.dns_port}")


def test_dns_off(start: Callable[..., Any]) -> None:
    """With DNS off there is no address of it."""
    client = RouterClient(start(dns=False).address)
    assert client.dns_address() is None
    assert client.domain() == "weave.local."


def test_dns_on_again(start: Callable[..., Any]) -> None:
    """That it was off is not remembered: whoever starts now is to have a name."""
    without = start(dns=False)
    client = RouterClient(without.address)
    assert client.dns_address() is None
    without.stop()
    start(http_address=without.address)
    assert client.dns_address() == "127.0.0.1"


def test_peers(call: Callable[..., tuple[int, str]]) -> None:
    """Peers are noted and forgotten, and it is said that this router does not connect to them."""
    assert call("POST", "/connect", data=[("peer", "a"), ("peer", "b:6783")]) == (200, "")
    assert call("GET", "/status/targets") == (200, "a\nb:6783")
    assert call("POST", "/connect", data={"peer": "c", "replace": "true"}) == (200, "")
    assert call("GET", "/status/connections") == (200, "-> c failed (this router serves a single host)")
    assert call("POST", "/forget", data={"peer": "c"}) == (200, "")
    assert call("GET", "/status/targets") == (200, "")
    assert call("DELETE", "/peer/xyz") == (200, "0 IPs taken over from xyz")


def test_status(call: Callable[..., tuple[int, str]]) -> None:
    """The status names each service with its figures, for people and as data."""
    call("POST", "/ip/abc")
    call("PUT", "/name/abc/10.32.0.1", data={"fqdn": "web.weave.local"})
    text = call("GET", "/status")[1]
    for line in ("Service: router", "Range: 10.32.0.0/12", "InUse: 1", "Entries: 1"):
        assert line in map(str.strip, text.splitlines())
    assert call("GET", "/status/dns")[1].startswith("web 10.32.0.1 abc ")
    assert call("GET", "/status/ipam")[1].endswith("(host1) 1048576 IPs (100.0% of total) (1 active)")
    assert call("GET", "/status/peers")[1].endswith("(host1)")
    assert call("GET", "/report?format={{.IPAM.Range}}") == (200, "10.32.0.0/12")
    assert '"ActiveIPs": 1' in call("GET", "/report", headers={"Accept": "application/json"})[1]


@pytest.mark.parametrize(("method", "path", "options", "status"), [
    pytest.param("POST", "/ip/abc/300.1.1.0/24", {}, 400, id="no address"),
    pytest.param("POST", "/ip/abc/10.32.0.0/99", {}, 400, id="no prefix length"),
    pytest.param("POST", "/ip/abc/%00/24", {}, 400, id="NUL"),
    pytest.param("POST", "/ip/a%20b", {}, 400, id="space in the id"),
    pytest.param("POST", "/ip/%ff%fe", {}, 400, id="id not UTF-8"),
    pytest.param("POST", "/ip/" + "a" * 300, {}, 400, id="long id"),
    pytest.param("POST", "/ip/", {}, 404, id="no id"),
    pytest.param("POST", "/ip/abc/10.32.0.1", {}, 405, id="no such method"),
    pytest.param("GET", "/nonsense", {}, 404, id="no such path"),
    pytest.param("PUT", "/name/abc/10.32.0.1", {}, 400, id="no name"),
    pytest.param("PUT", "/name/abc/nonsense", {"data": {"fqdn": "a.weave.local"}}, 400, id="name for no address"),
    pytest.param("PUT", "/name/abc/10.32.0.1", {"data": {"fqdn": "a..weave.local"}}, 400, id="empty label"),
    pytest.param("PUT", "/name/abc/10.32.0.1", {"data": {"fqdn": "a" * 64 + ".weave.local"}}, 400, id="long label"),
    pytest.param("PUT", "/name/abc/10.32.0.1", {"data": {"fqdn": "é.weave.local"}}, 400, id="not ASCII"),
    pytest.param("PUT", "/name/abc/10.32.0.1", {"data": {"fqdn": "a." * 140}}, 400, id="long name"),
    pytest.param("PUT", "/name/abc/10.32.0.1",
                 {"data": b"fqdn=a", "headers": {"Content-Type": "application/x-www-form-urlencoded; charset=x"}},
                 400, id="unknown charset"),
    pytest.param("PUT", "/name/abc/10.32.0.1",
                 {"data": b"fqdn=\xff", "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
                 400, id="form not UTF-8"),
    pytest.param("PUT", "/name/abc/10.32.0.1",
                 {"data": b"nonsense", "headers": {"Content-Type": "multipart/form-data"}}, 400, id="no boundary"),
    pytest.param("PUT", "/name/abc/10.32.0.1",
                 {"data": b"nonsense", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
                 400, id="no parts"),
    pytest.param("PUT", "/name/abc/10.32.0.1", {"data": {"fqdn": "a" * 100_000}}, 413, id="huge form"),
    pytest.param("DELETE", "/name/abc?fqdn=..", {}, 400, id="remove no name"),
    pytest.param("GET", "/report?format={{range .}}", {}, 400, id="too much of a template"),
    pytest.param("GET", "/report?format={{.Nothing}}", {}, 400, id="no such field"),
    pytest.param("POST", "/ip/abc", {"headers": {"Origin": "http://evil.example"}}, 403, id="a web page"),
])
def test_malformed(call: Callable[..., tuple[int, str]], method: str, path: str, options: dict[str, Any],
                   status: int) -> None:
    """What is malformed is refused in plain text, and changes nothing."""
    assert call(method, path, **options)[0] == status
    assert call("GET", "/ip") == (200, '{"owned": []}')
    assert names(call) == []


@pytest.mark.parametrize("head", [
    pytest.param(b"nonsense\r\n\r\n", id="no request line"),
    pytest.param(b"POST /ip/a HTTP/9.9\r\n\r\n", id="no version"),
    pytest.param(b"POST /ip/a HTTP/1.1\r\nContent-Length: -1\r\n\r\n", id="negative length"),
    pytest.param(b"POST /ip/a HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", id="two lengths"),
    pytest.param(b"PUT /name/a/10.32.0.1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"
                 b"Content-Type: application/x-www-form-urlencoded\r\n\r\nzz\r\n", id="no chunk size"),
    pytest.param(b"POST /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", id="endless line"),
])
def test_malformed_http(router: Any, head: bytes) -> None:
    """What is no HTTP is answered 400, without a traceback, and the router goes on."""
    host, port = router.address.split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head)
        reply = http.client.HTTPResponse(connection)
        reply.begin()
        assert reply.status == 400
        assert b"Traceback" not in reply.read()
    assert RouterClient(router.address).domain() == "weave.local."


def test_client(router: Any, port: int) -> None:
    """The client raises the router's words, and says when nothing answers."""
    client = RouterClient(router.address)
    client.claim("a", ip_interface("10.32.0.9/12"))
    with pytest.raises(RouterError, match="already owned by a"):
        client.claim("b", ip_interface("10.32.0.9/12"))
    client.release("nobody")
    client.release("a", ip_interface("10.32.0.9/12"))
    assert client.owned() == {}
    with pytest.raises(RouterUnreachable, match=f"127.0.0.1:{port} did not answer: connection refused"):
        RouterClient(f"127.0.0.1:{port}").domain()
