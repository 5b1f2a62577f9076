"""Who gets in at a TCP listener: by address, then by TLS. For gunicorn's threaded worker."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker

from weavemw.dockerapi.hosts import Network, is_allowed
from weavemw.serving.tls_front import Front

__all__ = ["AdmittingWorker"]

log = logging.getLogger(__name__)

class AdmittingWorker(ThreadWorker):
    """gunicorn's gthread worker; its TCP listeners ask for an address of ``allowed`` and for TLS by ``front``.

    Unix sockets are as ever: the file system says who may connect.
    """

    allowed: tuple[Network, ...] = ()
    front: Front | None = None

    def accept(self, listener: socket.socket) -> None:
        """Accept a connection, and serve it as soon as it may be."""
        if listener.family == socket.AF_UNIX or (not self.allowed and self.front is None):
            accept: Callable[[socket.socket], None] = super().accept
            accept(listener)
            return
        try:
            client, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):  # another worker was quicker, or the client left
            return
        if self.allowed and not is_allowed(address[0], self.allowed):
            log.info("Refused a connection from %s: not in --allow-from", address[0])
            client.close()
            return
        self._admit(client, self._conn_maker(address, listener.getsockname()))

    def _conn_maker(self, address: Any, server: Any) -> Callable[[socket.socket], Any]:
        return lambda sock: TConn(self.cfg, sock, address, server)

    def _admit(self, client: socket.socket, conn: Callable[[socket.socket], Any]) -> None:
        self.nr_conns += 1
        enqueue: Callable[[Any], None] = self.enqueue_req
        if self.front is None:
            enqueue(conn(client))
        else:  # called back in the front's thread; connections are the main thread's business
            self.front.add(client, lambda sock: self.method_queue.defer(lambda: enqueue(conn(sock))),
                           lambda: self.method_queue.defer(self._forget))

    def _forget(self) -> None:
        self.nr_conns -= 1
