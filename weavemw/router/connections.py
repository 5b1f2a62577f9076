"""Connections to the HTTP API, only so many at a time: those who ask nothing take no descriptors from those who do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

__all__ = ["Connections"]


class Connections:
    """Makes protocols as ``make`` does. With ``limit`` of them connected, the next one ends the longest silent one."""

    def __init__(self, make: Callable[[], asyncio.Protocol], limit: int) -> None:
        self._make = make
        self.limit = limit
        self._transports: dict[asyncio.Transport, None] = {}

    def __call__(self) -> asyncio.Protocol:
        return _Connection(self, self._make())

    def heard(self, transport: asyncio.Transport) -> None:
        """A client has connected, or said something."""
        self._transports.pop(transport, None)
        if len(self._transports) >= self.limit:
            silent = next(iter(self._transports))
            del self._transports[silent]
            silent.abort()
        self._transports[transport] = None

    def lost(self, transport: asyncio.Transport) -> None:
        """A connection has ended."""
        self._transports.pop(transport, None)


class _Connection(asyncio.Protocol):
    """Hands everything on."""

    def __init__(self, connections: Connections, protocol: asyncio.Protocol) -> None:
        self._connections = connections
        self._protocol = protocol
        self._transport = asyncio.Transport()
        self.pause_writing, self.resume_writing = protocol.pause_writing, protocol.resume_writing  # type: ignore[method-assign]
        self.eof_received = protocol.eof_received  # type: ignore[method-assign]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._connections.heard(self._transport)
        self._protocol.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._connections.heard(self._transport)
        self._protocol.data_received(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._connections.lost(self._transport)
        self._protocol.connection_lost(error)
