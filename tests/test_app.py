"""The whole stack: building it touches nothing, and what it answers is proper WSGI."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fakedaemon import FakeDaemon
from werkzeug.middleware.lint import LintMiddleware
from werkzeug.test import Client

import weavemw.app
from weavemw.app import build
from weavemw.settings import Settings

TOUCHES_NOTHING = """
import sys
touched = []
sys.addaudithook(lambda event, args: touched.append((event, args))
                 if event.startswith(("socket.", "subprocess.", "os.fork", "ctypes.call")) else None)
import weavemw.app
weavemw.app.build(weavemw.app.Settings(rewrite_inspect=True))
import threading
assert threading.active_count() == 1, threading.enumerate()
# urllib3 looks, when it is imported, whether this machine has IPv6.
assert [event for event in touched if "::1" not in str(event) and "family=10" not in str(event)] == []
"""


def test_building_touches_neither_docker_nor_network():
    """Importing the package and building the stack open no socket, start no thread and no process."""
    subprocess.run([sys.executable, "-c", TOUCHES_NOTHING], check=True, timeout=60, cwd=Path(__file__).parents[1])


IMPORTED = """
import os, sys
os.environ = os.environb = None
import weavemw.app
assert "proxy" not in vars(weavemw.app)
"""


def test_importing_reads_no_environment():
    """What it holds counts when the proxy is first asked for."""
    subprocess.run([sys.executable, "-c", IMPORTED], check=True, timeout=60, cwd=Path(__file__).parents[1])


def test_the_proxy_is_made_when_it_is_asked_for():
    """Once, in a shell that leads to the proxy too, with one line of warning; what can't be used raises then."""
    asked = "import_app('weavemw.app:proxy')"
    script = f"from gunicorn.util import import_app; assert {asked} is {asked}"
    environ = {**os.environ, "DOCKER_HOST": "tcp://127.0.0.1:12375"}
    done = subprocess.run([sys.executable, "-c", script], check=True, timeout=60, cwd=Path(__file__).parents[1],
                          env=environ, capture_output=True, text=True)
    assert done.stderr.count("\n") == 1
    assert "DOCKER_HOST is tcp://127.0.0.1:12375" in done.stderr
    refused = subprocess.run([sys.executable, "-c", script], check=False, timeout=60, cwd=Path(__file__).parents[1],
                             env={**environ, "WEAVEMW_DOCKER_HOST": "tcp://vm:1"}, capture_output=True, text=True)
    assert "only unix:///path is supported" in refused.stderr


def test_it_has_nothing_else_to_give():
    """A typing error is an AttributeError, as with any module."""
    with pytest.raises(AttributeError, match="has no attribute 'proxi'"):
        _ = weavemw.app.proxi


@pytest.fixture
def daemon(tmp_path):
    with FakeDaemon(tmp_path / "docker.sock") as daemon:
        yield daemon


@pytest.fixture
def client(daemon, tmp_path):
    """A client of the whole stack under lint, in front of a fake daemon; there is no router."""
    settings = Settings(docker_host=f"unix://{daemon.path}", router_address="127.0.0.1:9", state_dir=tmp_path,
                        run_dir=tmp_path)
    return Client(LintMiddleware(build(settings)))


@pytest.mark.parametrize("path", ["/_ping", "/v1.41/info", "/events", "/containers/json?all=1"])
def test_what_is_passed_on_is_proper_wsgi(client, path):
    """Answers of the daemon pass Werkzeug's lint."""
    with client.get(path, environ_overrides={"wsgi.multithread": True}) as reply:
        assert (reply.status_code, reply.data) == (200, b"{}")


def test_create_is_wrapped(client, daemon):
    """A create reaches the daemon with the wait program before the image's own command."""
    daemon.handlers["/images/busybox/json"] = lambda request: request.answer(b'{"Config": {"Cmd": ["sh"]}}')
    with client.post("/v1.41/containers/create", json={"Image": "busybox"}) as reply:
        assert reply.data == b"{}"
    sent = json.loads(daemon.requests[-1].body)
    assert (sent["Entrypoint"], sent["Cmd"]) == (["/dev/w"], ["sh"])
    assert sent["HostConfig"]["Binds"][0].endswith("/w:/dev/w:ro")


def test_errors_are_dockers_json(client):
    """An error of ours is JSON with a message, under lint too."""
    with client.post("/containers/create", json={"Image": "x", "Env": ["WEAVE_CIDR=nonsense"]}) as reply:
        assert reply.status_code in (400, 404)
        assert "message" in reply.get_json()


def test_without_the_servers_socket_an_upgrade_is_refused(client):
    """A server that keeps its sockets to itself can't upgrade: 501, with the reason."""
    with client.post("/containers/x/attach", headers={"Upgrade": "tcp", "Connection": "Upgrade"}) as reply:
        assert reply.status_code == 501
        assert "can attach" in reply.get_json()["message"]
