"""A wrong command, told to the client in Docker's words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from weavemw.attaching.decision import Attach
from weavemw.context import DECISION
from weavemw.dockerapi.container import Container
from weavemw.errors import DockerError
from weavemw.middleware.commands import CommandChecker, complaint
from weavemw.middleware.processes import Progress
from weavemw.network.addresses import Default
from weavemw.testing import FakeDocker

Start = Callable[..., Any]


@pytest.fixture
def start(docker: FakeDocker, daemon: Any, ask: Any) -> Start:
    """Start a container, which then does what ``then`` says, while its process does one after the other."""

    def start(container: Container, then: Callable[[], object] = lambda: None, progress: tuple[Progress, ...] = (),
              verb: str = "start", status: str = "204 NO CONTENT", patience: float = 10.0) -> Any:
        def started(environ: Any, start_response: Any) -> Any:
            docker.start(container.id)
            then()
            return daemon(environ, start_response)

        daemon.status, daemon.body = status, b""
        seen = iter(progress)
        checker = CommandChecker(started, docker=docker, progress_of=lambda pid: next(seen, progress[-1]),
                                 patience=patience)
        decision = Attach((Default(),), container=container)
        return ask(checker, "POST", f"/containers/{container.name}/{verb}", **{DECISION: decision})

    return start


@pytest.mark.parametrize("status", [126, 127])
@pytest.mark.parametrize("verb", ["start", "restart"])
@pytest.mark.parametrize("auto_remove", [False, True])
def test_a_wrong_command_is_refused(docker: FakeDocker, start: Start, status: int, verb: str,
                                    auto_remove: bool) -> None:
    """With the daemon's status and words, and never restarted; known even of what was removed at once."""
    container = docker.create(config={"Cmd": ["nosuch", "x"]}, auto_remove=auto_remove)
    with pytest.raises(DockerError) as raised:
        start(container, lambda: docker.die(container.id, status), (Progress.STARTING, Progress.ENDED), verb)
    assert raised.value.status == 400
    assert raised.value.message == complaint("nosuch", status)
    assert docker.called("stop") == [(container.id, 0)]


@pytest.mark.parametrize("progress", [
    (Progress.WAITING,), (Progress.STARTING, Progress.STARTING, Progress.WAITING), (Progress.OTHER,),
])
def test_what_waits_has_found_its_command(docker: FakeDocker, start: Start, progress: tuple[Progress, ...]) -> None:
    """The daemon's answer goes on."""
    assert start(docker.create(), progress=progress).status_code == 204
    assert docker.called("stop") == docker.called("exit_statuses") == []


def test_what_was_killed_is_not_refused(docker: FakeDocker, start: Start) -> None:
    """It did start."""
    container = docker.create(config={"Cmd": ["sh"]})
    assert start(container, lambda: docker.die(container.id, 137), (Progress.ENDED,)).status_code == 204
    assert docker.called("stop") == []


def test_nothing_is_waited_for_without_end(docker: FakeDocker, start: Start) -> None:
    """Neither a process that does not come on, nor a daemon that does not say why one ended."""
    container = docker.create()
    assert start(container, progress=(Progress.STARTING,), patience=0.01).status_code == 204
    assert start(container, progress=(Progress.ENDED,), patience=0.01).status_code == 204


@pytest.mark.parametrize("fields", [
    pytest.param({"entrypoint": ("/w/w",)}, id="of an earlier version"),
    pytest.param({"init": True}, id="with an init"),
])
def test_some_look_nothing_up(docker: FakeDocker, start: Start, fields: dict[str, Any]) -> None:
    """Or do it below a process of another's."""
    container = docker.create(**fields)
    assert start(container, lambda: docker.die(container.id, 127), (Progress.ENDED,)).status_code == 204


@pytest.mark.parametrize("status", ["301 MOVED PERMANENTLY", "404 NOT FOUND"])
def test_what_was_not_started_is_not_looked_at(docker: FakeDocker, start: Start, status: str) -> None:
    """What runs already found its command long ago, or there is nothing that runs."""
    container = docker.create()
    answer = start(container, lambda: docker.die(container.id, 127), (Progress.ENDED,), status=status)
    assert answer.status == status


def test_what_is_not_to_be_attached_passes(docker: FakeDocker, daemon: Any, ask: Any) -> None:
    """Nobody is asked anything."""
    ask(CommandChecker(daemon, docker=docker), "POST", "/containers/web/start")
    assert len(daemon.requests) == 1
    assert docker.calls == []


@pytest.mark.parametrize(("command", "status", "words"), [
    ("nosuch", 127, 'exec: "nosuch": executable file not found in $PATH'),
    ("/no/such", 127, 'exec: "/no/such": stat /no/such: no such file or directory'),
    ("/etc", 126, 'exec: "/etc": permission denied'),
    ("", 127, 'exec: "": executable file not found in $PATH'),
])
def test_the_words(command: str, status: int, words: str) -> None:
    """As Docker 20.10 says them with runc 1.1."""
    assert complaint(command, status) == (
        "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: "
        f"{words}: unknown")
