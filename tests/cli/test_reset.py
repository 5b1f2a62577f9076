from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from weavemw.cli import run
from weavemw.cli.reset import wait_users

_WAIT = Path("/var/lib/weavemw/wait/0123456789ab")


def _row(name: str, *sources: str) -> dict[str, Any]:
    return {"Id": "f" * 64, "Names": [f"/{name}"], "Mounts": [{"Source": source} for source in sources]}


@pytest.mark.parametrize(("rows", "users"), [
    pytest.param([], [], id="no container"),
    pytest.param([_row("web", "/data", str(_WAIT)), _row("db", str(_WAIT)), _row("other")], ["db", "web"], id="two"),
    pytest.param([_row("web", f"{_WAIT}/w")], ["web"], id="the program alone"),
    pytest.param([_row("web", f"{_WAIT}c", str(_WAIT.parent / "ba9876543210"))], [], id="another version"),
    pytest.param([{"Id": "f" * 64, "Mounts": [{"Source": str(_WAIT)}]}], ["f" * 12], id="one without a name"),
    pytest.param([{"Id": "f" * 64, "Names": ["/x"], "Mounts": None}, _row("y", "")], [], id="nothing mounted"),
])
def test_the_users_of_a_wait_program_are_found(rows: list[dict[str, Any]], users: list[str]) -> None:
    """Whoever mounts its directory, or a part of it, whether it runs or not."""
    assert wait_users(rows, _WAIT) == users


@pytest.mark.root
def test_all_that_was_left_by_the_killed_is_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets, and what was being written; what others put there stays, and is named."""
    for name in ("_remove_network", "_stop"):
        monkeypatch.setattr(f"weavemw.cli.reset.{name}", lambda *_, **__: [])
    monkeypatch.setattr("weavemw.cli.reset._remove_images", lambda docker: [])
    run_dir, state_dir = tmp_path / "run", tmp_path / "state"
    for name in ("run/proxy.json", "run/proxy.lock", "run/.proxy.json.x1", "run/router.sock", "run/router-h:1.sock",
                 "run/status/.watcher.json.x2", "run/locks/a", "state/router.db", "state/.router.db-wal.x3",
                 "state/router.db.backup"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    environ = {"WEAVEMW_RUN_DIR": str(run_dir), "WEAVEMW_STATE_DIR": str(state_dir),
               "WEAVEMW_LISTENERS": f"unix://{tmp_path}/weave.sock"}
    assert run(["reset"], environ) == 0
    assert capsys.readouterr().out == f"left: {state_dir}, since it holds files of others: router.db.backup\n"
    assert not run_dir.exists()


def test_without_docker_nothing_is_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The line says how to go on without."""
    (tmp_path / "router.db").touch()
    environ = {"DOCKER_HOST": f"unix://{tmp_path}/docker.sock", "WEAVEMW_RUN_DIR": str(tmp_path / "run"),
               "WEAVEMW_STATE_DIR": str(tmp_path), "WEAVE_HTTP_ADDR": "127.0.0.1:1"}
    assert run(["reset"], environ) == 1
    assert "`weave reset --force` goes on without" in capsys.readouterr().err
    assert (tmp_path / "router.db").exists()
