"""How far a container's processes are."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from weavemw.dockerapi.container import Container
from weavemw.middleware.processes import Progress, progress_of, still_waiting
from weavemw.testing import await_true


@contextmanager
def running(script: str) -> Iterator[int]:
    """The process of a bash script."""
    with subprocess.Popen(["bash", "-c", script], start_new_session=True) as process:
        try:
            yield process.pid
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def test_a_process_that_is_not_the_wait_program_does_not_wait() -> None:
    """Whether a container still waits is seen from its process, not remembered."""
    assert not still_waiting(Container(id="x", pid=0))
    assert not still_waiting(Container(id="x", pid=2**22 + 1))


@pytest.mark.parametrize("script", [
    pytest.param("exec -a /dev/w sleep 30", id="itself"),
    pytest.param("exec -a /.dockerenv sleep 30", id="at another place"),
    pytest.param("exec -a /dev/./w sleep 30", id="in another spelling"),
    pytest.param("exec -a /w/w sleep 30", id="an earlier version's"),
    pytest.param("(exec -a /dev/w sleep 30); :", id="below an init"),
])
def test_the_wait_program_is_recognised(script: str) -> None:
    """The wait program is found as the container's first process, and below --init's."""
    with running(script) as pid:
        await_true(lambda: still_waiting(Container(id="x", pid=pid)))


@pytest.mark.parametrize(("script", "progress"), [
    pytest.param("exec -a /dev/w sleep 30", Progress.STARTING, id="wait program"),
    pytest.param("printf 'runc:[2:INIT]' >/proc/$$/comm; sleep 30; :", Progress.STARTING, id="runtime"),
    pytest.param("printf weave-wait >/proc/$$/comm; sleep 30; :", Progress.WAITING, id="waits"),
    pytest.param("printf 'a) Z (b' >/proc/$$/comm; sleep 30; :", Progress.OTHER, id="an odd name"),
    pytest.param("exec -a '' sleep 30", Progress.STARTING, id="in between"),
    pytest.param("exec sleep 30", Progress.OTHER, id="a command"),
])
def test_progress(script: str, progress: Progress) -> None:
    """By the process's name, and by the path that it was executed with."""
    with running(script) as pid:
        await_true(lambda: progress_of(pid) is progress)


def test_progress_of_what_has_ended() -> None:
    """Whether it was waited for or not."""
    assert progress_of(2**22 + 1) is progress_of(0) is Progress.ENDED
    with subprocess.Popen(["true"]) as process:
        await_true(lambda: progress_of(process.pid) is Progress.ENDED)
