"""Readers are shown the request."""

from __future__ import annotations

import json
from ipaddress import ip_interface
from typing import Any

import pytest

from weavemw import context
from weavemw.middleware.inspect import InspectRewriter
from weavemw.middleware.readers import TraceRemover
from weavemw.testing import FakeRouter

SOURCE = "/var/lib/weavemw/wait/0123456789ab/w"
ROW = {"Id": "c", "Command": "/dev/w sh",
       "Mounts": [{"Source": SOURCE, "Destination": "/dev/w", "Mode": "ro", "RW": False}]}
SHOWN = {"Id": "c", "Path": "/dev/w", "Args": ["sh"], "State": {"Running": True, "Pid": 7}, "Mounts": ROW["Mounts"],
         "Config": {"Entrypoint": ["/dev/w"], "Cmd": ["sh"]}, "HostConfig": {"Binds": [f"{SOURCE}:/dev/w:ro"]},
         "NetworkSettings": {"Networks": {}}}


def read(app: Any, daemon: Any, ask: Any, body: object, target: str, status: str = "200 OK") -> Any:
    """The response to a question that the daemon answers by ``body``."""
    daemon.status, daemon.body = status, body if isinstance(body, bytes) else json.dumps(body).encode()
    return ask(app, "GET", target)


@pytest.mark.parametrize(("target", "answer", "expected"), [
    ("/v1.41/containers/json?all=1", [ROW], [{"Id": "c", "Command": "sh", "Mounts": []}]),
    ("/system/df", {"Containers": [ROW]}, {"Containers": [{"Id": "c", "Command": "sh", "Mounts": []}]}),
    ("/containers/web/json?size=1", SHOWN, SHOWN | {
        "Path": "sh", "Args": [], "Mounts": [], "Config": {"Entrypoint": None, "Cmd": ["sh"]},
        "HostConfig": {"Binds": None}}),
    ("/exec/e/json", {"ProcessConfig": {"entrypoint": "/dev/w", "arguments": ["sh"]}},
     {"ProcessConfig": {"entrypoint": "sh", "arguments": []}}),
    ("/images/i/json", {"ContainerConfig": {"Entrypoint": ["/dev/w"]}}, {"ContainerConfig": {"Entrypoint": None}}),
])
def test_answers_show_the_request(daemon: Any, ask: Any, target: str, answer: object, expected: object) -> None:
    """With the length that they have now."""
    response = read(TraceRemover(daemon), daemon, ask, answer, target)
    assert response.get_json() == expected
    assert response.content_length == len(response.data)


@pytest.mark.parametrize(("target", "status", "content_type"), [
    pytest.param("/containers/json", "404 NOT FOUND", "application/json", id="an error"),
    pytest.param("/containers/json", "200 OK", "text/plain", id="no JSON"),
    pytest.param("/containers/web/top", "200 OK", "application/json", id="another call"),
    pytest.param("/nonsense", "200 OK", "application/json", id="no call"),
])
def test_everything_else_is_untouched(daemon: Any, ask: Any, target: str, status: str, content_type: str) -> None:
    """Byte for byte."""
    daemon.content_type = content_type
    response = read(TraceRemover(daemon), daemon, ask, [ROW], target, status)
    assert (response.status, response.data) == (status, daemon.body)
    assert context.FILTER not in daemon.request.environ


def test_an_answer_with_nothing_of_ours_is_untouched(daemon: Any, ask: Any) -> None:
    """Blanks and all."""
    assert read(TraceRemover(daemon), daemon, ask, b'[ {"Command": "sh"} ]', "/containers/json").data == daemon.body


def test_events_go_through_a_filter(daemon: Any, ask: Any) -> None:
    """The innermost app applies it, wherever the events pass."""
    read(TraceRemover(daemon), daemon, ask, b"", "/events")
    assert daemon.request.environ[context.FILTER](b':"exec_start: /dev/w sh"\n') == b':       "exec_start: sh"\n'


def test_the_weave_network_is_shown_beside_the_request(daemon: Any, router: FakeRouter, ask: Any) -> None:
    """What --rewrite-inspect adds stays, and still knows a container of ours."""
    router.owners["c"] = (ip_interface("10.32.0.1/12"),)
    app = TraceRemover(InspectRewriter(daemon, router=router))
    shown = read(app, daemon, ask, SHOWN, "/containers/web/json").get_json()
    assert shown["NetworkSettings"]["Networks"]["weave"]["IPAddress"] == "10.32.0.1"
    assert (shown["Path"], shown["Config"]["Entrypoint"]) == ("sh", None)
