from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from weavemw.cli.waiting import Waiting
from weavemw.errors import DockerUnreachable
from weavemw.network.plan import HostInterface
from weavemw.ops.watcher_state import STATE_FILE

IDS = tuple(f"{number:064x}" for number in range(250))


class Engine:
    """A Docker whose containers all wait; ``up`` says at each question whether it answers."""

    def __init__(self, up: Iterator[bool] | None = None) -> None:
        self.up = up or itertools.repeat(True)

    def get(self, path: str) -> Sequence[Mapping[str, Any]]:
        assert path == "/containers/json"
        if not next(self.up):
            raise DockerUnreachable("gone")
        mount = {"Source": "/s/wait/0123456789ab/w", "Destination": "/dev/w", "Mode": "ro"}
        return [{"Id": each, "Names": [f"/{each[-3:]}"], "Command": "/dev/w sleep 9", "Mounts": [mount]}
                for each in IDS]


class Attaching:
    """A network to which a hundred more are attached each time that somebody looks, but for the last ones."""

    def __init__(self, limit: int = len(IDS)) -> None:
        self.count = -100
        self.limit = limit

    def interfaces(self) -> tuple[HostInterface, ...]:
        self.count = min(self.count + 100, self.limit)
        return tuple(HostInterface(f"vethwe{number}", each) for number, each in enumerate(IDS[:self.count]))


def test_all_are_attached(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each hundred and one at the end, until none waits."""
    waiting = Waiting(Engine(), Attaching(), tmp_path)
    waiting.show()
    assert capsys.readouterr() == ("", "".join(f"attached containers: {count} of 250\n" for count in (100, 200, 250)))
    assert waiting.refused == set()


def test_some_can_not_be_attached(tmp_path: Path) -> None:
    """Those that were tried in vain are not waited for; they are named."""
    pending = {each: {"name": "web", "error": "no address"} for each in IDS[240:]}
    (tmp_path / STATE_FILE).parent.mkdir()
    (tmp_path / STATE_FILE).write_text(json.dumps({"since": 1.0, "pending": pending}))
    waiting = Waiting(Engine(), Attaching(240), tmp_path)
    waiting.show()
    assert waiting.refused == set(IDS[240:])


def test_docker_goes_away_meanwhile(tmp_path: Path) -> None:
    """Then there is nothing to wait for."""
    waiting = Waiting(Engine(itertools.chain([True, True], itertools.repeat(False))), Attaching(0), tmp_path)
    waiting.show()
    assert waiting.refused == set()


def test_nobody_waits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is said of nothing."""
    Waiting(Engine(itertools.repeat(False)), Attaching(), tmp_path).show()
    assert capsys.readouterr() == ("", "")
