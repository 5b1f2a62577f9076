"""The middlewares one inside the other, as the proxy has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from weavemw import context
from weavemw.attaching.attachment import Attachment
from weavemw.attaching.locks import Locks
from weavemw.middleware.attach import Attacher
from weavemw.middleware.cidr import CidrParser
from weavemw.middleware.commands import CommandChecker
from weavemw.middleware.dns import DnsInjector
from weavemw.middleware.entrypoint import EntrypointWrapper
from weavemw.middleware.errors import ErrorResponder
from weavemw.middleware.inspect import InspectRewriter
from weavemw.middleware.ipam import IpamClient
from weavemw.middleware.processes import Progress
from weavemw.testing import FakeDocker, FakeRouter, RecordingNetwork


@pytest.fixture
def stack(daemon: Any, docker: FakeDocker, router: FakeRouter) -> Any:
    """Everything before the attach, around a daemon."""
    named = InspectRewriter(DnsInjector(daemon, router=router), router=router)
    wrapped = EntrypointWrapper(named, wait_dir=Path("/wait/0123456789ab"), docker=docker,
                                still_waiting=lambda container: False)
    return ErrorResponder(CidrParser(wrapped, docker=docker))


def test_create(stack: Any, daemon: Any, ask: Any) -> None:
    """One create gets all of it, and the daemon's answer comes back as it was."""
    body = b'{"Image":"busybox","x":1.50,"env":["WEAVE_CIDR=10.2.1.1/24"],"hostconfig":{"memory":9007199254740993}}'
    response = ask(stack, "POST", "/v1.41/%63ontainers/create?name=web", body)
    assert (response.status_code, response.data) == (201, daemon.body)
    assert daemon.request.body == (
        b'{"Image":"busybox","x":1.50,"env":["WEAVE_CIDR=10.2.1.1/24"],"HostConfig":{"memory":9007199254740993,'
        b'"Binds":["/wait/0123456789ab/./w:/dev/w:ro"]},"Entrypoint":["/dev/w"],"Cmd":["sh"]}')


@pytest.mark.parametrize(("method", "target", "body"), [
    ("POST", "/containers/create", b'{"Image":"busybox", "Env":["WEAVE_CIDR=none"]}'),
    ("POST", "/containers/create", b"[]"), ("POST", "/containers/create", b"null"),
    ("POST", "/containers/create", b"x"), ("POST", "/containers/create", b""),
  ("POST", "/containers/nobody/start", b""), ("GET", "/containers/x/json", b""),
    ("POST", "/containers/nobody/exec", b'{"Cmd":["ls"] }'), ("POST", "/commit?container=nobody", b"null"),
    ("POST", "/build?t=x", b"\x00\x01"), ("GET", "/events", b""), ("HEAD", "/_ping", b""),
    ("FOO", "/nothing/../at/all", b""),
])
def test_what_is_not_ours_goes_through_untouched(stack: Any, daemon: Any, ask: Any, method: str, target: str,
                                                 body: bytes) -> None:
    """Request and response are byte for byte what they were."""
    daemon.body = b"" if method == "HEAD" else daemon.body
    response = ask(stack, method, target, body)
    assert (daemon.request.body, daemon.request.environ["RAW_URI"]) == (body, target)
    assert response.data == daemon.body


@pytest.mark.parametrize(("body", "status", "message"), [
    (b'{"Image":"busybox","Env":["WEAVE_CIDR=nonsense"]}', 400, 'weave: invalid WEAVE_CIDR "nonsense"'),
    (b'{"Image":"missing"}', 404, "No such image: missing"),
    (b'{"Image":"busybox","HostConfig":{"Binds":["/a:/dev","/a:/.dockerenv"]}}', 400, "weave: nothing is left where"),
    (b'{"Image":7}', 400, "weave: Image: expected a string, got number"),
    (b'{"a":' + b"[" * 10_000, 400, "weave: the body's JSON is nested too deeply"),
])
def test_what_can_not_be_is_refused(stack: Any, daemon: Any, ask: Any, body: bytes, status: int, message: str) -> None:
    """The client reads the reason, the daemon hears nothing."""
    response = ask(stack, "POST", "/containers/create", body)
    assert response.status_code == status
    assert response.get_json()["message"].startswith(message)
    assert not daemon.requests


def test_start(stack: Any, daemon: Any, docker: FakeDocker, ask: Any) -> None:
    """A start carries what the attach needs, and nothing of it is sent."""
    container = docker.create(name="web", hostname="web", domainname="weave.local")
    daemon.status, daemon.body = "204 NO CONTENT", b""
    ask(stack, "POST", "/v1.41/containers/web/start", CONTENT_LENGTH="0")
    environ = daemon.request.environ
    assert environ[context.DECISION].container == container
    assert environ[context.NAMES](container) == ("web.weave.local",)
    assert daemon.request.body == b""


def test_what_a_start_costs(daemon: Any, docker: FakeDocker, router: FakeRouter, ask: Any, tmp_path: Path,
                            monkeypatch: pytest.MonkeyPatch) -> None:
    """One lock; an inspect to decide, one after the start, one that guards the namespace; one call for each fact."""
    def started(*arguments: Any) -> Any:
        docker.start(container.id)
        return daemon(*arguments)

    attachment = Attachment(docker=docker, router=router, network=RecordingNetwork(), run_dir=tmp_path)
    checked = CommandChecker(started, docker=docker, progress_of=lambda pid: Progress.WAITING)
    attached = IpamClient(Attacher(checked, attachment=attachment), attachment=attachment)
    app = CidrParser(DnsInjector(attached, router=router), docker=docker)
    container, locks, hold = docker.create(name="web"), [], Locks.hold
    monkeypatch.setattr(Locks, "hold", lambda *arguments: locks.append(arguments[1]) or hold(*arguments))
    daemon.status, daemon.body = "204 NO CONTENT", b""
    ask(app, "POST", "/v1.41/containers/web/start", CONTENT_LENGTH="0")
    assert [name for name, *_ in docker.calls] == ["inspect"] * 3
    assert locks == [container.id]
    calls = [call for call in router.calls if call[0] != "addresses"]  # the fake allocator asks that itself
    remembered = ["dns_address", "domain"]  # by a real client
    assert [name for name, *_ in calls] == ["default_subnet6", "allocate", *remembered * 2, "register"]
