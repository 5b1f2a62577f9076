"""One event loop in a thread of its own, for connections that must not cost a thread: streams, and TLS sessions.

What goes on in a session is the session's own affair (:class:`Session`); the
loop gives turns, keeps time, and sees to it that sessions can't harm one another::

                 add                    there may be more at once
    (accepted) ───────► watched ◄──────────────────────────────┐
                           │  an event, or its turn             │
                           ▼                                    │
                         move ─────────────────────────────► busy
                           │  over, late, failed
                           ▼
                         ended: its sockets are closed

* A session that fails, of whatever (no descriptor left for ``connect``, no
  memory for ``register``), ends alone, and that is logged.
* Events come edge-triggered: a session moves until nothing more can be moved,
  but only so much at a time (*busy*), so that a fast one does not starve the others.
* Sessions with a ``deadline`` are looked at four times a second.
"""

from __future__ import annotations

import atexit
import logging
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

__all__ = ["Loop", "Session"]

_log = logging.getLogger(__name__)

_EVENTS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_GONE = select.EPOLLHUP | select.EPOLLERR
#: How often deadlines are looked at, in seconds.
_TICK = 0.25
#: How long sessions may take to end when the process exits, in seconds.
_GRACE = 2.0

Watch = Callable[[socket.socket], None]


class Session(Protocol):
    """What a loop carries. All methods are called in the loop's thread.

    ``deadline`` is when it is late, by :func:`time.monotonic`; ``None`` if it has all the time there is.
    """

    deadline: float | None

    def begin(self, watch: Watch) -> None:
        """Have its sockets watched, now or later: ``watch`` is to be called with each."""

    def gone(self, fd: int) -> None:
        """The peer of the socket with this descriptor is gone, in both directions."""

    def move(self) -> bool:
        """Move what can be moved now; True if there may be more at once, after others had their turn."""

    @property
    def over(self) -> bool:
        """Whether nothing more can come through."""

    def stop(self) -> None:
        """The process is to end: come to an end soon, in good order."""

    def end(self, why: str = "") -> None:
        """Close everything; ``why`` it had to end early, if it had to."""


class Loop:
    """The loop; its thread starts with the first session, and is called ``name``. Thread-safe but where it says so."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._new: deque[Session] = deque()
        self._sessions: dict[Session, list[int]] = {}
        self._by_fd: dict[int, Session] = {}
        self._timed: set[Session] = set()
        self._busy: deque[Session] = deque()
        self._lock = threading.Lock()
        self._epoll: select.epoll | None = None
        self._wake = -1
        self._thread: threading.Thread | None = None
        self._stop_by: float | None = None
        self._stopping = False

    def __len__(self) -> int:
        """The number of sessions that are open."""
        return len(self._sessions) + len(self._new)

    def add(self, session: Session) -> None:
        """Take over a session; its sockets are the loop's from now on."""
        self._start()
        self._new.append(session)
        os.eventfd_write(self._wake, 1)

    def stop(self, timeout: float) -> None:
        """End all sessions: they have ``timeout`` seconds to come to an end in their own way."""
        with self._lock:
            thread, self._stop_by = self._thread, time.monotonic() + timeout
        if thread:
            os.eventfd_write(self._wake, 1)
            thread.join()
            atexit.unregister(self.stop)

    def _start(self) -> None:
        with self._lock:
            if self._thread:
                return
            self._epoll = select.epoll()
            self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._epoll.register(self._wake, select.EPOLLIN)
            self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
            self._thread.start()
            atexit.register(self.stop, _GRACE)

    def _run(self) -> None:
        assert self._epoll is not None  # made before this thread
        while not self._is_over():
            # What a session hears of its sockets at one time is one turn.
            for session in {self._heard(fd, event): None for fd, event in self._epoll.poll(self._timeout())}:
                if session:
                    self._advance(session)
            self._take_new()
            for _ in range(len(self._busy)):
                self._advance(self._busy.popleft())
            self._end_late()
            if self._stop_by is not None and not self._stopping:
                self._stopping = True
                self._tell_all_to_stop()
        for session in list(self._sessions):
            self._end(session)

    def _is_over(self) -> bool:
        return self._stop_by is not None and self._stopping and (
            not self._sessions or time.monotonic() > self._stop_by)

    def _timeout(self) -> float | None:
        if self._busy:
            return 0
        return _TICK if self._timed or self._stop_by is not None else None

    def _heard(self, fd: int, event: int) -> Session | None:
        """Who has to move because of an event."""
        if fd == self._wake:
            os.eventfd_read(self._wake)
        session = self._by_fd.get(fd)
        if session and event & _GONE:
            self._did(session, lambda: session.gone(fd))
        return session

    def _take_new(self) -> None:
        while self._new:
            session = self._new.popleft()
            self._sessions[session] = []
            if self._did(session, lambda session=session: session.begin(  # type: ignore[misc]
                    lambda sock: self._watch(sock, session))):
                self._advance(session)

    def _watch(self, sock: socket.socket, session: Session) -> None:
        assert self._epoll is not None
        fd = sock.fileno()
        self._epoll.register(fd, _EVENTS)
        self._by_fd[fd] = session
        self._sessions[session].append(fd)

    def _advance(self, session: Session) -> None:
        if session not in self._sessions:
            return  # it ended while it waited for its turn
        if not self._did(session, lambda: self._move(session)):
            return
        if session.deadline is None:
            self._timed.discard(session)
        else:
            self._timed.add(session)

    def _move(self, session: Session) -> None:
        if session.move():
            self._busy.append(session)
        elif session.over:
            self._end(session)

    def _did(self, session: Session, step: Callable[[], None]) -> bool:
        """Whether the session is still there after a step; one that fails ends alone, of whatever it failed."""
        try:
            step()
        except Exception:  # noqa: BLE001  # the others need this thread
            _log.exception("%s: a connection is closed early", self.name)
            self._end(session)
        return session in self._sessions

    def _end_late(self) -> None:
        if self._timed:
            now = time.monotonic()
            for session in [each for each in self._timed if each.deadline is not None and now > each.deadline]:
                self._end(session, "it took too long")

    def _tell_all_to_stop(self) -> None:
        for session in list(self._sessions):
            if self._did(session, session.stop):
                self._advance(session)

    def _end(self, session: Session, why: str = "") -> None:
        for fd in self._sessions.pop(session):
            self._by_fd.pop(fd, None)
        self._timed.discard(session)
        try:
            session.end(why)
        except Exception:  # noqa: BLE001  # as above: it is out of the loop already
            _log.exception("%s: closing a connection failed", self.name)
