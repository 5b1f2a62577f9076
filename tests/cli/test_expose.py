from __future__ import annotations

from pathlib import Path

import pytest

from weavemw.cli import run


@pytest.mark.parametrize(("arguments", "status", "complaint"), [
    (["expose"], 1, "weave router"),
    (["expose", "web"], 2, "expected [ADDR…], found 'web'"),
    (["expose", "10.2.1.132"], 1, 'the prefix length is missing, as in "10.2.1.132/24"'),
    (["hide"], 1, "weave router"),
    (["hide", "web"], 1, "weave router"),
    (["setup"], 1, "docker.sock did not answer"),
])
def test_a_mistake_is_one_line(arguments: list[str], status: int, complaint: str, tmp_path: Path,
                               capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr, and no address on stdout."""
    environ = {"DOCKER_HOST": f"unix://{tmp_path}/docker.sock", "WEAVE_HTTP_ADDR": "127.0.0.1:1",
               "WEAVEMW_RUN_DIR": str(tmp_path), "WEAVEMW_STATE_DIR": str(tmp_path / "state")}
    assert run(arguments, environ) == status
    out, err = capsys.readouterr()
    assert (err.count("\n"), err[:7]) == (1, "weave: ")
    assert complaint in err
    assert "10." not in out


def test_a_missing_bridge_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """And how another one is."""
    assert run(["docker-bridge-ip"], {"DOCKER_BRIDGE": "nosuch0"}) == 1
    assert "bridge nosuch0 is not there" in capsys.readouterr().err
