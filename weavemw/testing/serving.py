"""Any WSGI app on a temporary socket, under the HTTP server that the proxy has."""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from weavemw.serving.http_server import HttpServer

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = ["serve"]


@contextlib.contextmanager
def serve(app: WSGIApplication, *, threads: int = 16) -> Iterator[Path]:
    """Serve ``app`` on a unix socket in this process; gives the socket's path. ::

        with serve(docker_proxy(no_privileged, socket=str(path_of_docker))) as path:
            subprocess.run(["docker", "-H", f"unix://{path}", "ps"])

    Connections can be taken from it, as attach and exec need it. At the end requests under way get a second.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "docker.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(path))
            listener.listen(128)
            listener.setblocking(False)
            server = HttpServer(app, threads=threads)
            server.listen(listener)
            server.start()
            try:
                yield path
            finally:
                server.stop(1)
