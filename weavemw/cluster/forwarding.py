"""Forwarding to other hosts by the kernel's VXLAN (RFC 7348): one device on the weave bridge, and its entries.

What is in the kernel is read once, and again after an error, or when something is said again: then somebody else's
changes are undone. It outlives this process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from weavemw.cluster.claims import Addresses, Claims
from weavemw.cluster.local import local_underlay
from weavemw.cluster.peers import Endpoint, Overlay, Peer, RemoteContainer, Underlay
from weavemw.errors import NetworkError, SettingsError
from weavemw.network import messages, tunnel_filter, vxlan, vxlan_messages
from weavemw.network.netlink_socket import NetlinkSocket
from weavemw.network.tunnel_filter import Filter
from weavemw.network.vxlan import Changes, Entries
from weavemw.network.vxlan_messages import VxlanDevice
from weavemw.network.wireguard import OVERHEAD, WireGuard, WireGuardPeer, inner_address

__all__ = ["Forwarding", "device_name", "remove", "tunnel_name"]

_MTU = 1500  # of the device, in bytes, at least: whatever the path has less, senders are told
_AGAIN = 60.0  # seconds between two looks at what nobody said has changed
_SHARE = 100  # a look that takes a second comes after as many at the earliest
_NAME = 15  # characters of an interface's name


class Forwarding:
    """:class:`~weavemw.cluster.peers.DataPlane` on a bridge of this host.

    ``advertise`` are this host's addresses for others, before those that its routes to ``towards`` have. With
    ``learning``, the kernel finds out by itself where containers are, as a bridge does; none need be said. A network
    that is encrypted needs ``key_file``, where this host's key is kept, or will be; nothing of it is ever sent in
    plain text. Raises :class:`~weavemw.errors.SettingsError`.
    """

    def __init__(self, overlay: Overlay, bridge: str = "weave", *, advertise: Collection[Endpoint] = (),
                 towards: Collection[Endpoint] = (), learning: bool = False,
                 key_file: Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.overlay, self.bridge, self.name = overlay, bridge, device_name(bridge)
        self.advertise, self.towards = tuple(advertise), tuple(towards)
        self.learning = learning
        self._tunnel = _tunnel(overlay, bridge, key_file)
        self._family = 4 if self._tunnel else overlay.family  # of what VXLAN is sent over
        self._clock = clock
        self._claims = Claims()
        self._peers: tuple[Peer, ...] | None = None
        self._reachable: dict[str, bytes] = {}
        self._numbers: dict[str, int] = {}
        self._device = (0, 0)
        self._entries: Entries | None = None
        self._look_at = self._filter_at = 0.0
        self._filter: Filter | None = None

    def check(self) -> None:
        """Raises :class:`~weavemw.errors.NetworkError` where this host lacks what it takes, and says what that is."""
        tunnel_filter.check()
        if self._tunnel:
            self._tunnel.make()

    def underlay(self) -> Underlay:
        """See :class:`~weavemw.cluster.peers.DataPlane`."""
        found = local_underlay(self.overlay.family, self.advertise, self.towards, self.bridge)
        return replace(found, wireguard_key=self._tunnel.key) if self._tunnel else found

    def peers(self, desired: Collection[Peer]) -> None:
        """See :class:`~weavemw.cluster.peers.DataPlane`; a host that can't be reached is named at the end."""
        self._peers = tuple(desired)
        self._reachable = {peer.id: endpoint for peer in desired if (endpoint := self._endpoint(peer))}
        self._shield(desired)
        self._encrypt(desired)
        with NetlinkSocket() as host:
            self._careful(host, lambda: self._set_hosts(host))
        missing = [f"{peer.nickname} ({peer.id})" for peer in desired if peer.id not in self._reachable]
        if missing:
            lacks = " and key of WireGuard" if self._tunnel else ""
            raise NetworkError(f"no address of IPv{self.overlay.family}{lacks} is known of {', '.join(missing)}")

    def containers(self, desired: Mapping[str, Collection[RemoteContainer]]) -> None:
        """See :class:`~weavemw.cluster.peers.DataPlane`."""
        if self.learning:
            return
        first = {peer for peer in desired if not self._claims.knows(peer)}
        touched = [self._claims.say(peer, containers) for peer, containers in desired.items()]
        if self._peers is None:  # they come with their hosts
            return
        with NetlinkSocket() as host:
            self._careful(host, lambda: self._set_containers(host, first, touched))

    def close(self) -> None:
        """See :class:`~weavemw.cluster.peers.DataPlane`."""

    def _endpoint(self, peer: Peer) -> bytes:
        """Where VXLAN's packets for a host go: to it, or to its end of the tunnel."""
        outer, key = self._outer(peer), peer.underlay.wireguard_key
        if self._tunnel:
            return inner_address(key).packed if outer and key else b""
        return outer.packed if outer else b""

    def _outer(self, peer: Peer) -> Endpoint | None:
        return next((one for one in peer.underlay.endpoints if one.version == self.overlay.family), None)

    def _encrypt(self, peers: Collection[Peer]) -> None:
        if self._tunnel:
            mtu = min([self.underlay().mtu, *(peer.underlay.mtu for peer in peers)])
            self._tunnel.set_up((WireGuardPeer(peer.underlay.wireguard_key, outer) for peer in peers
                                 if peer.underlay.wireguard_key and (outer := self._outer(peer))),
                                mtu - OVERHEAD[self.overlay.family])

    def _shield(self, peers: Iterable[Peer]) -> None:
        wanted = self._wanted_filter(peers)
        if wanted != self._filter or self._clock() >= self._filter_at:
            tunnel_filter.apply(wanted)
            self._filter, self._filter_at = wanted, self._clock() + _AGAIN

    def _wanted_filter(self, peers: Iterable[Peer]) -> Filter:
        if self._tunnel:
            keys = [peer.underlay.wireguard_key for peer in peers]
            senders = frozenset[Endpoint](inner_address(key) for key in keys if key)
            return Filter(self.name, self.overlay.port, 4, senders, self._tunnel.name)
        senders = frozenset(one for peer in peers for one in peer.underlay.endpoints if one.version == self._family)
        return Filter(self.name, self.overlay.port, self._family, senders)

    def _careful(self, host: NetlinkSocket, action: Callable[[], bool]) -> None:
        """Do something on what is known of the kernel; if that was nothing, or fails, the kernel is looked at."""
        try:
            device = self._made(host)
            if device != self._device:
                self._device, self._entries = device, None
            looked = self._entries is None
            if not action() and not looked and self._clock() >= self._look_at:
                self._entries = None
                action()
        except NetworkError:
            self._entries = None
            raise

    def _look(self, host: NetlinkSocket) -> tuple[Entries, bool]:
        """What is in the kernel, and whether it was read just now."""
        if self._entries is not None:
            return self._entries, False
        began = self._clock()
        self._entries = _read(host, *self._device)
        took = self._clock() - began
        self._look_at = self._clock() + max(_AGAIN, _SHARE * took)
        return self._entries, True

    def _set_hosts(self, host: NetlinkSocket) -> bool:
        entries, anew = self._look(host)
        before, index = self._numbers, self._device[0]
        self._numbers = {} if self.learning else vxlan.numbers(self._reachable, before, entries.hosts)
        hosts = {number: self._reachable[peer] for peer, number in self._numbers.items()}
        floods = set(self._reachable.values())
        changes = vxlan.host_changes(index, hosts, floods, entries)
        host.pour(changes.coming)
        done = self._forward(host, self._affected(before.keys() ^ self._numbers.keys(), anew))
        host.pour(changes.going)
        entries.settle_hosts(hosts, floods)
        return done or changes != Changes()

    def _affected(self, peers: Iterable[str], anew: bool) -> list[Addresses]:
        """Addresses to look at: those of peers that came or went, or of all, and what is left of such as were named."""
        if not anew or self._entries is None:
            return [self._claims.of(peer) for peer in peers]
        named = {number for peer, number in self._numbers.items() if self._claims.knows(peer)}
        return [self._claims.everything(), self._entries.of_hosts(named | {0})]

    def _set_containers(self, host: NetlinkSocket, first: set[str], touched: list[Addresses]) -> bool:
        if self._entries is None:
            return self._set_hosts(host)
        left = {self._numbers[peer] for peer in first if peer in self._numbers}
        return self._forward(host, [*touched, *([self._entries.of_hosts(left)] if left else [])])

    def _forward(self, host: NetlinkSocket, touched: Collection[Addresses]) -> bool:
        """Let these MAC and IP addresses lead where they should; whether anything had to change."""
        entries, _ = self._look(host)
        macs = self._claims.hosts(set().union(*(macs for macs, _ in touched)), self._numbers)
        addresses = self._claims.neighbours(set().union(*(addresses for _, addresses in touched)), self._numbers)
        changes = vxlan.container_changes(*self._device, macs, addresses, entries)
        _apply(host, changes)
        entries.settle_containers(macs, addresses)
        return changes != Changes()

    def _made(self, host: NetlinkSocket) -> tuple[int, int]:
        """The indices of the VXLAN device, which is made if need be, and of the bridge that it is a port of."""
        bridge = host.link(self.bridge)
        if bridge is None:
            raise NetworkError(f"there is no bridge {self.bridge}")
        wanted = VxlanDevice(self.overlay.vni, self.overlay.port, self._family, self.learning)
        if host.link(self.name) and _device(host, self.name) != wanted:
            host.do(messages.delete_link(self.name))
        link = host.link(self.name)
        if link is None:
            host.do(vxlan_messages.device(self.name, wanted, max(_MTU, bridge.mtu)))
            link = host.link(self.name)
        if link is None:
            raise NetworkError(f"{self.name} went away while it was made")
        if link.master != bridge.index or not link.flags & messages.IFF_UP:
            host.do(messages.no_link_local(link.index), vxlan_messages.enslave(link.index, bridge.index),
                    vxlan_messages.port(link.index, learning=self.learning),
                    messages.set_link(index=link.index, up=True, alias=vxlan_messages.alias(wanted.family)))
        return link.index, bridge.index


def device_name(bridge: str) -> str:
    """The name of the VXLAN device on a bridge."""
    return f"{bridge[:_NAME - 3]}-wx"


def remove(bridge: str) -> None:
    """Remove everything of this kind from the kernel, the WireGuard interface too; no error if there is nothing.

    Raises :class:`~weavemw.errors.NetworkError`.
    """
    name = device_name(bridge)
    with NetlinkSocket() as host:
        device, master = host.link(name), host.link(bridge)
        if device and master:
            found = _read(host, device.index, master.index)
            host.pour([vxlan_messages.delete_neighbour(master.index, address) for address in found.neighbours])
            host.pour([vxlan_messages.delete_nexthop(number) for number in found.hosts])
        for link in filter(None, map(host.link, (name, tunnel_name(bridge)))):
            host.do(messages.delete_link(link.name))
    tunnel_filter.remove(name)


def tunnel_name(bridge: str) -> str:
    """The name of the WireGuard interface under a bridge's VXLAN device."""
    return f"{bridge[:_NAME - 3]}-wg"


def _tunnel(overlay: Overlay, bridge: str, key_file: Path | None) -> WireGuard | None:
    if overlay.encrypted and key_file is None:
        raise SettingsError("an encrypted network needs a file for this host's key")
    return WireGuard(tunnel_name(bridge), overlay.port + 1, key_file) if overlay.encrypted and key_file else None


def _device(host: NetlinkSocket, name: str) -> VxlanDevice | None:
    return vxlan_messages.read_device(host.ask(messages.get_link(name))[0])


def _read(host: NetlinkSocket, index: int, bridge: int) -> Entries:
    return vxlan.read(index, bridge, host.ask(vxlan_messages.nexthops()), host.ask(vxlan_messages.entries(index)),
                      host.ask(vxlan_messages.neighbours(bridge)))


def _apply(host: NetlinkSocket, changes: Changes) -> None:
    host.pour(changes.coming)
    host.pour(changes.going)
