"""A container's ``/etc/hosts``: its names mean its weave addresses, and everything else that Docker wrote is kept.

Docker writes the file anew at each start, so ours is written after each start (:mod:`~weavemw.network.own_files`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from weavemw.dockerapi.container import Container
from weavemw.network import own_files
from weavemw.network.addresses import Interface

__all__ = ["hosts_of", "rewrite", "rewritten"]

_TARGET = "/etc/hosts"
_MARK, _SILENCED = "\t# weave", "# weave: "


def rewritten(text: str, addresses: Sequence[Interface], names: Sequence[str], dockers: Collection[str] = ()) -> str:
    """The file with a line for each weave address first; our lines of an earlier time go, all others stay.

    ``names`` are in the order of hosts(5), the canonical one first; without any
    there is nothing to say. A line by which Docker gives one of them to one of
    the addresses ``dockers`` becomes a comment, as long as there is one of ours:
    glibc would find both addresses.
    """
    ours = [f"{one.ip}\t{' '.join(names)}{_MARK}" for one in addresses if names]
    lines = text.removesuffix("\n").split("\n") if text else []
    kept = (line.removeprefix(_SILENCED) for line in lines if not line.endswith(_MARK))
    rest = [f"{_SILENCED}{line}" if ours and _gives(line, names, dockers) else line for line in kept]
    return "".join(f"{line}\n" for line in ours + rest)


def _gives(line: str, names: Sequence[str], addresses: Collection[str]) -> bool:
    address, *its_names = line.split() or ("",)
    return address in addresses and not set(names).isdisjoint(its_names)


def hosts_of(fqdns: Iterable[str], container: Container) -> tuple[str, ...]:
    """Names for the container's own line: each registered name in full and in short, then its hostname."""
    return tuple(dict.fromkeys(name for name in _spelled(fqdns, container) if name))


def rewrite(container: Container, addresses: Sequence[Interface], fqdns: Iterable[str]) -> bool:
    """Rewrite the container's file; see :func:`weavemw.network.own_files.change`."""
    names = hosts_of(fqdns, container)
    return own_files.change(container, container.hosts_path, _TARGET,
                            lambda text: rewritten(text, addresses, names, container.addresses))


def _spelled(fqdns: Iterable[str], container: Container) -> Iterator[str]:
    for fqdn in fqdns:
        yield fqdn.rstrip(".")
        yield fqdn.partition(".")[0]
    if container.uts_mode != "host" and container.hostname:
        yield f"{container.hostname}.{container.domainname}" if container.domainname else ""
        yield container.hostname
