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


def test_without_docker_nothing_is_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The line says how to go on without."""
    (tmp_path / "router.db").touch()
    environ = {"DOCKER_HOST": f"unix://{tmp_path}/docker.sock", "WEAVEMW_RUN_DIR": str(tmp_path / "run"),
               "WEAVEMW_STATE_DIR": str(tmp_path), "WEAVE_HTTP_ADDR": "127.0.0.1:1"}
    assert run(["reset"], environ) == 1
    assert "`weave reset --force` goes on without" in capsys.readouterr().err
    assert (tmp_path / "router.db").exists()
