"""Interfaces in the host and in containers, by route netlink alone: no forks, nothing opened before it is needed.

A netlink socket speaks of the namespace in which it was opened, whoever uses it
later. So a thread of its own enters a container's namespace, opens a socket
there, and ends; all other threads stay where they are.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from ipaddress import IPv4Network, IPv6Network
from typing import TypeVar

from weavemw.errors import NetworkError
from weavemw.network import answers, guard, messages, offload
from weavemw.network.addresses import Interface
from weavemw.network.answers import Route, Rule
from weavemw.network.listener import Listener
from weavemw.network.messages import IFF_LOWER_UP, IFF_RUNNING, IFF_UP, Link, Message
from weavemw.network.netlink_socket import Exists, NetlinkSocket, NoSuchThing
from weavemw.network.plan import (
    ETHWE,
    Change,
    Condition,
    Ethwe,
    HostInterface,
    Plan,
    ProcessEnded,
    host_names,
    is_host_name,
    mac_for,
)

__all__ = ["NetlinkNetwork", "NetlinkSocket", "ensure_bridge", "inside", "setns"]

T = TypeVar("T")

_OWN_NAMESPACES = "/proc/thread-self/ns"
_KINDS_OF_NAMESPACES = {"net": 0x40000000, "uts": 0x04000000}  # CLONE_NEWNET, CLONE_NEWUTS (sched.h)
_NAMED = {"net": "network namespace", "uts": "UTS namespace"}
_DONE = {"net": "attached", "uts": "named"}
_LIMIT = 10.0  # seconds that the kernel has to let a thread in
_MTU = 1376  # of a bridge that is made here: what the router gives its own


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def setns(descriptor: int, kind: str = "net") -> None:
    """Move the calling thread into a namespace (setns(2); ``os.setns`` is there from Python 3.12 on)."""
    if _libc().setns(descriptor, _KINDS_OF_NAMESPACES[kind]):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _inside(namespace: int, action: Callable[[], T], kind: str = "net") -> T:
    """The result of ``action``, done in the namespace of this descriptor by a thread that does nothing else."""
    future: Future[T] = Future()
    visitor = threading.Thread(target=_visit, args=(namespace, action, future, kind), name="weave-namespace",
                               daemon=True)
    visitor.start()
    visitor.join(_LIMIT)
    if visitor.is_alive():
        raise NetworkError(f"no way into a {_NAMED[kind]} within {_LIMIT:g} seconds")
    try:
        return future.result()
    except OSError as error:
        raise NetworkError(f"no way into a {_NAMED[kind]}: {error.strerror}") from error


def _visit(namespace: int, action: Callable[[], T], future: Future[T], kind: str) -> None:
    try:
        with _away(namespace, kind):
            result = action()
    except BaseException as error:  # noqa: BLE001  # it is the caller's
        future.set_exception(error)
    else:
        future.set_result(result)


@contextlib.contextmanager
def _away(namespace: int, kind: str) -> Iterator[None]:
    home = os.open(f"{_OWN_NAMESPACES}/{kind}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(namespace, kind)
        yield
    finally:
        with contextlib.suppress(OSError):  # the thread ends here, unless gevent has patched threads
            setns(home, kind)
        os.close(home)


def inside(pid: int, sandbox: str, action: Callable[[], T]) -> T:
    """The result of ``action``, done in a container's network namespace (see :meth:`NetlinkNetwork.namespace`).

    Raises :class:`~weavemw.errors.NetworkError`, also for an OSError of the action.
    """
    descriptor = _open_namespace(pid, sandbox)
    try:
        return _inside(descriptor, action)
    finally:
        os.close(descriptor)


class NetlinkNetwork:
    """:class:`~weavemw.network.plan.Network` on a bridge of this host; it is made if it is missing.

    ``mtu`` is in bytes; 0 means the bridge's own (1376 where it has to be made). With ``allow_spoofing`` containers
    may send from any address, else from those that they were given (:mod:`weavemw.network.guard`).
    """

    def __init__(self, bridge: str = "weave", mtu: int = 0, *, allow_spoofing: bool = False) -> None:
        self.bridge = bridge
        self.mtu = mtu
        self.allow_spoofing = allow_spoofing

    @contextlib.contextmanager
    def namespace(self, pid: int, sandbox: str = "") -> Iterator[_ContainerNamespace]:
        descriptor = _open_namespace(pid, sandbox)
        try:
            with NetlinkSocket() as host, _inside(descriptor, NetlinkSocket) as inside:
                yield _ContainerNamespace(self, descriptor, host, inside)
        finally:
            os.close(descriptor)

    def visit(self, pid: int, sandbox: str, action: Callable[[], T]) -> T:
        """What ``action`` gives, done in a container's network namespace by a thread that does nothing else.

        Raises as :meth:`namespace` does.
        """
        descriptor = _open_namespace(pid, sandbox)
        try:
            return _inside(descriptor, action)
        finally:
            os.close(descriptor)

    def set_hostname(self, pid: int, hostname: str) -> None:
        descriptor = _not_own(_of_process(pid, "uts"), pid, "uts")
        try:
            _inside(descriptor, lambda: socket.sethostname(hostname), "uts")
        finally:
            os.close(descriptor)

    def detach(self, container_id: str) -> bool:
        with NetlinkSocket() as host:
            names = self._names(host, container_id)
            removed = sum(_deleted(host, name) for name in names)
        for name in {host_names(container_id)[0], *names}:  # since Linux 6.16 a chain outlives its interface
            guard.unguard(self.bridge, name)
        return removed > 0

    def interfaces(self) -> tuple[HostInterface, ...]:
        with NetlinkSocket() as host:
            bridge = host.link(self.bridge)
            return tuple(_host_end(link, bridge) for link in host.links(kind="veth") if is_host_name(link.name))

    def delete(self, host_interface: str) -> bool:
        with NetlinkSocket() as host:
            return _deleted(host, host_interface)

    def keep_bridge(self) -> bool:
        with NetlinkSocket() as host:
            found = host.link(self.bridge)
            if found and found.kind == "bridge" and found.flags & IFF_UP:
                return False
            _made(host, self.bridge, self.mtu or (0 if found else _MTU))
            return True

    @contextlib.contextmanager
    def changes(self) -> Iterator[Iterator[Change | None]]:
        with Listener() as listener:
            yield listener.changes()

    def guard(self, container_id: str, addresses: Iterable[Interface]) -> None:
        with NetlinkSocket() as host:
            for name in self._names(host, container_id):
                self.guard_port(name, Plan(container_id, tuple(addresses)))

    def guard_port(self, name: str, plan: Plan) -> None:
        """Let a host end let in only what is from the container of this plan."""
        if self.allow_spoofing:
            guard.unguard(self.bridge, name)
        else:
            guard.guard(self.bridge, name, plan.mac, plan.addresses)

    def unguarded(self) -> tuple[HostInterface, ...]:
        guarded, interfaces = guard.guarded(self.bridge), self.interfaces()
        there = set() if self.allow_spoofing else {one.name for one in interfaces}
        for name in guarded - there:
            guard.unguard(self.bridge, name)
        return () if self.allow_spoofing else tuple(one for one in interfaces if one.name not in guarded)

    def _names(self, host: NetlinkSocket, container_id: str) -> list[str]:
        return [name for name in host_names(container_id) if _belongs(host.link(name), container_id)]

    def port(self, host: NetlinkSocket) -> Link:
        """The bridge that host ends are enslaved to."""
        return host.link(self.bridge) or _made(host, self.bridge, self.mtu or _MTU)


class _ContainerNamespace:
    """:class:`~weavemw.network.plan.Namespace`: two sockets, one here and one in the container."""

    def __init__(self, network: NetlinkNetwork, descriptor: int, host: NetlinkSocket, inside: NetlinkSocket) -> None:
        self._network, self._descriptor = network, descriptor
        self._host, self._inside = host, inside
        self._plan: Plan | None = None
        self._name = ""
        self._index = 0
        self._bridge_mac = ""

    def ethwe(self) -> Ethwe | None:
        link = self._inside.link(ETHWE)
        if link is None:
            return None
        up = link.flags & IFF_UP and link.flags & IFF_LOWER_UP
        return Ethwe(link.mac, bool(up), self._inside.given_addresses(link.index))

    def condition(self, container_id: str) -> Condition:
        link = self._inside.link(ETHWE)
        if link is None:
            return Condition(None)
        bridge = self._host.link(self._network.bridge)
        ends = (self._host.link(name) for name in host_names(container_id))
        outside = next((_host_end(end, bridge) for end in ends if end and end.alias == container_id), None)
        return Condition(self.ethwe(), self._ways(link.index), outside)

    def complete(self, plan: Plan) -> None:
        link = self._inside.link(ETHWE)
        if link is None:
            raise NetworkError(f"there is no {ETHWE} to be completed")
        self._allow_ipv6(plan.addresses)
        has, ways = self._inside.given_addresses(link.index), self._ways(link.index)
        self._inside.do(messages.promote(link.index), *messages.missing(plan, link.index, has, ways))
        self._announce(link.index, link.mac, self._network.port(self._host).mac)

    def _ways(self, index: int) -> frozenset[IPv4Network | IPv6Network]:
        found = self._listed(messages.routes(), messages.read_route)
        return frozenset(way.network for way in found if way.index == index)

    def prepare(self, plan: Plan) -> str:
        with contextlib.suppress(NoSuchThing):
            self._inside.do(messages.delete_link(ETHWE)) if self._inside.link(ETHWE) else None
        self._plan, self._name = plan, self._make(plan)
        try:
            self._network.guard_port(self._name, plan)
            self._furnish(plan)
        except BaseException:
            self.undo()
            raise
        return self._name

    def commit(self) -> None:
        plan = self._prepared()
        self._inside.watch_links()
        self._host.do(messages.set_link(self._name, up=True, alias=plan.container_id))
        self._inside.wait_for(self._index, IFF_LOWER_UP | IFF_RUNNING)  # before that the kernel drops what is sent
        self._announce(self._index, plan.mac, self._bridge_mac)

    def readdress(self, addresses: Iterable[Interface]) -> None:
        link = self._inside.link(ETHWE)
        if link is None:
            raise NetworkError(f"there is no {ETHWE} to give addresses to")
        has, wanted = self._inside.given_addresses(link.index), tuple(addresses)
        self._allow_ipv6(wanted)
        coming, going = messages.readdressing(link.index, has, wanted)
        self._inside.do(*coming)
        self._announce(link.index, link.mac, self._network.port(self._host).mac, *going)

    def route_answers(self) -> None:
        ethwe = self._inside.link(ETHWE)
        ways = answers.default_routes(self._listed(messages.routes(), messages.read_route), ethwe.index if ethwe else 0)
        had = {way.index: self._inside.given_addresses(way.index) for way in ways}
        self._have_rules({rule for way in ways for rule in answers.rules_for(way, had[way.index])},
                         [route for way in ways for route in answers.routes_for(way, had[way.index])])

    def route_answers_no_more(self) -> None:
        self._have_rules(set(), ())

    def _have_rules(self, wanted: set[Rule], routes: Iterable[Route]) -> None:
        """A rule whose table lacks a route leads on to the next one; so the order matters to nobody."""
        going, coming = answers.changes(self._listed(messages.rules(), messages.read_rule), wanted)
        self._inside.do(*map(messages.route, routes), *map(messages.rule, coming),
                        *(messages.rule(one, there=False) for one in going))

    def _listed(self, question: Message, read: Callable[[bytes], T | None]) -> list[T]:
        return [one for one in map(read, self._inside.ask(question)) if one is not None]

    def _announce(self, index: int, mac: str, bridge_mac: str, *before: Message) -> None:
        """In this order: as its MAC address is set, the kernel forgets all neighbours, permanent ones too."""
        self._inside.do(*before, messages.announce(index, mac), messages.dns_neighbour(index, bridge_mac))

    def undo(self) -> None:
        name, self._name = self._name, ""
        if name:
            _deleted(self._host, name)

    def _prepared(self) -> Plan:
        if self._plan is None:
            raise NetworkError("nothing was prepared")
        return self._plan

    def _make(self, plan: Plan) -> str:
        bridge = self._network.port(self._host)
        self._bridge_mac = bridge.mac
        for name in host_names(plan.container_id):
            if self._make_named(name, plan, bridge):
                return name
        raise NetworkError(f"no name is left for the host interface of {plan.container_id[:12]}")

    def _make_named(self, name: str, plan: Plan, bridge: Link) -> bool:
        pair = messages.veth(name, ETHWE, mac=plan.mac, mtu=self._network.mtu or bridge.mtu,
                             namespace=self._descriptor, master=bridge.index)
        try:
            self._host.do(pair)
        except Exists:
            if not _belongs(self._host.link(name), plan.container_id):
                return False
            _deleted(self._host, name)
            self._host.do(pair)
        return True

    def _furnish(self, plan: Plan) -> None:
        link = self._inside.link(ETHWE)
        if link is None:
            raise NetworkError(f"{ETHWE} went away while it was made")
        self._index = link.index
        self._allow_ipv6(plan.addresses)
        if _is_plain(self._host):
            _inside(self._descriptor, partial(offload.turn_off, ETHWE))
        self._inside.do(*messages.inside(plan, link.index))

    def _allow_ipv6(self, addresses: Iterable[Interface]) -> None:
        if any(address.version == 6 for address in addresses):
            _inside(self._descriptor, _allow_ipv6)


def _is_plain(host: NetlinkSocket) -> bool:
    there, absent = offload.PLAIN_BRIDGE
    return host.link(there) is not None and not any(map(host.link, absent))


def _host_end(link: Link, bridge: Link | None) -> HostInterface:
    is_port = bridge is not None and link.master == bridge.index and bool(link.flags & bridge.flags & IFF_UP)
    return HostInterface(link.name, link.alias, is_port, link.namespace)


def _allow_ipv6() -> None:
    """Undo Docker's turning IPv6 off: netlink can't, and /proc/sys is that of the thread's namespace."""
    try:
        _write_sysctl("disable_ipv6", "0")
        _write_sysctl("ndisc_notify", "1")
    except OSError as error:
        raise NetworkError(f"can't use IPv6 in the container: {error.strerror}") from error


def _write_sysctl(name: str, value: str) -> None:
    with open(f"/proc/sys/net/ipv6/conf/{ETHWE}/{name}", "w", encoding="ascii") as file:
        file.write(value)


def _open_namespace(pid: int, sandbox: str) -> int:
    return _not_own(_sandbox(_of_process(pid), sandbox), pid)


def _not_own(descriptor: int, pid: int, kind: str = "net") -> int:
    if os.path.samestat(os.fstat(descriptor), os.stat(f"{_OWN_NAMESPACES}/{kind}")):
        os.close(descriptor)
        raise NetworkError(f"process {pid} uses the host's own {_NAMED[kind]}; nothing is {_DONE[kind]} there")
    return descriptor


def _of_process(pid: int, kind: str = "net") -> int:
    try:
        return os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise ProcessEnded(f"process {pid} has ended") from error
    except OSError as error:
        raise NetworkError(f"can't open the {_NAMED[kind]} of process {pid}: {error.strerror}") from error


def _sandbox(of_process: int, path: str) -> int:
    """The namespace that Docker made for the container; where its file can't be seen, the process's.

    A process with CAP_SYS_ADMIN may have left the container's for one of its own. Docker's file is an empty one where
    its mount is not seen; init's root directory has it then.
    """
    for seen in (path, f"/proc/1/root{path}") if path.startswith("/") else ():
        with contextlib.suppress(OSError):
            descriptor = os.open(seen, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            if os.fstat(descriptor).st_dev == os.fstat(of_process).st_dev:
                os.close(of_process)
                return descriptor
            os.close(descriptor)
    return of_process


def _belongs(link: Link | None, container_id: str) -> bool:
    """Whether a host interface is this container's: that of an earlier incarnation, or one never committed."""
    return link is not None and link.kind == "veth" and link.alias in ("", container_id)


def _deleted(host: NetlinkSocket, name: str) -> bool:
    try:
        host.do(messages.delete_link(name))
    except NoSuchThing:
        return False
    return True


def ensure_bridge(name: str, mtu: int = 0) -> None:
    """Make the bridge if it is missing, and let it be up, with this MTU in bytes (0: as it is).

    Raises :class:`~weavemw.errors.NetworkError`, also if something else has the name.
    """
    with NetlinkSocket() as host:
        _made(host, name, mtu)


def _made(host: NetlinkSocket, name: str, mtu: int) -> Link:
    with contextlib.suppress(Exists):
        host.do(messages.bridge(name, mac=_bridge_mac(name)))
    link = host.link(name)
    if link is None or link.kind != "bridge":
        raise NetworkError(f"{name} is not a bridge but {(link and link.kind) or 'something else'}")
    host.do(messages.announce(link.index, link.mac))  # once it is set, it is no longer that of one of its ports
    _without_link_local(host, link.index)
    host.do(messages.set_link(name, up=True, mtu=mtu))
    return host.link(name) or link


def _without_link_local(host: NetlinkSocket, index: int) -> None:
    """Let no container reach the host by an IPv6 address that the bridge has of itself, and nobody gave it."""
    with contextlib.suppress(NetworkError):  # a kernel without IPv6
        host.do(messages.no_link_local(index))
    for address in host.addresses(index):
        if address.version == 6 and address.is_link_local:
            with contextlib.suppress(NoSuchThing):
                host.do(messages.delete_address(index, address))


def _bridge_mac(name: str) -> bytes:
    """The same until the host boots, also if the bridge is made again: containers keep it (``dns_neighbour``)."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return bytes.fromhex(mac_for(f"{file.read().strip()} {name}").replace(":", ""))
