from __future__ import annotations

import subprocess

import pytest

from weavemw.cli.shell import assignments, client_endpoint, entering, restoring, shell_family
from weavemw.listeners import parse

_PROXY = "tcp://127.0.0.1:12375"


@pytest.mark.parametrize(("listening", "environ", "endpoint"), [
    pytest.param("/run/w.sock tcp://0.0.0.0:12375", {}, "tcp://127.0.0.1:12375", id="the default listeners"),
    pytest.param("tcp://[::]:1", {}, "tcp://[::1]:1", id="every IPv6 address"),
    pytest.param("tcp://10.1.2.3:1 tcp://0.0.0.0:2", {}, "tcp://10.1.2.3:1", id="the first on TCP"),
    pytest.param("/run/w.sock", {}, "unix:///run/w.sock", id="no TCP"),
    pytest.param(":1", {"PROXY_HOST": "box"}, "tcp://box:1", id="PROXY_HOST says the host"),
    pytest.param(":1", {"DOCKER_HOST": "tcp://vm:2376"}, "tcp://vm:1", id="DOCKER_HOST says the host"),
    pytest.param("10.1.2.3:1", {"PROXY_HOST": "box"}, "tcp://10.1.2.3:1", id="a listener has its own"),
    pytest.param(":1", {"DOCKER_HOST": "unix:///x"}, "tcp://127.0.0.1:1", id="a unix socket says nothing"),
])
def test_clients_are_told_an_address_that_they_can_connect_to(listening: str, environ: dict[str, str],
                                                              endpoint: str) -> None:
    """0.0.0.0 is nowhere to connect to: PROXY_HOST, DOCKER_HOST's host or the loopback address stands for it."""
    assert str(client_endpoint([parse(each) for each in listening.split()], environ)) == endpoint


@pytest.mark.parametrize(("changes", "shell", "line"), [
    pytest.param({"A": "tcp://h:1", "B": ""}, "sh", "export A=tcp://h:1 B=", id="sh sets"),
    pytest.param({"A": "x", "B": None}, "sh", "export A=x; unset B", id="sh sets and unsets"),
    pytest.param({"A": None, "B": None}, "sh", "unset A B", id="sh unsets"),
    pytest.param({"A": "x", "B": ""}, "fish", "set -gx A x; set -gx B '';", id="fish sets"),
    pytest.param({"A": None}, "fish", "set -e A;", id="fish unsets"),
    pytest.param({"A": "x", "B": ""}, "csh", "setenv A x; setenv B '';", id="csh sets"),
    pytest.param({"A": None}, "csh", "unsetenv A;", id="csh unsets"),
    pytest.param({"A": "a b;c"}, "sh", "export A='a b;c'", id="values are quoted"),
])
def test_each_shell_gets_its_own_words(changes: dict[str, str | None], shell: str, line: str) -> None:
    """One line that the shell evaluates, whatever the value."""
    assert assignments(changes, shell) == line


@pytest.mark.parametrize(("program", "family"), [
    ("/bin/bash", "sh"), ("/usr/bin/zsh", "sh"), ("", "sh"), ("/usr/bin/fish", "fish"), ("/bin/tcsh", "csh"),
    ("csh", "csh"),
])
def test_the_shell_is_known_by_its_path(program: str, family: str) -> None:
    """``SHELL`` decides; what is unknown is taken for a Bourne shell."""
    assert shell_family(program) == family


def _evaluated(environ: dict[str, str], changes: dict[str, str | None]) -> dict[str, str]:
    """The environment after a real shell has evaluated the changes."""
    script = f"{assignments(changes, 'sh')}\nenv -0"
    done = subprocess.run(["/bin/sh", "-c", script], env=environ, capture_output=True, text=True, check=True)
    pairs = (each.partition("=") for each in done.stdout.split("\0") if each)
    return {name: value for name, _, value in pairs if "DOCKER" in name}


@pytest.mark.parametrize("before", [
    pytest.param({}, id="nothing"),
    pytest.param({"DOCKER_HOST": "unix:///run/other.sock"}, id="another engine"),
    pytest.param({"DOCKER_HOST": "tcp://vm:2376", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/c",
                  "DOCKER_CONTEXT": "x"}, id="an engine with TLS"),
])
def test_restoring_gives_back_what_was_there_first(before: dict[str, str]) -> None:
    """However often a shell evaluates `weave env`, one `weave env --restore` undoes it all, a second one nothing."""
    environ = before
    for _ in range(3):
        environ = _evaluated(environ, entering(environ, [parse(_PROXY)]))
        assert environ["DOCKER_HOST"] == _PROXY
    environ = _evaluated(environ, restoring(environ, [_PROXY]))
    assert environ == before
    assert restoring(environ, [_PROXY]) == {}


def test_a_shell_that_was_pointed_at_the_proxy_by_hand_gets_the_default_back() -> None:
    """The proxy itself is never remembered as what was there before."""
    environ = {"DOCKER_HOST": _PROXY}
    assert entering(environ, [parse(_PROXY)]) == {"DOCKER_HOST": _PROXY, "ORIG_DOCKER_HOST": ""}
    assert restoring(environ, [_PROXY]) == {"DOCKER_HOST": None}
