from __future__ import annotations

import asyncio
import threading
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from weavemw.errors import DockerUnreachable
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


def test_peer_name_is_kept() -> None:
    """A router's name is a unicast MAC address of its own, and stays."""
    store = MemoryStore()
    name = peer_name(store)
    assert int(name[:2], 16) & 3 == 2
    assert peer_name(store) == name
