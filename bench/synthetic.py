"""A daemon that only sends, or only takes, as fast as the kernel does: ``python -m bench.synthetic PATH``.

``GET /images/get?size=N[&chunked=1]`` sends N bytes, a body is read and thrown away, an upgrade is answered
by 101 and then held in silence.
"""

from __future__ import annotations

import re
import socket
import sys
import threading

_CHUNK = b"8000\r\n" + bytes(0x8000) + b"\r\n"
_BLOCK = bytes(1 << 20)
_ANSWERS = {b"/version": b'{"ApiVersion":"1.41","MinAPIVersion":"1.12","Version":"20.10"}', b"/containers/json": b"[]"}
_UPGRADED = (b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n"
             b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
_held: list[socket.socket] = []


def serve(path: str) -> None:
    """Serve until killed, a thread for each connection that is not held."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(4096)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_serve, args=(connection,), daemon=True).start()


def _serve(connection: socket.socket) -> None:
    try:
        rest = b""
        while rest is not None:
            while b"\r\n\r\n" not in rest:
                data = connection.recv(65536)
                if not data:
                    return connection.close()
                rest += data
            head, _, rest = rest.partition(b"\r\n\r\n")
            rest = _answer(connection, head, rest)
    except ConnectionError:
        connection.close()


def _answer(connection: socket.socket, head: bytes, rest: bytes) -> bytes | None:
    """Answer one request; the bytes after it, or None if the connection is no longer HTTP."""
    path, _, query = head.split(b" ")[1].partition(b"?")
    if re.search(rb"\r\nupgrade:", head, re.IGNORECASE) or path.endswith(b"/events"):
        connection.sendall(_UPGRADED if b"/events" not in path else _head(b"Transfer-Encoding: chunked"))
        _held.append(connection)
        return None
    rest = _discard_body(connection, head, rest)
    if size := re.search(rb"size=(\d+)", query):
        _send(connection, int(size[1]), chunked=b"chunked" in query)
    else:
        body = _ANSWERS.get(re.sub(rb"^/v[0-9.]+", b"", path), b"OK")
        connection.sendall(_head(b"Content-Length: %d" % len(body)) + body)
    if b"connection: close" in head.lower():
        connection.close()
        return None
    return rest


def _head(framing: bytes) -> bytes:
    return (b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Type: application/json\r\nDocker-Experimental: false\r\n"
            b"Ostype: linux\r\nServer: Docker/20.10 (linux)\r\nDate: Tue, 01 Jan 2030 00:00:00 GMT\r\n" + framing
            + b"\r\n\r\n")


def _send(connection: socket.socket, size: int, *, chunked: bool) -> None:
    connection.sendall(_head(b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size))
    block = _CHUNK * 32 if chunked else _BLOCK
    for _ in range(size >> 20):
        connection.sendall(block)
    if chunked:
        connection.sendall(b"0\r\n\r\n")


def _discard_body(connection: socket.socket, head: bytes, rest: bytes) -> bytes:
    if b"transfer-encoding: chunked" in head.lower():
        tail, buffer = rest[-5:], bytearray(1 << 20)
        while tail != b"0\r\n\r\n":
            count = _received(connection, buffer)
            tail = (tail + buffer[max(count - 5, 0) : count])[-5:]
        return b""
    length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
    left = int(length[1]) - len(rest) if length else -len(rest)
    buffer = bytearray(1 << 20)
    while left > 0:
        left -= _received(connection, buffer)
    return rest[len(rest) + left :] if left < 0 else b""


def _received(connection: socket.socket, buffer: bytearray) -> int:
    count = connection.recv_into(buffer)
    if not count:
        raise ConnectionError
    return count


if __name__ == "__main__":
    serve(sys.argv[1])
