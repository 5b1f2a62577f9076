"""What is decided about one container, and what it was given: values that middlewares leave for one another."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv6Interface
from typing import TYPE_CHECKING, TypeAlias

from weavemw.network.addresses import Wanted

if TYPE_CHECKING:
    from weavemw.dockerapi.container import Container

__all__ = ["Attach", "Decision", "Lease", "LeaveAlone", "NamesFor"]


@dataclass(frozen=True, slots=True)
class Attach:
    """This container is to be on the weave network, with these addresses.

    ``container`` is ``None`` on create, where there is none yet.
    ``image`` is the image's ``Config`` object on create (empty when it has none).
    """

    wanted: tuple[Wanted, ...]
    container: Container | None = None
    image: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LeaveAlone:
    """This container is not ours to touch; ``reason`` completes "leaving container alone because …".

    ``is_surprising`` if it is so for something else than what its creator asked for.
    """

    reason: str
    is_surprising: bool = False


Decision = Attach | LeaveAlone

#: The names by which a container is to be found, as it is when it is attached: it may have got others meanwhile.
NamesFor: TypeAlias = "Callable[[Container], Iterable[str]]"


@dataclass(frozen=True, slots=True)
class Lease:
    """Addresses that a container holds at the router.

    ``fresh`` are those of ``addresses`` that this very request made: they are
    given back when the request fails, the others stay.
    """

    addresses: tuple[IPv4Interface | IPv6Interface, ...]
    fresh: tuple[IPv4Interface | IPv6Interface, ...] = ()
