"""Which of several threads is the one that polls: as a rule the same, so that they do not get into each other's way.

Only one thread at a time runs Python, and each change of threads costs more than a small request does. So one
*leads*: it polls, and does what there is to do. Another takes the lead only when the first waits for something::

             take                       it says that it is about to wait,
    (ready) ───────► leads: polls, works ── or is at the same thing for _LONG ──► works on, without the lead
       ▲                                                                              │ done
       └──────────────────────────────────────────────────────────────────────────────┘

A *deputy*, one more thread, sees to the second case. It looks at what the leader does every :data:`_LONG`, and sleeps
for good once nothing has been done for a while: an idle server wakes nobody.
"""

from __future__ import annotations

import threading
import time

__all__ = ["Lead"]

#: How long whoever leads may be at one thing, in seconds, before another takes its place.
_LONG = 0.005
#: How often the deputy finds nothing done before it goes to sleep.
_QUIET = 200


class Lead:
    """The lead, which one thread has at a time. All methods are for any thread."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._passing = threading.Lock()
        self._leader = 0
        self._begun = 0
        self._polls = True
        self._asleep = False
        self._alarm = threading.Event()
        self._ended = False

    def take(self) -> None:
        """Wait until this thread is to lead."""
        self._turn.acquire()
        self._leader = threading.get_ident()

    def has(self, thread: int) -> bool:
        """Whether the thread with this identity leads."""
        return self._leader == thread

    def begins(self) -> None:
        """The leader begins to do something: it does not poll meanwhile."""
        self._begun += 1
        self._polls = False
        if self._asleep:
            self._alarm.set()

    def polls(self) -> None:
        """The leader has done everything, and polls."""
        self._polls = True

    def leave(self) -> None:
        """This thread is about to wait for something: if it leads, another is to."""
        self._pass_on(threading.get_ident())

    def watch(self) -> None:
        """Be the deputy, until :meth:`end`."""
        quiet, seen = 0, -1
        while not self._ended:
            time.sleep(_LONG)
            leader, begun = self._leader, self._begun
            quiet = quiet + 1 if begun == seen else 0
            if begun == seen and not self._polls:
                self._pass_on(leader)
            elif quiet > _QUIET:
                self._sleep(begun)
            seen = begun

    def end(self) -> None:
        """Let the deputy end, and whoever waits to lead go on."""
        self._ended = True
        self._alarm.set()
        self._pass_on(self._leader)

    def _sleep(self, begun: int) -> None:
        self._alarm.clear()
        self._asleep = True
        if self._begun == begun:  # else the leader may not have seen that it was to wake us
            self._alarm.wait()
        self._asleep = False

    def _pass_on(self, leader: int) -> None:
        with self._passing:
            if leader and self._leader == leader:
                self._leader = 0
                self._turn.release()
