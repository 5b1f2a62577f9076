"""The bridge's own addresses, by which the host takes part in the network, and the end of the bridge."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from weavemw.errors import NetworkError
from weavemw.network import messages
from weavemw.network.addresses import Interface
from weavemw.network.netlink import NetlinkSocket

__all__ = ["EXPOSE", "BridgeState", "add_address", "delete_address", "look", "loosen", "remove"]

#: Who owns the host's own addresses at the router.
EXPOSE = "weave:expose"

_CONF = Path("/proc/sys/net/ipv4/conf")


@dataclass(frozen=True, slots=True)
class BridgeState:
    """A bridge as it is: ``ports`` are the names of the interfaces enslaved to it."""

    index: int
    mac: str
    addresses: tuple[Interface, ...]
    ports: tuple[str, ...]


def look(name: str) -> BridgeState | None:
    """The bridge of this name; ``None`` if there is no interface of that name, or it is no bridge."""
    with NetlinkSocket() as host:
        link = host.link(name)
        if link is None or link.kind != "bridge":
            return None
        ports = tuple(port.name for port in host.links(master=link.index))
        return BridgeState(link.index, link.mac, host.given_addresses(link.index), ports)


def add_address(name: str, address: Interface) -> None:
    """Give the bridge an address; no change if it has it. Raises :class:`~weavemw.errors.NetworkError`."""
    bridge = look(name)
    if bridge and address not in bridge.addresses:
        with NetlinkSocket() as host:
            host.do(messages.add_address(bridge.index, address))


def delete_address(name: str, address: Interface) -> None:
    """Take an address from the bridge; no change if it hasn't it. Raises :class:`~weavemw.errors.NetworkError`."""
    bridge = look(name)
    if bridge and address in bridge.addresses:
        with NetlinkSocket() as host:
            host.do(messages.delete_address(bridge.index, address))


def loosen(name: str) -> None:
    """Let packets come in by the bridge whose sender the host has no route to (rp_filter in the kernel's ip-sysctl).

    The larger of the value for all interfaces and the bridge's own counts: 0 is no filter, 1 wants the way back to
    be the way in, 2 wants any way back. Raises :class:`~weavemw.errors.NetworkError`.
    """
    try:
        of_all = (_CONF / "all/rp_filter").read_text(encoding="ascii").strip()
        (_CONF / name / "rp_filter").write_text("0" if of_all == "0" else "2", encoding="ascii")
    except OSError as error:
        raise NetworkError(f"can't let packets in by {name} whatever their sender: {error.strerror}") from error


def remove(name: str) -> None:
    """Remove the bridge. Raises :class:`~weavemw.errors.NetworkError`."""
    with NetlinkSocket() as host:
        host.do(messages.delete_link(name))
