"""A container's ``/etc/resolv.conf``: weaveDNS answers, and is told there whom Docker would have let the container ask.

Resolvers differ in whom they ask: glibc goes on to the next server only after silence or a refusal, musl and busybox
ask all at once and believe the first that answers. So a container is given one server: weaveDNS answers what it knows,
and asks the servers that Docker wrote for everything else, from within the container (`weavemw.router.container_dns`).
These stay in the file, as comments. Where weaveDNS is another router's, which can't do that, it comes first, and
Docker's servers follow. Search list and options stay as Docker wrote them (resolv.conf(5)).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from weavemw.dockerapi.container import Container
from weavemw.network import own_files
from weavemw.network.plan import WEAVE_DNS

__all__ = ["EMBEDDED", "Resolver", "Servers", "is_lost", "nameservers", "original", "restore", "rewrite", "rewritten",
           "servers"]

#: Docker's own resolver, in containers on networks of users.
EMBEDDED = "127.0.0.11"

_TARGET = "/etc/resolv.conf"
_OURS = "# weaveDNS:"  # the line before that of our server
_ASIDE = "# weaveDNS asks: "
_ASKS_US = " # which asks weaveDNS"
_BUILT_IN = frozenset({"bridge", "none", "host", "default"})


@dataclass(frozen=True, slots=True)
class Resolver:
    """The server that containers are to ask, and its domain, without a final dot."""

    address: str
    domain: str = ""

    @property
    def forwards(self) -> bool:
        """Whether it asks for each container whom Docker would have let it ask."""
        return self.address == str(WEAVE_DNS.ip)


@dataclass(frozen=True, slots=True)
class Servers:
    """Whom Docker would have let a container ask; ``asks_us``: its embedded resolver asks weaveDNS itself."""

    addresses: tuple[str, ...] = ()
    asks_us: bool = False


def rewritten(text: str, resolver: Resolver, *, embedded: bool = False, running: bool = False) -> str:
    """The file with our server; written again it is the same.

    ``embedded``: Docker's own resolver is in the container. ``running``: it was attached before. If Docker has written
    the file since, it found our server in it, and has let its own resolver ask that (Docker Engine 20.10 does so at
    ``docker network connect``).
    """
    found = servers(text)
    asks_us = found.asks_us or (running and _OURS not in text.split("\n") and EMBEDDED in nameservers(text))
    lines = _lines(original(text))
    if embedded and EMBEDDED not in nameservers("\n".join(lines)):
        lines.insert(0, f"nameserver {EMBEDDED}")
    lines = [line for line in lines if _server(line) != resolver.address]
    if resolver.forwards:
        lines = [_aside(line, asks_us=asks_us) if _server(line) else line for line in lines]
    elif resolver.domain and not any(line.split()[:1] in (["search"], ["domain"]) for line in lines):
        lines.append(f"search {resolver.domain}")
    return _text([_OURS, f"nameserver {resolver.address}", *lines])


def original(text: str) -> str:
    """The file as Docker wrote it."""
    kept, skip = [], False
    for line in _lines(text):
        if not skip and line != _OURS:
            kept.append(line.removeprefix(_ASIDE).removesuffix(_ASKS_US) if line.startswith(_ASIDE) else line)
        skip = line == _OURS
    return _text(kept)


def servers(text: str) -> Servers:
    """Whom weaveDNS is to ask for the container with this file: nobody in particular if it says nothing of it."""
    aside = [line.removeprefix(_ASIDE) for line in _lines(text) if line.startswith(_ASIDE)]
    asks_us = any(line.endswith(_ASKS_US) for line in aside)
    return Servers(tuple(dict.fromkeys(filter(None, map(_server, aside)))), asks_us)


def is_lost(text: str) -> bool:
    """Whether somebody in the container left no server in the file."""
    return not nameservers(text)


def nameservers(text: str) -> tuple[str, ...]:
    """The addresses of a resolv.conf's ``nameserver`` lines (resolv.conf(5)); what is no address is left out."""
    return tuple(dict.fromkeys(filter(None, map(_server, text.splitlines()))))


def rewrite(container: Container, resolver: Resolver, *, running: bool = False) -> bool:
    """Rewrite the container's file; see :func:`rewritten` and :func:`weavemw.network.own_files.change`.

    While it is ``running``, servers that somebody else wrote stay.
    """
    embedded = not _BUILT_IN.issuperset(container.networks)

    def changed(text: str) -> str:
        if running and not (is_lost(text) or _OURS in _lines(text) or nameservers(text) == (EMBEDDED,)):
            return text
        return rewritten(text, resolver, embedded=embedded, running=running)

    return own_files.change(container, container.resolv_conf_path, _TARGET, changed)


def restore(container: Container) -> bool:
    """Let the container's file be as Docker wrote it."""
    return own_files.change(container, container.resolv_conf_path, _TARGET, original)


def _aside(line: str, *, asks_us: bool) -> str:
    return f"{_ASIDE}{line}{_ASKS_US if asks_us and _server(line) == EMBEDDED else ''}"


def _server(line: str) -> str:
    words = line.split()
    return words[1] if words[:1] == ["nameserver"] and len(words) > 1 and _is_address(words[1]) else ""


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _lines(text: str) -> list[str]:
    return text.removesuffix("\n").split("\n") if text else []


def _text(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
