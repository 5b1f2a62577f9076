"""The relay: owns hijacked and streaming connections, on one event loop per process (:mod:`weavemw.transport.loop`).

A stream is a client's connection and the daemon's connection that answers it,
joined byte for byte in both directions; each direction ends on its own (half-close).
What is in a stream was decided before it came here: the request's head is on its
way to the daemon, and either it asked the daemon to close after this one response,
or the daemon's answer says that its connection is HTTP no more. So nothing after the
response can reach the daemon as a request, and nothing is parsed here but the
response's head: where that is no HTTP, the client is answered 502 in its place.

Bytes are copied by the kernel, ``splice(2)`` by way of a pipe. A pipe is only lent
to a direction while there is something in it, so a quiet stream costs its two
sockets and a few small objects, and no thread. Only what a middleware wants to go
through a filter of its own is read and sent here.

Streams end with their process: when it is told to stop, each daemon's response is
given a moment to end in its own way. A WSGI server that reloads (gunicorn on
SIGHUP) starts new processes for what comes, and stops the old ones in the same way.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time
from collections.abc import Callable

from weavemw.ops.tally import REQUESTS, STREAM_BYTES, STREAMS, STREAMS_ENDED, Tally
from weavemw.transport.http1 import HeadReader, ProtocolError, bad_gateway, decoder_for
from weavemw.transport.loop import Loop, Watch

__all__ = ["Filter", "Relay", "Stream"]

_BLOCK = 65536
_PIPE_SIZE = 1 << 20
_IDLE_PIPES = 16
_BROKEN = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTUNREACH)
#: How much one direction may move before the others get their turn, in bytes.
_TURN = 4 << 20
#: How long a client may take to read the end of its response, in seconds (RFC 9112 section 9.6).
_LINGER = 2.0

Pipe = tuple[int, int]

#: What the daemon's bytes go through: it takes what has come, the framing included, and gives what may go on.
#: Whatever it changes keeps its length. It is given ``b""`` at the end.
Filter = Callable[[bytes], bytes]


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
    """One direction of a stream: from ``source``, perhaps through a filter, to ``sink`` until the source ends."""

    __slots__ = ("_filter", "_in_pipe", "_pipe", "_prefix", "done", "ended", "moved", "sink", "source")

    def __init__(self, source: socket.socket, sink: socket.socket, prefix: bytes = b"",
                 through: Filter | None = None) -> None:
        self.source = source
        self.sink = sink
        self.ended = False
        self.done = False
        self.moved = 0
        self._prefix = prefix
        self._filter = through
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
        if self._filter:
            self._prefix = self._filter(data) + (self._filter(b"") if ended and data else b"")
        self.ended = ended

    def _step(self, pipes: Pipes) -> int:
        if self._prefix:
            return self._send_prefix()
        if self._in_pipe:
            return self._empty_pipe(pipes)
        if self.ended:
            self.finish()
            return 0
        if self._filter:
            data = self.source.recv(_BLOCK)
            self.begin_with(data, ended=not data)
        else:
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
    """A client's connection and the daemon's, joined: a :class:`~weavemw.transport.loop.Session`.

    What was read of the two already is in ``to_upstream`` and ``to_client``. ``call`` is the API call's name, ``code``
    the answer's status: unless it is known, it is read as the answer begins, for ``tally``. ``through`` is a filter
    for what the daemon has yet to send. The states::

        joined ──► one direction ended ──► both ended ──► over
           │                                  ▲
           │ the daemon's response ended,     │ the client closed, or
           │ the client still may send        │ two seconds have passed
           └───────► lingering ───────────────┘

    A stream lingers, because closing a socket that holds unread bytes resets it,
    and what the client has not yet read of the response would be lost (RFC 9112 section 9.6).
    """

    __slots__ = ("_client_gone", "_counted", "_upstream_gone", "call", "client", "code", "deadline", "down", "head",
                 "pipes", "tally", "up", "upstream")

    tally: Tally
    pipes: Pipes

    def __init__(self, client: socket.socket, upstream: socket.socket, to_upstream: bytes = b"",
                 to_client: bytes = b"", *, call: str = "", code: str | None = None,
                 through: Filter | None = None) -> None:
        self.client = client
        self.upstream = upstream
        self.up = Flow(client, upstream, to_upstream)
        self.down = Flow(upstream, client, to_client, through)
        self.call = call
        self.code = code
        self.head = HeadReader() if code is None else None
        self.deadline: float | None = None
        self._counted = False
        self._client_gone = False
        self._upstream_gone = False
        for sock in (client, upstream):
            if sock.gettimeout() != 0:
                sock.setblocking(False)
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def begin(self, watch: Watch) -> None:
        """Have both connections watched."""
        self.tally.add(STREAMS)
        watch(self.client)
        watch(self.upstream)

    def gone(self, fd: int) -> None:
        """One of the two peers is gone."""
        if fd == self.client.fileno():
            self._client_gone = True
        else:
            self._upstream_gone = True

    def move(self) -> bool:
        """Move both directions; True if there may be more at once."""
        if self.deadline is None:
            more_up = self._move(self.up)
            more = (self._has_answer() and self._move(self.down)) or more_up
            self._count()
            if more or not self._ended or not self._lingers():
                return more
            self.deadline = time.monotonic() + _LINGER
        self._drain()
        return False

    @property
    def over(self) -> bool:
        """Whether nothing more can come through."""
        return self._client_gone if self.deadline is not None else self._ended

    def stop(self) -> None:
        """Tell the daemon that no more comes, so that it ends its response in its own way."""
        with contextlib.suppress(OSError):
            self.upstream.shutdown(socket.SHUT_WR)

    def end(self, why: str = "") -> None:
        """Close both connections."""
        self._count(at_its_end=True)
        self.tally.add(STREAMS_ENDED)
        for part in (self.up, self.down, self.client, self.upstream):
            part.close()

    @property
    def _ended(self) -> bool:
        if self._client_gone and self.up.done:
            return True
        return self.down.done and (self._upstream_gone or self.up.done)

    def _lingers(self) -> bool:
        return not self._client_gone and not self.up.ended

    def _move(self, flow: Flow) -> bool:
        """Move one direction; one that is broken ends alone.

        A daemon that refuses an upload closes its end while its answer still
        waits to be read; a client that has left needs no answer.
        """
        try:
            return not flow.done and flow.move(self.pipes)
        except OSError as error:
            if error.errno not in _BROKEN:
                raise
            self._client_gone = self._client_gone or flow is self.down
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
        assert self.head  # the answer's is yet to be read
        head = self.head.feed(data)
        if head:
            if head.status == 101:
                raise ProtocolError("it switched protocols unasked")
            decoder_for("", head)
            self.code = str(head.status)
            self.down.begin_with(bytes(self.head.read))
            self.head = None

    def _refuse(self, error: Exception) -> None:
        self.code = "" if self._client_gone else "502"
        self.up.close()
        self.down.begin_with(bad_gateway(f"the Docker daemon gave no proper answer: {error}"), ended=True)
        self.head = None

    def _drain(self) -> None:
        try:
            while self.client.recv(65536):
                pass
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in _BROKEN:
                raise
        self._client_gone = True

    def _count(self, *, at_its_end: bool = False) -> None:
        for direction, flow in (("to_docker", self.up), ("to_client", self.down)):
            if flow.moved:
                self.tally.add(STREAM_BYTES, (direction,), flow.moved)
                flow.moved = 0
        if not self._counted and (self.code or at_its_end):
            self._counted = True
            self.tally.add(REQUESTS, (self.call or "other", self.code or "none"))


class Relay:
    """Streams on an event loop; its thread starts with the first one. Thread-safe. ``tally`` counts."""

    def __init__(self, tally: Tally | None = None) -> None:
        self._tally = tally or Tally()
        self._pipes = Pipes()
        self._loop = Loop("relay")

    def __len__(self) -> int:
        """The number of streams that are open."""
        return len(self._loop)

    def add(self, stream: Stream) -> None:
        """Take over a stream; its sockets are the relay's from now on."""
        stream.tally, stream.pipes = self._tally, self._pipes
        self._loop.add(stream)

    def stop(self, timeout: float) -> None:
        """End all streams: each daemon's response is given ``timeout`` seconds to end in its own way."""
        self._loop.stop(timeout)
        self._pipes.close()
