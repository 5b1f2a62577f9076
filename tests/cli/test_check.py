from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from weavemw.cli.check import Target, check_shell, complaint, target_of
from weavemw.dockerapi.hosts import Tcp, parse
from weavemw.errors import WeaveError

_LISTENERS = [parse("/run/w.sock"), parse("tcp://0.0.0.0:12375")]
_PROXY = "tcp://127.0.0.1:12375"


@pytest.mark.parametrize(("environ", "config", "target"), [
    pytest.param({"DOCKER_HOST": _PROXY, "DOCKER_CONTEXT": "x"}, {}, Target(_PROXY, "DOCKER_HOST"), id="host first"),
    pytest.param({"DOCKER_HOST": _PROXY, "DOCKER_TLS_VERIFY": "1"}, {}, Target(_PROXY, "DOCKER_HOST", tls=True),
                 id="TLS"),
    pytest.param({"DOCKER_CONTEXT": "x"}, {"currentContext": "y"}, Target("", "DOCKER_CONTEXT (x)"), id="a context"),
    pytest.param({}, {"currentContext": "y"}, Target("", "`docker context use y`"), id="the context in use"),
    pytest.param({}, {}, Target("", "default, since DOCKER_HOST is not set"), id="nothing said"),
])
def test_the_target_is_dockers(environ: dict[str, str], config: dict[str, Any], target: Target) -> None:
    """In docker's order of precedence."""
    assert target_of(environ, config) == target


@pytest.mark.parametrize(("target", "tls", "said"), [
    pytest.param(Target(_PROXY, "DOCKER_HOST"), False, "", id="the proxy"),
    pytest.param(Target("unix:///run/w.sock", "DOCKER_HOST"), True, "", id="its unix socket, which has no TLS"),
    pytest.param(Target("", "default"), False, "goes to an engine by default, not to the proxy", id="not led there"),
    pytest.param(Target("tcp://vm:2376", "DOCKER_HOST"), False, "goes to an engine at tcp://vm:2376 by DOCKER_HOST",
                 id="another machine"),
    pytest.param(Target(_PROXY, "DOCKER_HOST"), True, "`export DOCKER_TLS_VERIFY=1`", id="TLS is missing"),
    pytest.param(Target(_PROXY, "DOCKER_HOST", tls=True), False, "has no TLS, and DOCKER_TLS_VERIFY is", id="too much"),
])
def test_what_is_wrong_with_a_target_is_said(target: Target, tls: bool, said: str) -> None:
    """With what leads to the proxy."""
    found = complaint(target, _LISTENERS, tls=tls)
    assert said in found
    assert bool(said) == bool(found)


_VERSION = json.dumps({"Version": "28.0"}).encode()
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(_VERSION), _VERSION)


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def _answering(server: socket.socket, answer: bytes) -> Tcp:
    def answer_one() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(answer)

    threading.Thread(target=answer_one, daemon=True).start()
    return Tcp(*server.getsockname())


def _checked(there: Tcp, home: Path, **environ: str) -> str:
    tls = "DOCKER_TLS_VERIFY" in environ
    return check_shell({"DOCKER_HOST": str(there), "HOME": str(home), **environ}, {"tls": tls}, [there])


def test_the_way_is_tried(server: socket.socket, tmp_path: Path) -> None:
    """Who answers at its end is said."""
    there = _answering(server, _OK)
    assert _checked(there, tmp_path) == f"docker goes through the proxy at {there} to Docker 28.0"


@pytest.mark.parametrize(("answer", "said"), [
    pytest.param(b"", "does not answer this client: ", id="closed"),
    pytest.param(b"HTTP/1.1 502 x\r\nContent-Length: 2\r\n\r\nno", "the proxy answers 502: no", id="an error"),
    pytest.param(b"nonsense", "does not answer this client", id="no HTTP"),
])
def test_what_fails_on_the_way_is_said(server: socket.socket, tmp_path: Path, answer: bytes, said: str) -> None:
    """As one line."""
    with pytest.raises(WeaveError, match=said):
        _checked(_answering(server, answer), tmp_path)


def test_certificates_that_are_missing_are_named(server: socket.socket, tmp_path: Path) -> None:
    """With the directory where docker looks for them."""
    with pytest.raises(WeaveError, match=rf"docker can't use ca.pem, cert.pem and key.pem of {tmp_path}: No such file"):
        _checked(Tcp(*server.getsockname()), tmp_path, DOCKER_TLS_VERIFY="1", DOCKER_CERT_PATH=str(tmp_path))
