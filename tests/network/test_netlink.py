from __future__ import annotations

import dataclasses
import os
import re
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_interface

import pytest

from weavemw.errors import NetworkError
from weavemw.network import messages
from weavemw.network.netlink import NetlinkNetwork, NetlinkSocket, ensure_bridge
from weavemw.network.plan import Ethwe, HostInterface, Plan, ProcessEnded, host_names
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


def test_only_our_ports_of_the_bridge_are_listed(network, container, ip):
    """Interfaces of others, on our bridge or with a name like ours elsewhere, are not ours."""
    ip("link", "add", "vethwe-bridge", "type", "veth", "peer", "name", "vethwe-datapath")
    ip("link", "set", "vethwe-bridge", "master", "weave")
    ip("link", "add", host_names(OTHER)[0], "type", "veth", "peer", "name", "other")
    attach(network, container(), Plan(ID, (FOUR,)))
    assert network.interfaces() == (HostInterface(host_names(ID)[0], ID),)


def test_addresses_change_in_place(network, container, ip):
    """An attached container gets the addresses that it lacks and loses those that are too many; the rest stays."""
    pid = container()
    attach(network, pid, Plan(ID, (FOUR, OTHER_FOUR)))
    with network.namespace(pid) as namespace:
        namespace.readdress((SIX, FOUR))
        assert set(namespace.ethwe().addresses) == {FOUR, SIX}
        assert namespace.ethwe().attached


def test_hosts_own_namespace_is_refused(network):
    """A process in the host's namespace gets nothing, and neither does the host."""
    with pytest.raises(NetworkError, match="uses the host's own network namespace"), network.namespace(os.getpid()):
        pass


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
    """After attaches the thread that went into containers is back, and no other ever left."""
    before = set(os.listdir("/proc/self/task"))
    attach(network, container(), Plan(ID, (FOUR,)))
    tasks = set(os.listdir("/proc/self/task")) - before | {str(threading.get_native_id())}
    assert len(tasks) == 2
    here = os.stat("/proc/thread-self/ns/net").st_ino
    await_true(lambda: {os.stat(f"/proc/self/task/{task}/ns/net").st_ino for task in tasks} == {here})


def test_thread_ends_with_its_network(host, container):
    """A network that nobody uses any more keeps no thread."""
    before = threading.active_count()
    used = NetlinkNetwork("weave", 1376)
    attach(used, container(), Plan(ID, (FOUR,)))
    assert threading.active_count() == before + 1
    del used
    await_true(lambda: threading.active_count() == before)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_visitor_is_started_anew_after_a_fork(network, container):
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
