"""What the watcher does: whatever a container is now, make everything of it as it should be.

Nothing here waits for a container that somebody else is busy with, and nothing
tries again: what fails is raised, and the reasons for which it was tried stay.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from ipaddress import ip_network

from weavemw.attaching import advice
from weavemw.attaching.attachment import Attachment, NotRunning
from weavemw.attaching.hostnames import folded
from weavemw.attaching.policy import CREATED_ELSEWHERE, DETACHED, promised_to, shared_network, why_alone
from weavemw.attaching.reasons import Reason, Reasons
from weavemw.attaching.schedule import Schedule
from weavemw.attaching.tasks import Compare, Death, Inside, Look, Networks, Ping, Settle, Sweep, Task
from weavemw.dockerapi.client import Docker
from weavemw.dockerapi.container import Container
from weavemw.errors import DockerError, RouterError, RouterUnreachable
from weavemw.network.addresses import Interface
from weavemw.network.condition import Fault, attached_owners, is_broken
from weavemw.ops.watcher_state import StateFile

__all__ = ["Settler"]

_log = logging.getLogger(__name__)

#: Seconds from a death to a look at what is left: by then a container with AutoRemove is gone, and needs one look only.
_ENDED_AGO = 0.3


class Settler:
    """Does the tasks of a watcher, and puts what they find to do into its ``schedule``.

    ``reasons`` are those that were heard, ``shown`` is what is told of it; the rest is as for
    :class:`~weavemw.attaching.watcher.Watcher`.
    """

    def __init__(self, *, docker: Docker, attachment: Attachment, names_for: Callable[[Container], tuple[str, ...]],
                 schedule: Schedule[Task], reasons: Reasons, shown: StateFile, default_ipalloc: bool = True) -> None:
        self.docker = docker
        self.attachment = attachment
        self.names_for = names_for
        self.why_alone = partial(why_alone, docker=docker, default_ipalloc=default_ipalloc)
        self.schedule = schedule
        self.reasons = reasons
        self.shown = shown
        self.unseen: set[str] = set()  # found by the look at everything, and not yet worked on
        self.idle: set[str] = set()  # heard to be made, or to have ended, and not of a start since
        self._registered: dict[str, set[str]] = {}  # by that look
        self._names: dict[str, str] = {}
        self._serves_names: bool | None = None
        self._has_names = False
        self._here: set[str] = set()  # who has an interface, on the bridge or not
        self._attached: set[str] = set()  # who was seen attached

    def do(self, task: Task) -> None:
        """Do a task. Raises :class:`~weavemw.attaching.locks.Busy` and any other WeaveError."""
        match task:
            case Settle(container_id):
                self._settle(container_id)
            case Death(container_id):
                self._take_names(container_id)
            case Look():
                self._look()
            case Networks():
                self._look_at_networks()
            case Sweep():
                self._sweep()
            case Compare():
                self._compare()
            case Inside(namespace):
                self._look_inside(namespace)
            case Ping():
                self.docker.ping()

    def heard(self, action: str, container_id: str) -> None:
        """What an event says of a container, by its action."""
        if action in ("create", "die"):
            self.idle.add(container_id)
        elif action in ("start", "destroy"):
            self.idle.discard(container_id)

    def name_of(self, container_id: str) -> str:
        """The container's name when it was looked at last; empty if it never was."""
        return self._names.get(container_id, "")

    # All containers

    def _look(self) -> None:
        """Look at every container that runs; those that have names at the router and don't run; those that are gone."""
        running = self.docker.container_ids()
        with self.shown.changing() as state:
            self.unseen = set(running)
            state.found, state.looked = len(running), 0
        try:
            self._doubt_names_of(running)
        finally:  # without a router this look is repeated; and each container shows why it waits
            for container_id in running:
                self.schedule.put(Settle(container_id))
        self._look_at_what_is_gone(known=self._registered)
        self.schedule.put(Networks())
        self.schedule.put(Sweep())

    def _look_at_networks(self) -> None:
        """Show which of Docker's are in the way of ours, and log it, once as long as it is so."""
        router = self.attachment.router
        ranges = [ip_network(subnet) for subnet in (router.default_subnet(), router.default_subnet6()) if subnet]
        found = list(advice.in_the_way(self.docker.all_networks(), ranges))
        with self.shown.changing() as state:
            new, state.in_the_way = [one for one in found if one not in state.in_the_way], found
        for one in new:
            _log.warning("%s", one)

    def _doubt_names_of(self, running: Iterable[str]) -> None:
        self._registered = self._names_at_the_router()
        for container_id in running:
            self.reasons.add(container_id, Reason.UNSURE)

    def _names_at_the_router(self) -> dict[str, set[str]]:
        names: dict[str, set[str]] = {}
        for row in self.attachment.router.names():
            if not row.get("Tombstone"):
                names.setdefault(str(row["ContainerID"]), set()).add(folded(str(row["Hostname"])))
        return names

    def _look_at_what_is_gone(self, known: Iterable[str] = ()) -> None:
        """At those that are known, and exist no more, or don't run; what is known is listed before what exists."""
        with self.shown.changing() as state:
            shown = {*state.left_alone, *state.pending, *tuple(self._names)}
        existing = set(self.docker.container_ids(everything=True))
        ended = existing.difference(self.docker.container_ids())
        for container_id in (shown - existing) | ended.intersection(known):
            self.schedule.put(Settle(container_id))

    def _sweep(self) -> None:
        self._look_at_what_is_gone()
        swept = self.attachment.sweep()
        self._compare()
        running = (self._here | set(self.attachment.router.owned())).intersection(self.docker.container_ids())
        for container_id in running:
            self._doubt(container_id, Reason.DAMAGED)
        for what, count in asdict(swept).items():
            self.shown.count(f"swept_{what}", count)

    def _compare(self) -> None:
        """See what is off the bridge, and what the router has lost: of all that have an interface, at once."""
        network = self.attachment.network
        found = network.interfaces()
        if found and network.keep_bridge():
            _log.warning("the bridge was gone, or down: it is there again")
        self._here = {one.container_id for one in found} - {""}
        self._attached |= (attached := attached_owners(found))
        for container_id in (self._here | self._attached) - attached:
            self._doubt(container_id, Reason.DAMAGED)
        self._compare_with_router()
        self.attachment.guard_again()

    def _compare_with_router(self) -> None:
        lost = self._here.difference(self.attachment.router.owned())
        had_names, self._has_names = self._has_names, bool(self.attachment.router.names())
        if lost or (had_names and not self._has_names) or self._serves_names_now():
            self._doubt_names_of(self._here)
            for container_id in self._here:
                self._doubt(container_id, Reason.DAMAGED)

    def _look_inside(self, namespace: int) -> None:
        for one in self.attachment.network.interfaces():
            if one.namespace == namespace and one.container_id:
                self._doubt(one.container_id, Reason.DAMAGED)

    def _doubt(self, container_id: str, reason: Reason) -> None:
        self.reasons.add(container_id, reason)
        self.schedule.put(Settle(container_id))

    def _serves_names_now(self) -> bool:
        """Whether the router serves DNS, and did not when this was asked before: who was attached has no name yet."""
        before, self._serves_names = self._serves_names, self.attachment.router.dns_address() is not None
        return self._serves_names and before is False

    # One container

    def _take_names(self, container_id: str) -> None:
        """Let what died not resolve, before it is looked at.

        While Docker starts it again, it doesn't answer for it, and who asked for that holds its lock. Should it run
        by now, its names are registered again: that is known only after they are gone, since a look that is being
        taken would act on it too early.
        """
        try:
            with suppress(RouterError):  # the look meets it again, and is repeated
                self.attachment.router.deregister(container_id)
        finally:
            self.reasons.add(container_id, Reason.DIED)
            self.schedule.put(Settle(container_id), _ENDED_AGO if container_id in self.idle else 0)

    def _settle(self, container_id: str) -> None:
        with self.attachment.lock(container_id, timeout=0), self.reasons.taken(container_id) as reasons:
            container = self._inspect(container_id)
            if container is None:
                self._release(container_id)
            elif not container.is_alive:
                self._detach(container)
            elif container.is_ours:
                self._attach(container, reasons)
            elif held := self._given_by_hand(container):
                self._attach_again(container, held, reasons)
            else:
                self._leave_alone(container)
            self._registered.pop(container_id, None)

    def _inspect(self, container_id: str) -> Container | None:
        try:
            container = self.docker.inspect(container_id)
        except DockerError as error:
            if error.status != 404:
                raise
            return None
        self._names[container_id] = container.name
        return container

    def _release(self, container_id: str) -> None:
        with self._at_the_router(container_id):
            self.attachment.release(container_id)
        self._attached.discard(container_id)
        self.shown.count("released")
        with self.shown.changing() as state:
            state.left_alone.pop(container_id, None)
        self._names.pop(container_id, None)

    def _detach(self, container: Container) -> None:
        with self._at_the_router(container.id):
            self.shown.count("detached", self.attachment.detach(container.id))
        self._attached.discard(container.id)

    @contextmanager
    def _at_the_router(self, container_id: str) -> Iterator[None]:
        """One that was left alone may have nothing at a router that is not there; the sweep will see."""
        try:
            yield
        except RouterUnreachable:
            if container_id not in self.shown.state.left_alone:
                raise

    def _attach(self, container: Container, reasons: Reason) -> None:
        if self.attachment.detached.holds(container):
            self._attached.discard(container.id)
            return self._show_alone(container, DETACHED)
        self._show_alone_no_more(container.id)
        held = self.attachment.reclaim(container) if reasons & (Reason.DAMAGED | Reason.UNSURE) else ()
        wrong = self.attachment.faults(container, held)
        if not wrong and not reasons & ~Reason.DAMAGED:
            self._attached.add(container.id)
            return self.attachment.mend_resolver(container)
        # What is only mended gets nothing new: some of what it was promised may have been taken from it by hand.
        wanted = () if held and not reasons & ~Reason.DAMAGED else promised_to(container)
        lease = self.attachment.allocate(container, wanted, timeout=0)
        names = self._names_of(container)
        with suppress(NotRunning):  # its end has an event of its own
            if not is_broken(wrong) and self._has_old_names(container, names, reasons):
                self.attachment.rename(container.id, lease.addresses, names)
            else:
                self._attached_by(container, self.attachment.attach(container.id, lease.addresses, names), wrong)
        return None

    def _attached_by(self, container: Container, anew: bool, wrong: Sequence[Fault]) -> None:
        """Say what was done: attached for the first time, mended, or nothing."""
        if container.id in self._attached and wrong:
            self.shown.count("mended")
            _log.warning("mended container %s (%s): %s", container.short_id, container.name, "; ".join(map(str, wrong)))
        elif anew:
            self.shown.count("attached")
        self._attached.add(container.id)

    def _names_of(self, container: Container) -> tuple[str, ...]:
        """Its names, which are to be registered now."""
        names = self.names_for(container)
        self._has_names = self._has_names or bool(names)
        return names

    def _has_old_names(self, container: Container, names: Iterable[str], reasons: Reason) -> bool:
        if reasons & (Reason.RENAMED | Reason.CONNECTED):
            return True
        wanted = {folded(name) for name in (*names, *self.attachment.names_by_hand(container.id))}
        return not self._registered.get(container.id, set()) <= wanted

    def _given_by_hand(self, container: Container) -> tuple[Interface, ...]:
        """The addresses of one that is not ours and was attached by hand; the sweep asks again if the router is away.

        What shares its network with others can't have been. One that has an interface was attached, whatever the
        router says.
        """
        if shared_network(container.network_mode):
            return ()
        try:
            if container.id in self._here and not self.attachment.detached.holds(container):
                return self.attachment.reclaim(container)
            return self.attachment.router.addresses(container.id)
        except RouterUnreachable:
            return ()

    def _attach_again(self, container: Container, held: tuple[Interface, ...], reasons: Reason) -> None:
        """After a restart; or give it names, if it has none since DNS was off.

        By hand it may have got other names than its own, so while it is attached they stay.
        """
        self._show_alone_no_more(container.id)
        nameless = Reason.UNSURE in reasons and container.id not in self._registered
        wrong = self.attachment.faults(container, held)
        with suppress(NotRunning):
            if Reason.DIED in reasons or nameless or is_broken(wrong):
                anew = self.attachment.attach(container.id, held, self._names_of(container))
                self._attached_by(container, anew, wrong)
            elif Reason.DAMAGED in reasons and wrong:
                self.attachment.complete(container, held)
                self._attached_by(container, False, wrong)
        self._attached.add(container.id)

    def _leave_alone(self, container: Container) -> None:
        self._attached.discard(container.id)
        self.attachment.restore_names(container.id)
        if container.id in self.shown.state.left_alone:
            return
        reason = self.why_alone(container)
        # Whoever creates a container through the proxy has been told the reason there.
        level = logging.INFO if reason == CREATED_ELSEWHERE else logging.DEBUG
        _log.log(level, "leaving container %s (%s) alone because %s", container.short_id, container.name, reason)
        self._show_alone(container, reason)

    def _show_alone(self, container: Container, reason: str) -> None:
        with self.shown.changing() as state:
            state.left_alone[container.id] = {"name": container.name, "reason": reason}

    def _show_alone_no_more(self, container_id: str) -> None:
        if container_id in self.shown.state.left_alone:
            with self.shown.changing() as state:
                state.left_alone.pop(container_id, None)
