"""What there is to say of a network that many hosts share, as data and as text."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from weavemw.router.status import columns

if TYPE_CHECKING:
    from weavemw.router.shared import SharedNetwork

__all__ = ["connections_text", "ipam_text", "of_network", "peers_text", "shares", "targets_text"]


def of_network(shared: SharedNetwork) -> dict[str, Any]:
    """The router's part of the report: the store, and all hosts."""
    mirror = shared.mirror
    peers = [_peer(shared, peer) for peer in sorted({*mirror.peers, shared.peer})]
    connections = [{"Address": ", ".join(peer["Endpoints"]), "Name": peer["Name"], "NickName": peer["NickName"],
                    "Outbound": True, "State": "established" if peer["Seen"] else "pending",
                    "Info": peer["Info"]} for peer in peers if peer["Name"] != shared.peer]
    down = shared.client.trouble or shared.trouble
    trouble = down or shared.hold
    store = {"Member": shared.client.member, "State": "unreachable" if down else "connected",
             "Trouble": trouble.reason if trouble else "", "Since": _time(trouble.since) if trouble else "",
             "Prefix": shared.prefix}
    return {"Name": shared.peer, "NickName": shared.nickname, "Store": store, "Peers": peers,
            "Targets": list(shared.targets), "Connections": connections, "DataPlane": shared.plane_trouble}


def shares(shared: SharedNetwork) -> dict[str, Any]:
    """The part of IPAM: who has how much, and what is in the way."""
    blocks, addresses = Counter[str](), Counter[str]()
    for block, owner in shared.mirror.owners.items():
        blocks[owner] += 1
        addresses[owner] += block.size
    entries = [{"Peer": owner, "Nickname": shared.mirror.nickname(owner), "Blocks": blocks[owner],
                "Size": addresses[owner], "IsKnownPeer": owner in shared.mirror.peers,
                "Reachable": owner == shared.peer or owner in shared.mirror.up} for owner in sorted(blocks)]
    return {"Entries": entries, "OwnBlocks": len(shared.book.blocks()),
            "Conflicts": [block.key for block in sorted(shared.keeper.conflicts)],
            "InTheWay": sorted(set(shared.in_the_way.values()))}


def targets_text(router: Mapping[str, Any]) -> str:
    """For ``weave status targets``."""
    return "".join(f"{target}\n" for target in router["Targets"])


def peers_text(router: Mapping[str, Any]) -> str:
    """For ``weave status peers``."""
    return columns((f"{peer['Name']}({peer['NickName']})", ",".join(peer["Endpoints"]) or "-", peer["Info"])
                   for peer in router["Peers"])


def connections_text(router: Mapping[str, Any]) -> str:
    """For ``weave status connections``."""
    return "".join(f"-> {each['Address']:<21} {each['State']} {each['Info']} {each['Name']}({each['NickName']})\n"
                   for each in router["Connections"])


def ipam_text(router: Mapping[str, Any], ipam: Mapping[str, Any]) -> str:
    """For ``weave status ipam``."""
    whole, store = ipam["RangeNumIPs"], router["Store"]
    rows = [(f"{each['Peer']}({each['Nickname']})", f"{each['Size']} IPs ({100 * each['Size'] / whole:.1f}% of total)",
             f"in {each['Blocks']} blocks" + (f" ({ipam['InUse']} active)" if each["Peer"] == router["Name"] else "")
             + ("" if each["Reachable"] else " - unreachable!")) for each in ipam["Entries"]]
    lines = columns(rows) if rows else "no blocks known yet\n"
    for owner in ipam["InTheWay"]:
        lines += f"{owner} has an address in a block of another host\n"
    if store["Trouble"]:
        lines += f"etcd: {store['Trouble']}, since {store['Since']}\n"
    return lines


def _peer(shared: SharedNetwork, peer: str) -> dict[str, Any]:
    entry, since = shared.mirror.peers.get(peer), shared.mirror.unseen_since.get(peer)
    own = peer == shared.peer
    gone = "" if since is None or own else _time(time.time() - time.monotonic() + since)
    info = "this host" if own else f"not seen since {gone}" if gone else "up"
    return {"Name": peer, "NickName": shared.nickname if own else shared.mirror.nickname(peer),
            "Endpoints": [str(each) for each in entry.underlay.endpoints] if entry else [],
            "Mtu": entry.underlay.mtu if entry else 0, "Encrypted": bool(entry and entry.underlay.wireguard_key),
            "Seen": not gone, "Info": info, "Connections": []}


def _time(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
