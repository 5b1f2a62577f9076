"""Images and containers of our own, made and removed at a daemon."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakedaemon import FakeDaemon, Request

from weavemw.cli.management import ManagingClient
from weavemw.errors import DockerError, DockerUnreachable


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(tmp_path / "d.sock") as daemon:
        yield daemon


@pytest.fixture
def docker(daemon: FakeDaemon) -> ManagingClient:
    return ManagingClient(str(daemon.path))


def answers(value: Any, status: str = "200 OK") -> Any:
    def answer(request: Request) -> None:
        request.read_body()
        request.answer(value if isinstance(value, bytes) else json.dumps(value).encode(), status)
    return answer


def test_an_image_is_imported(daemon: FakeDaemon, docker: ManagingClient) -> None:
    """A tar, and a Dockerfile's instructions."""
    docker.import_image("a/b:1", b"tar", changes=['ENTRYPOINT ["/x"]', "LABEL a=b"])
    [sent] = daemon.requests
    assert sent.line == ("POST /images/create?fromSrc=-&repo=a%2Fb&tag=1&changes=ENTRYPOINT+%5B%22%2Fx%22%5D"
                         "&changes=LABEL+a%3Db HTTP/1.1")
    assert (sent.body, sent.header("content-type")) == (b"tar", "application/x-tar")


def test_a_container_is_made(daemon: FakeDaemon, docker: ManagingClient) -> None:
    daemon.handlers["/containers/create"] = answers({"Id": "1"}, "201 Created")
    assert docker.create("weave", {"Image": "x"}) == "1"
    assert json.loads(daemon.requests[0].body) == {"Image": "x"}
    assert daemon.requests[0].header("content-type") == "application/json"


def test_images_with_a_label_are_found_and_removed(daemon: FakeDaemon, docker: ManagingClient) -> None:
    daemon.handlers["/images/json"] = answers([{"RepoTags": ["a:1", "a:2"]}, {"RepoTags": None}])
    assert docker.labelled_images("l") == ("a:1", "a:2")
    daemon.handlers[""] = answers({"message": "No such image"}, "404 Not Found")
    docker.remove_image("a:1")


def test_last_lines_of_a_log(daemon: FakeDaemon, docker: ManagingClient) -> None:
    """Of both streams, out of Docker's frames."""
    daemon.handlers[""] = answers(b"\1\0\0\0\0\0\0\3one\2\0\0\0\0\0\0\3two")
    assert docker.logs("c", 5) == "onetwo"
    assert daemon.requests[0].line == "GET /containers/c/logs?stdout=1&stderr=1&tail=5 HTTP/1.1"


def test_what_fails_is_said_as_by_the_other_client(daemon: FakeDaemon, docker: ManagingClient) -> None:
    daemon.handlers[""] = answers({"message": "in use"}, "409 Conflict")
    with pytest.raises(DockerError, match="in use"):
        docker.remove_image("a")
    daemon.handlers[""] = lambda request: request.connection.shutdown(socket.SHUT_RDWR)
    with pytest.raises(DockerUnreachable, match=f"Docker at {daemon.path} did not answer: "):
        docker.labelled_images("l")
