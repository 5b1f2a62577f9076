from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest

from weavemw.cli import run
from weavemw.cli.facts import attached_ids, containers, is_of_now, router_facts
from weavemw.cli.status import complaints
from weavemw.network.plan import HostInterface, host_names
from weavemw.ops.run_dir import RouterAddress

A, B, C = ("a" * 64, "b" * 64, "c" * 64)
_RUNNING = {"running": True, "watcher": {"connected": True, "pending": {}, "left_alone": {}}}


def _row(container: str, name: str, command: str = "/dev/w sh") -> dict[str, Any]:
    mount = {"Source": "/s/wait/0123456789ab/w", "Destination": "/dev/w", "Mode": "ro"}
    return {"Id": container, "Names": [f"/{name}"], "Command": command, "Mounts": [mount]}


def test_containers_are_known_by_their_interfaces() -> None:
    """Also by an interface's name, where it names no container; one of nobody's counts for nobody."""
    interfaces = [HostInterface("x", A), HostInterface(host_names(B)[0]), HostInterface("vethwe000000000")]
    assert attached_ids(interfaces, [B, C]) == {A, B}


def test_what_is_attached_has_its_addresses_and_names() -> None:
    """By container name; names that were removed at the router are none."""
    names = [{"ContainerID": A, "Hostname": "web.weave.local.", "Tombstone": 0},
             {"ContainerID": A, "Hostname": "old.weave.local.", "Tombstone": 1}]
    found = containers(_RUNNING, [_row(B, "db"), _row(A, "web")], [HostInterface("x", A), HostInterface("y", B)],
                       {A: (ip_interface("10.32.0.1/12"),)}, names)
    assert found == {"waiting": [], "left_alone": [], "attached": [
        {"id": B, "name": "db", "addresses": [], "names": []},
        {"id": A, "name": "web", "addresses": ["10.32.0.1/12"], "names": ["web.weave.local"]}]}


def test_without_a_router_addresses_are_unknown() -> None:
    """Which is not the same as none."""
    found = containers(_RUNNING, [_row(A, "web")], [HostInterface("x", A)], None, None)
    assert found["attached"] == [{"id": A, "name": "web", "addresses": None, "names": []}]


@pytest.mark.parametrize(("proxy", "reason"), [
    pytest.param({"running": False}, {"reason": "weave proxy is not running", "attempts": 0}, id="no proxy"),
    pytest.param({"running": True, "watcher": {"connected": True, "at_work": [A]}},
                 {"reason": "it is being attached", "attempts": 0}, id="at this moment"),
    pytest.param({"running": True, "watcher": {"connected": True, "found": 5, "looked": 3}},
                 {"reason": "it is being attached", "attempts": 0}, id="soon"),
    pytest.param(_RUNNING, {"reason": "it is cut off, and nobody attaches it", "attempts": 0}, id="cut off"),
    pytest.param({"running": True, "watcher": {"connected": False, "error": "it stopped 31 s ago"}},
                 {"reason": "nobody attaches it: the watcher does not follow Docker's events: it stopped 31 s ago",
                  "attempts": 0}, id="nobody watches"),
    pytest.param({"running": True, "watcher": {"pending": {A: {"name": "web", "error": "taken", "attempts": 2,
                                                               "since": 5.0}}}},
                 {"reason": "taken", "attempts": 2, "since": 5.0}, id="what was tried failed"),
])
def test_what_waits_says_why(proxy: dict[str, Any], reason: dict[str, Any]) -> None:
    """A running container whose command is held back, and that has no interface."""
    found = containers(proxy, [_row(A, "web"), _row(B, "other", "sh")], [], {}, [])
    assert found["waiting"] == [{"id": A, "name": "web", **reason}]


def test_what_the_watcher_could_not_do_is_shown_too() -> None:
    """For containers that don't run any more, by name or else by short id."""
    pending = {A: {"name": "gone", "error": "e", "attempts": 1, "since": 1.0},
               B: {"name": "", "error": "f", "attempts": 1, "since": 1.0}}
    found = containers({"running": True, "watcher": {"pending": pending}}, None, None, None, None)
    assert [(each["name"], each["reason"]) for each in found["waiting"]] == [("b" * 12, "f"), ("gone", "e")]


def test_our_own_containers_are_not_news() -> None:
    """And a watcher that does not run knows nothing of now."""
    alone = {A: {"name": "weaveproxy", "reason": "r"}, B: {"name": "host", "reason": "r"}}
    proxy = {"running": True, "watcher": {"left_alone": alone}}
    assert containers(proxy, [], [], {}, [])["left_alone"] == [{"id": B, "name": "host", "reason": "r"}]
    assert containers({**proxy, "running": False}, [], [], {}, [])["left_alone"] == []


def test_what_was_attached_by_hand_is_not_left_alone() -> None:
    """The watcher left it alone when it started; who ran `weave attach` since did not."""
    proxy = {"running": True, "watcher": {"left_alone": {A: {"name": "web", "reason": "r"}}}}
    found = containers(proxy, [_row(A, "web", "sh")], [HostInterface("x", A)], {}, [])
    assert (len(found["attached"]), found["left_alone"]) == (1, [])


@pytest.mark.parametrize(("message", "shown"), [
    (f"container {A[:12]} (web): no; next attempt in 5 s", True),
    (f"removing the names of container {A[:12]} (web): no", True),
    (f"container {B[:12]} (gone): no; next attempt in 5 s", False),
    (f"[1] POST /containers/{B}/start: 500 no", False),
    (f"[1] POST /containers/{A}/start: 500 no", True),
    ("[1] POST /containers/web/start: 500 no", True),
    ("[1] POST /containers/gone/start: 500 no", False),
    ("[1] POST /containers/create: 500 no", True),
    ("not connected to Docker: no", True),
])
def test_errors_of_containers_that_are_gone_are_news_no_more(message: str, shown: bool) -> None:
    """Nobody can do anything about them; those of what is there stay, and those of everything."""
    assert is_of_now(message, [_row(A, "web")]) is shown


_AS_NOBODY = """
import os, sys
from weavemw.ops import metrics
from weavemw.cli import attach, display, facts, mistakes, overview, report, run, status  # while they can be read
os.setegid(65534)
os.seteuid(65534)
sys.exit(run(sys.argv[1:], os.environ))
"""


@pytest.mark.root
@pytest.mark.parametrize("verb", ["status", "healthcheck", "report", "metrics"])
def test_who_may_not_read_the_run_directory_is_told_so(tmp_path: Path, verb: str) -> None:
    """In one line that says what to do."""
    (tmp_path / "run").mkdir(mode=0o700)
    environ = {**os.environ, "WEAVEMW_RUN_DIR": str(tmp_path / "run"), "WEAVE_HTTP_ADDR": "127.0.0.1:1",
               "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    done = subprocess.run([sys.executable, "-c", _AS_NOBODY, verb], env=environ, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 1
    assert done.stderr == f"weave: can't read {tmp_path}/run/proxy.json: Permission denied: try again as root\n"


_HEALTHY: dict[str, Any] = {
    "router": {"running": True, "address": "h:1", "error": ""}, "engine": {"version": "1"},
    "proxy": {"running": True, "watcher": {"connected": True}, "listening": [{"address": "u", "error": ""}]}}


@pytest.mark.parametrize(("changes", "wrong"), [
    pytest.param({}, [], id="healthy"),
    pytest.param({"engine": {"error": "E"}}, ["engine: E"], id="only the engine, if it is the engine"),
    pytest.param({"router": {"running": False, "error": "R"}}, ["router: R"], id="the router"),
    pytest.param({"proxy": {"running": False}}, ["proxy: weave proxy is not running"], id="no proxy"),
    pytest.param({"proxy": {**_HEALTHY["proxy"], "listening": [{"address": "u", "error": "no"}]}}, ["proxy: u no"],
                 id="a listener"),
    pytest.param({"proxy": {**_HEALTHY["proxy"], "watcher": None}},
                 ["proxy: it does not follow Docker's events: not yet"], id="the watcher"),
])
def test_health_names_the_part_that_is_ill(changes: dict[str, Any], wrong: list[str]) -> None:
    """And not all that follows from it."""
    assert complaints({**_HEALTHY, **changes}) == wrong


@pytest.fixture
def answering() -> Iterator[Callable[[bytes], str]]:
    """A server on loopback that answers everything in one way; gives its address. ``b""`` hangs."""
    servers: list[socket.socket] = []

    def start(answer: bytes) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)
        threading.Thread(target=_serve, args=(server, answer), daemon=True).start()
        return "{}:{}".format(*server.getsockname())

    yield start
    for server in servers:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def _serve(server: socket.socket, answer: bytes) -> None:
    held = []
    while True:
        try:
            connection, _ = server.accept()
        except OSError:  # the test is over
            break
        held.append(connection)
        if answer:
            connection.recv(65536)
            connection.sendall(answer)
            connection.close()
    for connection in held:
        connection.close()


def _reply(body: str, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()


@pytest.mark.parametrize(("answer", "said"), [
    pytest.param(_reply("<html>"), "is none", id="a web page"),
    pytest.param(_reply("no", "404 Not Found"), "is none", id="something else"),
    pytest.param(b"SSH-2.0\r\n", "nothing answers", id="no HTTP"),
])
def test_what_is_no_router_is_known(answering: Callable[[bytes], str], answer: bytes, said: str) -> None:
    """Whatever answers at its address."""
    found = router_facts(RouterAddress(answering(answer)))
    assert not found["running"]
    assert said in found["error"]


def test_a_router_of_a_kind_that_we_do_not_know_is_shown_as_it_is(answering: Callable[[bytes], str], tmp_path: Path,
                                                                  capsys: pytest.CaptureFixture[str]) -> None:
    """Its status as text, also as data where its report is none that we can read."""
    environ = {"WEAVE_HTTP_ADDR": answering(_reply("its own words\n")), "WEAVEMW_RUN_DIR": str(tmp_path),
               "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    assert run(["status", "router"], environ) == 0
    assert capsys.readouterr().out == "its own words\n"
    assert run(["status", "dns", "--json"], environ) == 0
    assert json.loads(capsys.readouterr().out) == {"text": "its own words\n"}
    assert run(["report", "-f", "{{.Proxy.Running}}"], environ) == 0
    assert capsys.readouterr().out == "False\n"
