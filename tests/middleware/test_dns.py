"""What a create keeps for the hostname, and the names to register."""

from __future__ import annotations

import dataclasses
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
WEB = Container(id="0123456789ab" + "0" * 52, name="web", hostname="web", domainname="weave.local")


def attach(container: Container | None = None, **image: object) -> dict[str, Any]:
    """An environ that says that the container is to be attached."""
    return {context.DECISION: Attach((Default(),), container=container, image=image)}


PLAIN, NAMED = ["/tmp:/a", "/wait/0123456789ab/w:/dev/w:ro"], ["/tmp:/a", "/wait/0123456789ab/./w:/dev/w:ro"]


@pytest.mark.parametrize(("query", "body", "binds"), [
    pytest.param("", {}, PLAIN, id="no name"),
    pytest.param("?name=web", {}, NAMED, id="name"),
    pytest.param("?name=web", {"Hostname": "", "Domainname": None}, NAMED, id="blanks"),
    pytest.param("?name=web", {"Hostname": "db"}, PLAIN, id="own hostname"),
    pytest.param("?name=web", {"Hostname": "0123456789ab"}, NAMED, id="Docker's hostname of another"),
    pytest.param("?name=web", {"hostname": "db.example.com"}, PLAIN, id="elsewhere"),
    pytest.param("?name=web", {"Domainname": "example.com"}, PLAIN, id="own domain"),
    pytest.param("?name=web", {"HostConfig": {"UTSMode": "host"}}, PLAIN, id="--uts=host"),
    pytest.param("?name=web", {"HostConfig": {"Dns": ["1.1.1.1"]}}, NAMED, id="own resolver"),
])
def test_create(router: FakeRouter, daemon: Any, ask: Any, query: str, body: dict[str, Any], binds: list[str]) -> None:
    """What the creator says of DNS and hostname stays; that there is a name of which to make one is kept."""
    body = body | {"HostConfig": body.get("HostConfig", {}) | {"Binds": PLAIN}}
    ask(DnsInjector(daemon, router=router), "POST", CREATE + query, body, **attach())
    assert daemon.request.json == body | {"HostConfig": body["HostConfig"] | {"Binds": binds}}
    assert not router.calls


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
    assert daemon.request.environ.get(context.NAMES, lambda container: ())(WEB) == ()


def test_an_unreachable_router_is_warned_about(router: FakeRouter, daemon: Any, ask: Any,
                                               caplog: pytest.LogCaptureFixture) -> None:
    """A start goes on without DNS, and the log says why."""
    router.failures["dns_address"] = RouterUnreachable("the weave router at 127.0.0.1:6784 did not answer")
    with caplog.at_level(logging.WARNING):
        ask(DnsInjector(daemon, router=router), "POST", "/containers/web/start", b'{"a" : 1}', **attach(WEB))
        assert daemon.request.environ[context.NAMES](WEB) == ()
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


@pytest.mark.parametrize(("binds", "expected"), [(NAMED, NAMED), (PLAIN, PLAIN)])
def test_an_old_start_does_not_lose_the_name(router: FakeRouter, daemon: Any, ask: Any, binds: list[str],
                                             expected: list[str]) -> None:
    """A HostConfig in the body of a start before API 1.24 takes the place of create's."""
    container = dataclasses.replace(WEB, binds=tuple(binds))
    ask(DnsInjector(daemon, router=router), "POST", "/v1.23/containers/web/start", {"HostConfig": {"Binds": PLAIN}},
        **attach(container))
    assert daemon.request.json == {"HostConfig": {"Binds": expected}}


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
