"""The relay: one event loop per process that owns hijacked and streaming connections.

A stream is a client's connection and the daemon's connection that answers it,
joined byte for byte in both directions; each direction ends on its own (half-close).
What is in a stream was decided before it came here: the request's head is on its
way to the daemon, and either it asked the daemon to close after this one response,
or the daemon's answer says that its connection is HTTP no more. So nothing after the
response can reach the daemon as a request, and nothing is parsed here but the
response's head: where that is no HTTP, the client is answered 502 in its place.

Bytes are copied by the kernel, ``splice(2)`` by way of a pipe. A pipe is only lent
to a direction while there is something in it, so a quiet stream costs its two
sockets and a few small objects, and no thread.

Streams end with their process: when it is told to stop, each daemon's response is
given a moment to end in its own way. A WSGI server that reloads (gunicorn on
SIGHUP) starts new processes for what comes, and stops the old ones in the same way.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import logging
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable

from weavemw.ops.tally import REQUESTS, STREAM_BYTES, STREAMS, STREAMS_ENDED, Tally
from weavemw.transport.http1 import HeadReader, ProtocolError, bad_gateway, decoder_for

__all__ = ["Relay", "Stream"]

_log = logging.getLogger(__name__)

_READ_WRITE = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_GONE = select.EPOLLHUP | select.EPOLLERR
_BLOCK = 65536
_PIPE_SIZE = 1 << 20
_IDLE_PIPES = 16
_BROKEN = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTUNREACH)
#: How much one direction may move before the others get their turn, in bytes.
_TURN = 4 << 20
#: How long a client may take to read the end of its response, in seconds (RFC 9112 section 9.6).
_LINGER = 2.0
#: How long responses may take to end when the process exits, in seconds.
_GRACE = 2.0

Pipe = tuple[int, int]


class Pipes:
    """Pipes to lend; made when needed, kept when returned empty."""

    def __init__(self) -> None:
        self._idle: list[Pipe] = []

    def borrow(self) -> Pipe:
        """A pipe with nothing in it."""
        if self._idle:
            return self._idle.pop()
        pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # Refused to users above their pipe quota (pipe(7)): the default size works as well.
        with contextlib.suppress(PermissionError):
            fcntl.fcntl(pipe[0], fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        return pipe

    def give_back(self, pipe: Pipe) -> None:
        """Take an empty pipe back."""
        if len(self._idle) < _IDLE_PIPES:
            self._idle.append(pipe)
        else:
            self.discard(pipe)

    @staticmethod
    def discard(pipe: Pipe) -> None:
        """Close a pipe, whatever is in it."""
        for fd in pipe:
            os.close(fd)

    def close(self) -> None:
        """Close all idle pipes."""
        while self._idle:
            self.discard(self._idle.pop())


class Flow:
    """One direction of a stream: from ``source`` to ``sink`` until the source ends."""

    __slots__ = ("_in_pipe", "_pipe", "_prefix", "done", "ended", "moved", "sink", "source")

    def __init__(self, source: socket.socket, sink: socket.socket, prefix: bytes = b"") -> None:
        self.source = source
        self.sink = sink
        self.ended = False
        self.done = False
        self.moved = 0
        self._prefix = prefix
        self._pipe: Pipe | None = None
        self._in_pipe = 0

    def move(self, pipes: Pipes) -> bool:
        """Move what can be moved now; True if there may be more at once, after others had their turn."""
        turn = self.moved + _TURN
        try:
            while self.moved < turn and not self.done:
                self.moved += self._step(pipes)
        except BlockingIOError:
            return False
        return not self.done

    def begin_with(self, data: bytes, *, ended: bool = False) -> None:
        """Move this first: it was read of the source, and is all of it if that has ``ended``."""
        self._prefix = data
        self.ended = ended

    def _step(self, pipes: Pipes) -> int:
        if self._prefix:
            return self._send_prefix()
        if self._in_pipe:
            return self._empty_pipe(pipes)
        if self.ended:
            self.finish()
            return 0
        self._fill_pipe(pipes)
        return 0

    def _send_prefix(self) -> int:
        sent = self.sink.send(self._prefix)
        self._prefix = self._prefix[sent:]
        return sent

    def _fill_pipe(self, pipes: Pipes) -> None:
        self._pipe = self._pipe or pipes.borrow()
        try:
            self._in_pipe = os.splice(self.source.fileno(), self._pipe[1], _PIPE_SIZE, flags=os.SPLICE_F_NONBLOCK)
        finally:
            if not self._in_pipe:
                pipes.give_back(self._pipe)
                self._pipe = None
        self.ended = not self._in_pipe

    def _empty_pipe(self, pipes: Pipes) -> int:
        assert self._pipe is not None  # it holds _in_pipe bytes
        sent = os.splice(self._pipe[0], self.sink.fileno(), self._in_pipe, flags=os.SPLICE_F_NONBLOCK)
        self._in_pipe -= sent
        if not self._in_pipe:
            pipes.give_back(self._pipe)
            self._pipe = None
        return sent

    def finish(self) -> None:
        """Pass the end on: the sink reads EOF, and can still write."""
        self.done = True
        with contextlib.suppress(OSError):
            self.sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Let go of what was under way."""
        self.done = True
        if self._pipe:
            Pipes.discard(self._pipe)
            self._pipe = None


class Stream:
    """A client's connection and the daemon's, joined; ``call`` is the call's name, ``code`` the answer's status.

    What was read of the two already is in ``to_upstream`` and ``to_client``.
    """

    __slots__ = (
        "call",
        "client",
        "client_gone",
        "code",
        "counted",
        "down",
        "drain_until",
        "head",
        "up",
        "upstream",
        "upstream_gone",
    )

    def __init__(self, client: socket.socket, upstream: socket.socket, to_upstream: bytes = b"",
                 to_client: bytes = b"", *, call: str = "", code: str | None = None) -> None:
        self.client = client
        self.upstream = upstream
        self.up = Flow(client, upstream, to_upstream)
        self.down = Flow(upstream, client, to_client)
        self.call = call
        self.code = code
        self.head = HeadReader()
        self.counted = False
        self.client_gone = False
        self.upstream_gone = False
        self.drain_until = 0.0
        for sock in (client, upstream):
            sock.setblocking(False)
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def move(self, pipes: Pipes) -> bool:
        """Move both directions; True if there may be more at once."""
        if self.drain_until:
            self._drain()
            return False
        more_up = self._move(self.up, pipes)
        return (self._has_answer() and self._move(self.down, pipes)) or more_up

    @property
    def over(self) -> bool:
        """Whether nothing more can come through."""
        if self.drain_until:
            return self.client_gone or time.monotonic() > self.drain_until
        if self.client_gone and self.up.done:
            return True
        return self.down.done and (self.upstream_gone or self.up.done)

    def lingers(self) -> bool:
        """Whether to wait until the client has read to the end of the response.

        Closing a socket that holds unread bytes resets it, and what the client
        has not yet read of the response would be lost.
        """
        if self.drain_until or self.client_gone or self.up.ended:
            return False
        self.drain_until = time.monotonic() + _LINGER
        return True

    def end_input(self) -> None:
        """Tell the daemon that no more comes, so that it ends its response in its own way."""
        with contextlib.suppress(OSError):
            self.upstream.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close both connections."""
        for part in (self.up, self.down, self.client, self.upstream):
            part.close()

    def _move(self, flow: Flow, pipes: Pipes) -> bool:
        """Move one direction; one that is broken ends alone.

        A daemon that refuses an upload closes its end while its answer still
        waits to be read; a client that has left needs no answer.
        """
        try:
            return not flow.done and flow.move(pipes)
        except OSError as error:
            if error.errno not in _BROKEN:
                raise
            self.client_gone = self.client_gone or flow is self.down
            flow.close()
            return False

    def _has_answer(self) -> bool:
        """Whether the head of the daemon's answer is there, or what is said in its place."""
        try:
            while self.code is None:
                self._read_head(self.upstream.recv(_BLOCK))
        except BlockingIOError:  # its arrival will be an event
            return False
        except (OSError, ProtocolError) as error:
            self._refuse(error)
        return True

    def _read_head(self, data: bytes) -> None:
        if not data:
            raise ProtocolError("it closed the connection without an answer")
        head = self.head.feed(data)
        if head:
            if head.status == 101:
                raise ProtocolError("it switched protocols unasked")
            decoder_for("", head)
            self.code = str(head.status)
            self.down.begin_with(bytes(self.head.read))
            self.head = HeadReader()

    def _refuse(self, error: Exception) -> None:
        self.code = "" if self.client_gone else "502"
        self.up.close()
        self.down.begin_with(bad_gateway(f"the Docker daemon gave no proper answer: {error}"), ended=True)
        self.head = HeadReader()

    def _drain(self) -> None:
        try:
            while self.client.recv(65536):
                pass
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in _BROKEN:
                raise
        self.client_gone = True


class Relay:
    """The event loop, in a thread of its own that starts with the first stream. Thread-safe. ``tally`` counts."""

    def __init__(self, tally: Tally | None = None) -> None:
        self._tally = tally or Tally()
        self._new: deque[Stream] = deque()
        self._by_fd: dict[int, Stream] = {}
        self._lingering: set[Stream] = set()
        self._busy: deque[Stream] = deque()
        self._pipes = Pipes()
        self._epoll: select.epoll | None = None
        self._wake = -1
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._deadline: float | None = None

    def __len__(self) -> int:
        """The number of streams that are open."""
        return len(self._by_fd) // 2 + len(self._new)

    def add(self, stream: Stream) -> None:
        """Take over a stream; its sockets are the relay's from now on."""
        self._new.append(stream)
        self._start()
        os.eventfd_write(self._wake, 1)

    def stop(self, timeout: float) -> None:
        """End all streams: each daemon's response is given ``timeout`` seconds to end in its own way."""
        with self._lock:
            thread, self._deadline = self._thread, time.monotonic() + timeout
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
            self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
            self._thread.start()
            atexit.register(self.stop, _GRACE)

    def _run(self) -> None:
        assert self._epoll is not None  # made before this thread
        ending = False
        while not (ending and (not self._by_fd or self._now_past_deadline())):
            for fd, event in self._epoll.poll(self._timeout()):
                self._on_event(fd, event)
            self._take_new()
            self._give_turns()
            if self._deadline is not None and not ending:
                ending = True
                self._each_stream(Stream.end_input)
        self._each_stream(self._end)
        self._pipes.close()

    def _timeout(self) -> float | None:
        if self._busy:
            return 0
        return 0.25 if self._lingering or self._deadline is not None else None

    def _now_past_deadline(self) -> bool:
        return self._deadline is not None and time.monotonic() > self._deadline

    def _on_event(self, fd: int, event: int) -> None:
        stream = self._by_fd.get(fd)
        if fd == self._wake:
            os.eventfd_read(self._wake)
        elif stream:
            if event & _GONE and fd == stream.client.fileno():
                stream.client_gone = True
            elif event & _GONE:
                stream.upstream_gone = True
            self._advance(stream)

    def _take_new(self) -> None:
        assert self._epoll is not None
        while self._new:
            stream = self._new.popleft()
            for sock in (stream.client, stream.upstream):
                self._by_fd[sock.fileno()] = stream
                self._epoll.register(sock, _READ_WRITE)
            self._tally.add(STREAMS)
            self._advance(stream)

    def _give_turns(self) -> None:
        for _ in range(len(self._busy)):
            self._advance(self._busy.popleft())
        for stream in [stream for stream in self._lingering if stream.over]:
            self._end(stream)

    def _advance(self, stream: Stream) -> None:
        if self._by_fd.get(stream.client.fileno()) is not stream:
            return  # it ended while it waited for its turn
        try:
            more = stream.move(self._pipes)
        except OSError:
            # Out of file descriptors, say: that must not end the others too.
            _log.exception("a stream is closed early")
            self._end(stream)
            return
        self._count(stream)
        if more:
            self._busy.append(stream)
        elif stream.over:
            self._end_or_linger(stream)

    def _end_or_linger(self, stream: Stream) -> None:
        if stream.lingers():
            self._lingering.add(stream)
            self._advance(stream)
        else:
            self._end(stream)

    def _count(self, stream: Stream, *, at_its_end: bool = False) -> None:
        for direction, flow in (("to_docker", stream.up), ("to_client", stream.down)):
            if flow.moved:
                self._tally.add(STREAM_BYTES, (direction,), flow.moved)
                flow.moved = 0
        if not stream.counted and (stream.code or at_its_end):
            stream.counted = True
            self._tally.add(REQUESTS, (stream.call or "other", stream.code or "none"))

    def _end(self, stream: Stream) -> None:
        self._count(stream, at_its_end=True)
        self._tally.add(STREAMS_ENDED)
        self._lingering.discard(stream)
        for sock in (stream.client, stream.upstream):
            self._by_fd.pop(sock.fileno(), None)
        stream.close()

    def _each_stream(self, action: Callable[[Stream], None]) -> None:
        for stream in set(self._by_fd.values()):
            action(stream)
