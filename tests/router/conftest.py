"""Routers on loopback, in a thread of the test; a Docker that knows what it is told; a resolver to forward to."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import dns.message
import dns.rrset
import pytest
from routerhost import Host

from weavemw.dockerapi.container import Container
from weavemw.errors import DockerError, DockerUnreachable
from weavemw.router.main import RouterSettings, running


@dataclass
class Engine:
    """Answers inspect; ``down`` makes it unreachable."""

    running: set[str] = field(default_factory=set)
    stopped: set[str] = field(default_factory=set)
    down: bool = False
    subnets: tuple[str, ...] = ()

    def bridge_subnets(self) -> tuple[str, ...]:
        return self.subnets

    def inspect(self, container: str) -> Container:
        if self.down:
            raise DockerUnreachable("Docker at /nowhere did not answer")
        if container not in self.running | self.stopped:
            raise DockerError(404, f"No such container: {container}")
        return Container(id=container, running=container in self.running)


class Running:
    """A router in a thread with an event loop of its own."""

    def __init__(self, settings: RouterSettings, engine: Engine) -> None:
        self.settings = settings
        self._engine = engine
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.address = ""
        self.error: BaseException | None = None
        self._thread.start()
        self._ready.wait()
        if self.error:
            raise self.error

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:  # noqa: BLE001  # raised in the test's thread
            self.error = error
        finally:
            self._loop.close()
            self._ready.set()

    async def _serve(self) -> None:
        async with running(self.settings, self._engine) as self.address:  # type: ignore[arg-type]
            self._ready.set()
            await self._stop.wait()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def settings(tmp_path: Path) -> RouterSettings:
    """A router that touches nothing but loopback: no bridge, ports of the kernel's choice."""
    return RouterSettings(state_dir=tmp_path / "state", run_dir=tmp_path / "run", http_address="127.0.0.1:0", bridge="",
                          dns_listen=("127.0.0.1",), dns_port=free_port(), upstream=("127.0.0.1:9",),
                          nickname="host1", force=True)


@pytest.fixture
def start(settings: RouterSettings, engine: Engine) -> Iterator[Callable[..., Running]]:
    """Start a router, with some settings changed."""
    started: list[Running] = []

    def start(**changes: Any) -> Running:
        if "state_dir" in changes:
            changes.setdefault("run_dir", changes["state_dir"] / "run")
        started.append(Running(replace(settings, **changes), engine))
        return started[-1]

    yield start
    for router in started:
        router.stop()


def free_port() -> int:
    """A port that is free for UDP and TCP."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            try:
                udp.bind(tcp.getsockname())
            except OSError:
                continue
            return int(tcp.getsockname()[1])


class Resolver:
    """A resolver on loopback, UDP and TCP; ``reply`` maps a query's bytes to an answer's bytes or to silence."""

    def __init__(self, reply: Callable[[bytes, bool], bytes | list[bytes] | None]) -> None:
        self.reply = reply
        self.asked: list[tuple[bytes, bool]] = []
        self.address = ("127.0.0.1", free_port())
        self._udp = socket.socket(type=socket.SOCK_DGRAM)
        self._udp.bind(self.address)
        self._tcp = socket.create_server(self.address)
        self._threads = [threading.Thread(target=self._serve_udp), threading.Thread(target=self._serve_tcp)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._wake()
        for thread in self._threads:
            thread.join()
        self._udp.close()
        self._tcp.close()

    def _wake(self) -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as udp:
            udp.sendto(b"", self.address)
        socket.create_connection(self.address).close()

    def _serve_udp(self) -> None:
        while True:
            query, peer = self._udp.recvfrom(4096)
            if not query:
                return
            self.asked.append((query, False))
            for reply in self._replies(query, False):
                self._udp.sendto(reply, peer)

    def _serve_tcp(self) -> None:
        while True:
            connection, _ = self._tcp.accept()
            with connection:
                size = connection.recv(2)
                if not size:
                    return
                query = connection.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL)
                self.asked.append((query, True))
                for reply in self._replies(query, True):
                    connection.sendall(len(reply).to_bytes(2, "big") + reply)

    def _replies(self, query: bytes, tcp: bool) -> list[bytes]:
        reply = self.reply(query, tcp)
        return reply if isinstance(reply, list) else [reply] if reply else []


@pytest.fixture
def resolver() -> Iterator[Callable[..., Resolver]]:
    """Start a resolver; what it answers by default is 192.0.2.1."""
    started: list[Resolver] = []

    def start(reply: Callable[[bytes, bool], bytes | list[bytes] | None] = answer_with("192.0.2.1")) -> Resolver:  # noqa: B008
        started.append(Resolver(reply))
        return started[-1]

    yield start
    for each in started:
        each.stop()


def answer_with(*addresses: str, rcode: int = 0) -> Callable[[bytes, bool], bytes]:
    """Answers of type A for whatever is asked."""
    def reply(query: bytes, tcp: bool) -> bytes:
        message = dns.message.from_wire(query)
        response = dns.message.make_response(message)
        response.set_rcode(rcode)
        if addresses:
            response.answer.append(dns.rrset.from_text(message.question[0].name, 60, "IN", "A", *addresses))
        return response.to_wire(max_size=65535)

    return reply


@pytest.fixture
def answers() -> Callable[..., Callable[[bytes, bool], bytes]]:
    return answer_with


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(f"wr{os.getpid()}", tmp_path)
    yield host
    host.delete()
