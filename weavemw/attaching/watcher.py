"""Attaches what no client started through us, and cleans up after what ended: one watcher per host.

Restart policies, a restarted daemon, ``docker start`` past the proxy: the
container waits in the wait program, and its ``start`` event brings us. What an
event says is never acted upon; it is the reason for looking at the container,
and what it is *now* decides. So nothing depends on the order of events, nor on
seeing all of them, and each connection to the daemon begins with a look at
everything. Only the names of what died go at once: looking may have to wait.

What somebody breaks has no event of Docker's: the kernel tells of it, and all is
compared with what it should be every few seconds, each container's inside every minute.

A watcher::

               the lock is free         Docker answers: look at everything
    waiting ────────────────────► away ────────────────────────────────────► following
                                   ▲                                             │
                                   └──── the stream of events ends, or breaks ───┘

Every worker of the proxy has one. The kernel gives the lock to one of them, and
to the next when that one's process ends. Whatever a thread of it dies of is
logged, and the thread begins again: nobody else on the host would do its work.
It writes its state at least every few seconds, so that others see if it hangs.

A task, of which there is one per container, and a few beside (:mod:`weavemw.attaching.tasks`)::

           heard of, found             a thread is free
    (none) ───────────────► due ──────────────────────────► being done ─────► (none)
                            ▲ ▲                              │  │  │
                            │ └─ heard of again meanwhile ───┘  │  └ Busy: somebody starts it; in 0.2 s ─┐
                            ├─── it failed: in 1 s, 1.5 s, … 60 s, or when another succeeds ─┘           │
                            └────────────────────────────────────────────────────────────────────────────┘

It is one task however often it is heard of, so a container that is restarted
over and over costs as much as we can do, and no more. Being done it may become
due again, and is done again afterwards: what was heard meanwhile may be newer
than what was seen. The reasons that a look alone would not find
(:mod:`weavemw.attaching.reasons`) go the same way.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from weavemw.attaching.attachment import Attachment
from weavemw.attaching.locks import Busy
from weavemw.attaching.owners import with_names
from weavemw.attaching.reasons import Reason, Reasons
from weavemw.attaching.schedule import Schedule
from weavemw.attaching.settling import Settler
from weavemw.attaching.tasks import Compare, Death, Inside, Look, Networks, Ping, Settle, Sweep, Task
from weavemw.dockerapi.client import Docker
from weavemw.dockerapi.container import Container
from weavemw.errors import WeaveError
from weavemw.network.plan import Change
from weavemw.ops import files
from weavemw.ops.watcher_state import LOCK_FILE, Pending, State, StateFile

__all__ = ["Watcher"]

_log = logging.getLogger(__name__)

_ACTIONS = ("create", "start", "die", "destroy", "rename")
_BUSY_AGAIN = 0.2
_CONNECTED_AGO = 0.2
_LOCKED_AGAIN = 0.5  # seconds between two looks whether another watcher has ended
_TICK = 0.25
_AFTER_FAILURE = 1.0
_MANY = 100
_CHANGED_AGO = 0.3  # seconds: most of what changes is part of a start or a death, which is over then


class Watcher:
    """Watches one daemon; of all watchers with the same ``run_dir`` only one does, the others wait for its end.

    ``names_for`` gives the names that a container is to resolve by. ``default_ipalloc`` only counts for
    why a container was left alone. Times are in seconds.
    """

    def __init__(self, *, docker: Docker, attachment: Attachment, names_for: Callable[[Container], tuple[str, ...]],
                 run_dir: Path, workers: int = 8, sweep_every: float = 60.0, compare_every: float = 5.0,
                 default_ipalloc: bool = True) -> None:
        self.docker = docker
        self.run_dir = Path(run_dir)
        self.workers = workers
        self.network = attachment.network
        self._regular: dict[Task, float] = {Sweep(): sweep_every, Compare(): compare_every, Ping(): compare_every}
        self._schedule: Schedule[Task] = Schedule()
        self._reasons = Reasons()
        self._shown = StateFile(self.run_dir)
        self._settler = Settler(docker=docker, attachment=attachment, names_for=names_for, schedule=self._schedule,
                                reasons=self._reasons, shown=self._shown, default_ipalloc=default_ipalloc)
        self._failures: dict[Task, Pending] = {}
        self._stopping = threading.Event()
        self._threads: set[str] = set()

    @property
    def state(self) -> State:
        """What it shows."""
        return self._shown.state

    def start(self) -> None:
        """Begin, in threads of their own (never before a fork)."""
        self._begin("weave-watcher", self._wait_and_watch)

    def stop(self) -> None:
        """End soon; attached containers stay attached."""
        self._stopping.set()
        self._schedule.close()

    # One of them watches

    def _begin(self, name: str, work: Callable[[], None]) -> None:
        """Do this in a thread, unless that is being done."""
        if name not in self._threads:
            threading.Thread(target=self._persist, args=(work,), name=name, daemon=True).start()
            self._threads.add(name)

    def _persist(self, work: Callable[[], None]) -> None:
        """Work until that ends by itself, whatever it fails of."""
        while not self._stopping.is_set():
            try:
                return work()
            except BaseException:  # noqa: BLE001  # nobody waits for this thread, who could be told
                _log.exception("%s failed, and begins again", threading.current_thread().name)
                self._stopping.wait(_AFTER_FAILURE)
        return None

    def _wait_and_watch(self) -> None:
        files.directory(self.run_dir)
        while (held := files.lock(self.run_dir / LOCK_FILE)) is None:
            if self._stopping.wait(_LOCKED_AGAIN):
                return
        try:
            self._persist(self._watch)
        finally:
            os.close(held)

    def _watch(self) -> None:
        _log.info("watching containers")
        self._shown.begin()
        for number in range(self.workers):
            self._begin(f"weave-watcher-{number}", self._work)
        self._begin("weave-events", self._read_events)
        self._begin("weave-links", self._hear_of_links)
        self._schedule_sweeps()

    def _schedule_sweeps(self) -> None:
        """Do the regular tasks, and keep the state file as the state is, until the end."""
        done = dict.fromkeys(self._regular, time.monotonic())
        while not self._stopping.wait(_TICK):
            self._show_work()
            self._shown.write()
            for task, last in list(done.items()):
                if time.monotonic() - last > self._regular[task]:
                    done[task] = time.monotonic()
                    self._put_regular(task)
        self._shown.write()

    def _put_regular(self, task: Task) -> None:
        """One that failed has its own time."""
        if task not in self._failures:
            self._schedule.put(task)

    def _show_work(self) -> None:
        tasks = self._schedule.tasks()
        working = sorted(task.container_id for task in tasks
                         if isinstance(task, Settle) and task not in self._failures)
        if working != self.state.at_work:
            with self._shown.changing() as state:
                state.at_work = working

    # Changes of interfaces

    def _hear_of_links(self) -> None:
        with self.network.changes() as changes:
            for change in changes:
                if self._stopping.is_set():
                    return
                if change:
                    self._schedule.put(_look_for(change), _CHANGED_AGO)

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
        self._settler.idle.clear()  # a start may have been missed
        with self._shown.changing() as state:
            state.connected, state.error = True, ""
            state.counters["connections"] += 1
        self._schedule.put(Look())
        last = min(since or before, before)
        for event in self.docker.events(last):
            last = max(last, self._understood(event))
            if self._stopping.is_set():
                break
        return last

    def _understood(self, event: Mapping[str, Any]) -> float:
        """Act on an event; gives its time. One that makes no sense is passed over: it would come again for ever."""
        try:
            self._heard(event)
            return float(event.get("timeNano") or 0) / 1e9 or float(event.get("time") or 0)
        except (TypeError, ValueError, AttributeError):
            _log.exception("an event of Docker's was not understood")
            return 0.0

    def _disconnected(self, error: str, failures: int) -> None:
        if failures == 1:
            _log.warning("not connected to Docker: %s", error)
        with self._shown.changing() as state:
            state.connected, state.error = False, error

    def _heard(self, event: Mapping[str, Any]) -> None:
        action = str(event.get("Action") or event.get("status") or "")
        actor = event.get("Actor") or {}
        if event.get("Type") == "network":
            self._heard_of_network(action, str((actor.get("Attributes") or {}).get("container") or ""))
        elif action in _ACTIONS and (container_id := str(actor.get("ID") or event.get("id") or "")):
            self._heard_of_container(action, container_id)

    def _heard_of_container(self, action: str, container_id: str) -> None:
        if action == "start":  # it comes after its connects, and whoever attaches it then sees these
            self._reasons.withdraw(container_id, Reason.CONNECTED)
        if action == "rename":
            self._reasons.add(container_id, Reason.RENAMED)
        self._settler.heard(action, container_id)
        if action != "create":
            self._schedule.put(Death(container_id) if action == "die" else Settle(container_id))

    def _heard_of_network(self, action: str, container_id: str) -> None:
        """What is connected has other aliases. As part of a start or a death it needs no look: these bring one."""
        if action in ("create", "destroy"):
            self._schedule.put(Networks())
        if action in ("connect", "disconnect") and container_id and container_id not in self._settler.idle:
            self._reasons.add(container_id, Reason.CONNECTED)
            self._schedule.put(Settle(container_id), _CONNECTED_AGO)

    # Work: whatever the state of a container is, make it as it should be

    def _work(self) -> None:
        while (task := self._schedule.take()) is not None:
            try:
                self._try(task)
            except BaseException as error:  # noqa: BLE001  # the other containers need this thread
                _log.exception("%s: this should not happen", self._name_of(task))
                self._failed(task, repr(error))
            finally:
                self._schedule.done(task)
                self._looked_at(task)

    def _try(self, task: Task) -> None:
        try:
            self._settler.do(task)
        except Busy:
            self._schedule.put(task, _BUSY_AGAIN)
        except WeaveError as error:
            self._failed(task, with_names(error.message, self.docker))
        else:
            self._succeeded(task)

    def _looked_at(self, task: Task) -> None:
        """A line in the log for each hundred: after a reboot there may be a thousand to attach."""
        unseen = self._settler.unseen
        if not isinstance(task, Settle) or task.container_id not in unseen:
            return
        with self._shown.changing() as state:
            unseen.discard(task.container_id)
            state.looked += 1
            looked, found = state.looked, state.found
        if found >= _MANY and (looked % _MANY == 0 or looked == found):
            _log.info("looked at %d of %d containers", looked, found)

    def _failed(self, task: Task, error: str) -> None:
        with self._shown.changing() as state:
            pending = Pending(self._settler.name_of(task.container_id) if isinstance(task, Settle) else "", error)
            if before := self._failures.get(task):
                pending.attempts, pending.since = before.attempts + 1, before.since
            self._failures[task] = pending
            _show(state, task, pending)
            state.counters["retries"] += 1
        _log.warning("%s: %s; next attempt in %.0f s", self._name_of(task), error, pending.delay)
        self._schedule.put(task, pending.delay)

    def _succeeded(self, task: Task) -> None:
        with self._shown.changing() as state:
            if self._failures.pop(task, None) is None:
                return
            _show(state, task, None)
            others = tuple(self._failures)
        for other in others:  # whatever it was, it may be over for them too
            self._schedule.put(other)

    def _name_of(self, task: Task) -> str:
        """A task as a person knows it."""
        name = self._settler.name_of(task.container_id) if isinstance(task, Settle | Death) else ""
        return f"{task} ({name})" if name else str(task)


def _look_for(change: Change) -> Task:
    if change.is_gap:
        return Sweep()
    return Compare() if change.namespace is None else Inside(change.namespace)


def _show(state: State, task: Task, pending: Pending | None) -> None:
    """Say that the task waits for another attempt, or no more."""
    rows, key = (state.pending, task.container_id) if isinstance(task, Settle) else (state.failing, str(task))
    if pending is None:
        rows.pop(key, None)
    else:
        rows[key] = pending

