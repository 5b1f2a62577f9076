from __future__ import annotations

from pathlib import Path

from weavemw.ops.run_dir import DEFAULT_ROUTER, router_at, router_sockets


def test_each_router_has_a_socket_of_its_own(tmp_path: Path) -> None:
    """Unless no socket's path can be that long: then it is reached by TCP alone."""
    assert router_at(Path("/run/w"), DEFAULT_ROUTER).socket == Path("/run/w/router.sock")
    assert router_at(Path("/run/w"), "127.0.0.1:7").socket == Path("/run/w/router-127.0.0.1:7.sock")
    assert router_at(Path("/run") / ("w" * 100), DEFAULT_ROUTER).socket is None


def test_sockets_of_dead_routers_are_found(tmp_path: Path) -> None:
    """For whoever removes all that is ours, and nothing else."""
    for name in ("router.sock", "router-127.0.0.1:7.sock", "other.sock"):
        (tmp_path / name).touch()
    assert {path.name for path in router_sockets(tmp_path)} == {"router.sock", "router-127.0.0.1:7.sock"}
