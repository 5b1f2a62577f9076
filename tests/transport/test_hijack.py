"""What an offer knows of its client."""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from weavemw import context
from weavemw.ops.tally import Tally
from weavemw.transport.hijack import ClientConnection, Offer


def offer(server: socket.socket, version: str = "HTTP/1.1") -> Offer:
    environ: dict[str, Any] = {"wsgi.input": io.BytesIO(), "wsgi.multithread": True, "SERVER_PROTOCOL": version,
                               context.CALL: None}
    return Offer(environ, cast(Any, None), cast(ClientConnection, server), cast(Any, None), Tally())


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture(params=[socket.AF_INET, socket.AF_UNIX])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client and the server's end of its connection."""
    if request.param == socket.AF_UNIX:
        client, server = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname())
            server, _ = listener.accept()
    with client, server:
        yield client, server


def test_a_client_that_left_is_gone(pair: tuple[socket.socket, socket.socket]) -> None:
    client, server = pair
    asked = offer(server)
    assert not asked.client_gone()
    client.close()
    assert eventually(asked.client_gone)


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
def test_a_client_that_closed_half_is_there(pair: tuple[socket.socket, socket.socket], version: str) -> None:
    """By TCP it is sent one interim response, if it knows of such (RFC 9110 section 15.2)."""
    client, server = pair
    asked = offer(server, version)
    client.shutdown(socket.SHUT_WR)
    assert not any(asked.client_gone() or time.sleep(0.01) for _ in range(20))
    server.sendall(b"end")
    server.close()
    sent = b"HTTP/1.1 100 Continue\r\n\r\n" if version == "HTTP/1.1" and client.family == socket.AF_INET else b""
    assert client.makefile("rb").read() == sent + b"end"
