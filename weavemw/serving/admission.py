"""Who gets in at a TCP listener: by address, then by TLS."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from weavemw.dockerapi.hosts import Network, is_allowed
from weavemw.ops import logs
from weavemw.serving.tls_front import Front

__all__ = ["Admission"]

log = logs.summed(__name__)

Adopt = Callable[[socket.socket, Any], None]


class Admission:
    """Lets those in whose address is in ``allowed`` (anybody, if that is empty), and by ``front``, if there is one.

    Unix sockets don't come here: the file system says who may connect.
    """

    def __init__(self, adopt: Adopt, *, allowed: tuple[Network, ...] = (), front: Front | None = None) -> None:
        self._adopt = adopt
        self._allowed = allowed
        self._front = front

    def __call__(self, client: socket.socket, address: Any) -> None:
        """Pass an accepted connection on to ``adopt``, at once or when TLS has begun; or close it."""
        if self._allowed and not is_allowed(address[0], self._allowed):
            log.info("Refused a connection from %s: not in --allow-from", address[0])
            client.close()
        elif self._front is not None:  # it is empty at first, and must never be passed by
            self._front.add(client, lambda plain: self._adopt(plain, address), lambda: None)
        else:
            self._adopt(client, address)
