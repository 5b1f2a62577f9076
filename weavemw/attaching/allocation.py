"""Addresses for a container, from the router: what it asks for, within a time, or nothing.

An address belongs to a container while that exists, and either runs or nobody
else claims that very address. So only what was allocated for a container that
has never run is given back when its start fails.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

from weavemw.attaching.decision import Lease
from weavemw.dockerapi.container import Container
from weavemw.errors import ClientGone, RouterBusy, RouterError, RouterUnreachable
from weavemw.network.addresses import Claim, Interface, Subnet, Wanted
from weavemw.router.client import Router

__all__ = ["allocate", "give_back", "has_run", "owner_of", "still_there"]

_log = logging.getLogger(__name__)
T = TypeVar("T")

_GRACE = 3.0  # seconds in which a router that was restarted is back
_STEP = 0.2


def still_there() -> bool:
    """The answer of a client about which nothing is known: it has not gone."""
    return False


def taken_from_nobody(owner: str, address: Interface) -> bool:
    """The answer of who takes no address from others."""
    return False


def has_run(container: Container) -> bool:
    """Whether it was ever started (before, StartedAt is Go's zero time)."""
    return bool(container.started_at) and not container.started_at.startswith("0001-")


def never_ran(container: Container) -> bool:
    """Whether it was never started, as far as this is known."""
    return not has_run(container)


def allocate(router: Router, container: Container, wanted: Iterable[Wanted], *, timeout: float,
             client_gone: Callable[[], bool] = still_there,
             never_ran: Callable[[Container], bool] = never_ran,
             take_over: Callable[[str, Interface], bool] = taken_from_nobody) -> Lease:
    """Everything that is wanted, in that order, and what the container holds besides; asked again: the same.

    A router that can't make up its mind (its peers have not agreed) has
    ``timeout`` seconds, one that can't be reached a few. Raises
    :class:`~weavemw.errors.RouterError` with the reason, and
    :class:`~weavemw.errors.ClientGone`; then nothing new is held. What others made of the container meanwhile is
    what ``never_ran`` says then. ``take_over`` is asked to take a claimed address from its owner, and says whether
    it did.
    """
    ask = partial(_patiently, container=container, deadline=time.monotonic() + timeout, client_gone=client_gone)
    try:
        addresses = [address for one in wanted for address in ask(partial(_each, router, container.id, one, take_over))]
        if has_run(container):
            addresses += ask(partial(router.addresses, container.id))
    except BaseException:
        if never_ran(container):
            give_back(router, container.id)
        raise
    found = tuple(dict.fromkeys(addresses))
    return Lease(found, fresh=() if has_run(container) else found)


def give_back(router: Router, container_id: str, addresses: Iterable[Interface] | None = None) -> None:
    """Give back addresses, or all; if the router refuses, that is logged, since something else failed before."""
    try:
        for address in (None,) if addresses is None else addresses:
            router.release(container_id, address)
    except RouterError as error:
        _log.warning("container %s: its addresses stay at the router: %s", container_id[:12], error)


def owner_of(router: Router, address: Interface) -> str:
    """Who holds the address at this router; empty if nobody does."""
    holds = (owner for owner, held in router.owned().items() if any(one.ip == address.ip for one in held))
    return next(holds, "")


def _each(router: Router, container_id: str, wanted: Wanted,
          take_over: Callable[[str, Interface], bool]) -> tuple[Interface, ...]:
    """The addresses for one thing that is wanted: by default, one of each family that the router has a range of."""
    if isinstance(wanted, Claim):
        _claim(router, container_id, wanted.interface, take_over)
        return (wanted.interface,)
    if isinstance(wanted, Subnet):
        return (router.allocate(container_id, str(wanted.network)),)
    subnet6 = router.default_subnet6()
    first = router.allocate(container_id)
    return (first, router.allocate(container_id, subnet6)) if subnet6 else (first,)


def _claim(router: Router, container_id: str, address: Interface,
           take_over: Callable[[str, Interface], bool]) -> None:
    try:
        router.claim(container_id, address)
    except RouterUnreachable:
        raise
    except RouterError:
        owner = owner_of(router, address)
        if not owner or owner == container_id or not take_over(owner, address):
            raise
        router.claim(container_id, address)  # unless another was quicker: then that one has it


def _patiently(question: Callable[[], T], *, container: Container, deadline: float,
               client_gone: Callable[[], bool]) -> T:
    """The answer, asked for again and again while waiting makes sense and somebody waits for it."""
    reachable_until = min(deadline, time.monotonic() + _GRACE)
    while True:
        try:
            return question()
        except RouterBusy as error:
            reachable_until = deadline
            _give_up_after(deadline, error, container)
        except RouterUnreachable as error:
            _give_up_after(reachable_until, error, container)
        if client_gone():
            raise ClientGone(f"the client went away while container {container.title} waited for an address")
        time.sleep(_STEP)


def _give_up_after(deadline: float, error: RouterUnreachable, container: Container) -> None:
    if time.monotonic() + _STEP > deadline:
        raise type(error)(f"no address for container {container.title}: {error}") from error
    _log.info("container %s waits for an address: %s", container.short_id, error)
