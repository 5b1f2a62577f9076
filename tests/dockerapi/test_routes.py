"""Which of Docker's calls a request is. The paths were compared with Go's net/url and gorilla mux."""

from __future__ import annotations

import pytest

from weavemw import context
from weavemw.dockerapi import routes
from weavemw.dockerapi.routes import Call, find


@pytest.mark.parametrize(("method", "target", "name", "id_", "version"), [
    pytest.param("POST", "/containers/create", "container_create", "", "", id="no version"),
    pytest.param("POST", "/v1.41/containers/create?name=web", "container_create", "", "1.41", id="query"),
    pytest.param("POST", "/v1/containers/create", "container_create", "", "1", id="version without a dot"),
    pytest.param("POST", "/v1.41/%63ontainers/create", "container_create", "", "1.41", id="letter encoded"),
    pytest.param("POST", "/%76%31.41/containers/create", "container_create", "", "1.41", id="version encoded"),
    pytest.param("POST", "/containers%2Fcreate", "container_create", "", "", id="slash encoded"),
    pytest.param("POST", "//containers//create", "container_create", "", "", id="slashes doubled"),
    pytest.param("POST", "/v1.41/../containers/create", "container_create", "", "", id="dot segments"),
    pytest.param("POST", "/v1.41/x/%2e%2e/containers/create", "container_create", "", "1.41", id="dots encoded"),
    pytest.param("POST", "/../../containers/./create", "container_create", "", "", id="above the root"),
    pytest.param("POST", "/containers/create?x#y", "container_create", "", "", id="hash in the query"),
    pytest.param("POST", "/containers/web/start", "container_start", "web", "", id="start"),
    pytest.param("POST", "/v1.24/containers/web/restart?t=5", "container_restart", "web", "1.24", id="restart"),
    pytest.param("POST", "/containers/web/db/start", "container_start", "web/db", "", id="a link's name"),
    pytest.param("POST", "/containers/web%2Fdb/start", "container_start", "web/db", "", id="a link's name, encoded"),
    pytest.param("POST", "/containers/start/start", "container_start", "start", "", id="named start"),
    pytest.param("POST", "/containers/create/start", "container_start", "create", "", id="named create"),
    pytest.param("POST", "/containers/x/start/exec", "exec_create", "x/start", "", id="the end decides"),
    pytest.param("POST", "/containers/a/../b/start", "container_start", "b", "", id="name that climbs"),
    pytest.param("POST", "/containers/w%C3%A9b/start", "container_start", "wéb", "", id="UTF-8"),
    pytest.param("POST", "/containers/%ff/start", "container_start", "\ufffd", "", id="not UTF-8"),
    pytest.param("GET", "/containers/json", "container_list", "", "", id="list"),
    pytest.param("GET", "/containers/json/json", "container_inspect", "json", "", id="named json"),
    pytest.param("GET", "/v1.51/exec/abc/json", "exec_inspect", "abc", "1.51", id="exec inspect"),
    pytest.param("POST", "/exec/abc/start", "exec_start", "abc", "", id="exec start"),
    pytest.param("POST", "/commit?container=web", "container_commit", "", "", id="commit"),
    pytest.param("GET", "/images/reg:5000/a/b:c/json", "image_inspect", "reg:5000/a/b:c", "", id="image with slashes"),
    pytest.param("DELETE", "/containers/web", "container_delete", "web", "", id="delete"),
    pytest.param("DELETE", "/containers/web/checkpoints/c1", "container_checkpoint_delete", "web", "", id="checkpoint"),
    pytest.param("HEAD", "/_ping", "ping", "", "", id="head ping"),
    pytest.param("POST", "/session", "session", "", "", id="session"),
    pytest.param("GET", "/networks/", "network_list", "", "", id="the one trailing slash that counts"),
])
def test_calls_are_recognised_as_the_daemon_does(method: str, target: str, name: str, id_: str, version: str) -> None:
    """What the daemon would take as a call is seen as that call, however it is spelled."""
    found = find(method, target)
    assert found is not None
    assert (found.name, found.id, found.version) == (name, id_, version)


@pytest.mark.parametrize(("method", "target"), [
    pytest.param("POST", "/containers/create/", id="trailing slash"),
    pytest.param("POST", "/containers/create%2F", id="trailing slash encoded"),
    pytest.param("POST", "/containers/create;x", id="parameters"),
    pytest.param("POST", "/containers/create#x", id="hash is part of the path"),
    pytest.param("POST", "/containers/%2563reate", id="encoded twice"),
    pytest.param("POST", "/Containers/create", id="path's case"),
    pytest.param("post", "/containers/create", id="method's case"),
    pytest.param("GET", "/containers/create", id="method"),
    pytest.param("POST", "/v1.41/v1.24/containers/create", id="two versions"),
    pytest.param("POST", "/v1a/containers/create", id="not a version"),
    pytest.param("POST", "/v1.41containers/create", id="version not ended"),
    pytest.param("POST", "/containers/a%0Ab/start", id="line feed"),
    pytest.param("POST", "/containers/create%0A", id="line feed at the end"),
    pytest.param("POST", "/containers/../start", id="climbs away"),
    pytest.param("OPTIONS", "*", id="asterisk"),
    pytest.param("POST", "/swarm/init", id="not ours to know"),
    pytest.param("POST", "", id="empty"),
])
def test_what_the_daemon_does_not_route_is_no_call(method: str, target: str) -> None:
    """Paths that lead nowhere in the daemon lead nowhere here."""
    assert find(method, target) is None


@pytest.mark.parametrize(("environ", "target"), [
    pytest.param({"RAW_URI": "/a%2Fb?x#y", "PATH_INFO": "/a/b"}, "/a%2Fb?x#y", id="gunicorn's raw target"),
    pytest.param({"REQUEST_URI": "//a", "PATH_INFO": "/a"}, "//a", id="other servers' raw target"),
    pytest.param({"RAW_URI": "http://docker/v1.41/info?x"}, "/v1.41/info?x", id="absolute form"),
    pytest.param({"RAW_URI": "http://docker"}, "/", id="absolute form without a path"),
    pytest.param({"RAW_URI": "http://docker?x=/y"}, "/?x=/y", id="absolute form with a query only"),
    pytest.param({"RAW_URI": "*"}, "*", id="asterisk"),
    pytest.param({"PATH_INFO": "/a b/\xc3\xa9", "QUERY_STRING": "q=1"}, "/a%20b/%C3%A9?q=1", id="no raw target"),
    pytest.param({"SCRIPT_NAME": "/v1.41", "PATH_INFO": "/info"}, "/v1.41/info", id="mounted"),
])
def test_target_is_the_clients_own(environ: dict[str, str], target: str) -> None:
    """The daemon is judged by what it is sent, which is what the client sent."""
    assert routes.target_of(environ) == target


def test_a_call_is_found_once() -> None:
    """The call is kept in environ, where another middleware finds it."""
    environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/containers/web/start"}
    found = routes.call_of(environ)
    assert found is not None
    assert environ[context.CALL] is found is routes.call_of(environ | {"PATH_INFO": "/other"})


def test_an_unknown_call_is_remembered_too() -> None:
    """A call that we don't know is None, and that is kept as well."""
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/nothing"}
    assert routes.call_of(environ) is None
    assert environ[context.CALL] is None


@pytest.mark.parametrize(("query", "name"), [
    pytest.param("name=web", "web", id="plain"),
    pytest.param("name=a&name=b", "a", id="the first counts"),
    pytest.param("x=1#&name=web", "web", id="hash does not end it"),
    pytest.param("name=a;b", "a;b", id="semicolon"),
    pytest.param("n%61me=%2Fweb+1", "/web 1", id="encoded"),
    pytest.param("name", "", id="without a value"),
    pytest.param("Name=web", None, id="case"),
])
def test_query_is_read_as_go_reads_it(query: str, name: str | None) -> None:
    """The query says to us what it says to the daemon."""
    assert routes.query_of({"RAW_URI": f"/containers/create?{query}"}).get("name") == name


@pytest.mark.parametrize(("method", "path", "short"), [
    ("GET", "/_ping", True), ("GET", "/version", True), ("GET", "/info", True), ("GET", "/containers/json", True),
    ("GET", "/containers/x/json", True), ("POST", "/containers/create", True), ("POST", "/containers/x/exec", True),
    ("GET", "/images/json", True), ("GET", "/images/a/b/json", True), ("GET", "/networks", True),
    ("GET", "/volumes", True), ("GET", "/system/df", True), ("GET", "/events", False),
    ("POST", "/containers/x/attach", False), ("GET", "/containers/x/attach/ws", False),
    ("GET", "/containers/x/logs", False), ("GET", "/containers/x/stats", False), ("POST", "/containers/x/wait", False),
    ("POST", "/containers/x/stop", False), ("POST", "/containers/x/kill", False), ("POST", "/exec/x/start", False),
    ("POST", "/build", False), ("POST", "/images/create", False), ("POST", "/images/load", False),
    ("GET", "/images/get", False), ("GET", "/containers/x/export", False), ("PUT", "/containers/x/archive", False),
    ("POST", "/commit", False), ("POST", "/containers/prune", False), ("POST", "/session", False),
])
def test_calls_that_may_take_long_are_told_from_short_ones(method: str, path: str, short: bool) -> None:
    """Whether a call is answered at once decides how its connection is served."""
    found = find(method, path)
    assert found is not None
    assert found.answers_shortly is short


@pytest.mark.parametrize(("version", "older"), [
    ("1.23", True), ("1.24", False), ("1.9", True), ("1.100", False), ("", False), ("1", True), ("...", True),
])
def test_versions_are_compared_as_numbers(version: str, older: bool) -> None:
    """1.9 comes before 1.24; a path without a version asks for the newest."""
    assert Call("container_start", "x", version).is_older_than("1.24") is older


@pytest.mark.parametrize(("path", "kind", "container"), [
    ("/containers/web/start", "container", "web"), ("/containers/web/exec", "exec", "web"),
    ("/exec/1/start", "exec", ""), ("/images/web/tag", "image", ""), ("/containers/create", "container", ""),
])
def test_kind_and_container(path: str, kind: str, container: str) -> None:
    """An call says what it is about, and which container its path names."""
    found = find("POST", path)
    assert found is not None
    assert (found.kind, found.container) == (kind, container)
