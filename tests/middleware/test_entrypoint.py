"""The wait program before the entrypoint, in the container, its execs and its images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from weavemw import context
from weavemw.attaching.decision import Attach, LeaveAlone
from weavemw.dockerapi.container import Container
from weavemw.dockerapi.routes import query_of
from weavemw.errors import BadRequest
from weavemw.middleware.entrypoint import EntrypointWrapper
from weavemw.network.addresses import Default
from weavemw.testing import FakeDocker

WAIT_DIR = Path("/var/lib/weavemw/wait/0123456789ab")
BIND = f"{WAIT_DIR}/w:/dev/w:ro"
FORMER_BIND = "/elsewhere/wait/fedcba987654:/w:ro"
CREATE = "/v1.41/containers/create"


def attach(**image: object) -> dict[str, Any]:
    """An environ that says that the container is to be attached."""
    return {context.DECISION: Attach((Default(),), image=image)}


@pytest.fixture
def wrapper(daemon: Any, docker: FakeDocker) -> EntrypointWrapper:
    """Around the daemon; every container is still waiting."""
    return EntrypointWrapper(daemon, wait_dir=WAIT_DIR, docker=docker, still_waiting=lambda container: True)


@pytest.mark.parametrize(("image", "body", "entrypoint", "cmd"), [
    pytest.param({"Cmd": ["sh"]}, {}, ["/dev/w"], ["sh"], id="image's command"),
    pytest.param({"Entrypoint": ["e"], "Cmd": ["c"]}, {}, ["/dev/w", "e"], ["c"], id="image's both"),
    pytest.param({"Entrypoint": ["e"], "Cmd": ["c"]}, {"Cmd": ["x"]}, ["/dev/w", "e"], ["x"], id="own command"),
    pytest.param({"Entrypoint": ["e"], "Cmd": ["c"]}, {"Entrypoint": ["y"]}, ["/dev/w", "y"], None,
                 id="own entrypoint"),
    pytest.param({"Entrypoint": ["e"], "Cmd": ["c"]}, {"entrypoint": "y"}, ["/dev/w", "y"], None, id="a string"),
    pytest.param({"Entrypoint": ["e"], "Cmd": ["c"]}, {"Entrypoint": []}, ["/dev/./w"], ["c"], id="cleared by []"),
    pytest.param({"Entrypoint": ["e"]}, {"Entrypoint": [""], "Cmd": ["x"]}, ["/dev/w"], ["x"], id='cleared by [""]'),
    pytest.param({"Entrypoint": ["/dev/w", "e"], "Cmd": ["c"]}, {}, ["/dev/w", "e"], ["c"], id="image was wrapped"),
    pytest.param({"Entrypoint": ["e"]}, {"Entrypoint": ["/dev/w", "y"]}, ["/dev/w", "y"], None,
                 id="request was wrapped"),
    pytest.param({}, {"Cmd": "x y"}, ["/dev/w"], "x y", id="the command stays as it was given"),
    pytest.param({"Entrypoint": None, "Cmd": None}, {"Cmd": ["x"]}, ["/dev/w"], ["x"], id="nulls in the image"),
    pytest.param({"Entrypoint": ["e"], "Cmd": None}, {"Cmd": []}, ["/dev/w", "e"], None, id="an empty command"),
    pytest.param({}, {"Entrypoint": ["/dev/w"], "Cmd": ["x"]}, ["/dev/w"], ["x"], id="null was wrapped"),
    pytest.param({}, {"Entrypoint": ["/dev/./w"], "Cmd": ["x"]}, ["/dev/./w"], ["x"], id="[] was wrapped"),
    pytest.param({"Entrypoint": ["e"]}, {"Entrypoint": ["/dev/w"], "Cmd": ["x"]}, ["/dev/w"], ["x"],
                 id="null was wrapped, the image has an entrypoint"),
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


def test_what_goes_with_the_images_command(wrapper: Any, daemon: Any, ask: Any) -> None:
    """Docker says it of a container that takes its image's command, and of no other."""
    for body, expected in (({}, True), ({"Cmd": ["x"]}, None)):
        ask(wrapper, "POST", CREATE, body, **attach(Cmd=["c"], ArgsEscaped=True))
        assert daemon.request.json.get("ArgsEscaped") is expected


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
    pytest.param({"Binds": ["/x/wait/fedcba987654/w:/dev/w:ro"]}, [BIND], id="another version's"),
    pytest.param({"Binds": [FORMER_BIND]}, [BIND], id="an earlier version's"),
    pytest.param({"Binds": ["/a:/w", "/w:/b", "/a:/dev/www"]}, ["/a:/w", "/w:/b", "/a:/dev/www", BIND], id="similar"),
])
def test_binds(wrapper: Any, daemon: Any, ask: Any, host: object, binds: list[str]) -> None:
    """The user's binds stay, ours is there once."""
    ask(wrapper, "POST", CREATE, {"Cmd": ["x"], "HostConfig": host}, **attach())
    assert daemon.request.json["HostConfig"] == {"Binds": binds}


@pytest.mark.parametrize(("image", "body"), [
    pytest.param({}, {"HostConfig": {"Binds": ["/dev:/dev"]}}, id="the host's devices"),
    pytest.param({}, {"HostConfig": {"Binds": ["/a:/dev/w/:ro"]}}, id="bind"),
    pytest.param({}, {"HostConfig": {"Binds": ["/a:/x/../dev/w/x"]}}, id="bind within"),
    pytest.param({}, {"HostConfig": {"Binds": ["/dev/w"]}}, id="anonymous volume"),
    pytest.param({}, {"HostConfig": {"Binds": [f"{WAIT_DIR}/w:/dev/w:rw"]}}, id="ours, writable"),
    pytest.param({}, {"HostConfig": {"Binds": [f"{WAIT_DIR}/../x/w:/dev/w:ro"]}}, id="not ours"),
    pytest.param({}, {"HostConfig": {"Mounts": [{"Type": "bind", "Source": "/a", "Target": "//dev"}]}}, id="mount"),
    pytest.param({}, {"HostConfig": {"Tmpfs": {"/dev": ""}}}, id="tmpfs"),
    pytest.param({}, {"HostConfig": {"Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/w"}]}},
                 id="device"),
    pytest.param({}, {"HostConfig": {"VolumesFrom": ["nobody", "other:ro"]}}, id="another container's"),
    pytest.param({}, {"Volumes": {"/dev": {}}}, id="volume"),
    pytest.param({"Volumes": {"/dev": {}}}, {}, id="the image's volume"),
    pytest.param({}, {"Binds": ["/dev:/dev"]}, id="beside the config"),
])
def test_what_is_put_at_our_place_stays_there(wrapper: Any, daemon: Any, docker: FakeDocker, ask: Any,
                                              image: dict[str, object], body: dict[str, object]) -> None:
    """The wait program goes where nobody else is."""
    docker.create(name="other", mount_targets=("/dev/w", "/dev"))
    ask(wrapper, "POST", CREATE, body | {"Cmd": ["x"]}, **attach(**image))
    sent = daemon.request.json
    assert sent["Entrypoint"] == ["/.dockerenv"]
    assert sent["HostConfig"]["Binds"][-1] == f"{WAIT_DIR}/w:/.dockerenv:ro"


def test_what_another_container_has_of_us_is_in_nobodys_way(wrapper: Any, daemon: Any, docker: FakeDocker,
                                                            ask: Any) -> None:
    """Its wait program comes along with its volumes, and has ours mounted over it."""
    docker.create(name="other", mount_targets=("/dev/w", "/data"))
    ask(wrapper, "POST", CREATE, {"Cmd": ["x"], "HostConfig": {"VolumesFrom": ["other"]}}, **attach())
    assert daemon.request.json["HostConfig"]["Binds"] == [BIND]


def test_without_any_place_it_is_refused(wrapper: Any, daemon: Any, ask: Any) -> None:
    """With the reason, and a way out."""
    with pytest.raises(BadRequest, match=r"/dev/w and /\.dockerenv are both taken.*WEAVE_CIDR=none"):
        ask(wrapper, "POST", CREATE, {"Cmd": ["x"], "HostConfig": {"Binds": ["/dev:/dev", "/a:/.dockerenv"]}},
            **attach())
    assert not daemon.requests


@pytest.mark.parametrize(("entrypoint", "binds", "expected"), [
    pytest.param(["/w/w", "e"], [FORMER_BIND], ["/dev/w", "e"], id="copied from an earlier version's container"),
    pytest.param(["/w/w", "e"], [], ["/dev/w", "/w/w", "e"], id="the user's own program"),
    pytest.param(["/.dockerenv", "e"], [], ["/dev/w", "e"], id="was at another place"),
])
def test_a_request_that_was_wrapped(wrapper: Any, daemon: Any, ask: Any, entrypoint: list[str], binds: list[str],
                                    expected: list[str]) -> None:
    """A wait program that a client brings along from inspect is replaced; a program of the same name is not."""
    ask(wrapper, "POST", CREATE, {"Entrypoint": entrypoint, "HostConfig": {"Binds": binds}}, **attach())
    assert daemon.request.json["Entrypoint"] == expected


def test_an_image_may_have_a_program_where_the_wait_program_was(wrapper: Any, daemon: Any, ask: Any) -> None:
    """Only at the places of today nobody can have one."""
    ask(wrapper, "POST", CREATE, {}, **attach(Entrypoint=["/w/w"], Cmd=["c"]))
    assert (daemon.request.json["Entrypoint"], daemon.request.json["Cmd"]) == (["/dev/w", "/w/w"], ["c"])


def test_the_wait_program_is_installed_when_it_is_needed(daemon: Any, docker: FakeDocker, ask: Any) -> None:
    """The directory may be a function, which is called for each create."""
    wrapper = EntrypointWrapper(daemon, wait_dir=lambda: Path("/made"), docker=docker)
    ask(wrapper, "POST", CREATE, {"Cmd": ["x"]}, **attach())
    assert daemon.request.json["HostConfig"]["Binds"] == ["/made/w:/dev/w:ro"]


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
    decision = Attach((Default(),), container=Container(id="web", entrypoint=("/dev/w",)))
    ask(wrapper, "POST", f"/v{version}/containers/web/start", body, **{context.DECISION: decision})
    assert (daemon.request.json if daemon.request.body else None) == expected


@pytest.mark.parametrize(("program", "bind"), [
    ("/.dockerenv", f"{WAIT_DIR}/w:/.dockerenv:ro"), ("/w/w", f"{WAIT_DIR}:/w:ro"),
])
def test_start_mounts_it_where_the_container_looks_for_it(wrapper: Any, daemon: Any, ask: Any, program: str,
                                                          bind: str) -> None:
    """Wherever that was when it was created."""
    decision = Attach((Default(),), container=Container(id="web", entrypoint=(program,)))
    ask(wrapper, "POST", "/v1.23/containers/web/start", {"HostConfig": {"Dns": []}}, **{context.DECISION: decision})
    assert daemon.request.json["HostConfig"]["Binds"] == [bind]


@pytest.mark.parametrize(("cmd", "expected"), [
    (["ls", "-l"], ["/dev/w", "ls", "-l"]), ([], []), (None, None),
])
def test_exec_waits_while_the_container_waits(wrapper: Any, daemon: Any, docker: FakeDocker, ask: Any, cmd: object,
                                              expected: object) -> None:
    """An exec in a container that has no network yet waits for it too."""
    docker.run(name="web")
    ask(wrapper, "POST", "/containers/web/exec", {"AttachStdout": True, "Cmd": cmd})
    assert daemon.request.json == {"AttachStdout": True, "Cmd": expected}


def test_exec_in_a_container_of_an_earlier_version_waits_too(wrapper: Any, daemon: Any, docker: FakeDocker,
                                                             ask: Any) -> None:
    """By the program that it has."""
    docker.run(name="web", entrypoint=("/w/w", "e"), binds=(FORMER_BIND,))
    ask(wrapper, "POST", "/containers/web/exec", {"Cmd": ["ls"]})
    assert daemon.request.json["Cmd"] == ["/w/w", "ls"]


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


CONFIG = {"Hostname": "c", "Env": ["A=1"], "Entrypoint": ["/dev/w", "e"], "Cmd": ["c"], "Tty": True}


@pytest.mark.parametrize(("config", "body", "expected"), [
    pytest.param(CONFIG, b"", CONFIG | {"Entrypoint": ["e"]}, id="no body"),
    pytest.param(CONFIG, b"null\n", CONFIG | {"Entrypoint": ["e"]}, id="null, as the CLI sends it"),
    pytest.param(CONFIG, b"{}", CONFIG | {"Entrypoint": ["e"]}, id="empty object"),
    pytest.param({"Entrypoint": ["/dev/w"], "Cmd": ["c"]}, b"", {"Entrypoint": [], "Cmd": ["c"]},
                 id="had no entrypoint"),
    pytest.param({"Entrypoint": ["/dev/w", "e"], "Cmd": None}, b"", {"Entrypoint": ["e"], "Cmd": None},
                 id="no command"),
    pytest.param(CONFIG, b'{"User":"x"}', {"User": "x", "Entrypoint": ["e"], "Cmd": ["c"]}, id="another change"),
    pytest.param(CONFIG, b'{"cmd":["x"]}', {"Cmd": ["x"], "Entrypoint": ["e"]}, id="own command"),
    pytest.param(CONFIG, b'{"Entrypoint":["y"]}', {"Entrypoint": ["y"], "Cmd": None}, id="own entrypoint"),
    pytest.param(CONFIG, b'{"Entrypoint":[]}', {"Entrypoint": [], "Cmd": ["c"]}, id="entrypoint cleared"),
    pytest.param(CONFIG, b'{"Entrypoint":["/dev/w","y"]}', {"Entrypoint": ["y"], "Cmd": None},
                 id="copied from inspect"),
])
def test_an_image_gets_its_own_entrypoint_back(wrapper: Any, daemon: Any, docker: FakeDocker, ask: Any,
                                               config: dict[str, Any], body: bytes, expected: object) -> None:
    """An image that is committed from an attached container starts without us."""
    docker.run(name="web", entrypoint=tuple(config["Entrypoint"]), config=config)
    ask(wrapper, "POST", "/commit?container=web&repo=r&changes=CMD+x", body)
    assert daemon.request.json == expected
    assert daemon.request.environ["CONTENT_TYPE"] == "application/json"
    assert query_of(daemon.request.environ) == {"container": "web", "repo": "r", "changes": "CMD x"}


def test_an_image_of_an_earlier_versions_container_gets_its_entrypoint_back(wrapper: Any, daemon: Any,
                                                                           docker: FakeDocker, ask: Any) -> None:
    """Its wait program stood elsewhere."""
    config = {"Entrypoint": ["/w/w", "e"], "Cmd": ["c"]}
    docker.run(name="web", entrypoint=("/w/w", "e"), binds=(FORMER_BIND,), config=config)
    ask(wrapper, "POST", "/commit?container=web", b"")
    assert daemon.request.json == {"Entrypoint": ["e"], "Cmd": ["c"]}


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
