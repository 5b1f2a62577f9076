"""Forwarding to other hosts: what there is, what there should be, and the changes from one to the other. Pure.

Other hosts have numbers here. Each has an entry by which broadcast reaches it, and a nexthop that the entries of all
its containers name: a host whose address changes costs one message. A container has an entry by its MAC address in the
VXLAN device and in the bridge, and one by each of its IP addresses, by which the bridge answers ARP (RFC 826) and
neighbour solicitations (RFC 4861) for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field

from weavemw.network import vxlan_messages as messages
from weavemw.network.messages import Message
from weavemw.network.vxlan_messages import ZEROS, Entry

__all__ = ["Changes", "Entries", "container_changes", "host_changes", "numbers", "read"]


@dataclass(slots=True)
class Entries:
    """What is in the kernel. All addresses are bytes; hosts are numbered from 1 on.

    ``hosts`` are nexthops, ``floods`` addresses of hosts, ``tunnels`` lead from MAC addresses to hosts, ``ports`` are
    MAC addresses that the bridge seeks at the VXLAN device, ``neighbours`` lead from IP to MAC addresses.
    """

    hosts: dict[int, bytes] = field(default_factory=dict)
    floods: set[bytes] = field(default_factory=set)
    tunnels: dict[bytes, int] = field(default_factory=dict)
    ports: set[bytes] = field(default_factory=set)
    neighbours: dict[bytes, bytes] = field(default_factory=dict)

    def settle_hosts(self, hosts: Mapping[int, bytes], floods: Set[bytes]) -> None:
        """Be what :func:`host_changes` lead to. The kernel removes the entries that name a host that is gone."""
        if self.hosts.keys() - hosts.keys():
            self.tunnels = {mac: host for mac, host in self.tunnels.items() if host in hosts}
        self.hosts, self.floods = dict(hosts), set(floods)

    def of_hosts(self, numbers: Set[int]) -> tuple[set[bytes], set[bytes]]:
        """MAC and IP addresses that lead to these hosts; 0 is for those that lead nowhere."""
        macs = {mac for mac, host in self.tunnels.items() if host in numbers}
        if 0 in numbers:
            macs |= self.ports - self.tunnels.keys()
        addresses = {address for address, mac in self.neighbours.items() if self.tunnels.get(mac, 0) in numbers}
        return macs, addresses

    def settle_containers(self, macs: Mapping[bytes, int], addresses: Mapping[bytes, bytes]) -> None:
        """Be what :func:`container_changes` lead to."""
        for mac, host in macs.items():
            if host:
                self.tunnels[mac] = host
                self.ports.add(mac)
            else:
                self.tunnels.pop(mac, None)
                self.ports.discard(mac)
        self.neighbours.update(addresses)
        for address in [address for address, mac in addresses.items() if not mac]:
            del self.neighbours[address]


@dataclass(frozen=True, slots=True)
class Changes:
    """Messages in two parts: what comes, and what goes only then, so that nothing that stays is away in between."""

    coming: tuple[Message, ...] = ()
    going: tuple[Message, ...] = ()


def host_changes(index: int, hosts: Mapping[int, bytes], floods: Set[bytes], present: Entries) -> Changes:
    """What lets there be exactly these hosts; ``index`` is that of the VXLAN device."""
    coming = [message for host, endpoint in hosts.items() if present.hosts.get(host) != endpoint
              for message in messages.nexthop(host, endpoint)]
    coming += [messages.flood(index, remote) for remote in sorted(floods - present.floods)]
    going = [messages.delete_flood(index, remote) for remote in sorted(present.floods - floods)]
    going += [messages.delete_nexthop(host) for host in present.hosts if host not in hosts]
    return Changes(tuple(coming), tuple(going))


def container_changes(index: int, bridge: int, macs: Mapping[bytes, int], addresses: Mapping[bytes, bytes],
                      present: Entries) -> Changes:
    """What lets these MAC addresses lead to these hosts, and these IP addresses have these MAC addresses.

    0 and ``b""`` are for those that should lead nowhere. What is not named stays as it is. A neighbour's entry is
    replaced, or removed with the MAC address that it has; it is never removed for one that others have by now.
    """
    coming = [messages.replace_entry(index, mac, host) for mac, host in macs.items()
              if host and (present.tunnels.get(mac) != host or mac not in present.ports)]
    coming += [messages.neighbour(bridge, address, mac) for address, mac in addresses.items()
               if mac and present.neighbours.get(address) != mac]
    going = [messages.delete_neighbour(bridge, address) for address, mac in addresses.items()
             if not mac and address in present.neighbours]
    going += [messages.delete_entry(index, mac, of_device=mac in present.tunnels, of_bridge=mac in present.ports)
              for mac, host in macs.items()
              if not host and (mac in present.tunnels or mac in present.ports)]
    return Changes(tuple(coming), tuple(going))


def numbers(endpoints: Mapping[str, bytes], known: Mapping[str, int], present: Mapping[int, bytes]) -> dict[str, int]:
    """A number for each host by name: the one it has, the one its address has in the kernel, or one nobody has."""
    chosen = {name: known[name] for name in endpoints if name in known}
    of_address = {endpoint: number for number, endpoint in present.items() if number not in chosen.values()}
    taken = {*chosen.values(), *present}
    for name, endpoint in endpoints.items():
        if name not in chosen:
            chosen[name] = of_address.pop(endpoint, 0) or next(n for n in range(1, 0x8000) if n not in taken)
            taken.add(chosen[name])
    return chosen


def read(index: int, bridge: int, nexthops: Iterable[bytes], entries: Iterable[bytes],
         neighbours: Iterable[bytes]) -> Entries:
    """What is in the kernel, from the bodies of its answers; ``index`` and ``bridge`` are of the two interfaces."""
    found = Entries(hosts=dict(filter(None, map(messages.read_gateway, nexthops))))
    for body in entries:
        if entry := messages.read_entry(body, index):
            _add(found, entry)
    for body in neighbours:
        if neighbour := messages.read_neighbour(body, bridge):
            found.neighbours[neighbour[0]] = neighbour[1]
    return found


def _add(found: Entries, entry: Entry) -> None:
    if entry.of_bridge:
        found.ports.add(entry.mac)
    elif entry.mac == ZEROS:
        found.floods.add(entry.remote)
    else:
        found.tunnels[entry.mac] = entry.host
