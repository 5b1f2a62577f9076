"""A daemon for tests: strict about what it is sent, free in what it answers.

It keeps every request as it came, and answers by path with a function that is
given the connection: so that a test can say exactly which bytes go when.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Request:
    """One request as the daemon saw it."""

    head: bytes
    connection: socket.socket
    rest: bytes = b""
    body: bytes = b""

    @property
    def line(self) -> str:
        return self.head.split(b"\r\n")[0].decode("latin-1")

    @property
    def path(self) -> str:
        return self.line.split(" ")[1].partition("?")[0]

    @property
    def headers(self) -> list[tuple[str, str]]:
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return [(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines)]

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key == name]
        assert len(found) < 2, f"{name} was sent twice"
        return found[0] if found else None

    def read_body(self) -> bytes:
        """Read the body in whichever framing it comes; what follows it stays in ``rest``."""
        if self.header("transfer-encoding"):
            assert self.header("content-length") is None
            self.body = b"".join(iter(self._read_chunk, b""))
        else:
            self.body = self._take(int(self.header("content-length") or 0))
        return self.body

    def _read_chunk(self) -> bytes:
        while b"\r\n" not in self.rest:
            self._more()
        size, _, self.rest = self.rest.partition(b"\r\n")
        data = self._take(int(size.partition(b";")[0], 16))
        assert self._take(2) == b"\r\n"
        return data

    def _take(self, count: int) -> bytes:
        while len(self.rest) < count:
            self._more()
        data, self.rest = self.rest[:count], self.rest[count:]
        return data

    def _more(self) -> None:
        data = self.connection.recv(1 << 20)
        if not data:
            raise ConnectionError("the proxy went away")
        self.rest += data

    def answer(self, body: bytes = b"{}", status: str = "200 OK", *headers: str) -> None:
        """A plain answer, as dockerd would give it."""
        lines = [f"HTTP/1.1 {status}", "Server: Docker/28.5.2 (linux)", "Date: Tue, 01 Jan 2030 00:00:00 GMT",
                 "Api-Version: 1.51", f"Content-Length: {len(body)}", *headers, "", ""]
        self.connection.sendall("\r\n".join(lines).encode() + (b"" if self.line.startswith("HEAD ") else body))


Handler = Callable[[Request], None]


@dataclass
class FakeDaemon:
    """Serves on a unix socket, a thread per connection; ``handlers`` are looked up by path, ``""`` is the default."""

    path: Path
    handlers: dict[str, Handler] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    connections: int = 0

    def __enter__(self) -> FakeDaemon:
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _listen(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(self.path))
        self._socket.listen(128)
        threading.Thread(target=self._accept, args=(self._socket,), daemon=True).start()

    def stop(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.path.unlink()

    def restart(self) -> None:
        """Be replaced by another daemon on the same path."""
        self.stop()
        self._listen()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        rest = b""
        with connection:
            while True:
                try:
                    while b"\r\n\r\n" not in rest:
                        data = connection.recv(1 << 20)
                        if not data:
                            return
                        rest += data
                    head, _, rest = rest.partition(b"\r\n\r\n")
                    request = Request(head, connection, rest)
                    self.requests.append(request)
                    self._handler(request)(request)
                except (ConnectionError, TimeoutError, ValueError):
                    return
                if "close" in (request.header("connection") or ""):
                    return
                rest = request.rest

    def _handler(self, request: Request) -> Handler:
        return self.handlers.get(request.path) or self.handlers.get("") or plain


def plain(request: Request) -> None:
    """Read the body and answer ``{}``."""
    request.read_body()
    request.answer()
