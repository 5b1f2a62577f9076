"""Three hosts with a Docker Engine each, on one switch, sharing an etcd with a member on each of them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from host import TestHost
from launched import Launched
from underlay import Underlay, start_etcd, why_no_etcd

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

_EACH = 10  # containers of a host
_STORE = "etcd://10.99.0.1:2379,10.99.0.2:2379,10.99.0.3:2379"


@pytest.fixture(scope="module")
def weaves(make_module_host: Any) -> Iterator[list[Launched]]:
    """Weave on three hosts that share an etcd."""
    if reason := why_no_etcd():
        pytest.skip(reason)
    with ExitStack() as stack:
        hosts: list[TestHost] = [make_module_host() for _ in range(3)]
        assert start_etcd(stack.enter_context(Underlay(hosts))) == _STORE
        yield [Launched(host, "--store", _STORE) for host in hosts]


def start(weave: Launched, name: str) -> None:
    weave.docker("run", "-d", "--name", name, "busybox", "sleep", "3600", timeout=120)


def address(weave: Launched, name: str) -> str:
    shown = weave.docker("exec", name, "ip", "-4", "-o", "address", "show", "ethwe").stdout
    return str(shown.split()[3].partition("/")[0])


def reaches(weave: Launched, name: str, other: str) -> bool:
    """Whether a container finds another one by name, and hears from it; names take a moment from host to host."""
    tried = "for i in $(seq 20); do ping -c 1 -W 2 $0 && exit 0; sleep 0.5; done; exit 1"
    return weave.docker("exec", name, "sh", "-c", tried, other, check=False).returncode == 0


def test_containers_of_all_hosts_started_at_once_find_each_other(weaves: list[Launched]) -> None:
    """No address is given twice, and each container is found by name from each host."""
    names = [(weave, f"c{number}-{nth}") for number, weave in enumerate(weaves) for nth in range(_EACH)]
    with ThreadPoolExecutor(6) as at_once:
        list(at_once.map(lambda one: start(*one), names))
    addresses = [address(*one) for one in names]
    assert len(set(addresses)) == 3 * _EACH
    for number, weave in enumerate(weaves):
        for nth in (0, _EACH - 1):
            assert all(reaches(weave, f"c{number}-{nth}", f"c{other}-{nth}") for other in range(3))


def test_entries_of_other_hosts_outlive_the_router(weaves: list[Launched]) -> None:
    """While a router is restarted, and after it, what is forwarded to other hosts stays."""
    here, there = weaves[:2]
    start(here, "from")
    start(there, "to")
    assert reaches(here, "from", "to")
    target = address(there, "to")
    here.weave("stop-router")
    assert "1 packets received" in here.docker("exec", "from", "ping", "-c", "1", "-W", "2", target).stdout
    here.weave("launch-router", "--store", _STORE)
    assert reaches(here, "from", "to")


def test_reset_leaves_nothing_of_other_hosts(weaves: list[Launched]) -> None:
    """After a reset a host has no device, entry or rule for other hosts; these go on without it."""
    weaves[2].weave("reset")
    links = weaves[2].host.links()
    assert not {"weave", "weave-wx"} & links.keys()
    assert json.loads(weaves[2].host.ip("-json", "nexthop") or "[]") == []
    rules: subprocess.CompletedProcess[str] = weaves[2].host.run("nft", "list", "tables")
    assert "weave" not in rules.stdout
    assert reaches(weaves[0], "from", "to")
