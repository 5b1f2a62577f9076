"""What the store says of the network, kept up by its watch. Pure, but for the clock that it is given."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from ipaddress import ip_address, ip_interface
from typing import Any

from weavemw.cluster.blocks import Block, Taken, block_of_key
from weavemw.cluster.kv import Pair
from weavemw.cluster.peers import Endpoint, Peer, RemoteContainer, Underlay

__all__ = ["ContainerEntry", "Mirror", "PeerEntry"]

_SLICE = 200  # keys in one step
_WITHHELD = 60.0  # seconds that a host is unseen before its names are


@dataclass(frozen=True, slots=True)
class PeerEntry:
    """What stands under ``peer/ID``, for good: where packets are sent must not depend on who is up."""

    nickname: str
    generation: int
    underlay: Underlay

    @property
    def text(self) -> str:
        """As it is kept."""
        underlay = {"endpoints": [str(each) for each in self.underlay.endpoints], "mtu": self.underlay.mtu,
                    "wireguard": self.underlay.wireguard_key}
        return json.dumps({"nickname": self.nickname, "generation": self.generation, **underlay})

    @classmethod
    def of(cls, text: str) -> PeerEntry:
        """Read what is kept. Raises ``ValueError``, ``KeyError`` or ``TypeError``."""
        raw = json.loads(text)
        underlay = Underlay(tuple(map(ip_address, raw["endpoints"])), int(raw["mtu"]), raw.get("wireguard"))
        return cls(str(raw["nickname"]), int(raw["generation"]), underlay)


@dataclass(frozen=True, slots=True)
class ContainerEntry:
    """What stands under ``name/ID/OWNER``: what another host must know of a container."""

    mac: str
    addresses: tuple[str, ...]
    names: tuple[tuple[str, str], ...]

    @property
    def text(self) -> str:
        """As it is kept: equal entries are equal texts."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def of(cls, text: str) -> ContainerEntry:
        """Read what is kept. Raises ``ValueError``, ``KeyError`` or ``TypeError``."""
        raw = json.loads(text)
        names = tuple((str(fqdn), str(address)) for fqdn, address in raw["names"])
        return cls(str(raw["mac"]), tuple(map(str, raw["addresses"])), names)

    def remote(self, owner: str, peer: str) -> RemoteContainer:
        """For the data plane. Raises ``ValueError``."""
        return RemoteContainer(owner, peer, self.mac, tuple(map(ip_interface, self.addresses)))

    def named(self) -> tuple[tuple[str, Endpoint], ...]:
        """Each name with its address. Raises ``ValueError``."""
        return tuple((fqdn, ip_address(address)) for fqdn, address in self.names)


class Mirror:
    """All keys of a network, relative to its prefix. ``own`` is this host; ``clock`` is in seconds.

    ``fresh`` are hosts of which something changed since somebody last emptied it; ``hosts_changed`` is for the list of
    hosts itself. What can't be read is passed over, and stands in ``strange``.
    """

    def __init__(self, own: str, clock: Callable[[], float]) -> None:
        self.own = own
        self.taken = Taken()
        self.owners: dict[Block, str] = {}
        self.peers: dict[str, PeerEntry] = {}
        self.up: dict[str, str] = {}
        self.unseen_since: dict[str, float] = {}
        self.containers: dict[str, dict[str, ContainerEntry]] = {}
        self.own_texts: dict[str, str] = {}
        self.fresh: set[str] = set()
        self.hosts_changed = True
        self.strange: set[str] = set()
        self.values: dict[str, str] = {}
        self._clock = clock

    def reset(self, pairs: Iterable[Pair]) -> None:
        """This is all there is now."""
        for _ in self.resetting(pairs):
            pass

    def resetting(self, pairs: Iterable[Pair]) -> Iterator[None]:
        """:meth:`reset`, a little at each step: there may be a hundred thousand containers."""
        now = {pair.key: pair.value for pair in pairs}
        gone = self.values.keys() - now.keys()
        for number, (key, value) in enumerate((*now.items(), *((key, None) for key in gone))):
            if self.values.get(key) != value:
                self.apply(key, value)
            if number % _SLICE == 0:
                yield
        for peer in self.peers.keys() - self.up.keys():
            self.unseen_since.setdefault(peer, self._clock())

    def apply(self, key: str, value: str | None) -> None:
        """A key has this value now, or is gone."""
        if value is None:
            self.values.pop(key, None)
        else:
            self.values[key] = value
        kind, _, rest = key.partition("/")
        try:
            self._apply(kind, rest, key, value)
            self.strange.discard(key)
        except (ValueError, KeyError, TypeError):
            self.strange.add(key)

    def others(self) -> list[Peer]:
        """All other hosts."""
        return [Peer(peer, entry.nickname, entry.underlay) for peer, entry in sorted(self.peers.items())
                if peer != self.own]

    def containers_of(self, peer: str) -> list[RemoteContainer]:
        """The containers of a host that have addresses; silence does not change them."""
        return [entry.remote(owner, peer) for owner, entry in self.containers.get(peer, {}).items() if entry.addresses]

    def names_of(self, peer: str) -> list[tuple[str, str, Endpoint]]:
        """Owner, name and address of each name of a host; none while its names are withheld."""
        if self.is_withheld(peer):
            return []
        return [(owner, fqdn, address) for owner, entry in self.containers.get(peer, {}).items()
                for fqdn, address in entry.named()]

    def is_withheld(self, peer: str) -> bool:
        """Whether a host was not seen for so long that its names should not be used."""
        since = self.unseen_since.get(peer)
        return since is not None and self._clock() - since >= _WITHHELD

    def nickname(self, peer: str) -> str:
        """What people call a host."""
        entry = self.peers.get(peer)
        return entry.nickname if entry else peer

    def _apply(self, kind: str, rest: str, key: str, value: str | None) -> None:
        if kind == "block":
            self._set_block(block_of_key(key), value)
        elif kind == "peer":
            self._set(self.peers, rest, PeerEntry.of(value) if value is not None else None)
            self.hosts_changed = True
        elif kind == "up":
            self._set(self.up, rest, value)
            self._seen(rest, value is not None)
        elif kind == "name":
            peer, _, owner = rest.partition("/")
            if peer == self.own:
                self._set(self.own_texts, owner, value)
            else:
                entry = ContainerEntry.of(value) if value is not None else None
                if entry:
                    entry.remote(owner, peer), entry.named()  # raises for what can't be used
                self._set(self.containers.setdefault(peer, {}), owner, entry)
                self.fresh.add(peer)

    def _set_block(self, block: Block | None, value: str | None) -> None:
        if block is None:
            raise ValueError("no block")
        self._set(self.owners, block, value)
        (self.taken.discard if value is None else self.taken.add)(block)

    def _seen(self, peer: str, is_up: bool) -> None:
        if is_up:
            if self.unseen_since.pop(peer, None) is not None:
                self.fresh.add(peer)
        else:
            self.unseen_since[peer] = self._clock()

    @staticmethod
    def _set(table: dict[Any, Any], key: Any, value: Any) -> None:
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value
