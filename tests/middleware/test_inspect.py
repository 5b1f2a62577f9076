"""What --rewrite-inspect shows."""

from __future__ import annotations

import json
from ipaddress import ip_interface
from typing import Any

import pytest

from weavemw.errors import RouterUnreachable
from weavemw.middleware.inspect import InspectRewriter
from weavemw.testing import FakeRouter

ID = "c1" * 32


def reply(**settings: object) -> dict[str, Any]:
    """What the daemon says of a running container of ours."""
    return {"Id": ID, "State": {"Running": True, "Pid": 7}, "Config": {"Entrypoint": ["/dev/w"]},
            "Big": 9007199254740993, "HostConfig": {"Binds": ["/var/lib/weavemw/wait/0123456789ab/w:/dev/w:ro"]},
            "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "172.17.0.2"}}, **settings}}


@pytest.fixture
def router(router: FakeRouter) -> FakeRouter:
    """A router that has an address for the container."""
    router.owners[ID] = (ip_interface("10.32.0.1/12"),)
    return router


def inspected(router: FakeRouter, daemon: Any, ask: Any, body: object,
              target: str = "/v1.41/containers/web/json") -> Any:
    """The response to an inspect that the daemon answers by ``body``."""
    daemon.status, daemon.body = "200 OK", body if isinstance(body, bytes) else json.dumps(body).encode()
    return ask(InspectRewriter(daemon, router=router, mac_of=lambda container: "02:00:00:00:00:01"), "GET", target)


def test_a_network_weave_is_shown(router: FakeRouter, daemon: Any, ask: Any) -> None:
    """The weave address shows as one more network; everything else stays, digit by digit."""
    response = inspected(router, daemon, ask, reply())
    shown = response.get_json()
    weave = shown["NetworkSettings"]["Networks"]["weave"]
    assert (weave["IPAddress"], weave["IPPrefixLen"], weave["MacAddress"]) == ("10.32.0.1", 12, "02:00:00:00:00:01")
    assert shown["NetworkSettings"]["Networks"]["bridge"] == {"IPAddress": "172.17.0.2"}
    assert set(shown["NetworkSettings"]) == {"Networks"}
    assert shown["Big"] == 9007199254740993
    assert response.content_length == len(response.data)


def test_the_old_fields_are_filled_where_they_are(router: FakeRouter, daemon: Any, ask: Any) -> None:
    """Up to API 1.51 the address also stands beside the networks; several of them, too."""
    router.owners[ID] += (ip_interface("10.33.0.1/24"), ip_interface("fd00::1/64"))
    settings = reply(IPAddress="172.17.0.2", IPPrefixLen=16, MacAddress="", SecondaryIPAddresses=None,
                     GlobalIPv6Address="", GlobalIPv6PrefixLen=0, Gateway="172.17.0.1")
    shown = inspected(router, daemon, ask, settings).get_json()["NetworkSettings"]
    del shown["Networks"]
    assert shown == {"IPAddress": "10.32.0.1", "IPPrefixLen": 12, "MacAddress": "02:00:00:00:00:01",
                     "SecondaryIPAddresses": [{"Addr": "10.33.0.1", "PrefixLen": 24}], "GlobalIPv6Address": "fd00::1",
                     "GlobalIPv6PrefixLen": 64, "Gateway": "172.17.0.1"}


def test_a_container_with_ipv6_only_keeps_its_other_address(router: FakeRouter, daemon: Any, ask: Any) -> None:
    """An old field is not emptied for want of a weave address of its family."""
    router.owners[ID] = (ip_interface("fd00::1/64"),)
    shown = inspected(router, daemon, ask, reply(IPAddress="172.17.0.2", IPPrefixLen=16)).get_json()["NetworkSettings"]
    assert (shown["IPAddress"], shown["Networks"]["weave"]["GlobalIPv6Address"]) == ("172.17.0.2", "fd00::1")


def test_exec_inspect_of_old_api_versions(router: FakeRouter, daemon: Any, ask: Any) -> None:
    """Where the reply about an exec holds the container, that is shown likewise."""
    response = inspected(router, daemon, ask, {"ID": "e1", "Container": reply()}, "/exec/e1/json")
    assert response.get_json()["Container"]["NetworkSettings"]["Networks"]["weave"]["IPAddress"] == "10.32.0.1"


@pytest.mark.parametrize(("body", "target"), [
    pytest.param({**reply(), "Config": {"Entrypoint": ["sh"]}}, "/containers/web/json", id="not ours"),
    pytest.param({**reply(), "Config": {}}, "/containers/web/json", id="no entrypoint"),
    pytest.param({**reply(), "State": {"Running": False}}, "/containers/web/json", id="not running"),
    pytest.param({**reply(), "Id": "other"}, "/containers/web/json", id="without addresses"),
    pytest.param({**reply(), "NetworkSettings": None}, "/containers/web/json", id="no settings"),
    pytest.param({"ID": "e1", "ContainerID": ID, "Running": True}, "/exec/e1/json", id="exec of today"),
    pytest.param(b"[]", "/containers/web/json", id="a list"),
    pytest.param(b"not JSON", "/containers/web/json", id="no JSON"),
    pytest.param([reply()], "/containers/json", id="another call"),
])
def test_everything_else_is_untouched(router: FakeRouter, daemon: Any, ask: Any, body: object, target: str) -> None:
    """What is not about a running container of ours comes byte for byte."""
    assert inspected(router, daemon, ask, body, target).data == daemon.body


@pytest.mark.parametrize("status", ["404 NOT FOUND", "500 INTERNAL SERVER ERROR", "301 MOVED PERMANENTLY"])
def test_errors_are_untouched(router: FakeRouter, daemon: Any, ask: Any, status: str) -> None:
    """The daemon's errors come as the daemon made them."""
    daemon.status, daemon.body = status, json.dumps(reply()).encode()
    response = ask(InspectRewriter(daemon, router=router), "GET", "/containers/web/json")
    assert (response.status, response.data) == (status, daemon.body)


def test_another_content_type_is_untouched(router: FakeRouter, daemon: Any, ask: Any) -> None:
    """Only JSON is looked into."""
    daemon.content_type = "text/plain"
    assert inspected(router, daemon, ask, reply()).data == daemon.body


def test_an_unreachable_router_hides_nothing(router: FakeRouter, daemon: Any, ask: Any) -> None:
    """Without the router inspect answers as the daemon does."""
    router.failures["addresses"] = RouterUnreachable("gone")
    assert inspected(router, daemon, ask, reply()).data == daemon.body
