"""Which host has which MAC and IP address, of all that was said: who said it last has it. Pure.

An address may come to another host before its old one says that it is gone. So what was said first never takes away
what was said later, and its end leaves that alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from weavemw.cluster.peers import RemoteContainer

__all__ = ["Addresses", "Claims"]

#: MAC addresses, and IP addresses.
Addresses = tuple[set[bytes], set[bytes]]

_Book = dict[bytes, tuple[RemoteContainer, ...]]


class Claims:
    """What each peer said that it has. MAC and IP addresses are bytes here, as the kernel has them."""

    def __init__(self) -> None:
        self._said: dict[str, frozenset[RemoteContainer]] = {}
        self._macs: _Book = {}
        self._addresses: _Book = {}

    def say(self, peer: str, containers: Collection[RemoteContainer]) -> Addresses:
        """The peer has exactly these. Returns the MAC and the IP addresses for which it may make a difference."""
        said, before = frozenset(containers), self._said.get(peer, frozenset())
        come, gone = said - before, before - said
        for container in gone:
            self._each(container, _without)
        for container in come:
            self._each(container, _with)
        self._said[peer] = said
        touched = come | gone
        return ({_mac(one) for one in touched}, {address.packed for one in touched for address in one.addresses})

    def knows(self, peer: str) -> bool:
        """Whether anything was said of the peer."""
        return peer in self._said

    def of(self, peer: str) -> Addresses:
        """All MAC and IP addresses that the peer said it has."""
        said = self._said.get(peer, frozenset())
        return {_mac(one) for one in said}, {address.packed for one in said for address in one.addresses}

    def everything(self) -> Addresses:
        """All MAC and IP addresses that anybody has."""
        return set(self._macs), set(self._addresses)

    def hosts(self, macs: Collection[bytes], numbers: Mapping[str, int]) -> dict[bytes, int]:
        """The numbers of the hosts that have these MAC addresses; 0 for those that no known host has."""
        return {mac: numbers[claims[-1].peer] if (claims := _known(self._macs, mac, numbers)) else 0 for mac in macs}

    def neighbours(self, addresses: Collection[bytes], numbers: Mapping[str, int]) -> dict[bytes, bytes]:
        """The MAC addresses that have these IP addresses; empty for those that no known host has."""
        return {address: _mac(claims[-1]) if (claims := _known(self._addresses, address, numbers)) else b""
                for address in addresses}

    def _each(self, container: RemoteContainer, change: Callable[[_Book, bytes, RemoteContainer], None]) -> None:
        change(self._macs, _mac(container), container)
        for address in container.addresses:
            change(self._addresses, address.packed, container)


def _with(book: _Book, key: bytes, one: RemoteContainer) -> None:
    book[key] = (*book.get(key, ()), one)


def _without(book: _Book, key: bytes, one: RemoteContainer) -> None:
    left = tuple(other for other in book.get(key, ()) if other != one)
    if left:
        book[key] = left
    else:
        book.pop(key, None)


def _known(book: _Book, key: bytes, numbers: Mapping[str, int]) -> list[RemoteContainer]:
    return [one for one in book.get(key, ()) if one.peer in numbers]


def _mac(container: RemoteContainer) -> bytes:
    return bytes.fromhex(container.mac.replace(":", ""))
