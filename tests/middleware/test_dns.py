"""The resolver, search list and hostname of containers, and the names to register."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from weavemw import context
from weavemw.attaching.decision import Attach, LeaveAlone
from weavemw.dockerapi.container import Container
from weavemw.errors import RouterError, RouterUnreachable
from weavemw.middleware.dns import DnsInjector
from weavemw.network.addresses import Default
from weavemw.testing import FakeRouter

CREATE = "/v1.41/containers/create"
DNS = ["172.17.0.1"]
DOMAIN = ["weave.local"]
WEB = Container(id="0123456789ab" + "0" * 52, name="web", hostname="web", domainname="weave.local")


def attach(container: Container | None = None, **image: object) -> dict[str, Any]:
    """An environ that says that the container is to be attached."""
    return {context.DECISION: Attach((Default(),), container=container, image=image)}


@pytest.mark.parametrize(("query", "body", "expected"), [
    pytest.param("", {}, {"HostConfig": {"Dns": DNS, "DnsSearch": DOMAIN}}, id="no name"),
    pytest.param("?name=web", {}, {"Hostname": "web", "Domainname": "weave.local",
                                   "HostConfig": {"Dns": DNS, "DnsSearch": ["."]}}, id="name"),
    pytest.param("?name=%2Fweb", {}, {"Hostname": "web", "Domainname": "weave.local",
                                      "HostConfig": {"Dns": DNS, "DnsSearch": ["."]}}, id="name with a slash"),
    pytest.param("?name=web", {"Hostname": "db"},
                 {"Hostname": "db", "HostConfig": {"Dns": DNS, "DnsSearch": ["."]}}, id="own hostname"),
    pytest.param("?name=web", {"hostname": "db.example.com"},
                 {"hostname": "db.example.com", "HostConfig": {"Dns": DNS, "DnsSearch": ["."]}}, id="elsewhere"),
    pytest.param("?name=web", {"Domainname": "example.com"},
                 {"Domainname": "example.com", "HostConfig": {"Dns": DNS, "DnsSearch": DOMAIN}},
                 id="own domain"),
    pytest.param("?name=web", {"Hostname": "db", "Domainname": "weave.local"},
                 {"Hostname": "db", "Domainname": "weave.local.", "HostConfig": {"Dns": DNS, "DnsSearch": ["."]}},
                 id="own hostname in our domain"),
    pytest.param("?name=web", {"Hostname": "web", "Domainname": "weave.local"},
                 {"Hostname": "web", "Domainname": "weave.local", "HostConfig": {"Dns": DNS, "DnsSearch": ["."]}},
                 id="copied from ours"),
    pytest.param("?name=web", {"Hostname": "", "HostConfig": None},
                 {"Hostname": "web", "HostConfig": {"Dns": DNS, "DnsSearch": ["."]}, "Domainname": "weave.local"},
                 id="blanks"),
    pytest.param("", {"HostConfig": {"dns": ["1.1.1.1"], "DnsSearch": ["a.b"]}},
                 {"HostConfig": {"Dns": [*DNS, "1.1.1.1"], "DnsSearch": ["a.b"]}}, id="own resolver and search"),
    pytest.param("", {"HostConfig": {"Dns": ["1.1.1.1", "172.17.0.1"], "DnsSearch": []}},
                 {"HostConfig": {"Dns": [*DNS, "1.1.1.1"], "DnsSearch": DOMAIN}}, id="ours is there once"),
    pytest.param("?name=web", {"HostConfig": {"UTSMode": "host"}},
                 {"HostConfig": {"UTSMode": "host", "Dns": DNS, "DnsSearch": DOMAIN}}, id="--uts=host"),
    pytest.param("", {"HostConfig": {"NetworkMode": "none"}},
                 {"HostConfig": {"NetworkMode": "none", "Dns": DNS, "DnsSearch": DOMAIN}}, id="none"),
    pytest.param("", {"Dns": ["1.1.1.1"]},
                 {"Dns": ["1.1.1.1"], "HostConfig": {"Dns": [*DNS, "1.1.1.1"], "DnsSearch": DOMAIN}},
                 id="beside the config"),
])
def test_create(router: FakeRouter, daemon: Any, ask: Any, query: str, body: object, expected: object) -> None:
    """Our server comes first, the user's own settings stay, a name becomes a hostname in the domain."""
    ask(DnsInjector(daemon, router=router), "POST", CREATE + query, body, **attach())
    assert daemon.request.json == expected


@pytest.mark.parametrize(("mode", "address"), [("none", "169.254.53.1"), ("bridge", "172.17.0.1"),
                                               ("shop", "172.17.0.1")])
def test_the_server_that_can_be_reached(daemon: Any, ask: Any, mode: str, address: str) -> None:
    """A container whose only network is the weave network is given the server's address there."""
    router = FakeRouter()
    router.dns_address_on["weave"] = "169.254.53.1"
    ask(DnsInjector(daemon, router=router), "POST", CREATE, {"HostConfig": {"NetworkMode": mode}}, **attach())
    assert daemon.request.json["HostConfig"]["Dns"] == [address]


@pytest.mark.parametrize(("options", "labels", "hostname"), [
    pytest.param({"hostname_match": "^aws-[0-9]+-(.*)$", "hostname_replacement": "my-$1"}, {}, "my-web", id="replaced"),
    pytest.param({"hostname_from_label": "host"}, {"host": "db"}, "db", id="label"),
    pytest.param({"hostname_from_label": "image-host"}, {}, "img", id="image's label"),
    pytest.param({"hostname_from_label": "other"}, {"host": "db"}, "aws-12-web", id="other label"),
    pytest.param({"hostname_from_label": "host", "hostname_match": "(.)b", "hostname_replacement": "${1}x"},
                 {"host": "db"}, "dx", id="together"),
    pytest.param({"hostname_replacement": ""}, {}, None, id="nothing left"),
])
def test_hostname_derivation(router: FakeRouter, daemon: Any, ask: Any, options: dict[str, str], labels: object,
                             hostname: str | None) -> None:
    """--hostname-from-label, --hostname-match and --hostname-replacement, together as well."""
    app = DnsInjector(daemon, router=router, **options)  # type: ignore[arg-type]
    ask(app, "POST", CREATE + "?name=aws-12-web", {"Labels": labels}, **attach(Labels={"image-host": "img"}))
    assert daemon.request.json.get("Hostname") == hostname


def test_a_name_too_long_gives_no_hostname(router: FakeRouter, daemon: Any, ask: Any,
                                           caplog: pytest.LogCaptureFixture) -> None:
    """A name that is too long for a hostname is logged, as no trouble of the host's, and the container starts."""
    caplog.set_level("INFO")
    ask(DnsInjector(daemon, router=router), "POST", f"{CREATE}?name={'a' * 60}", {}, **attach())
    assert daemon.request.json == {"HostConfig": {"Dns": DNS, "DnsSearch": DOMAIN}}
    assert [record.levelname for record in caplog.records] == ["INFO"]


@pytest.mark.parametrize("path", [CREATE, "/containers/web/start"])
@pytest.mark.parametrize(("router", "with_dns"), [
    pytest.param(FakeRouter(dns_address=None), None, id="router has no DNS"),
    pytest.param(FakeRouter(), False, id="--without-dns"),
])
def test_without_dns(router: FakeRouter, with_dns: bool | None, daemon: Any, ask: Any, path: str) -> None:
    """With DNS off nothing is added and nothing registered."""
    environ = attach(WEB if "start" in path else None)
    ask(DnsInjector(daemon, router=router, with_dns=with_dns), "POST", path, b'{"a" : 1}', **environ)
    assert daemon.request.body == b'{"a" : 1}'
    assert context.NAMES not in daemon.request.environ


def test_an_unreachable_router_is_warned_about(router: FakeRouter, daemon: Any, ask: Any,
                                               caplog: pytest.LogCaptureFixture) -> None:
    """A create goes on without DNS, and the log says why."""
    router.failures["dns_address"] = RouterUnreachable("the weave router at 127.0.0.1:6784 did not answer")
    with caplog.at_level(logging.WARNING):
        ask(DnsInjector(daemon, router=router), "POST", CREATE, b'{"a" : 1}', **attach())
    assert daemon.request.body == b'{"a" : 1}'
    assert "did not answer" in caplog.text


@pytest.mark.parametrize("router", [FakeRouter(dns_address=None), FakeRouter()], ids=["has no DNS", "unreachable"])
def test_dns_that_is_insisted_on(router: FakeRouter, daemon: Any, ask: Any) -> None:
    """With --with-dns a container is not created without."""
    router.failures["domain"] = RouterUnreachable("gone")
    with pytest.raises(RouterError):
        ask(DnsInjector(daemon, router=router, with_dns=True), "POST", CREATE, {}, **attach())
    assert not daemon.requests


@pytest.mark.parametrize("path", ["/containers/web/start", "/v1.41/containers/web/restart"])
def test_names_are_left_for_the_attach(router: FakeRouter, daemon: Any, ask: Any, path: str) -> None:
    """A start says under which names the container is to be found."""
    ask(DnsInjector(daemon, router=router), "POST", path, **attach(WEB))
    assert daemon.request.environ[context.NAMES](WEB) == ("web.weave.local",)
    assert daemon.request.body == b""


def test_names_that_dns_cannot_hold_are_said(router: FakeRouter, daemon: Any, ask: Any,
                                             caplog: pytest.LogCaptureFixture) -> None:
    """The container starts without them, and the log says which they are."""
    odd = Container(id=WEB.id, name="web", hostname="foo bar")
    ask(DnsInjector(daemon, router=router), "POST", "/containers/web/start", **attach(odd))
    assert daemon.request.environ[context.NAMES](odd) == ()
    assert "(web) can't be found by the name 'foo bar'" in caplog.text


@pytest.mark.parametrize(("version", "body", "expected"), [
    ("1.23", {"HostConfig": {"Dns": ["1.1.1.1"]}}, {"HostConfig": {"Dns": [*DNS, "1.1.1.1"], "DnsSearch": ["."]}}),
    ("1.23", {"PidMode": "host"},
     {"PidMode": "host", "HostConfig": {"PidMode": "host", "Dns": DNS, "DnsSearch": ["."]}}),
    ("1.23", {"HostConfig": None}, {"HostConfig": None}), ("1.23", {}, {}),
    ("1.24", {"HostConfig": {}}, {"HostConfig": {}}),
])
def test_start_does_not_lose_the_resolver(router: FakeRouter, daemon: Any, ask: Any, version: str, body: object,
                                          expected: object) -> None:
    """A HostConfig in the body of an old start takes the place of create's: it keeps our server."""
    ask(DnsInjector(daemon, router=router), "POST", f"/v{version}/containers/web/start", body, **attach(WEB))
    assert daemon.request.json == expected


@pytest.mark.parametrize("decision", [{}, {context.DECISION: LeaveAlone("so")}])
def test_what_is_left_alone_is_untouched(router: FakeRouter, daemon: Any, ask: Any, decision: dict[str, Any]) -> None:
    """The router is not even asked."""
    ask(DnsInjector(daemon, router=router), "POST", CREATE, b'{"a" : 1}', **decision)
    assert (daemon.request.body, router.calls) == (b'{"a" : 1}', [])


@pytest.mark.parametrize("body", [b"null", b"[]", b""])
def test_what_is_no_object_is_untouched(router: FakeRouter, daemon: Any, ask: Any, body: bytes) -> None:
    """A body that is no object goes to the daemon as it is."""
    ask(DnsInjector(daemon, router=router), "POST", CREATE, body, **attach())
    assert daemon.request.body == body
