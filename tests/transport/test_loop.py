"""The event loop: sessions can't harm one another."""

from __future__ import annotations

import errno
import select
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from weavemw.transport.loop import Loop


class Echo:
    """Sends back what comes; ``fails`` are the methods in which it fails."""

    def __init__(self, sock: socket.socket, *fails: str) -> None:
        self.sock = sock
        self.sock.setblocking(False)
        self.fails = fails
        self.deadline: float | None = None
        self.over = False
        self.ended: list[str] = []

    def _maybe(self, method: str) -> None:
        if method in self.fails:
            raise OSError(errno.EMFILE, "Too many open files")

    def begin(self, watch: Callable[[socket.socket], None]) -> None:
        self._maybe("begin")
        watch(self.sock)

    def gone(self, fd: int) -> None:
        self.over = True

    def move(self) -> bool:
        self._maybe("move")
        try:
            data = self.sock.recv(1000)
        except BlockingIOError:
            return False
        self.sock.send(data)
        self.over = self.over or not data
        return bool(data)

    def stop(self) -> None:
        self._maybe("stop")
        self.over = True

    def end(self, why: str = "") -> None:
        self.ended.append(why)
        self.sock.close()
        self._maybe("end")


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop("test")
    yield made
    made.stop(0.2)


def add(loop: Loop, *fails: str) -> tuple[Echo, socket.socket]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)
    session = Echo(ours, *fails)
    loop.add(session)
    return session, theirs


def eventually(condition: Callable[[], object]) -> bool:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(condition())


@pytest.mark.parametrize("method", ["begin", "move", "end"])
def test_a_session_that_fails_ends_alone(loop: Loop, method: str) -> None:
    """Wherever it does; the others go on."""
    good, other = add(loop)
    bad, theirs = add(loop, method)
    with theirs, other:
        if method == "end":
            theirs.close()
        assert eventually(lambda: bad.ended)
        other.sendall(b"still here")
        assert other.recv(100) == b"still here"
        assert not good.ended
    assert eventually(lambda: len(loop) == 0)


def test_a_socket_that_can_not_be_watched_ends_its_session(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """No memory for one more, say."""
    _good, other = add(loop)
    with other:
        other.sendall(b"1")
        assert other.recv(1) == b"1"
        real = loop._epoll
        failing = iter([OSError(errno.ENOSPC, "No space left on device")])

        class Epoll:
            def register(self, *arguments: int) -> None:
                for error in failing:
                    raise error
                real.register(*arguments)  # type: ignore[union-attr]

            def poll(self, *arguments: float) -> list[tuple[int, int]]:
                return real.poll(*arguments)  # type: ignore[union-attr]

        monkeypatch.setattr(loop, "_epoll", Epoll())
        bad, theirs = add(loop)
        with theirs:
            assert eventually(lambda: bad.ended)
        other.sendall(b"2")
        assert other.recv(1) == b"2"


def test_what_is_late_ends(loop: Loop) -> None:
    """With the reason."""
    ours, theirs = socket.socketpair()
    session = Echo(ours)
    session.deadline = time.monotonic() + 0.1
    loop.add(session)
    with theirs:
        assert eventually(lambda: session.ended == ["it took too long"])


def test_a_busy_session_does_not_starve_others(loop: Loop) -> None:
    """One that always has more gives the others their turn."""
    busy, theirs = add(loop)
    busy.move = lambda: True  # type: ignore[method-assign]
    _session, other = add(loop)
    with theirs, other:
        theirs.sendall(b"go")
        other.sendall(b"me too")
        assert other.recv(100) == b"me too"
        busy.over, busy.move = True, lambda: False  # type: ignore[method-assign]


def test_stopping_gives_sessions_their_time() -> None:
    """Those that end by themselves are not cut off, those that don't are."""
    loop = Loop("test")
    good, one = add(loop)
    stubborn, two = add(loop, "stop")
    with one, two:
        assert eventually(lambda: len(loop) == 2)
        loop.stop(0.3)
    assert (good.ended, stubborn.ended) == ([""], [""])
    assert not select.select([], [], [], 0)[0]
