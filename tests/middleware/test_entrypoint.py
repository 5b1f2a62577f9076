"""The wait program before the entrypoint, in the container, its execs and its images."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from weavemw import context
from weavemw.attaching.decision import Attach, LeaveAlone
from weavemw.dockerapi.container import Container
from weavemw.dockerapi.routes import query_of
from weavemw.errors import BadRequest
from weavemw.middleware.entrypoint import EntrypointWrapper, still_waiting
from weavemw.network.addresses import Default
from weavemw.testing import FakeDocker, await_true

WAIT_DIR = Path("/var/lib/weavemw/wait/0123456789ab")
BIND = f"{WAIT_DIR}:/w:ro"
CREATE = "/v1.41/containers/create"


def attach(**image: object) -> dict[str, Any]:
    """An environ that says that the container is to be attached."""
    return {context.DECISION: Attach((Default(),), image=image)}


@pytest.fixture
def wrapper(daemon: Any, docker: FakeDocker) -> EntrypointWrapper:
    """Around the daemon; every container is still waiting."""
    return EntrypointWrapper(daemon, wait_dir=WAIT_DIR, docker=docker, still_waiting=lambda container: True)


@pytest.mark.parametrize(("image", "body", "entrypoint", "cmd"), [
    pytest.param({"Cmd": ["sh"]}, {}, ["/w/w"], ["sh"], id="image's command"),
    pytest.param({"Entrypoint": ["e"], "Cmd": ["c"]}, {}, ["/w/w", "e"], ["c"], id="image's both"),
    pytest.param({"Entrypoint": ["e"], "Cmd": ["c"]}, {"Cmd": ["x"]}, ["/w/w", "e"], ["x"], id="own command"),
    pytest.param({"Entrypoint": ["e"], "Cmd": ["c"]}, {"Entrypoint": ["y"]}, ["/w/w", "y"], None, id="own entrypoint"),
    pytest.param({"Entrypoint": ["e"], "Cmd": ["c"]}, {"entrypoint": "y"}, ["/w/w", "y"], None, id="a string"),
    pytest.param({"Entrypoint": ["e"], "Cmd": ["c"]}, {"Entrypoint": []}, ["/w/w"], ["c"], id="cleared by []"),
    pytest.param({"Entrypoint": ["e"]}, {"Entrypoint": [""], "Cmd": ["x"]}, ["/w/w"], ["x"], id='cleared by [""]'),
    pytest.param({"Entrypoint": ["/w/w", "e"], "Cmd": ["c"]}, {}, ["/w/w", "e"], ["c"], id="image was wrapped"),
    pytest.param({"Entrypoint": ["e"]}, {"Entrypoint": ["/w/w", "y"]}, ["/w/w", "y"], None, id="request was wrapped"),
    pytest.param({}, {"Cmd": "x y"}, ["/w/w"], "x y", id="the command stays as it was given"),
    pytest.param({"Entrypoint": None, "Cmd": None}, {"Cmd": ["x"]}, ["/w/w"], ["x"], id="nulls in the image"),
])
def test_entrypoint_is_wrapped(wrapper: Any, daemon: Any, ask: Any, image: dict[str, object], body: dict[str, object],
                               entrypoint: list[str], cmd: object) -> None:
    """The wait program goes before what would run, and is mounted read-only."""
    ask(wrapper, "POST", CREATE, body | {"Image": "x", "Big": 9007199254740993}, **attach(**image))
    sent = daemon.request.json
    assert (sent["Entrypoint"], sent.get("Cmd")) == (entrypoint, cmd)
    assert sent["HostConfig"] == {"Binds": [BIND]}
    assert (sent["Image"], sent["Big"]) == ("x", 9007199254740993)
    assert "entrypoint" not in sent


@pytest.mark.parametrize(("image", "body"), [
    pytest.param({}, b'{"Image":"x"}', id="none anywhere"),
    pytest.param({"Entrypoint": ["e"], "Cmd": ["c"]}, b'{"Image":"x", "Entrypoint":[""]}', id="cleared"),
])
def test_no_command_is_left_to_the_daemon(wrapper: Any, daemon: Any, ask: Any, image: dict[str, object],
                                          body: bytes) -> None:
    """The daemon says "No command specified" itself."""
    ask(wrapper, "POST", CREATE, body, **attach(**image))
    assert daemon.request.body == body


@pytest.mark.parametrize("decision", [{}, {context.DECISION: LeaveAlone("so")}])
def test_what_is_left_alone_is_untouched(wrapper: Any, daemon: Any, ask: Any, decision: dict[str, Any]) -> None:
    """Left alone means byte for byte."""
    ask(wrapper, "POST", CREATE, b'{"Cmd" : ["x"]}', **decision)
    assert daemon.request.body == b'{"Cmd" : ["x"]}'


@pytest.mark.parametrize(("host", "binds"), [
    pytest.param({"Binds": ["/a:/b", "v:/c:ro"]}, ["/a:/b", "v:/c:ro", BIND], id="own binds stay"),
    pytest.param({"binds": None}, [BIND], id="null"),
    pytest.param({"Binds": [BIND, "/a:/b"]}, ["/a:/b", BIND], id="ours, copied from inspect"),
    pytest.param({"Binds": ["/var/lib/weavemw/wait/older:/w:ro"]}, [BIND], id="an older version's"),
    pytest.param({"Binds": ["/a:/www", "/w:/b"]}, ["/a:/www", "/w:/b", BIND], id="similar"),
])
def test_binds(wrapper: Any, daemon: Any, ask: Any, host: object, binds: list[str]) -> None:
    """The user's binds stay, ours is there once."""
    ask(wrapper, "POST", CREATE, {"Cmd": ["x"], "HostConfig": host}, **attach())
    assert daemon.request.json["HostConfig"] == {"Binds": binds}


@pytest.mark.parametrize("body", [
    pytest.param({"HostConfig": {"Binds": ["/a:/w"]}}, id="bind"),
    pytest.param({"HostConfig": {"Binds": ["/a:/w/:ro"]}}, id="bind with a slash"),
    pytest.param({"HostConfig": {"Binds": ["/a:/x/../w/w"]}}, id="bind on the program"),
    pytest.param({"HostConfig": {"Binds": ["/w"]}}, id="anonymous volume"),
    pytest.param({"HostConfig": {"Binds": ["/var/lib/weavemw/wait/x:/w:rw"]}}, id="ours, writable"),
    pytest.param({"HostConfig": {"Binds": ["/var/lib/weavemw/wait/../x:/w:ro"]}}, id="not ours"),
    pytest.param({"HostConfig": {"Mounts": [{"Type": "bind", "Source": "/a", "Target": "//w"}]}}, id="mount"),
    pytest.param({"HostConfig": {"Tmpfs": {"/w": ""}}}, id="tmpfs"),
    pytest.param({"Volumes": {"/w": {}}}, id="volume"),
    pytest.param({"Binds": ["/a:/w"]}, id="beside the config"),
])
def test_a_mount_at_our_place_is_refused(wrapper: Any, daemon: Any, ask: Any, body: dict[str, object]) -> None:
    """A mount that would hide the wait program is refused with the reason, not dropped."""
    with pytest.raises(BadRequest, match="can't be mounted: /w is where"):
        ask(wrapper, "POST", CREATE, body | {"Cmd": ["x"]}, **attach())
    assert not daemon.requests


def test_the_wait_program_is_installed_when_it_is_needed(daemon: Any, docker: FakeDocker, ask: Any) -> None:
    """The directory may be a function, which is called for each create."""
    wrapper = EntrypointWrapper(daemon, wait_dir=lambda: Path("/made"), docker=docker)
    ask(wrapper, "POST", CREATE, {"Cmd": ["x"]}, **attach())
    assert daemon.request.json["HostConfig"]["Binds"] == ["/made:/w:ro"]


@pytest.mark.parametrize(("version", "body", "expected"), [
    pytest.param("1.23", {"HostConfig": {"Dns": []}}, {"HostConfig": {"Dns": [], "Binds": [BIND]}}, id="in its place"),
    pytest.param("1.23", {"Binds": ["/a:/b"]},
                 {"Binds": ["/a:/b"], "HostConfig": {"Binds": ["/a:/b", BIND]}}, id="bare"),
    pytest.param("1.23", {"HostConfig": {"Binds": [BIND]}}, {"HostConfig": {"Binds": [BIND]}}, id="already there"),
    pytest.param("1.23", {"HostConfig": None}, {"HostConfig": None}, id="null within"),
    pytest.param("1.23", {}, {}, id="empty object"),
    pytest.param("1.23", None, None, id="no body"),
    pytest.param("1.24", {"HostConfig": {}}, {"HostConfig": {}}, id="refused by the daemon since 1.24"),
])
def test_start_does_not_lose_the_mount(wrapper: Any, daemon: Any, ask: Any, version: str, body: object,
                                       expected: object) -> None:
    """A HostConfig in the body of an old start takes the place of create's: it keeps our mount."""
    ask(wrapper, "POST", f"/v{version}/containers/web/start", body, **attach())
    assert (daemon.request.json if daemon.request.body else None) == expected


@pytest.mark.parametrize(("cmd", "expected"), [
    (["ls", "-l"], ["/w/w", "ls", "-l"]), ([], []), (None, None),
])
def test_exec_waits_while_the_container_waits(wrapper: Any, daemon: Any, docker: FakeDocker, ask: Any, cmd: object,
                                              expected: object) -> None:
    """An exec in a container that has no network yet waits for it too."""
    docker.run(name="web")
    ask(wrapper, "POST", "/containers/web/exec", {"AttachStdout": True, "Cmd": cmd})
    assert daemon.request.json == {"AttachStdout": True, "Cmd": expected}


@pytest.mark.parametrize(("name", "fields", "waits"), [
    pytest.param("web", {}, False, id="has its network"),
    pytest.param("web", {"entrypoint": ("sh",)}, True, id="not ours"),
    pytest.param("nobody", {}, True, id="unknown"),
])
def test_other_execs_are_untouched(daemon: Any, docker: FakeDocker, ask: Any, name: str, fields: dict[str, Any],
                                   waits: bool) -> None:
    """Everywhere else an exec goes byte for byte, the daemon's 404 included."""
    docker.run(name="web", **fields)
    wrapper = EntrypointWrapper(daemon, wait_dir=WAIT_DIR, docker=docker, still_waiting=lambda container: waits)
    ask(wrapper, "POST", f"/containers/{name}/exec", b'{"Cmd" : ["ls"]}')
    assert daemon.request.body == b'{"Cmd" : ["ls"]}'
    assert context.BODY not in daemon.request.environ


CONFIG = {"Hostname": "c", "Env": ["A=1"], "Entrypoint": ["/w/w", "e"], "Cmd": ["c"], "Tty": True}


@pytest.mark.parametrize(("config", "body", "expected"), [
    pytest.param(CONFIG, b"", CONFIG | {"Entrypoint": ["e"]}, id="no body"),
    pytest.param(CONFIG, b"null\n", CONFIG | {"Entrypoint": ["e"]}, id="null, as the CLI sends it"),
    pytest.param(CONFIG, b"{}", CONFIG | {"Entrypoint": ["e"]}, id="empty object"),
    pytest.param({"Entrypoint": ["/w/w"], "Cmd": ["c"]}, b"", {"Entrypoint": [], "Cmd": ["c"]}, id="had no entrypoint"),
    pytest.param({"Entrypoint": ["/w/w", "e"], "Cmd": None}, b"", {"Entrypoint": ["e"], "Cmd": []}, id="no command"),
    pytest.param(CONFIG, b'{"User":"x"}', {"User": "x", "Entrypoint": ["e"], "Cmd": ["c"]}, id="another change"),
    pytest.param(CONFIG, b'{"cmd":["x"]}', {"Cmd": ["x"], "Entrypoint": ["e"]}, id="own command"),
    pytest.param(CONFIG, b'{"Entrypoint":["y"]}', {"Entrypoint": ["y"], "Cmd": []}, id="own entrypoint"),
    pytest.param(CONFIG, b'{"Entrypoint":[]}', {"Entrypoint": [], "Cmd": ["c"]}, id="entrypoint cleared"),
    pytest.param(CONFIG, b'{"Entrypoint":["/w/w","y"]}', {"Entrypoint": ["y"], "Cmd": []}, id="copied from inspect"),
])
def test_an_image_gets_its_own_entrypoint_back(wrapper: Any, daemon: Any, docker: FakeDocker, ask: Any,
                                               config: dict[str, Any], body: bytes, expected: object) -> None:
    """An image that is committed from an attached container starts without us."""
    docker.run(name="web", entrypoint=tuple(config["Entrypoint"]), config=config)
    ask(wrapper, "POST", "/commit?container=web&repo=r&changes=CMD+x", body)
    assert daemon.request.json == expected
    assert daemon.request.environ["CONTENT_TYPE"] == "application/json"
    assert query_of(daemon.request.environ) == {"container": "web", "repo": "r", "changes": "CMD x"}


def test_a_change_that_clears_the_entrypoint_is_no_way_back_to_the_wrapper(wrapper: Any, daemon: Any,
                                                                           docker: FakeDocker, ask: Any) -> None:
    """The daemon would complete an entrypoint of [] with the container's, which is wrapped."""
    docker.run(name="web", config=CONFIG)
    ask(wrapper, "POST", "/commit?changes=ENTRYPOINT%20[]&container=web&changes=ENTRYPOINT+%5B%22x%22%5D&pause=0")
    assert daemon.request.environ["RAW_URI"] == "/commit?container=web&changes=ENTRYPOINT+%5B%22x%22%5D&pause=0"


@pytest.mark.parametrize(("target", "body"), [
    pytest.param("/commit?container=plain", b"null", id="not ours"),
    pytest.param("/commit?container=nobody", b"null", id="unknown"),
    pytest.param("/commit", b"null", id="no container named"),
    pytest.param("/commit?container=web", b"[]", id="not an object"),
    pytest.param("/commit?container=web", b"{", id="not JSON"),
])
def test_other_commits_are_untouched(wrapper: Any, daemon: Any, docker: FakeDocker, ask: Any, target: str,
                                     body: bytes) -> None:
    """What is not ours, or not to be understood, goes byte for byte."""
    docker.run(name="web", config=CONFIG)
    docker.run(name="plain", entrypoint=("sh",))
    ask(wrapper, "POST", target, body)
    assert (daemon.request.body, daemon.request.environ["RAW_URI"]) == (body, target)


def test_a_process_that_is_not_the_wait_program_does_not_wait() -> None:
    """Whether a container still waits is seen from its process, not remembered."""
    assert not still_waiting(Container(id="x", pid=0))
    assert not still_waiting(Container(id="x", pid=2**22 + 1))


@pytest.mark.parametrize("script", [
    pytest.param("exec -a /w/w sleep 30", id="itself"),
    pytest.param("(exec -a /w/w sleep 30); :", id="below an init"),
])
def test_the_wait_program_is_recognised(script: str) -> None:
    """The wait program is found as the container's first process, and below --init's."""
    with subprocess.Popen(["bash", "-c", script], start_new_session=True) as process:
        try:
            await_true(lambda: still_waiting(Container(id="x", pid=process.pid)))
        finally:
            os.killpg(process.pid, signal.SIGKILL)
