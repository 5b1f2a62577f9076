"""Sockets that speak netlink: what is sent is seen acknowledged, lists are read whole, complaints are raised."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

from weavemw.errors import NetworkError
from weavemw.network import messages
from weavemw.network.addresses import Interface
from weavemw.network.messages import Link, Message

__all__ = ["Exists", "NetlinkSocket", "NoSuchThing"]

_NETLINK_ROUTE, _SOL_NETLINK, _ADD_MEMBERSHIP, _CAP_ACK, _EXT_ACK, _GET_STRICT_CHK = 0, 270, 1, 10, 11, 12
_LINK_GROUP = 1
_AT_ONCE = 200  # messages; if all of them fail, as many complaints find room in a socket
_LIMIT = 10.0  # seconds that the kernel has for an answer
_DUMPS = 5  # how often a list is asked for that changes while it is read


class NetlinkSocket:
    """A netlink socket in the namespace of the thread that makes it, route netlink's; used by one thread at a time.

    Whatever fails raises :class:`~weavemw.errors.NetworkError`.
    """

    def __init__(self, protocol: int = _NETLINK_ROUTE) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        except OSError as error:
            raise NetworkError(f"can't talk to the kernel: {error.strerror}") from error
        self._sequence = itertools.count(1)
        self._socket.settimeout(_LIMIT)
        with contextlib.suppress(OSError):  # kernels before 4.12 have no words for their complaints
            for option in (_CAP_ACK, _EXT_ACK, _GET_STRICT_CHK):  # the last: from 4.20 on, addresses of one interface
                self._socket.setsockopt(_SOL_NETLINK, option, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close it; more than once is fine."""
        self._socket.close()

    def do(self, *wanted: Message) -> None:
        """Send all, if there are any, and see each acknowledged; the first complaint is raised.

        The kernel goes on with the others after a complaint: undoing is the caller's.
        """
        sent = {next(self._sequence): message for message in wanted}
        if sent:
            self._send(sent)
        complaints = []
        while sent:
            for kind, flags, sequence, body in self._receive(next(iter(sent.values()))):
                if kind == messages.NLMSG_ERROR and (message := sent.pop(sequence, None)):
                    complaints.append((message, *messages.complaint(flags, body)))
        for message, number, words in complaints:
            _raise_for(message, number, words)

    def transact(self, batch: Sequence[Message]) -> None:
        """Send what works all or not at all, and read until the one that is to be acknowledged is, or a complaint."""
        sent = {next(self._sequence): message for message in batch}
        self._send(sent)
        awaited = {number for number, message in sent.items() if message.flags & messages.ACK}
        while awaited:
            for kind, flags, sequence, body in self._receive(batch[0]):
                if kind == messages.NLMSG_ERROR and sequence in sent:
                    _raise_for(sent[sequence], *messages.complaint(flags, body))
                    awaited.discard(sequence)

    def pour(self, wanted: Sequence[Message]) -> None:
        """Send very many, of which the kernel is to answer only what fails; the first complaint is raised.

        That something to be removed is gone already is none.
        """
        complaints: list[NetworkError] = []
        for at in range(0, len(wanted), _AT_ONCE):
            part = list(wanted[at:at + _AT_ONCE])
            part[-1] = replace(part[-1], flags=part[-1].flags | messages.ACK)
            complaints += self._poured({next(self._sequence): message for message in part})
        if complaints:
            raise complaints[0]

    def _poured(self, sent: dict[int, Message]) -> list[NetworkError]:
        self._send(sent)
        last, complaints = next(reversed(sent)), list[NetworkError]()
        while last in sent:
            for kind, flags, sequence, body in self._receive(sent[last]):
                if kind == messages.NLMSG_ERROR and (message := sent.pop(sequence, None)):
                    complaints += _complaint(message, *messages.complaint(flags, body))
        return complaints

    def ask(self, wanted: Message) -> list[bytes]:
        """Bodies of the answers to a question, or to a dump; what changes while it is listed is asked for again."""
        for _ in range(_DUMPS):
            bodies, whole = self._answers(wanted)
            if whole:
                return bodies
        raise NetworkError(f"can't {wanted.what}: it changed meanwhile")

    def _answers(self, wanted: Message) -> tuple[list[bytes], bool]:
        sequence = next(self._sequence)
        self._send({sequence: wanted})
        bodies: list[bytes] = []
        whole = True
        while not bodies or wanted.flags & messages.DUMP:
            for kind, flags, its_sequence, body in self._receive(wanted):
                if its_sequence != sequence:
                    continue
                if kind == messages.NLMSG_ERROR:
                    _raise_for(wanted, *messages.complaint(flags, body))
                whole = whole and not flags & messages.DUMP_INTERRUPTED
                if kind == messages.NLMSG_DONE:
                    _raise_for(wanted, messages.end_of_dump(body), "")
                    return bodies, whole
                bodies.append(body)
        return bodies, whole

    def link(self, name: str) -> Link | None:
        """The interface of this name."""
        try:
            return messages.read_link(self.ask(messages.get_link(name))[0])
        except NoSuchThing:
            return None

    def links(self, *, master: int = 0, kind: str = "") -> tuple[Link, ...]:
        """All interfaces, or the ports of the bridge with this index, or the interfaces of this kind."""
        links = map(messages.read_link, self.ask(messages.links(master=master, kind=kind)))
        return tuple(link for link in links if master in (0, link.master) and kind in ("", link.kind))

    def addresses(self, index: int) -> tuple[Interface, ...]:
        """The addresses of an interface, none if it is gone."""
        with contextlib.suppress(NoSuchThing):
            addresses = map(messages.read_address, self.ask(messages.addresses(index)))
            return tuple(address[1] for address in addresses if address and address[0] == index)
        return ()

    def given_addresses(self, index: int) -> tuple[Interface, ...]:
        """The same without those that the kernel made itself (IPv6, link-local)."""
        return tuple(address for address in self.addresses(index)
                     if address.version == 4 or not address.is_link_local)

    def watch_links(self) -> None:
        """From now on be told of each change of an interface."""
        self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _LINK_GROUP)

    def wait_for(self, index: int, flags: int) -> None:
        """Wait for the word that an interface has all these flags; :meth:`watch_links` came first."""
        wanted = messages.get_link(f"interface {index} with carrier")
        deadline = time.monotonic() + _LIMIT
        while time.monotonic() < deadline:
            for kind, _, _, body in self._receive(wanted):
                if kind == messages.RTM_NEWLINK and _is_so(messages.read_link(body), index, flags):
                    return
        raise NetworkError(f"interface {index} got no carrier within {_LIMIT:g} seconds")

    def _send(self, sent: dict[int, Message]) -> None:
        try:
            self._socket.send(b"".join(messages.numbered(message, number) for number, message in sent.items()))
        except OSError as error:
            raise NetworkError(f"can't {next(iter(sent.values())).what}: {error.strerror}") from error

    def _receive(self, wanted: Message) -> Iterator[tuple[int, int, int, bytes]]:
        """What the kernel says; in a container others may write to the socket too."""
        try:
            said, (sender, _) = self._socket.recvfrom(65536)
        except OSError as error:
            raise NetworkError(f"can't {wanted.what}: the kernel gave no answer ({error})") from error
        return messages.responses(said) if sender == 0 else iter(())


def _is_so(link: Link, index: int, flags: int) -> bool:
    return link.index == index and link.flags & flags == flags


class NoSuchThing(NetworkError):
    """What was to be changed or removed is not there."""


class Exists(NetworkError):
    """What was to be made is there already."""


_KINDS: dict[int, type[NetworkError]] = {errno.ENODEV: NoSuchThing, errno.EADDRNOTAVAIL: NoSuchThing,
                                         errno.EEXIST: Exists}


def _raise_for(message: Message, number: int, words: str) -> None:
    if number:
        said = f" ({words})" if words else ""
        error = OSError(number, os.strerror(number))
        raise _KINDS.get(number, NetworkError)(f"can't {message.what}: {error.strerror}{said}") from error


def _complaint(message: Message, number: int, words: str) -> list[NetworkError]:
    if number == errno.ENOENT and messages.deletes(message):
        return []
    try:
        _raise_for(message, number, words)
    except NetworkError as error:
        return [error]
    return []
