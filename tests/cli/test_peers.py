from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from weavemw.cli import run
from weavemw.cli.peers import ignored


@pytest.mark.parametrize(("options", "said"), [
    pytest.param({"peers": (), "password": None, "init_peer_count": None, "no_discovery": False}, "", id="nothing"),
    pytest.param({"peers": ("host2", "host3:1")}, "peer host2, peer host3:1", id="peers"),
    pytest.param({"password": "secret", "no_discovery": True}, "--password, --no-discovery", id="options"),
    pytest.param({"init_peer_count": 3}, "--init-peer-count", id="a count"),
])
def test_what_matters_only_among_peers_is_said_to_have_no_effect(options: Mapping[str, Any], said: str) -> None:
    """Each is named; a password is not shown."""
    warning = ignored(options)
    assert bool(warning) is bool(said)
    assert said in warning
    assert "secret" not in warning


@pytest.mark.parametrize("arguments", [["connect", "host2"], ["forget", "host2"], ["rmpeer", "x"], ["prime"],
                                       ["report"], ["report", "-f", "{{.IPAM.Range}}"]], ids=" ".join)
def test_without_a_router_one_line_says_so(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Each verb that asks the router names the address at which nothing answers."""
    assert run(arguments, {"WEAVE_HTTP_ADDR": "127.0.0.1:1"}) == 1
    assert capsys.readouterr() == ("", "weave: weave router is not running (nothing answers at 127.0.0.1:1): "
                                       "`weave launch` starts it\n")


@pytest.mark.parametrize("verb", ["connect", "forget", "rmpeer"])
def test_a_peer_must_be_named(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is asked of the router."""
    assert run([verb], {}) == 2
    assert "Missing argument" in capsys.readouterr().err
