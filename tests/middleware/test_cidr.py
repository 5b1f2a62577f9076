"""What is to be attached, and what is left alone."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from weavemw import context
from weavemw.attaching.decision import Attach, LeaveAlone
from weavemw.errors import BadRequest, DockerError, DockerUnreachable, InvalidCidr
from weavemw.middleware.cidr import CidrParser
from weavemw.network.addresses import parse
from weavemw.testing import FakeDocker

CREATE = "/v1.41/containers/create?name=web"


@pytest.fixture
def docker(docker: FakeDocker) -> FakeDocker:
    """Images and networks of all kinds."""
    docker.images |= {"none": {"Env": ["WEAVE_CIDR=none"]}, "ten": {"Env": ["A=1", "WEAVE_CIDR=10.1.1.1/24"]},
                      "null": {}, "nulls": {"Env": None, "Entrypoint": None}}
    docker.networks |= {"shop": "bridge", "0123abc": "null", "swarm": "overlay", "lan": "macvlan", "lan2": "ipvlan",
                        "plugin": "weavemesh", "myhost": "host"}
    return docker


@pytest.mark.parametrize(("body", "wanted"), [
    pytest.param({"Image": "busybox"}, "net:default", id="says nothing"),
    pytest.param({"Image": "busybox", "Env": ["WEAVE_CIDR="]}, "net:default", id="blank"),
    pytest.param({"Image": "busybox", "Env": ["WEAVE_CIDR=10.2.1.1/24"]}, "10.2.1.1/24", id="address"),
    pytest.param({"Image": "busybox", "env": ["WEAVE_CIDR=net:10.32.2.0/24"]}, "net:10.32.2.0/24", id="other case"),
    pytest.param({"Image": "busybox", "Env": ["WEAVE_CIDR=none", "WEAVE_CIDR=10.2.1.1/24"]}, "10.2.1.1/24", id="last"),
    pytest.param({"Image": "busybox", "Env": ["WEAVE_CIDR=none", "WEAVE_CIDR"]}, "net:default", id="taken away"),
    pytest.param({"Image": "ten"}, "10.1.1.1/24", id="image's"),
    pytest.param({"Image": "ten", "Env": ["WEAVE_CIDR=10.2.1.1/24"]}, "10.2.1.1/24", id="request's first"),
    pytest.param({"Image": "none", "Env": ["WEAVE_CIDR=10.2.1.1/24"]}, "10.2.1.1/24", id="over the image's none"),
    pytest.param({"Image": "none", "Env": ["WEAVE_CIDR"]}, "net:default", id="image's none taken away"),
    pytest.param({"Image": "null"}, "net:default", id="image without configuration"),
    pytest.param({"Image": "nulls"}, "net:default", id="image with nulls"),
    pytest.param({"Image": "busybox", "HostConfig": {"NetworkMode": "none"}}, "net:default", id="no network"),
    pytest.param({"Image": "busybox", "HostConfig": {"NetworkMode": "bridge"}}, "net:default", id="bridge"),
    pytest.param({"Image": "busybox", "HostConfig": {"NetworkMode": "shop"}}, "net:default", id="Compose's"),
    pytest.param({"Image": "busybox", "HostConfig": {"NetworkMode": "0123abc"}}, "net:default", id="none by its id"),
    pytest.param({"Image": "busybox", "HostConfig": None}, "net:default", id="HostConfig null"),
    pytest.param({"Cmd": ["/h/sh"], "Env": ["WEAVE_CIDR=10.2.1.1/24"]}, "10.2.1.1/24", id="no image"),
    pytest.param({"Image": "", "Entrypoint": "/h/sh"}, "net:default", id="no image, entrypoint"),
])
def test_what_is_attached(docker: FakeDocker, daemon: Any, ask: Any, body: object, wanted: str) -> None:
    """A create that is to be attached says with what, and takes along the image's configuration."""
    ask(CidrParser(daemon, docker=docker), "POST", CREATE, body)
    decision = daemon.request.environ[context.DECISION]
    assert isinstance(decision, Attach)
    assert decision.wanted == parse(wanted)
    assert decision.image == docker.images.get(body.get("Image"), {})  # type: ignore[attr-defined]
    assert daemon.request.json == body


def test_who_asks_to_be_left_alone_costs_no_question(docker: FakeDocker, daemon: Any, ask: Any) -> None:
    """What the request says of it counts, whatever its image says."""
    ask(CidrParser(daemon, docker=docker), "POST", CREATE, {"Image": "ten", "Env": ["WEAVE_CIDR=none"]})
    assert isinstance(daemon.request.environ[context.DECISION], LeaveAlone)
    assert docker.calls == []


@pytest.mark.parametrize(("body", "reason"), [
    pytest.param({"Image": "busybox", "Env": ["WEAVE_CIDR=none"]}, "WEAVE_CIDR is none", id="none"),
    pytest.param({"Image": "none"}, "WEAVE_CIDR is none", id="image's none"),
    pytest.param({"Image": "busybox", "HostConfig": {"NetworkMode": "host"}}, "it has the host's network", id="host"),
    pytest.param({"Image": "busybox", "hostconfig": {"networkmode": "host"}}, "it has the host's network", id="case"),
    pytest.param({"Image": "busybox", "NetworkMode": "host"}, "it has the host's network", id="beside the config"),
    pytest.param({"Image": "missing", "HostConfig": {"NetworkMode": "container:db"}},
                 "it has the network of another container (db)", id="container"),
    pytest.param({"Image": "busybox", "HostConfig": {"NetworkMode": "swarm"}},
                 'its network "swarm" has the driver "overlay"', id="overlay"),
    pytest.param({"Image": "busybox", "HostConfig": {"NetworkMode": "lan"}},
                 'its network "lan" has the driver "macvlan"', id="macvlan"),
    pytest.param({"Image": "busybox", "HostConfig": {"NetworkMode": "lan2"}},
                 'its network "lan2" has the driver "ipvlan"', id="ipvlan"),
    pytest.param({"Image": "busybox", "HostConfig": {"NetworkMode": "plugin"}},
                 'its network "plugin" has the driver "weavemesh"', id="plugin"),
    pytest.param({"Image": "busybox", "HostConfig": {"NetworkMode": "myhost"}},
                 'its network "myhost" has the driver "host"', id="host by its id"),
    pytest.param({"Image": "busybox", "HostConfig": {"NetworkMode": "nowhere"}},
                 'there is no network "nowhere"', id="unknown"),
])
def test_what_is_left_alone(docker: FakeDocker, daemon: Any, ask: Any, caplog: pytest.LogCaptureFixture, body: object,
                            reason: str) -> None:
    """A container that is left alone goes to the daemon untouched, and the log says why, once."""
    with caplog.at_level(logging.INFO):
        ask(CidrParser(daemon, docker=docker), "POST", CREATE, body)
    assert daemon.request.environ[context.DECISION].reason == reason
    assert daemon.request.json == body
    assert [record.message for record in caplog.records] == [f"leaving container web alone because {reason}"]


@pytest.mark.parametrize(("env", "attached"), [
    ([], False), (["WEAVE_CIDR="], True), (["WEAVE_CIDR=10.2.1.1/24"], True),
])
def test_no_default_ipalloc(docker: FakeDocker, daemon: Any, ask: Any, env: list[str], attached: bool) -> None:
    """With --no-default-ipalloc only containers that ask for it are attached."""
    app = CidrParser(daemon, docker=docker, default_ipalloc=False)
    ask(app, "POST", CREATE, {"Image": "busybox", "Env": env})
    assert isinstance(daemon.request.environ[context.DECISION], Attach) is attached


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"nonsense", b"{}", b'{"Image":""}', b'{"Image":null}',
                                  b'{"Image":"","Cmd":[],"Env":["WEAVE_CIDR=nonsense"]}'])
def test_what_the_daemon_refuses_is_left_to_the_daemon(docker: FakeDocker, daemon: Any, ask: Any, body: bytes) -> None:
    """A create that makes no sense is forwarded byte for byte, for the daemon's own answer."""
    ask(CidrParser(daemon, docker=docker), "POST", CREATE, body)
    assert context.DECISION not in daemon.request.environ
    assert daemon.request.body == body


@pytest.mark.parametrize(("body", "error", "message"), [
    pytest.param({"Image": "busybox", "Env": ["WEAVE_CIDR=nonsense"]}, InvalidCidr, 'invalid WEAVE_CIDR "nonsense"',
                 id="nonsense"),
    pytest.param({"Image": "busybox", "Env": "WEAVE_CIDR=none"}, BadRequest,
                 "Env: expected a list of strings, got string", id="wrong type"),
    pytest.param({"Image": "missing"}, DockerError, "No such image: missing:latest", id="missing image"),
])
def test_what_is_refused(docker: FakeDocker, daemon: Any, ask: Any, body: object, error: type[Exception],
                         message: str) -> None:
    """What can't be is refused before the daemon hears of it, a missing image in the daemon's words."""
    docker.failures |= {"image_config": DockerError(404, "no such image: missing: No such image: missing:latest")} \
        if error is DockerError else {}
    with pytest.raises(error) as refused:
        ask(CidrParser(daemon, docker=docker), "POST", CREATE, body)
    assert str(refused.value).startswith(message)
    assert not daemon.requests


@pytest.mark.parametrize("verb", ["start", "restart"])
@pytest.mark.parametrize(("env", "wanted"), [
    ((), "net:default"), (("WEAVE_CIDR=10.2.1.1/24",), "10.2.1.1/24"), (("WEAVE_CIDR=none",), "net:default"),
])
def test_a_wrapped_container_is_attached_at_every_start(docker: FakeDocker, daemon: Any, ask: Any, verb: str,
                                                        env: tuple[str, ...], wanted: str) -> None:
    """The wrapped entrypoint is the promise, whatever the settings are by then."""
    container = docker.create(name="web", env=env)
    ask(CidrParser(daemon, docker=docker, default_ipalloc=False), "POST", f"/v1.41/containers/web/{verb}")
    assert daemon.request.environ[context.DECISION] == Attach(parse(wanted), container=container)


def test_a_container_that_is_not_wrapped_is_left_alone(docker: FakeDocker, daemon: Any, ask: Any) -> None:
    """A container that was made without us starts without us."""
    docker.create(name="web", entrypoint=("sh",))
    ask(CidrParser(daemon, docker=docker), "POST", "/containers/web/start")
    assert isinstance(daemon.request.environ[context.DECISION], LeaveAlone)


def test_an_unknown_container_is_left_to_the_daemon(docker: FakeDocker, daemon: Any, ask: Any) -> None:
    """The daemon says that there is no such container."""
    ask(CidrParser(daemon, docker=docker), "POST", "/containers/nobody/start")
    assert context.DECISION not in daemon.request.environ


def test_a_start_is_not_risked_without_knowing_the_container(docker: FakeDocker, daemon: Any, ask: Any) -> None:
    """While the daemon can't be asked about a container, it is not started."""
    docker.failures["inspect"] = DockerUnreachable("gone")
    with pytest.raises(DockerUnreachable):
        ask(CidrParser(daemon, docker=docker), "POST", "/containers/web/start")
    assert not daemon.requests


@pytest.mark.parametrize(("path", "body", "refused"), [
    ("/v1.23/containers/web/start", {"NetworkMode": "host"}, True),
    ("/v1.23/containers/web/start", {"HostConfig": {"NetworkMode": "container:db"}}, True),
    ("/v1.23/containers/web/start", {"HostConfig": {"NetworkMode": "swarm"}}, True),
    ("/v1.23/containers/web/start", {"HostConfig": {"NetworkMode": "none"}}, False),
    ("/v1.23/containers/web/start", {"HostConfig": None}, False),
    ("/v1.24/containers/web/start", {"NetworkMode": "host"}, False),
    ("/v1.23/containers/web/restart", {"NetworkMode": "host"}, False),
])
def test_an_old_start_can_not_take_the_network_away(docker: FakeDocker, daemon: Any, ask: Any, path: str, body: object,
                                                    refused: bool) -> None:
    """A start that would put a wrapped container where it can't be attached fails; it would wait for ever."""
    docker.create(name="web")
    app = CidrParser(daemon, docker=docker)
    if refused:
        with pytest.raises(BadRequest, match="container web was created to be attached"):
            ask(app, "POST", path, body)
    else:
        ask(app, "POST", path, body)
        assert isinstance(daemon.request.environ[context.DECISION], Attach)


def test_other_calls_are_passed_on_without_a_look(daemon: Any, ask: Any) -> None:
    """Neither Docker nor the body is touched for what is none of our business."""
    ask(CidrParser(daemon, docker=FakeDocker()), "POST", "/containers/x/exec", b"{")
    assert context.BODY not in daemon.request.environ
    assert context.DECISION not in daemon.request.environ


