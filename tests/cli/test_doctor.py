from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from weavemw.cli.doctor import Finding, of_clock, of_disk, of_health, of_rules, of_versions

_WELL: dict[str, Any] = {
    "engine": {"version": "28.0"}, "router": {"running": True, "problems": []},
    "proxy": {"running": True, "version": "1", "listening": [], "watcher": {"connected": True}},
}


def wrong(found: Any) -> list[str]:
    return [f"{each.wrong} -> {each.cure}" for each in found if each.wrong]


def test_what_is_fine_is_said_too() -> None:
    """So that one sees what was looked at."""
    assert list(map(str, of_health(_WELL))) == ["router, proxy, Docker: fine"]
    assert str(Finding("disk", "full", "make room")) == "disk: full. Cure: make room"


@pytest.mark.parametrize(("changed", "said"), [
    ({"router": {"running": False, "error": "weave router is not running"}},
     "weave router is not running -> `weave launch`"),
    ({"router": {"running": True, "problems": ["the bridge weave is gone"]}},
     "the bridge weave is gone -> it comes back within seconds while the router runs; else `weave relaunch`"),
    ({"router": {"running": True, "problems": ["can't write in /var/lib/weavemw: No space left on device"]}},
     "can't write in /var/lib/weavemw: No space left on device -> make room there, or mount it writable"),
    ({"proxy": {"running": True, "listening": [], "watcher": {"connected": False, "error": "it stopped 30 s ago"}}},
     "it does not follow Docker's events: it stopped 30 s ago -> `weave relaunch`; if Docker hangs, restart Docker"),
    ({"proxy": {"running": True, "listening": [], "watcher": {
        "connected": True, "pending": {"a" * 64: {"name": "web", "error": "taken", "attempts": 3}}}}},
     "container web is cut off: taken -> `weave attach CONTAINER`"),
])
def test_each_complaint_has_its_cure(changed: dict[str, Any], said: str) -> None:
    """The complaints are those of `weave healthcheck`."""
    assert wrong(of_health({**_WELL, **changed})) == [said]


@pytest.mark.parametrize(("rules", "is_wrong"), [
    (None, False),
    (["-P FORWARD ACCEPT"], False),
    (["-P FORWARD DROP"], True),
    (["-P FORWARD DROP", "-A FORWARD -j WEAVE", "-A WEAVE -i weave -o weave -j ACCEPT"], False),
    (["-P FORWARD DROP", "-A WEAVE -i weave -o weave -j ACCEPT"], True),
])
def test_rules(rules: list[str] | None, is_wrong: bool) -> None:
    """They are only missed where the host drops what it forwards."""
    assert bool(wrong(of_rules("weave", rules))) is is_wrong


def test_disk_clock_and_versions() -> None:
    """Little room, another clock, another version."""
    assert wrong(of_disk({Path("/a"): 200 << 20, Path("/b"): 5 << 20})) == ["/b has 5 MB left -> make room there"]
    now = time.time()
    assert wrong(of_clock(now + 2, now)) == wrong(of_clock(None, now)) == []
    assert wrong(of_clock(now - 60, now))[0].startswith("Docker's clock is -60 s from ours")
    assert wrong(of_clock(None, 0.0))[0].startswith("this host's clock says")
    assert wrong(of_versions(_WELL, "2")) == ["the proxy is 1, this command 2 -> `weave relaunch`"]
    assert wrong(of_versions(_WELL, "1")) == []
