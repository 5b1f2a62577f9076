"""The short form: docker_proxy, on and on_answer, in front of a daemon on a socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakedaemon import FakeDaemon, Request
from werkzeug.test import Client

import weavemw
from weavemw import docker_proxy, errors, on, on_answer


def _echo(request: Request) -> None:
    request.read_body()
    request.answer(request.body or b"{}", "201 Created" if "/create" in request.path else "200 OK",
                   "Content-Type: application/json", "Connection: close")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    """Answers what it was sent."""
    with FakeDaemon(tmp_path / "docker.sock", handlers={"": _echo}) as running:
        yield running


class Whole(Client):
    """Reads each answer to its end."""

    def open(self, *args: Any, **kwargs: Any) -> Any:
        return super().open(*args, buffered=True, **kwargs)


def client(daemon: FakeDaemon, *layers: Any) -> Client:
    """A client of a proxy with these layers."""
    return Whole(docker_proxy(*layers, socket=str(daemon.path)))


@on("container_create")
def no_privileged(call: Any) -> None:
    """As in the README."""
    if call.body.boolean("HostConfig", "Privileged"):
        raise errors.Forbidden("no privileged containers here")


def test_a_proxy_without_layers_carries_everything(daemon: FakeDaemon) -> None:
    """The body as it came, the answer as it came."""
    assert client(daemon).post("/v1.41/containers/create", json={"Image": "a"}).get_json() == {"Image": "a"}


def test_a_judgement_is_the_answer(daemon: FakeDaemon) -> None:
    """In Docker's form; the daemon hears nothing."""
    answer = client(daemon, no_privileged).post("/containers/create", json={"HostConfig": {"Privileged": True}})
    assert (answer.status_code, answer.get_json()) == (403, {"message": "weave: no privileged containers here"})
    assert not daemon.requests
    assert client(daemon, no_privileged).post("/containers/create", json={"Image": "a"}).status_code == 201


@pytest.mark.parametrize("target", [
    "/containers/create", "/v1.24/containers/create", "//containers/create", "/%63ontainers/create",
    "/images/../containers/create", "/v1.41/containers/./create?name=x",
])
@pytest.mark.parametrize("body", [
    b'{"HostConfig":{"Privileged":true}}', b'{"hostconfig":{"privileged":true}}', b'{"Privileged":true}',
    b'{"HostConfig":{"Privileged":false},"HostConfig":{"Privileged":true}}', b'{"HostConfig":{"Privileged":true}}{}',
    b'{"HostConfig":{"Privile\\u0067ed":true}}',
])
def test_no_spelling_passes(daemon: FakeDaemon, target: str, body: bytes) -> None:
    """Paths and bodies that the daemon takes as a privileged create."""
    answer = client(daemon, no_privileged).open(target, method="POST", data=body, environ_overrides={"RAW_URI": target},
                                                content_type="application/json")
    assert answer.status_code == 403
    assert not daemon.requests


@pytest.mark.parametrize("body", [{"Privileged": True}, {"HostConfig": {"Privileged": True}}, {"binds": ["/:/h"]}])
def test_nothing_is_changed_at_start(daemon: FakeDaemon, body: dict[str, Any]) -> None:
    """Before API 1.24 a start could replace what a policy saw at create."""
    answer = client(daemon, no_privileged).post("/v1.23/containers/web/start", json=body)
    assert answer.status_code == 400
    assert client(daemon, no_privileged).post("/v1.23/containers/web/start").status_code == 200


def test_layers_see_a_request_in_their_order(daemon: FakeDaemon) -> None:
    """And what one changed, the next one reads."""
    @on("container_create")
    def first(call: Any) -> None:
        call.body.set("Labels", to={"a": "1"})

    @on("container_create")
    def second(call: Any) -> None:
        call.body.set("Labels", to=call.body.labels("Labels") | {"b": "2"})

    answer = client(daemon, first, second).post("/containers/create", json={"Image": "x"})
    assert answer.get_json() == {"Image": "x", "Labels": {"a": "1", "b": "2"}}


def test_without_names_every_request_is_judged(daemon: FakeDaemon) -> None:
    """Also one that is no known call."""
    seen = []
    app = client(daemon, on()(lambda call: seen.append((call.name, call.path))))
    app.get("/_ping")
    app.post("/swarm/init")
    assert seen == [("ping", "/_ping"), ("", "/swarm/init")]


def test_an_answer_is_seen_and_changed(daemon: FakeDaemon) -> None:
    """Whole, with its status; its length follows."""
    @on_answer("container_create")
    def add(call: Any, answer: Any) -> None:
        answer.replace(answer.json() | {"seen": [call.name, answer.status]})

    answer = client(daemon, add).post("/containers/create", json={"Image": "x"})
    assert json.loads(answer.data) == {"Image": "x", "seen": ["container_create", 201]}
    assert int(answer.headers["Content-Length"]) == len(answer.data)


def test_a_class_is_a_layer(daemon: FakeDaemon) -> None:
    """Any middleware that takes an app."""
    class Marked:
        def __init__(self, app: Any) -> None:
            self.app = app

        def __call__(self, environ: Any, start_response: Any) -> Any:
            environ["HTTP_X_MARK"] = "yes"
            return self.app(environ, start_response)

    client(daemon, Marked).get("/_ping")
    assert daemon.requests[0].header("x-mark") == "yes"


def test_unknown_names_are_refused_at_once() -> None:
    """With what was perhaps meant."""
    with pytest.raises(ValueError, match="is it container_create"):
        on("contaner_create")
    with pytest.raises(ValueError, match="no call"):
        on_answer("xyz")


@pytest.mark.parametrize("calls", [(), ("container_logs",), ("events", "container_list")])
def test_answers_that_are_streams_can_not_be_changed(calls: tuple[str, ...]) -> None:
    """They are refused when the layer is made."""
    with pytest.raises(ValueError, match="no streams"):
        on_answer(*calls)


def test_a_judge_stays_a_function() -> None:
    """For its own tests."""
    assert no_privileged.__name__ == "no_privileged"
    assert callable(no_privileged.__wrapped__)  # type: ignore[attr-defined]


def test_web_pages_are_refused(daemon: FakeDaemon) -> None:
    """At a TCP listener: another page's origin, and a strange name."""
    app = client(daemon, no_privileged)
    for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}):
        answer = app.get("/_ping", headers=headers, environ_overrides={"REMOTE_ADDR": "127.0.0.1"})
        assert answer.status_code == 403


def test_the_package_names_it() -> None:
    """As attributes of weavemw; others are none."""
    assert weavemw.docker_proxy is docker_proxy
    with pytest.raises(AttributeError):
        _ = weavemw.nothing_of_the_kind
