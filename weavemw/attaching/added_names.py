"""Names that were given to containers by hand (``weave dns-add``), kept until the container is gone.

A router drops a container's names when it stops, and may lose its state; so what
nobody could derive from the container is kept here, in a file for each container.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_interface
from pathlib import Path

from weavemw.network.addresses import Interface

__all__ = ["Added", "AddedNames"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Added:
    """A name of one address of a container, or, with ``None``, of all that it has on the weave network."""

    fqdn: str
    address: Interface | None = None

    def __str__(self) -> str:
        return f"{self.fqdn} {self.address}" if self.address else self.fqdn

    @classmethod
    def read(cls, line: str) -> Added:
        """Read what ``str`` gave. Raises ValueError."""
        fqdn, _, address = line.partition(" ")
        if not fqdn or not fqdn.isprintable() or "\ufffd" in fqdn:
            raise ValueError("it is no name")
        return cls(fqdn, ip_interface(address) if address else None)

    def at(self, addresses: Iterable[Interface]) -> tuple[Interface, ...]:
        """The addresses that it names, of a container that has these."""
        return (self.address,) if self.address else tuple(addresses)

    def matches(self, fqdn: str, address: Interface | None) -> bool:
        """Whether it is of this name (any, if empty) and this address (any, if ``None``)."""
        return fqdn.lower() in ("", self.fqdn.lower()) and address in (None, self.address)


class AddedNames:
    """All of them, in a directory that is made when first needed; callers hold the container's lock for a change.

    Everything may raise OSError, where there is no right to read or write.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def of(self, container_id: str) -> tuple[Added, ...]:
        """A container's, in the order in which they were added."""
        try:
            text = (self.directory / container_id).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ()
        return tuple(one for line in text.splitlines() if (one := _read(line, container_id)))

    def add(self, container_id: str, names: Iterable[Added]) -> None:
        """Keep these as well."""
        self._write(container_id, dict.fromkeys((*self.of(container_id), *names)))

    def remove(self, container_id: str, fqdn: str = "", address: Interface | None = None) -> None:
        """Keep those that match no more."""
        before = self.of(container_id)
        if before:
            self._write(container_id, [one for one in before if not one.matches(fqdn, address)])

    def forget(self, container_id: str) -> None:
        """Keep none of the container's."""
        (self.directory / container_id).unlink(missing_ok=True)

    def owners(self) -> set[str]:
        """Who has any."""
        with contextlib.suppress(FileNotFoundError):
            return {name for name in os.listdir(self.directory) if "." not in name}
        return set()

    def _write(self, container_id: str, names: Iterable[Added]) -> None:
        lines = [f"{one}\n" for one in names]
        if not lines:
            return self.forget(container_id)
        self.directory.mkdir(parents=True, exist_ok=True)
        temporary = self.directory / f"{container_id}.{os.getpid()}"
        temporary.write_text("".join(lines), encoding="utf-8")
        temporary.replace(self.directory / container_id)
        return None


def _read(line: str, container_id: str) -> Added | None:
    """A line of a file; ``None``, and that is logged, for one that was damaged: the others are still good."""
    try:
        return Added.read(line)
    except ValueError as error:
        _log.warning("a name that was given to container %s is lost: its file is damaged: %s", container_id[:12], error)
        return None
