from __future__ import annotations

import pytest
from werkzeug.test import EnvironBuilder

from weavemw.attaching.decision import Attach, LeaveAlone
from weavemw.context import DECISION
from weavemw.dockerapi.container import Container
from weavemw.middleware.starting import container_of, to_attach
from weavemw.testing import FakeDocker

ATTACH = Attach(())


def environ_of(method, path, decision=None):
    environ = EnvironBuilder(method=method, path=path).get_environ()
    return environ if decision is None else {**environ, DECISION: decision}


@pytest.mark.parametrize(("method", "path", "decision", "found"), [
    ("POST", "/containers/web/start", ATTACH, ATTACH),
    ("POST", "/v1.41/containers/web/start", ATTACH, ATTACH),
    ("POST", "/v1.41/containers/web/restart?t=5", ATTACH, ATTACH),
    ("POST", "/containers/web/start", LeaveAlone("why"), None),
    ("POST", "/containers/web/start", None, None),
    ("POST", "/containers/create", ATTACH, None),
    ("GET", "/containers/web/start", ATTACH, None),
    ("POST", "/containers/web/stop", ATTACH, None),
    ("POST", "/unheard/of", ATTACH, None),
])
def test_only_starts_that_are_to_be_attached(method, path, decision, found):
    """Start and restart with the decision to attach are ours; nothing else is."""
    assert to_attach(environ_of(method, path, decision)) == found


def test_container_is_the_decisions_or_asked_for():
    """The container is known from the decision, else the daemon is asked."""
    docker = FakeDocker()
    container = docker.create(name="web")
    environ = environ_of("POST", "/containers/web/start")
    assert container_of(environ, ATTACH, docker) == container
    other = Container("1" * 64)
    assert container_of(environ, Attach((), container=other), docker) is other
