"""Where the router's API is reached: at a port of TCP, which has no password, and at a unix socket.

The unix socket is for whoever may use Docker's: it has that one's owner, group and mode. TCP is as a Weave Net router
has it, and open to every user of the host and to containers that have its network: so it can be made to answer
questions only, web pages get nothing, and its connections take no descriptors from anybody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware

from weavemw.errors import SettingsError
from weavemw.ops import files, logs
from weavemw.router.api import host_port, make_app
from weavemw.router.connections import Connections
from weavemw.router.service import RouterService
from weavemw.router.settings import RouterSettings, split_host_port
from weavemw.transport.origin import other_page, own_names, strange_name
from weavemw.transport.unix_socket import bind_unix

__all__ = ["bind_socket", "serve"]

_log = logs.summed(__name__)

_STOP_LIMIT = 2.0  # seconds that requests under way have when it stops
_IDLE_LIMIT = 75.0  # seconds that a connection may wait for a request
_BACKLOG = 1024
_TCP_LIMIT = 512  # connections: half of the descriptors that a process usually may have
_CHANGES_NOTHING = ("GET", "HEAD")


def bind_socket(settings: RouterSettings, stack: AsyncExitStack) -> socket.socket | None:
    """The unix socket, which is removed with the stack; before threads are started, see :func:`bind_unix`.

    ``None`` where the run directory's path is too long. Raises :class:`~weavemw.errors.SettingsError`.
    """
    path = settings.at.socket
    if path is None:
        return None
    files.directory(path.parent)
    try:
        sock = bind_unix(str(path), _like_docker(settings.docker_socket))
    except OSError as error:
        raise SettingsError(f"can't listen on unix://{path}: {error.strerror or error}") from error
    stack.callback(path.unlink, missing_ok=True)
    stack.callback(sock.close)
    return sock


async def serve(settings: RouterSettings, service: RouterService, sock: socket.socket | None,
                stack: AsyncExitStack) -> str:
    """Serve the API at a unix socket and by TCP until the stack ends; gives host:port.

    Raises :class:`~weavemw.errors.SettingsError` if the address can't be had.
    """
    if sock:
        local = await _runner(make_app(service), stack)
        await web.SockSite(local, sock, backlog=_BACKLOG).start()
    name, port = split_host_port(settings.http_address)
    remote = await _runner(make_app(service, _guard(name, read_only=settings.http_read_only)), stack)
    make = Connections(cast("Callable[[], asyncio.Protocol]", remote.server), _TCP_LIMIT)
    try:
        server = await asyncio.get_running_loop().create_server(make, name, port, backlog=_BACKLOG)
    except OSError as error:
        raise SettingsError(f"can't listen on {settings.http_address}: {os.strerror(error.errno or 0)}") from error
    stack.callback(server.close)
    if not sock:
        _log.warning("%s is too long for a unix socket: the router is reached by TCP alone", settings.run_dir)
    return host_port(name, server.sockets[0].getsockname()[1])


def _without_blame(record: logging.LogRecord) -> bool:
    """What can't be read is its sender's fault, and no trouble of ours: aiohttp logs it as one, and quotes it."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError):
        record.levelno, record.levelname, record.exc_info = logging.INFO, "INFO", None
        record.msg, record.args = "refused a request that can't be read: %s", (type(error).__name__,)
    return True


_log.addFilter(_without_blame)


async def _runner(app: web.Application, stack: AsyncExitStack) -> web.AppRunner:
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=_STOP_LIMIT,
                           keepalive_timeout=_IDLE_LIMIT, logger=_log)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    return runner


def _guard(name: str, *, read_only: bool) -> Middleware:
    """Refuse what web pages make browsers send, and with ``read_only`` what changes something."""
    names: set[str] = set()

    async def objection(request: web.Request) -> str:
        host, headers = request.headers.get("Host", ""), request.headers
        if "Origin" in headers or other_page(host, None, headers.get("Sec-Fetch-Site")):
            return "this is no place for web pages"
        if (strange := strange_name(host, tuple, strict=True)) and not names:
            names.update(map(str.lower, await asyncio.to_thread(own_names, (name,))))
        if strange and strange not in names:
            return f"{strange} is not known as a name of this host: use its address"
        if read_only and request.method not in _CHANGES_NOTHING:
            return "only the router's unix socket takes changes (--http-read-only)"
        return ""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        why = await objection(request)
        return web.Response(status=403, text=f"{why}\n") if why else await handler(request)

    return guard


def _like_docker(path: str) -> os.stat_result:
    """What the unix socket is to be like: Docker's, or for us alone if there is none."""
    with contextlib.suppress(OSError):
        return os.stat(path)
    return os.stat_result((0o600, 0, 0, 1, os.geteuid(), os.getegid(), 0, 0, 0, 0))
