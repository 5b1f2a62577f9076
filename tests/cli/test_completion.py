"""Completion as a real bash does it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakedaemon import FakeDaemon, Request

_ROOT = Path(__file__).parents[2]
_CONTAINERS = [
    {"Id": "1" * 64, "Names": ["/web"], "State": "running"},
    {"Id": "2" * 64, "Names": ["/db/web", "/worker"], "State": "running"},
    {"Id": "3" * 64, "Names": ["/wreck"], "State": "exited"},
    {"Id": "4" * 64, "Names": ["/weaveproxy"], "State": "running"},
]
_SCRIPT = """
. ./source
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_weave_completion weave "${COMP_WORDS[COMP_CWORD]}" ""
printf '%s\\n' "${COMPREPLY[@]}"
"""

Complete = Callable[..., list[str]]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with ``weave``, what it gives bash to read, and the socket of a Docker with some containers."""
    if not shutil.which("bash"):
        pytest.skip("needs bash")
    there = tmp_path_factory.mktemp("host")
    (there / "weave").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m weavemw.cli "$@"\n')
    (there / "weave").chmod(0o755)
    (there / "source").write_text(_bash(there, "-c", "_WEAVE_COMPLETE=bash_source weave"))
    with FakeDaemon(there / "docker.sock", {"/containers/json": _list}):
        yield there


@pytest.fixture
def complete(host: Path) -> Complete:
    """What bash completes at the end of a command line."""
    def run(*words: str, engine: str = "docker.sock") -> list[str]:
        said = _bash(host, "-c", _SCRIPT, "bash", "weave", *words, DOCKER_HOST=f"unix://{host}/{engine}")
        return [line for line in said.splitlines() if line]

    return run


def _bash(host: Path, *arguments: str, **environ: str) -> str:
    environ = {**os.environ, "PATH": f"{host}:{os.environ['PATH']}", "PYTHONPATH": str(_ROOT),
               "WEAVEMW_RUN_DIR": str(host), **environ}
    done = subprocess.run(["bash", "--norc", *arguments], env=environ, cwd=host, text=True, capture_output=True,
                          check=True, timeout=60)
    assert done.stderr == ""
    return done.stdout


def _list(request: Request) -> None:
    request.answer(json.dumps(_CONTAINERS).encode())


@pytest.mark.parametrize(("words", "found"), [
    pytest.param(["launch-"], ["launch-proxy", "launch-router"], id="verbs"),
    pytest.param(["status", "--js"], ["--json"], id="options"),
    pytest.param(["status", "pe"], ["peers"], id="parts of the status"),
    pytest.param(["attach", "w"], ["web", "worker"], id="running containers, not our own"),
    pytest.param(["attach", "10.2.1.1/24", "wo"], ["worker"], id="after an address"),
    pytest.param(["detach", "we"], ["web"], id="detach"),
    pytest.param(["ps", "w"], ["weave:expose", "web", "worker"], id="the host too"),
    pytest.param(["start", "w"], ["web", "worker", "wreck"], id="what has ended too"),
    pytest.param(["dns-add", "w"], ["web", "worker"], id="dns-add"),
    pytest.param(["dns-remove", "x"], [], id="none"),
])
def test_bash_completes(complete: Complete, words: list[str], found: list[str]) -> None:
    """Verbs, options, and the names of containers where a container may stand."""
    assert complete(*words) == found


def test_without_docker_nothing_is_said(complete: Complete) -> None:
    """A prompt is no place for complaints."""
    assert complete("attach", "w", engine="none.sock") == []
