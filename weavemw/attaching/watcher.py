"""Attaches what no client started through us, and cleans up after what ended: one watcher per host.

Restart policies, a restarted daemon, ``docker start`` past the proxy: the
container waits in the wait program, and its ``start`` event brings us. What an
event says is never acted upon; it is the reason for looking at the container,
and what it is *now* decides. So nothing depends on the order of events, nor on
seeing all of them, and each connection to the daemon begins with a look at
everything. Only the names of what died go at once: looking may have to wait.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from weavemw.attaching.attachment import Attachment, NotRunning
from weavemw.attaching.hostnames import folded
from weavemw.attaching.locks import Busy
from weavemw.attaching.policy import CREATED_ELSEWHERE, promised_to, shared_network, why_alone
from weavemw.attaching.schedule import Schedule
from weavemw.dockerapi.client import Docker
from weavemw.dockerapi.container import Container
from weavemw.errors import DockerError, RouterError, RouterUnreachable, WeaveError
from weavemw.network.addresses import Interface
from weavemw.ops.watcher_state import STATE_FILE, Pending, State, read_state

__all__ = ["Watcher"]

_log = logging.getLogger(__name__)

_ACTIONS = ("start", "die", "destroy", "rename")
_BUSY_AGAIN = 0.2
_CONNECTED_AGO = 0.2
_MANY = 100
_LOOK, _SWEEP = "all containers", "orphans"  # keys beside the containers' ids
_DEATH = "death of "  # before an id: may be worked on while somebody waits for Docker to answer for that id


class Watcher:
    """Watches one daemon; of all watchers with the same ``run_dir`` only one does, the others wait for its end.

    ``names_for`` gives the names that a container is to resolve by. ``default_ipalloc`` only counts for
    why a container was left alone. Times are in seconds.
    """

    def __init__(self, *, docker: Docker, attachment: Attachment, names_for: Callable[[Container], tuple[str, ...]],
                 run_dir: Path, workers: int = 8, sweep_every: float = 60.0, default_ipalloc: bool = True) -> None:
        self.docker = docker
        self.attachment = attachment
        self.names_for = names_for
        self.why_alone = partial(why_alone, docker=docker, default_ipalloc=default_ipalloc)
        self.run_dir = Path(run_dir)
        self.workers = workers
        self.sweep_every = sweep_every
        self.state = State()
        self._schedule = Schedule()
        self._unnamed: set[str] = set()  # running, but it's not known whether their names are registered
        self._renamed: set[str] = set()
        self._connected_to: set[str] = set()  # or disconnected from some network
        self._taken: set[str] = set()  # their names were taken away, since they died
        self._registered: dict[str, set[str]] = {}
        self._names: dict[str, str] = {}
        self._unseen: set[str] = set()  # found by the look at everything, and not yet worked on
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._changed = True
        self._thread = threading.Thread(target=self._wait_and_watch, name="weave-watcher", daemon=True)

    def start(self) -> None:
        """Begin, in threads of their own (never before a fork)."""
        self._thread.start()

    def stop(self) -> None:
        """End soon; attached containers stay attached."""
        self._stopping.set()
        self._schedule.close()

    # One of them watches

    def _wait_and_watch(self) -> None:
        self.run_dir.mkdir(parents=True, exist_ok=True)
        with (self.run_dir / "watcher.lock").open("w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self._stopping.is_set():
                self._watch()

    def _watch(self) -> None:
        _log.info("watching containers")
        self.state.since = time.time()
        if before := read_state(self.run_dir):  # sums go on: they don't end with a process
            self.state.counters.update(before.counters)
        for number in range(self.workers):
            threading.Thread(target=self._work, name=f"weave-watcher-{number}", daemon=True).start()
        threading.Thread(target=self._read_events, name="weave-events", daemon=True).start()
        self._schedule_sweeps()

    def _schedule_sweeps(self) -> None:
        """Sweep now and then, and keep the state file as the state is, until the end."""
        swept = time.monotonic()
        while not self._stopping.wait(0.25):
            self._write_state()
            if time.monotonic() - swept > self.sweep_every:
                swept = time.monotonic()
                self._schedule.put(_SWEEP)
        self._write_state()

    # Events: only read here, so that the daemon never waits for us

    def _read_events(self) -> None:
        since: float | None = None
        failures = 0
        while not self._stopping.is_set():
            try:
                since = self._connected(since)
                failures = 0
            except WeaveError as error:
                failures += 1
                self._disconnected(str(error), failures)
            except Exception as error:  # noqa: BLE001  # without events there is no watcher: whatever it was, go on
                failures += 1
                _log.exception("reading Docker's events failed")
                self._disconnected(repr(error), failures)
            self._stopping.wait(min(5.0, 0.2 * 1.5 ** min(failures, 20)))

    def _connected(self, since: float | None) -> float:
        """Look at everything, then follow events from before that look; returns when the last one happened."""
        before = time.time()
        self.docker.container_ids()
        with self._changing() as state:
            state.connected, state.error = True, ""
            state.counters["connections"] += 1
        self._schedule.put(_LOOK)
        last = min(since or before, before)
        for event in self.docker.events(last):
            last = max(last, _time_of(event))
            self._heard(event)
            if self._stopping.is_set():
                break
        return last

    def _disconnected(self, error: str, failures: int) -> None:
        if failures == 1:
            _log.warning("not connected to Docker: %s", error)
        with self._changing() as state:
            state.connected, state.error = False, error

    def _heard(self, event: Mapping[str, Any]) -> None:
        action = str(event.get("Action") or event.get("status") or "")
        actor = event.get("Actor") or {}
        if event.get("Type") == "network":
            self._heard_of_network(action, str((actor.get("Attributes") or {}).get("container") or ""))
        elif action in _ACTIONS and (container_id := str(actor.get("ID") or event.get("id") or "")):
            self._connected_to.discard(container_id)  # a start comes after its connects, and names it anyway
            if action == "rename":
                self._renamed.add(container_id)
            self._schedule.put(_DEATH + container_id if action == "die" else container_id)

    def _heard_of_network(self, action: str, container_id: str) -> None:
        """What is connected has other aliases. As part of a start or a death it needs no look, and that comes soon."""
        if action in ("connect", "disconnect") and container_id:
            self._connected_to.add(container_id)
            self._schedule.put(container_id, _CONNECTED_AGO)

    # Work: whatever the state of a container is, make it as it should be

    def _work(self) -> None:
        while (key := self._schedule.take()) is not None:
            try:
                self._try(key)
            except Exception as error:  # noqa: BLE001  # the other containers need this thread
                _log.exception("container %s: this should not happen", key[:12])
                self._failed(key, repr(error))
            finally:
                self._schedule.done(key)
                self._looked_at(key)

    def _try(self, key: str) -> None:
        try:
            self._work_on(key)
        except Busy:
            self._schedule.put(key, _BUSY_AGAIN)
        except WeaveError as error:
            self._failed(key, str(error))
        else:
            self._settled(key)

    def _work_on(self, key: str) -> None:
        if key.startswith(_DEATH):
            self._take_names(key.removeprefix(_DEATH))
        else:
            {_LOOK: self._look, _SWEEP: self._sweep}.get(key, lambda: self._settle(key))()

    def _look(self) -> None:
        """Look at every container that runs; remember which names are registered, since some changed unseen."""
        running = self.docker.container_ids()
        self._unnamed.update(running)
        with self._changing() as state:
            self._unseen = set(running)
            state.found, state.looked = len(running), 0
        self._schedule.put(_SWEEP)
        for container_id in running:
            self._schedule.put(container_id)
        registered: dict[str, set[str]] = {}
        for row in self.attachment.router.names():
            registered.setdefault(str(row["ContainerID"]), set()).add(folded(str(row["Hostname"])))
        self._registered = registered
        ended = set(self.docker.container_ids(everything=True)).difference(running)
        for container_id in ended.intersection(registered):
            self._schedule.put(container_id)

    def _looked_at(self, key: str) -> None:
        """A line in the log for each hundred: after a reboot there may be a thousand to attach."""
        with self._lock:
            if key not in self._unseen:
                return
            self._unseen.discard(key)
            self.state.looked += 1
            self._changed = True
            looked, found = self.state.looked, self.state.found
        if found >= _MANY and (looked % _MANY == 0 or looked == found):
            _log.info("looked at %d of %d containers", looked, found)

    def _sweep(self) -> None:
        swept = self.attachment.sweep()
        for container_id in set(self.attachment.router.owned()).intersection(self.docker.container_ids()):
            self._schedule.put(container_id)
        with self._changing() as state:
            for what, count in asdict(swept).items():
                state.counters[f"swept_{what}"] += count

    def _settle(self, container_id: str) -> None:
        with self.attachment.lock(container_id, timeout=0):
            container = self._inspect(container_id)
            if container is None:
                self._release(container_id)
            elif not container.is_alive:
                self._detach(container)
            elif container.is_ours:
                self._attach(container)
            elif held := self._given_by_hand(container):
                self._attach_again(container, held)
            else:
                self._leave_alone(container)

    def _take_names(self, container_id: str) -> None:
        """Let what died not resolve, before it is looked at.

        While Docker starts it again, it doesn't answer for it, and who asked for that holds its lock. Should it run
        by now, its names are registered again.
        """
        self._taken.add(container_id)
        with contextlib.suppress(RouterError):  # the look meets it again, and is repeated
            self.attachment.router.deregister(container_id)
        self._schedule.put(container_id)

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
        self._count("released")
        with self._changing() as state:
            state.left_alone.pop(container_id, None)
            self._names.pop(container_id, None)
        self._named(container_id)

    def _detach(self, container: Container) -> None:
        with self._at_the_router(container.id):
            self._count("detached", self.attachment.detach(container.id))
        self._named(container.id)

    @contextmanager
    def _at_the_router(self, container_id: str) -> Iterator[None]:
        """One that was left alone may have nothing at a router that is not there; the sweep will see."""
        try:
            yield
        except RouterUnreachable:
            if container_id not in self.state.left_alone:
                raise

    def _attach(self, container: Container) -> None:
        attached = self.attachment.is_attached(container)
        if attached and not self._needs_names(container.id):
            return
        lease = self.attachment.allocate(container, promised_to(container), timeout=0)
        names = self.names_for(container)
        with contextlib.suppress(NotRunning):  # its end has an event of its own
            if attached and self._has_old_names(container, names):
                self.attachment.rename(container.id, lease.addresses, names)
            elif self.attachment.attach(container.id, lease.addresses, names):
                self._count("attached")
        self._named(container.id)

    def _needs_names(self, container_id: str) -> bool:
        return any(container_id in each for each in (self._unnamed, self._renamed, self._connected_to, self._taken))

    def _named(self, container_id: str) -> None:
        """Its names are as they should be."""
        for each in (self._unnamed, self._renamed, self._connected_to, self._taken):
            each.discard(container_id)

    def _has_old_names(self, container: Container, names: Iterable[str]) -> bool:
        before = self._registered.pop(container.id, set())
        if container.id in self._renamed | self._connected_to:
            return True
        return not before <= {folded(name) for name in (*names, *self.attachment.names_by_hand(container.id))}

    def _given_by_hand(self, container: Container) -> tuple[Interface, ...]:
        """The addresses of one that is not ours and was attached by hand; the sweep asks again if the router is away.

        What shares its network with others can't have been.
        """
        if shared_network(container.network_mode):
            return ()
        try:
            return self.attachment.router.addresses(container.id)
        except RouterUnreachable:
            return ()

    def _attach_again(self, container: Container, held: tuple[Interface, ...]) -> None:
        """After a restart; by hand one may have other names than its own, so while it is attached they stay."""
        with self._changing() as state:
            state.left_alone.pop(container.id, None)
        with contextlib.suppress(NotRunning):
            if container.id in self._taken or not self.attachment.is_attached(container):
                self._count("attached", self.attachment.attach(container.id, held, self.names_for(container)))
        self._named(container.id)

    def _leave_alone(self, container: Container) -> None:
        self.attachment.restore_names(container.id)
        if container.id in self.state.left_alone:
            return
        reason = self.why_alone(container)
        # Whoever creates a container through the proxy has been told the reason there.
        level = logging.INFO if reason == CREATED_ELSEWHERE else logging.DEBUG
        _log.log(level, "leaving container %s (%s) alone because %s", container.short_id, container.name, reason)
        with self._changing() as state:
            state.left_alone[container.id] = {"name": container.name, "reason": reason}

    # What went wrong, and what is shown

    def _failed(self, key: str, error: str) -> None:
        with self._changing() as state:
            before = state.pending.get(key)
            pending = Pending(self._names.get(key, ""), error)
            if before is not None:
                pending.attempts, pending.since = before.attempts + 1, before.since
            state.pending[key] = pending
            state.counters["retries"] += 1
        _log.warning("%s: %s; next attempt in %.0f s", key[:12], error, pending.delay)
        self._schedule.put(key, pending.delay)

    def _settled(self, key: str) -> None:
        if key in self.state.pending:
            with self._changing() as state:
                state.pending.pop(key, None)
                others = tuple(state.pending)
            for other in others:  # whatever it was, it may be over for them too
                self._schedule.put(other)

    def _count(self, counter: str, count: int = 1) -> None:
        with self._changing() as state:
            state.counters[counter] += count

    @contextmanager
    def _changing(self) -> Iterator[State]:
        with self._lock:
            yield self.state
            self._changed = True

    def _write_state(self) -> None:
        with self._lock:
            if not self._changed:
                return
            text, self._changed = json.dumps(asdict(self.state), indent=1), False
        temporary = self.run_dir / f"{STATE_FILE}.{os.getpid()}"
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(self.run_dir / STATE_FILE)
        except OSError as error:
            _log.warning("can't write the watcher's state: %s", error)


def _time_of(event: Mapping[str, Any]) -> float:
    return float(event.get("timeNano") or 0) / 1e9 or float(event.get("time") or 0)
