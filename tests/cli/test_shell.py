from __future__ import annotations

import shutil
import subprocess

import pytest

from weavemw.cli.shell import assignments, client_host, entering, mending, restoring, shell_family
from weavemw.dockerapi.hosts import parse

_PROXY = "tcp://0.0.0.0:12375"


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
    assert str(client_host([parse(each) for each in listening.split()], environ)) == endpoint


@pytest.mark.parametrize(("changes", "shell", "line"), [
    pytest.param({"A": "tcp://h:1", "B": ""}, "sh", "export A=tcp://h:1 B=", id="sh sets"),
    pytest.param({"A": "x", "B": None}, "sh", "export A=x; unset B", id="sh sets and unsets"),
    pytest.param({"A": None, "B": None}, "sh", "unset A B", id="sh unsets"),
    pytest.param({"A": "x", "B": ""}, "fish", "set -gx A x; set -gx B '';", id="fish sets"),
    pytest.param({"A": None}, "fish", "set -e A;", id="fish unsets"),
    pytest.param({"A": "x", "B": ""}, "csh", "setenv A x; setenv B '';", id="csh sets"),
    pytest.param({"A": None}, "csh", "unsetenv A;", id="csh unsets"),
    pytest.param({"A": "a b;c"}, "sh", "export A='a b;c'", id="values are quoted"),
    pytest.param({"A": r"it's a\b"}, "fish", r"set -gx A 'it\'s a\\b';", id="in fish with backslashes"),
])
def test_each_shell_gets_its_own_words(changes: dict[str, str | None], shell: str, line: str) -> None:
    """One line that the shell evaluates, whatever the value."""
    assert assignments(changes, shell) == line


@pytest.mark.parametrize(("parent", "login", "family"), [
    ("bash", "/usr/bin/fish", "sh"), ("zsh", "/bin/zsh", "sh"), ("fish", "/bin/bash", "fish"),
    ("tcsh", "/bin/bash", "csh"), ("csh", "", "csh"), ("sudo", "/usr/bin/fish", "fish"), ("sudo", "/bin/xonsh", "sh"),
    ("", "", "sh"),
])
def test_the_shell_is_the_one_that_calls(parent: str, login: str, family: str) -> None:
    """A script of sh stays one where the login shell is fish; what is unknown is taken for a Bourne shell."""
    assert shell_family(parent, login) == family


#: How each shell evaluates what a command prints, as `weave env --help` has it.
_EVALUATE = {"sh": 'eval "$(cat)"', "dash": 'eval "$(cat)"', "bash": 'eval "$(cat)"', "zsh": 'eval "$(cat)"',
             "fish": "eval (cat)", "tcsh": "eval `cat`"}


def _evaluated(shell: str, environ: dict[str, str], changes: dict[str, str | None]) -> dict[str, str]:
    """The environment after a real shell has evaluated the changes."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    options = ["-f"] if shell in ("tcsh", "zsh") else ["--no-config"] if shell == "fish" else []
    line = assignments(changes, shell_family(shell))
    done = subprocess.run([program, *options, "-c", f"{_EVALUATE[shell]}; /usr/bin/env -0"], env=environ, text=True,
                          input=line, capture_output=True, check=True, timeout=20)
    assert done.stderr == ""
    pairs = (each.partition("=") for each in done.stdout.split("\0") if each)
    return {name: value for name, _, value in pairs if "DOCKER" in name}


_ENGINE = {"DOCKER_HOST": "tcp://vm:2376", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": r"/my c\\e'r$t",
           "DOCKER_CONTEXT": "x"}


@pytest.mark.parametrize("shell", _EVALUATE)
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("before", [
    pytest.param({}, id="nothing"),
    pytest.param({"DOCKER_HOST": "unix:///run/other.sock"}, id="another engine"),
    pytest.param({"DOCKER_CONTEXT": "x", "DOCKER_TLS": "1"}, id="a context"),
    pytest.param(_ENGINE, id="an engine with TLS"),
])
def test_restoring_gives_back_what_was_there_first(shell: str, tls: bool, before: dict[str, str]) -> None:
    """However often a shell evaluates `weave env`, and whatever is set after that, `weave env --restore` undoes it."""
    environ = before
    for _ in range(3):
        environ = _evaluated(shell, environ, entering(environ, [parse(_PROXY)], tls=tls))
        assert environ["DOCKER_HOST"].endswith(":12375")
        assert "DOCKER_CONTEXT" not in environ
        assert tls or not {"DOCKER_TLS_VERIFY", "DOCKER_TLS"} & set(environ)
    environ |= {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/other"}
    environ = _evaluated(shell, environ, restoring(environ, [_PROXY]))
    assert environ == before
    assert restoring(environ, [_PROXY]) == {}


@pytest.mark.parametrize(("environ", "line"), [
    pytest.param({}, "", id="not led there"),
    pytest.param({"DOCKER_HOST": "unix:///run/docker.sock", "ORIG_DOCKER_HOST": ""}, "", id="no longer led there"),
    pytest.param({"DOCKER_HOST": _PROXY}, "unset DOCKER_HOST", id="led there by hand"),
    pytest.param({"DOCKER_HOST": _PROXY, "ORIG_DOCKER_HOST": "x"}, "weave env --restore", id="led there by weave env"),
])
def test_the_line_that_mends_the_shell(environ: dict[str, str], line: str) -> None:
    """It does, also where nothing remembers what was there before."""
    found = mending(environ, [_PROXY])
    assert line in found
    assert bool(line) == bool(found)


def test_a_shell_that_was_pointed_at_the_proxy_by_hand_gets_the_default_back() -> None:
    """The proxy itself is never remembered as what was there before."""
    environ = {"DOCKER_HOST": "tcp://127.0.0.1:12375"}
    assert entering(environ, [parse(_PROXY)]) == {**environ, "ORIG_DOCKER_HOST": ""}
    assert restoring(environ, [_PROXY]) == {"DOCKER_HOST": None}
