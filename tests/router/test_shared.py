"""Routers of several hosts on a real etcd, in threads of the test; nothing is forwarded, there is no bridge."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import pytest
from etcdmembers import ETCD, Cluster

from weavemw.errors import RouterError, SettingsError
from weavemw.router.client import RouterClient
from weavemw.router.settings import RouterSettings

from .conftest import Running, free_port

pytestmark = pytest.mark.skipif(ETCD is None, reason="needs etcd (apt-get install etcd-server)")
_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("etcd")) as cluster:
        yield cluster


class Host:
    """A router and its client; it may be stopped and started again."""

    def __init__(self, start: Callable[..., Running], **settings: Any) -> None:
        self._start, self._settings = start, settings
        self.port = settings["dns_port"]
        self.launch()

    def launch(self, **changes: Any) -> None:
        self._settings |= changes
        self.router = self._start(**self._settings)
        self.client = RouterClient(self.router.address, patience=6)

    def ask(self, method: str, path: str, **more: Any) -> str:
        return self.client.ask(method, path, **more)

    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(self.ask("GET", "/report"))
        return report

    def lookup(self, name: str) -> set[str]:
        query = dns.message.make_query(name, "A")
        answer = dns.query.udp(query, "127.0.0.1", 5, self.port)
        return {str(record) for each in answer.answer for record in each}

    @property
    def name(self) -> str:
        return str(self.report()["Router"]["Name"])


def until(holds: Callable[[], Any], limit: float = 20) -> Any:
    deadline = time.monotonic() + limit
    while not (value := holds()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return value


@pytest.fixture
def host(start: Callable[..., Running], etcd: Cluster, tmp_path: Path) -> Callable[..., Host]:
    url = f"{etcd.url}/n{next(_NUMBERS)}"
    numbers = itertools.count(1)

    def make(**settings: Any) -> Host:
        number = next(numbers)
        given = {"state_dir": tmp_path / f"s{number}", "dns_port": free_port(), "nickname": f"host{number}",
                 "store": url, "advertise": (f"10.99.0.{number}",), **settings}
        return Host(start, **given)

    return make


def test_hosts_have_different_addresses_and_find_each_other_by_name(host: Callable[..., Host]) -> None:
    one, two = host(), host()
    given = {each.client.allocate(f"c{number}", "") for number in range(70) for each in (one, two)}
    assert len(given) == 140
    address = one.client.allocate("web")
    one.client.register("web", address, "web.weave.local")
    until(lambda: two.lookup("web.weave.local.") == {str(address.ip)})
    assert "host1" in two.ask("GET", "/status/peers")
    assert "web" in two.ask("GET", "/status/dns")
    assert "established" in two.ask("GET", "/status/connections")
    one.client.deregister("web")
    assert one.lookup("web.weave.local.") == set()
    until(lambda: two.lookup("web.weave.local.") == set())
    entries = two.report()["IPAM"]["Entries"]
    assert [each["Nickname"] for each in entries if each["Blocks"] >= 2] == [
        two.report()["Router"]["Peers"][number]["NickName"] for number in range(2)]


def test_a_subnet_is_shared(host: Callable[..., Host]) -> None:
    hosts = [host() for _ in range(3)]
    given = [each.client.allocate(f"c{number}", "10.33.2.0/24") for number in range(6) for each in hosts]
    assert len(set(given)) == 18
    assert all(address.network == ip_network("10.33.2.0/24") for address in given)


def test_a_claim_in_nobodys_block_and_in_anothers(host: Callable[..., Host]) -> None:
    one, two = host(), host()
    one.client.claim("c1", ip_interface("10.34.5.6/12"))
    until(lambda: len(two.report()["IPAM"]["Entries"]) == 2
          and any(each["Blocks"] == 2 for each in two.report()["IPAM"]["Entries"]))
    with pytest.raises(RouterError, match=r"Unable to claim: 10\.34\.5\.7 belongs to a block of host1"):
        two.client.claim("c2", ip_interface("10.34.5.7/12"))


def test_a_start_waits_for_no_store(host: Callable[..., Host], etcd: Cluster) -> None:
    one = host()
    one.ask("GET", "/ring")
    etcd.members[0].send(signal.SIGSTOP)
    try:
        one.client.allocate("c1")
        until(lambda: "no answer in time, since" in one.ask("GET", "/status/ipam"))
        assert "StoreTrouble" in one.ask("GET", "/status")
        with pytest.raises(RouterError, match=r"no address left in .*: no answer in time, since "):
            one.client.allocate("c2", "10.33.2.0/24")
        one.router.stop()
        one.launch()  # with etcd down: what was given stays, and there is more
        assert one.client.addresses("c1")
        one.client.allocate("c3")
    finally:
        etcd.members[0].send(signal.SIGCONT)
    until(lambda: one.report()["Router"]["Store"]["State"] == "connected")
    until(lambda: one.client.allocate("c2", "10.33.2.0/24"))


def test_an_etcd_that_lost_everything_is_told_anew(host: Callable[..., Host], tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    try:
        cluster.start()
        cluster.wait()
        one, two = host(store=cluster.url), host(store=cluster.url)
        held = {each.client.allocate("c") for each in (one, two)}
        for number in range(40):  # much has happened: the new one's revision is below the old one's
            one.client.register("c", one.client.addresses("c")[0], f"c{number}.weave.local")
            time.sleep(0.06)  # group commits are 50 ms apart
        one.client.register("c", one.client.addresses("c")[0], "c.weave.local")
        until(lambda: two.lookup("c.weave.local."))
        cluster.stop()
        shutil.rmtree(tmp_path / "m0")
        cluster.start()
        cluster.wait()
        until(lambda: [each["Blocks"] for each in two.report()["IPAM"]["Entries"]] == [1, 1], 40)
        until(lambda: two.lookup("c.weave.local."))
        assert "history was lost" in "".join(each.ask("GET", "/status") for each in (one, two))
        given = {each.client.allocate(f"d{number}") for number in range(20) for each in (one, two)}
        assert len(given | held) == 42
        with pytest.raises(RouterError, match="no host takes blocks for 5 minutes"):
            two.client.allocate("e", "10.33.2.0/24")
    finally:
        cluster.stop()


def test_one_host_becomes_many_and_takes_its_containers_along(host: Callable[..., Host], etcd: Cluster) -> None:
    url = f"{etcd.url}/n{next(_NUMBERS)}"
    alone = host(store="")
    held = [alone.client.allocate(f"c{number}") for number in range(70)]
    alone.router.stop()
    alone.launch(store=url)
    until(lambda: alone.report()["IPAM"]["OwnBlocks"] == 2)
    assert [alone.client.addresses(f"c{number}") for number in range(70)] == [(each,) for each in held]
    other = host(store=url)
    assert not {other.client.allocate(f"d{number}") for number in range(100)} & set(held)
    alone.router.stop()
    alone.launch(store="")
    assert alone.client.addresses("c0") == (held[0],)


def test_a_host_that_is_gone_is_removed_by_hand(host: Callable[..., Host]) -> None:
    one, two = host(), host()
    one.ask("GET", "/ring")
    name = two.name
    two.client.register("c", two.client.allocate("c"), "c.weave.local")
    until(lambda: one.lookup("c.weave.local."))
    with pytest.raises(RouterError, match="is up: stop it first"):
        one.ask("DELETE", f"/peer/{name}")
    two.router.stop()
    assert one.ask("DELETE", f"/peer/{name}?force=true") == f"64 IPs taken over from {name}\n"
    until(lambda: not one.lookup("c.weave.local."))
    with pytest.raises(RouterError, match="no such peer"):
        one.ask("DELETE", "/peer/0a:00:00:00:00:01")


def test_hosts_must_agree(host: Callable[..., Host]) -> None:
    host()
    with pytest.raises(SettingsError, match=r"etcd has other settings: .*10\.32\.0\.0/12.* there, .*10\.2\.0\.0"):
        host(range=ip_network("10.2.0.0/16"))


@pytest.mark.parametrize(("wrong", "message"), [
    ({"store": "http://a"}, "write etcd://HOST:2379"),
    ({"store_user": "a"}, "--store-user without --store"),
    ({"store": "etcd://a", "advertise": ("x",)}, "does not appear to be an IPv4 or IPv6 address"),
    ({"store": "etcd://a", "advertise": ("10.0.0.1", "fd00::1")}, "of one family"),
    ({"vxlan_id": 2**24}, "choose 1 to"),
])
def test_settings_that_can_not_be(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        RouterSettings(**wrong)


def test_a_host_that_was_removed_while_down_gives_nothing_new(host: Callable[..., Host]) -> None:
    one, two = host(), host()
    held = two.client.allocate("c")
    name = two.name
    until(lambda: name in one.ask("GET", "/status/peers"))
    two.router.stop()
    one.ask("DELETE", f"/peer/{name}?force=true")
    two.launch()
    assert two.client.allocate("c") == held
    with pytest.raises(RouterError, match=r"was removed from the network by `weave rmpeer`"):
        two.client.allocate("d")
    assert "was removed" in two.ask("GET", "/status")
