"""The questions to the daemon: what is sent, what is made of the answers, and of none."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from weavemw.dockerapi.client import DockerClient
from weavemw.dockerapi.container import DockerNetwork
from weavemw.dockerapi.requester import Answer
from weavemw.errors import DockerError, DockerUnreachable, NoAnswer, NoSuchContainer


class Canned:
    """Answers every question in the same way, and keeps what was asked."""

    where = "/d.sock"

    def __init__(self, status: int = 200, body: Any = None, pieces: tuple[bytes, ...] = (),
                 error: NoAnswer | None = None) -> None:
        self.answer = Answer(status, body if isinstance(body, bytes) else json.dumps(body).encode())
        self.pieces = pieces
        self.error = error
        self.asked: list[tuple[str, str, float]] = []

    def ask(self, method: str, path: str, *, timeout: float, body: bytes | None = None,
            headers: Mapping[str, str] | None = None) -> Answer:
        self.asked.append((method, path, timeout))
        if self.error:
            raise self.error
        return self.answer

    @contextmanager
    def stream(self, path: str, *, timeout: float) -> Iterator[tuple[int, Iterator[bytes]]]:
        self.ask("GET", path, timeout=timeout)
        yield self.answer.status, iter(self.pieces)


@pytest.mark.parametrize(("call", "body", "path", "value"), [
    pytest.param(lambda docker: docker.inspect("a b").id, {"Id": "1"}, "/containers/a%20b/json", "1", id="inspect"),
    pytest.param(lambda docker: docker.image_config("x/y:z"), {"Config": None}, "/images/x%2Fy%3Az/json", {},
                 id="image"),
    pytest.param(lambda docker: docker.network_driver("n"), {"Driver": "x"}, "/networks/n", "x", id="network"),
    pytest.param(lambda docker: docker.container_ids(everything=True), [{"Id": "1"}], "/containers/json?all=1", ("1",),
                 id="ids"),
    pytest.param(lambda docker: docker.bridge_subnets(),
                 [{"IPAM": {"Config": [{"Subnet": "10.0.0.0/8"}, {}]}}, {"IPAM": None}],
                 "/networks?filters=%7B%22driver%22%3A%20%5B%22bridge%22%5D%7D", ("10.0.0.0/8",), id="subnets"),
    pytest.param(lambda docker: docker.all_networks(),
                 [{"Id": "1", "Name": "n", "IPAM": {"Config": [{"Subnet": "10.0.0.0/8"}, {}]}}, {"IPAM": None}],
                 "/networks", (DockerNetwork("1", "n", ("10.0.0.0/8",)), DockerNetwork("", "")), id="networks"),
    pytest.param(lambda docker: docker.find("a"), {"Id": "1"}, "/containers/a/json", {"Id": "1"}, id="find"),
])
def test_what_is_asked_and_what_is_made_of_it(call: Callable[[DockerClient], Any], body: Any, path: str,
                                              value: Any) -> None:
    canned = Canned(body=body)
    assert call(DockerClient(canned, timeout=3)) == value
    assert canned.asked == [("GET", path, 3)]


@pytest.mark.parametrize(("call", "status", "asked"), [
    (lambda docker: docker.kill("a"), 409, ("POST", "/containers/a/kill", 10)),
    (lambda docker: docker.remove("a"), 404, ("DELETE", "/containers/a?force=1&v=1", 10)),
    (lambda docker: docker.start("a"), 304, ("POST", "/containers/a/start", 10)),
    (lambda docker: docker.stop("a", 5), 304, ("POST", "/containers/a/stop?t=5", 15)),
    (lambda docker: docker.find("a"), 404, ("GET", "/containers/a/json", 10)),
])
def test_what_is_so_already_is_no_error(call: Callable[[DockerClient], Any], status: int,
                                        asked: tuple[str, str, float]) -> None:
    canned = Canned(status, {"message": "no"})
    assert call(DockerClient(canned)) is None
    assert canned.asked == [asked]


@pytest.mark.parametrize(("status", "body", "message"), [
    (404, {"message": "No such container: a"}, "No such container: a"),
    (500, b"<html>", "<html>"), (503, b"", "the daemon answered 503"), (400, b'["x"]', '["x"]'),
])
def test_a_refusal_is_the_daemons(status: int, body: Any, message: str) -> None:
    """Its status and its words, whatever they are in."""
    with pytest.raises(DockerError) as raised:
        DockerClient(Canned(status, body)).inspect("a")
    assert (raised.value.status, raised.value.message) == (status, message)


@pytest.mark.parametrize(("canned", "reason"), [
    (Canned(error=NoAnswer("Connection refused")), "Connection refused"),
    (Canned(body=b"hello"), "its answer is not JSON"),
])
def test_no_answer_says_where(canned: Canned, reason: str) -> None:
    with pytest.raises(DockerUnreachable, match=f"^Docker at /d.sock did not answer: {reason}$"):
        DockerClient(canned).inspect("a")


def test_events_come_as_lines_or_as_records() -> None:
    """Cut anywhere; JSON by lines, or with record separators (RFC 7464), as API 1.52 has both."""
    canned = Canned(pieces=(b'{"a":', b'1}\n{"a":2}\n\n', b'\x1e{"a":', b"3}\n"))
    assert list(DockerClient(canned).events(since=5.0)) == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert canned.asked[0][1].endswith("&since=5.000000000")


def test_events_that_are_refused_or_do_not_come() -> None:
    with pytest.raises(DockerError, match="no"):
        next(DockerClient(Canned(400, pieces=(b'{"message":"', b'no"}'))).events())
    with pytest.raises(DockerUnreachable, match="refused"):
        next(DockerClient(Canned(error=NoAnswer("refused"))).events())


@pytest.mark.parametrize(("status", "body", "image"), [
    (200, {"Id": "i", "Config": None}, {"Id": "i", "Config": None}), (404, {"message": "no"}, {}),
])
def test_an_image(status: int, body: Any, image: dict[str, Any]) -> None:
    canned = Canned(status, body)
    assert DockerClient(canned).image("a/b:1") == image
    assert canned.asked[0][1] == "/images/a%2Fb%3A1/json"


def test_a_container_that_is_not_there_is_named() -> None:
    """As it was asked for, so that near names can be looked for."""
    with pytest.raises(NoSuchContainer) as raised:
        DockerClient(Canned(404, {"message": "No such container: wbe"})).start("wbe")
    assert (raised.value.code, raised.value.container, raised.value.status) == ("no_such_container", "wbe", 404)
