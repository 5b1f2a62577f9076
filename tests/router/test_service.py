from __future__ import annotations

import asyncio
import threading
from ipaddress import IPv4Network, ip_interface
from pathlib import Path
from typing import Any

import pytest

from weavemw.errors import BadRequest, DockerUnreachable
from weavemw.router.allocator import Allocator
from weavemw.router.commit import GroupCommit
from weavemw.router.names import Names
from weavemw.router.service import RouterService, peer_name
from weavemw.router.store import Database, MemoryStore, SqliteStore
from weavemw.router.zone import Zone


def test_docker_that_hangs(tmp_path: Path, engine: Any) -> None:
    """A Docker that hangs costs a question its limit, and delays nothing else."""
    release = threading.Event()
    engine.inspect = lambda container: release.wait()
    database = Database(tmp_path / "router.db")
    allocator = Allocator(SqliteStore(database), IPv4Network("10.32.0.0/12"))
    allocator.fit()

    async def run() -> None:
        service = RouterService(allocator, Names(database, Zone("weave.local.")), GroupCommit(database), engine, "peer",
                                docker_questions=2, docker_limit=0.2)
        asked = [asyncio.create_task(service.is_running(f"c{number}")) for number in range(5)]
        assert str(await service.allocate("a")) == "10.32.0.1/12"
        for outcome in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(outcome, DockerUnreachable)
        release.set()
        await service.close()

    try:
        asyncio.run(run())
    finally:
        release.set()
        database.close()


@pytest.mark.parametrize(("claimed", "why"), [
    ("169.254.53.1/32", "169.254.53.1 is a link-local address, as weaveDNS has"),
    ("0.0.0.1/8", '0.0.0.1 is of "this network" (0.0.0.0/8)'), ("10.32.0.1/1", "a prefix length of 1 takes in"),
    ("10.32.0.0/8", "10.32.0.0 is the network address of the range 10.32.0.0/12"),
    ("10.47.255.255/8", "10.47.255.255 is the broadcast address of the range 10.32.0.0/12"),
    ("172.17.0.9/16", "172.17.0.9 is Docker's"),
])
def test_what_is_nobodys_to_claim(tmp_path: Path, engine: Any, claimed: str, why: str) -> None:
    """It is refused with the reason; what a container was given before is still its own, and so is what is ours."""
    database = Database(tmp_path / "router.db")
    allocator = Allocator(SqliteStore(database), IPv4Network("10.32.0.0/12"))
    allocator.fit()

    async def run() -> None:
        service = RouterService(allocator, Names(database, Zone("weave.local.")), GroupCommit(database), engine, "peer")
        await service.claim("former", ip_interface("172.17.0.10/16"))
        service.objection = lambda address: f"{address} is Docker's" if str(address).startswith("172.17.") else ""
        with pytest.raises(BadRequest) as refusal:
            await service.claim("c", ip_interface(claimed))
        assert str(refusal.value).startswith(f"Unable to claim: {why}")
        await service.claim("former", ip_interface("172.17.0.10/16"))
        await service.claim("weave:expose", ip_interface("172.17.0.11/16"))
        await service.claim("c", ip_interface("10.32.0.1/8"))
        await service.close()

    try:
        asyncio.run(run())
    finally:
        database.close()


def test_peer_name_is_kept() -> None:
    """A router's name is a unicast MAC address of its own, and stays."""
    store = MemoryStore()
    name = peer_name(store)
    assert int(name[:2], 16) & 3 == 2
    assert peer_name(store) == name
