"""``/metrics`` of a router that serves: its own numbers, and those of the proxy beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import closing
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families as parse

from weavemw.ops.tally import DIRECTORY, REQUESTS, SharedTally
from weavemw.router.client import RouterClient
from weavemw.router.settings import RouterSettings

Sample = tuple[str, ...]


@pytest.fixture
def settings(settings: RouterSettings, tmp_path: Path) -> RouterSettings:
    return dataclasses.replace(settings, run_dir=tmp_path / "run", range6=ip_network("fd00:10::/64"))


class Shown:
    """A router, and what its ``/metrics`` shows."""

    def __init__(self, router: Any) -> None:
        self.address: str = router.address
        self.port: int = router.settings.dns_port
        self.client = RouterClient(router.address)

    def get(self, path: str = "/metrics", **headers: str) -> requests.Response:
        return requests.get(f"http://{self.address}{path}", headers=headers, timeout=10)

    def __call__(self) -> dict[Sample, float]:
        return {(sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
                for family in parse(self.get().text) for sample in family.samples}

    def ask(self, name: str, *, tcp: bool = False) -> None:
        (dns.query.tcp if tcp else dns.query.udp)(dns.message.make_query(name, "A"), "127.0.0.1", port=self.port,
                                                  timeout=10)


@pytest.fixture
def shown(start: Callable[..., Any], resolver: Callable[..., Any]) -> Shown:
    return Shown(start(upstream=("{}:{}".format(*resolver().address),)))


def test_the_pool_and_the_names(shown: Shown) -> None:
    """Each range's size and the addresses held; what is claimed outside of the ranges is no part of them."""
    for container in ("a", "b"):
        shown.client.allocate(container)
    shown.client.allocate("a", "fd00:10::/64")
    shown.client.claim("a", ip_interface("192.168.9.9/24"))
    shown.client.register("a", ip_interface("10.32.0.1/12"), "web.weave.local")
    found = shown()
    assert found["weave_router_pool_addresses", "10.32.0.0/12"] == 1 << 20
    assert found["weave_router_pool_addresses_in_use", "10.32.0.0/12"] == 2
    assert found["weave_router_pool_addresses_in_use", "fd00:10::/64"] == 1
    assert found["weave_router_names",] == 1
    assert found["weave_router_allocate_duration_seconds_count",] == 3
    assert found["process_resident_memory_bytes",] > 0


def test_requests_by_path_and_status(shown: Shown) -> None:
    """Paths are those of the API, so that no client can make up more of them."""
    shown.client.allocate("abc")
    shown.get("/ip/abc")
    shown.get("/nonsense/1")
    shown.get("/status", Origin="http://evil.example")
    found = {key[1:]: value for key, value in shown().items() if key[0] == "weave_router_requests_total"}
    assert found == {("200", "POST", "/ip/{id}"): 1, ("200", "GET", "/ip/{id}"): 1, ("404", "other", "other"): 1,
                     ("403", "GET", "/status"): 1}


def test_dns_by_answer(shown: Shown) -> None:
    """What the server answers itself and what it forwards, over UDP and TCP."""
    shown.client.register("a", ip_interface("10.32.0.1/12"), "web.weave.local")
    for name, tcp in (("web.weave.local", False), ("web.weave.local", True), ("none.weave.local", False),
                      ("www.example.com", False), ("www.example.com", True)):
        shown.ask(name, tcp=tcp)
    found = {key: value for key, value in shown().items() if key[0].startswith("weave_router_dns")}
    assert found == {("weave_router_dns_answers_total", "noerror", "udp"): 1,
                     ("weave_router_dns_answers_total", "noerror", "tcp"): 1,
                     ("weave_router_dns_answers_total", "nxdomain", "udp"): 1,
                     ("weave_router_dns_forwards_total", "noerror", "udp"): 1,
                     ("weave_router_dns_forwards_total", "noerror", "tcp"): 1}


def test_the_proxy_of_the_same_host_is_shown_too(shown: Shown, settings: RouterSettings) -> None:
    """Whether it runs or not."""
    assert shown()["weave_proxy_up",] == 0
    with closing(SharedTally(settings.run_dir / DIRECTORY)) as tally:
        tally.add(REQUESTS, ("ping", "200"))
    assert shown()["weave_proxy_requests_total", "ping", "200"] == 1


def test_what_is_shown_holds_no_names_of_containers(shown: Shown) -> None:
    """Neither ids, nor names, nor addresses of containers: labels have few values."""
    container = "c" * 64
    shown.client.register(container, shown.client.allocate(container), "secret-name.weave.local")
    text = shown.get().text
    assert not [word for word in (container, "secret-name", "10.32.0.1") if word in text]


@pytest.mark.parametrize(("accept", "content_type"), [
    ("", "text/plain; version=0.0.4"),
    ("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", "application/openmetrics-text; version=1.0.0"),
])
def test_the_format_is_what_prometheus_asks_for(shown: Shown, accept: str, content_type: str) -> None:
    """Named in the Content-Type, by which Prometheus reads it."""
    assert shown.get(Accept=accept).headers["Content-Type"].startswith(content_type)
