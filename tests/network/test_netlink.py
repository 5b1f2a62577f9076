from __future__ import annotations

import dataclasses
import errno
import itertools
import os
import re
import socket
import struct
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_interface
from pathlib import Path

import pytest

from tests.network.conftest import make_namespace
from weavemw.errors import NetworkError
from weavemw.network import messages, netlink, offload
from weavemw.network.bridge import look
from weavemw.network.condition import faults, is_broken
from weavemw.network.netlink import NetlinkNetwork, NetlinkSocket, ensure_bridge, setns
from weavemw.network.plan import Change, Ethwe, HostInterface, Plan, ProcessEnded, host_names
from weavemw.testing import await_true

pytestmark = pytest.mark.root

ID, OTHER = "0123456789abcdef" * 4, "fedcba9876543210" * 4
FOUR, OTHER_FOUR, SIX = ip_interface("10.32.0.1/12"), ip_interface("10.40.0.7/24"), ip_interface("fd00::5/64")


@pytest.fixture
def network(host):
    ensure_bridge("weave", 1376)
    return NetlinkNetwork("weave", 1376)


def attach(network, pid, plan):
    with network.namespace(pid) as namespace:
        namespace.prepare(plan)
        namespace.commit()


def test_what_is_attached_has_addresses_route_and_mtu(network, container, ip):
    """After an attach the container has its addresses with broadcast, the MTU, and the way out for multicast."""
    pid = container()
    attach(network, pid, Plan(ID, (FOUR, OTHER_FOUR, SIX)))
    shown = ip("addr", "show", "ethwe", pid=pid)
    assert "inet 10.32.0.1/12 brd 10.47.255.255 scope global ethwe" in shown
    assert "inet 10.40.0.7/24 brd 10.40.0.255 scope global ethwe" in shown
    assert "inet6 fd00::5/64 scope global nodad" in shown
    assert "mtu 1376" in shown
    assert "LOWER_UP" in shown
    assert "224.0.0.0/4 dev ethwe scope link" in ip("route", pid=pid)
    with network.namespace(pid) as namespace:
        assert namespace.ethwe() == Ethwe(Plan(ID, ()).mac, True, (FOUR, OTHER_FOUR, SIX))


def rules(ip, pid):
    """Routing rules of a container, but the kernel's own."""
    shown = [*ip("rule", pid=pid).splitlines(), *ip("-6", "rule", pid=pid).splitlines()]
    return sorted(line.split(":", 1)[1].strip() for line in shown if not line.startswith(("0:", "32766:", "32767:")))


def test_answers_leave_by_the_interface_that_the_question_came_by(network, container, ip):
    """From an address of Docker's it is Docker's route, though ethwe is nearer; it follows Docker's networks."""
    pid = container()
    for words in ("link add eth0 type veth peer name other", "link set eth0 up", "link set other up",
                  "address add 172.17.0.2/16 dev eth0", "address add fd00:d::2/64 dev eth0 nodad",
                  "route add default via 172.17.0.1", "-6 route add default via fd00:d::1",
                  "rule add from 192.0.2.9 lookup 100"):
        ip(*words.split(), pid=pid)
    mine = rules(ip, pid)
    attach(network, pid, Plan(ID, (FOUR, SIX)))
    with network.namespace(pid) as namespace:
        for _ in range(2):
            namespace.route_answers()
            assert rules(ip, pid) == sorted([*mine, "from 172.17.0.2 lookup 6784", "from fd00:d::2 lookup 6784"])
        assert " dev ethwe" in ip("route", "get", "10.44.1.2", pid=pid)
        assert "via 172.17.0.1 dev eth0" in ip("route", "get", "10.44.1.2", "from", "172.17.0.2", pid=pid)
        assert "via" not in ip("route", "get", "172.17.0.3", "from", "172.17.0.2", pid=pid)
        assert " dev ethwe" in ip("route", "get", "fd00::9", pid=pid)
        assert "via fd00:d::1 dev eth0" in ip("route", "get", "fd00::9", "from", "fd00:d::2", pid=pid)
        ip("address", "del", "172.17.0.2/16", "dev", "eth0", pid=pid)
        ip("address", "add", "172.17.0.7/16", "dev", "eth0", pid=pid)
        ip("route", "add", "default", "via", "172.17.0.1", "dev", "eth0", pid=pid)
        namespace.route_answers()
        assert rules(ip, pid) == sorted([*mine, "from 172.17.0.7 lookup 6784", "from fd00:d::2 lookup 6784"])
        namespace.route_answers_no_more()
        assert rules(ip, pid) == mine


def test_without_a_network_of_dockers_there_are_no_rules(network, container, ip):
    """As with --net=none."""
    pid = container()
    attach(network, pid, Plan(ID, (FOUR, SIX)))
    with network.namespace(pid) as namespace:
        namespace.route_answers()
        namespace.route_answers_no_more()
    assert rules(ip, pid) == []


def test_multicast_route_can_be_left_out(network, container, ip):
    """Without the multicast route there is none."""
    pid = container()
    attach(network, pid, Plan(ID, (FOUR,), multicast_route=False))
    assert "224.0.0.0" not in ip("route", pid=pid)


def test_everything_is_there_before_carrier_is(network, container, ip):
    """A container that waits for carrier finds address and route in place: carrier comes with the commit."""
    pid = container()
    with network.namespace(pid) as namespace:
        name = namespace.prepare(Plan(ID, (FOUR,)))
        assert namespace.ethwe() == Ethwe(Plan(ID, ()).mac, False, (FOUR,))
        assert "NO-CARRIER" in ip("link", "show", "ethwe", pid=pid)
        assert "224.0.0.0/4 dev ethwe" in ip("route", pid=pid)
        assert network.interfaces() == (HostInterface(name),)
        namespace.commit()
        assert namespace.ethwe().attached
        assert network.interfaces() == (HostInterface(name, ID),)


def test_ipv6_works_where_docker_turned_it_off(network, container, ip):
    """A container without IPv6 of its own gets an IPv6 address on ethwe all the same, and only there."""
    pid = container()
    command = ["nsenter", f"--net=/proc/{pid}/ns/net", "sh", "-c",
               "echo 1 | tee /proc/sys/net/ipv6/conf/all/disable_ipv6 /proc/sys/net/ipv6/conf/default/disable_ipv6"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    attach(network, pid, Plan(ID, (FOUR, SIX)))
    assert "inet6 fd00::5/64" in ip("addr", "show", "ethwe", pid=pid)
    assert "inet6" not in ip("addr", "show", "lo", pid=pid)


@pytest.mark.parametrize("plan", [
    pytest.param(Plan(ID, (FOUR, FOUR)), id="an address twice"),
    pytest.param(Plan(ID, (SIX, FOUR, SIX)), id="an IPv6 address twice"),
])
def test_failure_leaves_nothing_and_has_the_kernels_words(network, container, ip, descriptors, plan):
    """An attach that fails leaves no interface on either side and no descriptor, and says why."""
    pid = container()
    with network.namespace(pid):
        before = descriptors()
    for _ in range(20):
        with pytest.raises(NetworkError, match=r"can't give interface \d+ the address .*: File exists"), \
                network.namespace(pid) as namespace:
            namespace.prepare(plan)
    assert network.interfaces() == ()
    assert "ethwe" not in ip("link", pid=pid)
    with network.namespace(pid):
        assert descriptors() == before


def test_undo_removes_what_was_prepared(network, container, ip):
    """Undone, a prepared attach leaves nothing; again, nothing happens."""
    pid = container()
    with network.namespace(pid) as namespace:
        namespace.prepare(Plan(ID, (FOUR,)))
        namespace.undo()
        namespace.undo()
        assert namespace.ethwe() is None
    assert network.interfaces() == ()


def test_half_made_attach_is_made_anew(network, container):
    """What a process left that died before its commit is replaced."""
    pid = container()
    with network.namespace(pid) as namespace:
        namespace.prepare(Plan(ID, (FOUR,)))
    attach(network, pid, Plan(ID, (OTHER_FOUR,)))
    with network.namespace(pid) as namespace:
        assert namespace.ethwe().addresses == (OTHER_FOUR,)
    assert network.interfaces() == (HostInterface(host_names(ID)[0], ID),)


def test_ghost_of_an_earlier_incarnation_is_removed(network, container, ip):
    """A namespace that somebody keeps open loses its interface when the container is attached anew."""
    ghost, pid = container(), container()
    attach(network, ghost, Plan(ID, (FOUR,)))
    attach(network, pid, Plan(ID, (FOUR,)))
    assert "ethwe" not in ip("link", pid=ghost)
    assert network.interfaces() == (HostInterface(host_names(ID)[0], ID),)


def test_colliding_names_are_kept_apart(network, container):
    """Two containers whose ids begin the same are both attached, and detached each by itself."""
    twin = ID[:9] + OTHER[9:]
    first, second = container(), container()
    attach(network, first, Plan(ID, (FOUR,)))
    attach(network, second, Plan(twin, (OTHER_FOUR,)))
    assert set(network.interfaces()) == {HostInterface(host_names(ID)[0], ID), HostInterface(host_names(twin)[1], twin)}
    assert network.detach(twin)
    assert network.interfaces() == (HostInterface(host_names(ID)[0], ID),)


def test_detach_removes_the_interface_once(network, container, ip):
    """Detaching removes both ends; a second time there is nothing to remove."""
    pid = container()
    attach(network, pid, Plan(ID, (FOUR,)))
    assert network.detach(ID)
    assert not network.detach(ID)
    assert "ethwe" not in ip("link", pid=pid)


def test_only_our_interfaces_are_listed(network, container, ip):
    """Interfaces of others, on our bridge or of another kind, are not ours; ours are told that are off the bridge."""
    ip("link", "add", "vethwe-bridge", "type", "veth", "peer", "name", "vethwe-datapath")
    ip("link", "set", "vethwe-bridge", "master", "weave")
    ip("link", "add", host_names(OTHER)[0], "type", "bridge")
    attach(network, container(), Plan(ID, (FOUR,)))
    assert network.interfaces() == (HostInterface(host_names(ID)[0], ID),)
    assert [one.is_port for one in network.interfaces()] == [True]
    ip("link", "set", host_names(ID)[0], "nomaster")
    assert [one.is_port for one in network.interfaces()] == [False]


BREAKS = {
    "nothing": ((), (), ()),
    "off the bridge": (("link", "set", host_names(ID)[0], "nomaster"), (), ("vethwe012345678 is not on the bridge",)),
    "bridge down": (("link", "set", "weave", "down"), (), ("vethwe012345678 is not on the bridge",)),
    "host's end down": (("link", "set", host_names(ID)[0], "down"), (),
                        ("vethwe012345678 is not on the bridge", "ethwe is down, or has no carrier")),
    "gone": (("link", "delete", host_names(ID)[0]), (), ("its interface ethwe is gone",)),
    "down": ((), ("link", "set", "ethwe", "down"),
             ("ethwe is down, or has no carrier", "ethwe lacks fd00::5/64", "no route for multicast leads by ethwe")),
    "without addresses": ((), ("address", "flush", "dev", "ethwe"),
                          ("ethwe lacks 10.32.0.1/12 fd00::5/64", "no route for multicast leads by ethwe")),
    "without a route": ((), ("route", "delete", "224.0.0.0/4", "dev", "ethwe"),
                        ("no route for multicast leads by ethwe",)),
}


@pytest.mark.parametrize(("outside", "inside", "wrong"), BREAKS.values(), ids=BREAKS.keys())
def test_what_is_broken_is_found_and_completed(network, container, ip, outside, inside, wrong):
    """Each fault is seen by its name; what lacks inside is added, and then there is none."""
    pid, plan = container(), Plan(ID, (FOUR, SIX))
    attach(network, pid, plan)
    ip(*outside) if outside else None
    ip(*inside, pid=pid) if inside else None
    with network.namespace(pid) as namespace:
        found = faults(namespace.condition(ID), plan)
        assert tuple(map(str, found)) == wrong
        if not is_broken(found):
            namespace.complete(plan)
        else:
            network.keep_bridge()
            namespace.prepare(plan)
            namespace.commit()
        assert faults(namespace.condition(ID), plan) == ()


def test_the_bridge_is_kept(network, ip):
    """It is made if it is gone, and set up if it is down."""
    assert not network.keep_bridge()
    ip("link", "set", "weave", "down")
    assert network.keep_bridge()
    ip("link", "delete", "weave")
    assert network.keep_bridge()
    assert not network.keep_bridge()
    assert look("weave")


def test_changes_are_heard_of_here_and_in_containers(network, container, ip):
    """A port that leaves the bridge, an address that goes in a container; an attach is no such change."""
    pid = container()
    with network.changes() as changes:
        attach(network, pid, Plan(ID, (FOUR,)))
        assert list(itertools.takewhile(bool, changes)) == []
        (number,) = [one.namespace for one in network.interfaces()]
        ip("address", "delete", str(FOUR), "dev", "ethwe", pid=pid)
        assert next(changes) == Change(number)
        ip("link", "set", host_names(ID)[0], "nomaster")
        assert Change() in itertools.takewhile(bool, changes)


def test_addresses_change_in_place(network, container, ip):
    """An attached container gets the addresses that it lacks and loses those that are too many; the rest stays."""
    pid = container()
    attach(network, pid, Plan(ID, (FOUR, OTHER_FOUR)))
    with network.namespace(pid) as namespace:
        namespace.readdress((SIX, FOUR))
        assert set(namespace.ethwe().addresses) == {FOUR, SIX}
        assert namespace.ethwe().attached


@pytest.mark.parametrize("promote", ["0", "1"])
@pytest.mark.parametrize(("had", "gets"), [
    pytest.param(("10.32.0.1/12",), ("10.32.0.9/12",), id="another of the subnet"),
    pytest.param(("10.32.0.1/12", "10.32.0.2/12", "10.40.0.7/24"), ("10.32.0.2/12", "10.32.0.9/12"), id="one stays"),
    pytest.param(("10.32.0.1/12",), ("10.40.0.7/24",), id="another subnet"),
    pytest.param(("10.32.0.1/12",), ("10.32.0.1/24",), id="another prefix length"),
    pytest.param(("fd00::5/64",), ("fd00::6/64",), id="IPv6"),
    pytest.param(("fd00::5/64",), ("fd00::5/80",), id="another prefix length of IPv6"),
    pytest.param(("10.32.0.1/12", "fd00::5/64"), (), id="none"),
])
def test_addresses_and_routes_are_right_after_a_change(network, container, ip, promote, had, gets):
    """Whether or not the kernel keeps other addresses of a subnet when its first one goes, nothing else goes."""
    pid = container()
    subprocess.run(["nsenter", f"--net=/proc/{pid}/ns/net", "sh", "-c", f"""
        for each in default all; do echo {promote} > /proc/sys/net/ipv4/conf/$each/promote_secondaries; done"""],
                   check=True)
    attach(network, pid, Plan(ID, tuple(map(ip_interface, had))))
    with network.namespace(pid) as namespace:
        namespace.readdress(map(ip_interface, gets))
        assert set(namespace.ethwe().addresses) == set(map(ip_interface, gets))
    routes = ip("route", pid=pid) + ip("-6", "route", pid=pid)
    assert all(f"{ip_interface(address).network} dev ethwe" in routes for address in gets)
    if any("." in address for address in gets):
        assert "224.0.0.0/4 dev ethwe" in routes


def test_a_change_that_fails_takes_nothing_away(network, container):
    """If an address can't be given, those that are there stay."""
    pid = container()
    attach(network, pid, Plan(ID, (FOUR,)))
    with network.namespace(pid) as namespace:
        with pytest.raises(NetworkError, match="can't give interface"):
            namespace.readdress((OTHER_FOUR, OTHER_FOUR))
        assert FOUR in namespace.ethwe().addresses


@pytest.fixture
def sandbox(ip):
    """A file as Docker's SandboxKey names it, for a namespace without a process."""
    name = make_namespace()
    yield Path("/var/run/netns", name)
    ip("netns", "del", name)


def test_a_process_that_left_the_containers_namespace_gets_nothing_in_its_own(network, container, ip, sandbox):
    """Docker's file says which namespace is the container's, even once its process made itself another one."""
    pid = container()
    with network.namespace(pid, str(sandbox)) as namespace:
        namespace.prepare(Plan(ID, (FOUR,)))
        namespace.commit()
    assert "ethwe" not in ip("link", pid=pid)
    assert "10.32.0.1/12" in ip("-n", sandbox.name, "addr", "show", "ethwe")


@pytest.mark.parametrize("how", ["none", "missing", "not mounted", "relative"])
def test_without_a_sandbox_to_be_seen_the_process_decides(network, container, ip, tmp_path, how, descriptors):
    """What Docker doesn't say, or can't be seen from here, changes nothing."""
    (tmp_path / "empty").touch()
    path = {"none": "", "missing": str(tmp_path / "no"), "not mounted": str(tmp_path / "empty"), "relative": "x"}[how]
    pid, before = container(), descriptors()
    with network.namespace(pid, path) as namespace:
        namespace.prepare(Plan(ID, (FOUR,)))
    assert "ethwe" in ip("link", pid=pid)
    assert descriptors() == before


def test_the_hosts_namespace_as_a_sandbox_is_refused(network, container, host):
    """A SandboxKey that is the host's own namespace gets nothing."""
    with (pytest.raises(NetworkError, match="uses the host's own network namespace"),
          network.namespace(container(), f"/var/run/netns/{host}")):
        pass


def test_hosts_own_namespace_is_refused(network):
    """A process in the host's namespace gets nothing, and neither does the host."""
    with pytest.raises(NetworkError, match="uses the host's own network namespace"), network.namespace(os.getpid()):
        pass


def test_a_hostname_is_the_containers_alone(network):
    """A process in a UTS namespace of its own gets a hostname; that of the host stays, and is refused."""
    before = socket.gethostname()
    with subprocess.Popen(["unshare", "--uts", "sleep", "60"]) as process:
        await_true(lambda: os.readlink(f"/proc/{process.pid}/ns/uts") != os.readlink("/proc/self/ns/uts"))
        network.set_hostname(process.pid, "cat")
        shown = subprocess.run(["nsenter", "-t", str(process.pid), "-u", "hostname"], capture_output=True, text=True,
                               check=True).stdout
        process.kill()
    assert (shown.strip(), socket.gethostname()) == ("cat", before)
    with pytest.raises(NetworkError, match="the host's own UTS namespace"):
        network.set_hostname(os.getpid(), "cat")


@pytest.mark.parametrize("pid", [0, 999_999_999])
def test_process_that_is_gone_is_an_error(network, pid, descriptors):
    """A pid without a process is refused, with nothing left open."""
    before = descriptors()
    with pytest.raises(ProcessEnded, match="has ended"), network.namespace(pid):
        pass
    assert descriptors() == before


def test_process_that_ends_meanwhile_is_an_error(network, container, descriptors):
    """The namespace is ours until we let go of it, even if the process ends; nothing stays behind."""
    process = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo && exec sleep 600"], stdout=subprocess.PIPE)
    process.stdout.readline()
    with network.namespace(process.pid) as namespace:
        process.kill()
        process.wait()
        namespace.prepare(Plan(ID, (FOUR,)))
        namespace.commit()
    process.stdout.close()
    await_true(lambda: network.interfaces() == ())


def test_bridge_is_made_if_it_is_missing(host, container):
    """An attach needs nobody to have made the bridge."""
    network = NetlinkNetwork("weave", 1400)
    assert network.interfaces() == ()
    attach(network, container(), Plan(ID, (FOUR,)))
    assert network.interfaces() == (HostInterface(host_names(ID)[0], ID),)


def test_mtu_is_the_bridges_if_none_is_given(host, container, ip):
    """Without an MTU of its own a container gets that of the bridge."""
    ensure_bridge("weave", 1234)
    pid = container()
    attach(NetlinkNetwork("weave"), pid, Plan(ID, (FOUR,)))
    assert "mtu 1234" in ip("link", "show", "ethwe", pid=pid)


def test_mtu_of_a_bridge_made_here(host, container, ip):
    """Where the bridge has to be made too, its MTU is what the router gives its own."""
    pid = container()
    attach(NetlinkNetwork("weave"), pid, Plan(ID, (FOUR,)))
    assert "mtu 1376" in ip("link", "show", "ethwe", pid=pid)


def test_bridge_keeps_its_address_and_mtu(network, container, ip):
    """The bridge's MAC address and MTU don't follow those of its ports; making it again changes nothing."""
    with NetlinkSocket() as link_socket:
        before = link_socket.link("weave")
        attach(network, container(), Plan(ID, (FOUR,)))
        ensure_bridge("weave", 1376)
        after = link_socket.link("weave")
    assert (after.mac, after.mtu) == (before.mac, 1376)
    assert "stp_state 0" in ip("-d", "link", "show", "weave")


def test_something_else_with_the_bridges_name_is_an_error(host, ip):
    """An interface that is no bridge is not used as one."""
    ip("link", "add", "weave", "type", "veth", "peer", "name", "other")
    with pytest.raises(NetworkError, match="weave is not a bridge but veth"):
        ensure_bridge("weave", 1376)


@pytest.mark.parametrize(("ethertype", "address"), [(0x0806, FOUR), (0x86DD, SIX)])
def test_addresses_are_announced(network, container, ethertype, address):
    """Neighbours with an old entry hear at once who has the address now (gratuitous ARP, unsolicited NA)."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ethertype)) as sniffer:
        sniffer.bind(("weave", 0))
        sniffer.settimeout(5)
        attach(network, container(), Plan(ID, (FOUR, SIX)))
        while address.ip.packed not in (frame := sniffer.recv(2000)):
            pass
    assert frame[6:12].hex(":") == Plan(ID, ()).mac


def test_containers_reach_each_other(network, container, ip):
    """Two attached containers have each other as neighbours, over the bridge."""
    first, second = container(), container()
    attach(network, first, Plan(ID, (FOUR,)))
    attach(network, second, Plan(OTHER, (ip_interface("10.32.0.2/12"),)))
    echo = ("import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.settimeout(5)\n"
            "s.bind(('10.32.0.2', 9))\nprint(flush=True)\nd, a = s.recvfrom(9)\ns.sendto(d, a)")
    ask = ("import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.settimeout(5)\n"
           "s.sendto(b'hello', ('10.32.0.2', 9))\nprint(s.recv(9))")
    command = ["nsenter", f"--net=/proc/{second}/ns/net", "python3", "-c", echo]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        server.stdout.readline()
        command = ["nsenter", f"--net=/proc/{first}/ns/net", "python3", "-c", ask]
        assert subprocess.run(command, capture_output=True, check=True).stdout == b"b'hello'\n"


def links(ip):
    """The interfaces' numbers and names; a bridge takes its time to say that it has lost its carrier."""
    return re.findall(r"^(\d+: \S+):", ip("link"), re.MULTILINE)


def test_two_hundred_attaches_leak_nothing(network, container, descriptors, ip):
    """After 200 attaches and detaches, each tenth to a process that is gone, everything is as before."""
    pid = container()
    attach(network, pid, Plan(ID, (FOUR,)))
    network.detach(ID)
    before = descriptors(), threading.active_count(), links(ip)
    for number in range(200):
        name = f"{number:03d}" + ID[3:]
        if number % 10:
            attach(network, pid, Plan(name, (FOUR,)))
            assert network.detach(name)
        else:
            with pytest.raises(NetworkError), network.namespace(999_999_999):
                pass
    assert (descriptors(), threading.active_count(), links(ip)) == before


def test_eight_at_once(network, container):
    """Attaches of different containers at the same time all succeed, each with its own."""
    pids = [container() for _ in range(8)]
    plans = [Plan(f"{number}" * 64, (ip_interface(f"10.32.0.{number + 1}/12"),)) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(attach, [network] * 8, pids, plans))
    assert len(network.interfaces()) == 8
    for pid, plan in zip(pids, plans, strict=True):
        with network.namespace(pid) as namespace:
            assert namespace.ethwe() == Ethwe(plan.mac, True, plan.addresses)


def test_no_thread_stays_in_a_containers_namespace(network, container):
    """After an attach all threads are where they were, and none is left of it."""
    before = set(os.listdir("/proc/self/task"))
    attach(network, container(), Plan(ID, (FOUR, SIX)))
    await_true(lambda: set(os.listdir("/proc/self/task")) <= before)
    here = os.stat("/proc/thread-self/ns/net").st_ino
    with NetlinkSocket() as link_socket:
        assert link_socket.link("weave")
    assert os.stat(f"/proc/self/task/{threading.get_native_id()}/ns/net").st_ino == here


def test_a_visitor_that_finds_no_way_home_costs_nothing(network, container, monkeypatch):
    """If the kernel lets a thread into a container but not back, this attach and those that follow work."""
    def only_there(descriptor, kind):
        if os.path.samestat(os.fstat(descriptor), home):
            raise OSError(errno.ENOMEM, "no memory")
        setns(descriptor)

    home = os.stat("/proc/thread-self/ns/net")
    monkeypatch.setattr(netlink, "setns", only_there)
    for name, address in ((ID, FOUR), (OTHER, OTHER_FOUR)):
        attach(network, container(), Plan(name, (address,)))
    assert len(network.interfaces()) == 2


def test_no_way_in_is_an_error(network, container, monkeypatch, descriptors):
    """A namespace that can't be entered is an error of the network, and leaves nothing open."""
    pid, before = container(), descriptors()
    monkeypatch.setattr(netlink, "setns", lambda descriptor, kind: setns(-1))
    with pytest.raises(NetworkError, match="no way into a network namespace: Bad file descriptor"), \
            network.namespace(pid):
        pass
    assert descriptors() == before


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_an_attach_after_a_fork(network, container):
    """A process that was forked after an attach can attach, too."""
    attach(network, container(), Plan(ID, (FOUR,)))
    pid = container()
    child = os.fork()
    if child == 0:
        try:
            attach(network, pid, Plan(OTHER, (OTHER_FOUR,)))
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert len(network.interfaces()) == 2


def test_kernel_that_does_not_answer_is_an_error(host, monkeypatch):
    """A question without an answer ends after a limit."""
    with NetlinkSocket() as link_socket:
        link_socket._socket.settimeout(0.05)
        silent = dataclasses.replace(messages.set_link("lo", up=True), flags=0)
        with pytest.raises(NetworkError, match="the kernel gave no answer"):
            link_socket.do(silent)


def forge(link_socket, *packets):
    """Send to a netlink socket what looks like the kernel's, from a socket that anyone with CAP_NET_ADMIN may open."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as forger:
        for packet in packets:
            forger.sendto(packet, (link_socket._socket.getsockname()[0], 0))


def packet(kind, body, *, sequence=1, flags=0):
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body


def test_only_the_kernel_is_believed(host, ip):
    """What others write to our socket is not the kernel's answer: neither that it worked, nor that it is there."""
    ip("link", "add", "real", "type", "bridge")
    with NetlinkSocket() as link_socket:
        link_socket._socket.bind((0, 0))
        forge(link_socket, packet(messages.NLMSG_ERROR, bytes(20)))
        with pytest.raises(NetworkError, match="can't remove none"):
            link_socket.do(messages.delete_link("none"))
        forge(link_socket, packet(messages.RTM_NEWLINK, bytes(16) + messages.attribute(messages.IFLA_IFNAME, "false"),
                                  sequence=2))
        assert link_socket.link("real").name == "real"


class Scripted(NetlinkSocket):
    """One whose kernel answers as written: for each request some packets; the list of requests is ``sent``."""

    def __init__(self, *answers):
        super().__init__()
        self.answers, self.sent, self.pending = list(answers), [], []

    def _send(self, sent):
        self.sent.append(sent)
        self.pending += self.answers.pop(0)

    def _receive(self, wanted):
        return messages.responses(self.pending.pop(0))


def part(sequence, name, flags=0):
    body = bytes(16) + messages.attribute(messages.IFLA_IFNAME, name)
    return packet(messages.RTM_NEWLINK, body, sequence=sequence, flags=flags)


def done(sequence, number=0):
    return packet(messages.NLMSG_DONE, struct.pack("=i", -number), sequence=sequence)


def test_a_list_that_changes_is_read_to_its_end_and_again():
    """Until it has ended the kernel begins no other (EBUSY)."""
    interrupted = messages.DUMP_INTERRUPTED
    with Scripted([part(1, "old", interrupted), part(1, "b"), done(1)], [part(2, "new"), done(2)]) as link_socket:
        assert [link.name for link in link_socket.links()] == ["new"]
        assert link_socket.pending == []


def test_a_list_that_never_rests_is_an_error():
    """It is asked for a few times."""
    answers = [[part(number, "x", messages.DUMP_INTERRUPTED), done(number)] for number in range(1, 9)]
    with Scripted(*answers) as link_socket, pytest.raises(NetworkError, match="it changed meanwhile"):
        link_socket.links()
    assert 1 < len(link_socket.sent) < 8


def test_a_list_that_breaks_off_is_an_error():
    """The kernel says at the end of a list if it could not give all of it."""
    with Scripted([part(1, "a"), done(1, errno.ENOMEM)]) as link_socket, \
            pytest.raises(NetworkError, match="can't list the interfaces: Cannot allocate memory"):
        link_socket.links()


def test_lists_are_filtered(host, ip):
    """Ports of a bridge, interfaces of a kind, addresses of an interface; the kernel sends no more than these."""
    ip("link", "add", "w", "type", "bridge")
    for number in range(3):
        ip("link", "add", f"port{number}", "type", "veth", "peer", "name", f"other{number}")
        ip("addr", "add", f"192.0.2.{number}/24", "dev", f"port{number}")
    ip("link", "set", "port1", "master", "w")
    with NetlinkSocket() as link_socket:
        bridge, port = link_socket.link("w"), link_socket.link("port1")
        assert [link.name for link in link_socket.links(kind="bridge")] == ["w"]
        assert [link.name for link in link_socket.links(master=bridge.index)] == ["port1"]
        assert link_socket.addresses(port.index) == (ip_interface("192.0.2.1/24"),)
        assert link_socket.addresses(9999) == ()
        for message in (messages.links(kind="bridge"), messages.links(master=bridge.index),
                        messages.addresses(port.index)):
            assert len(link_socket.ask(message)) == 1


def test_a_kernel_that_filters_nothing():
    """Old ones send all there is."""
    other = [part(1, "a"), done(1)]
    with Scripted(other) as link_socket:
        assert link_socket.links(kind="bridge") == ()


def test_the_bridge_has_no_address_of_its_own(host, ip):
    """Neither one that is made nor one that was there: no container reaches the host by IPv6 that nobody gave it."""
    ip("link", "add", "old", "up", "type", "bridge")
    ip("link", "add", "v0", "up", "master", "old", "type", "veth", "peer", "name", "v1")
    ip("link", "set", "v1", "up")
    await_true(lambda: "fe80:" in ip("-6", "addr", "show", "old"))
    for name in ("old", "weave"):
        ensure_bridge(name)
        ip("link", "set", "v0", "master", name)
        ip("link", "set", name, "down")
        ip("link", "set", name, "up")
        assert "inet6" not in ip("-6", "addr", "show", name)


def test_an_address_that_was_given_to_the_bridge_is_reached_by_ipv6(network, container, ip):
    """Without a link-local address the host and a container still find each other."""
    pid = container()
    attach(network, pid, Plan(ID, (SIX,)))
    ip("addr", "add", "fd00::1/64", "dev", "weave", "nodad")
    for where, device, address in ((None, "weave", "fd00::5"), (pid, "ethwe", "fd00::1")):
        inside = ["nsenter", f"--net=/proc/{pid}/ns/net"] if where else []
        subprocess.run([*inside, "bash", "-c", f"echo > /dev/udp/{address}/9"], check=True)
        await_true(lambda: "lladdr" in ip("-6", "neigh", "show", address, "dev", device, pid=where))  # noqa: B023


def test_nobody_answers_for_weavedns(network, container, ip):
    """A container's entry for weaveDNS is the bridge's MAC address, and stays that whatever neighbours announce."""
    attacker, victim = container(), container()
    attach(network, victim, Plan(ID, (FOUR,), dns_route=True))
    attach(network, attacker, Plan(OTHER, (OTHER_FOUR,)))
    entry = f"169.254.53.1 dev ethwe lladdr {look('weave').mac} PERMANENT"
    assert entry in ip("neigh", pid=victim)
    ip("addr", "add", "169.254.53.1/32", "dev", "ethwe", pid=attacker)
    ip("link", "set", "ethwe", "address", Plan(OTHER, ()).mac, pid=attacker)  # arp_notify: it is announced
    ip("neigh", "get", "169.254.53.1", "dev", "ethwe", pid=victim)
    assert entry in ip("neigh", pid=victim)
    with network.namespace(victim) as namespace:
        namespace.readdress((OTHER_FOUR,))
    assert entry in ip("neigh", pid=victim)


@pytest.mark.parametrize("how", ["ours", "another's"])
def test_the_bridge_keeps_its_mac_address(host, ip, how):
    """Whatever ports it gets; and one that is made again has the one it had."""
    if how == "another's":
        ip("link", "add", "weave", "type", "bridge")
    ensure_bridge("weave")
    mac = look("weave").mac
    ip("link", "add", "v0", "address", "02:00:00:00:00:01", "master", "weave", "type", "veth", "peer", "name", "v1")
    assert look("weave").mac == mac
    if how == "ours":
        ip("link", "del", "weave")
        ensure_bridge("weave")
        assert look("weave").mac == mac


@pytest.mark.parametrize(("others", "on"), [
    pytest.param((), True, id="a bridge of ours"),
    pytest.param(("vethwe-bridge", "vethwe-pcap"), False, id="a Weave router's, plain"),
    pytest.param(("vethwe-bridge", "vethwe-datapath"), True, id="a Weave router's, with a datapath"),
])
def test_checksums_are_finished_where_a_plain_bridge_is_read(network, container, ip, others, on):
    """A real router that reads packets from a plain bridge carries them to other hosts as they are."""
    if others:
        ip("link", "add", others[0], "type", "veth", "peer", "name", others[1])
    pid = container()
    attach(network, pid, Plan(ID, (FOUR,)))
    with open(f"/proc/{pid}/ns/net") as namespace:
        assert netlink._inside(namespace.fileno(), lambda: offload.is_on("ethwe")) is on
