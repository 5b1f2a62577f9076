"""Any app on a socket."""

from __future__ import annotations

import http.client
import socket

from weavemw.testing import serve


def test_an_app_is_served() -> None:
    """And the socket is gone afterwards."""
    def app(environ, start_response):  # type: ignore[no-untyped-def]
        start_response("200 OK", [("Content-Length", "2")])
        return [b"OK"]

    with serve(app) as path:
        connection = http.client.HTTPConnection("docker")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(path))
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"OK"
        connection.close()
    assert not path.exists()
