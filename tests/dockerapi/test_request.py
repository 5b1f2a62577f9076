"""Requests as a policy reads and changes them."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import pytest

from weavemw.dockerapi.payload import body_of
from weavemw.dockerapi.request import Request
from weavemw.errors import BadRequest, Unsupported


def request(body: str = "{}", target: str = "/v1.41/containers/create?name=web", method: str = "POST") -> Request:
    """A request with this body."""
    raw = body.encode()
    return Request({"REQUEST_METHOD": method, "RAW_URI": target, "CONTENT_LENGTH": str(len(raw)),
                    "wsgi.input": BytesIO(raw)})


@pytest.mark.parametrize("body", [
    '{"HostConfig":{"Privileged":true}}',
    '{"hostconfig":{"pRIVILEGED":true}}',
    '{"HostConfig":{"Privileged":false,"privileged":true}}',
    '{"HostConfig":{"Privileged":true},"HOSTCONFIG":{}}',
    '{"HostConfig":{"Privileged":true,"Privileged":null}}',
    '{"HostConfig":{"Memory":1},"hostConfig":{"Privileged":true}}',
    '{"Ho\\u0073tConfig":{"Privilege\\u0064":true}}',
    '{"Ho\u017ftConfig":{"Privileged":true}}',
    '{"Privileged":true}',
    '{"HostConfig":null,"Privileged":true}',
    '{"HostConfig":{"Privileged":true}} {"HostConfig":{"Privileged":false}}',
])
def test_reads_what_the_daemon_reads(body: str) -> None:
    """Whatever the spelling: privileged by Go's rules (compared with dockerd 20.10)."""
    assert request(body).body.boolean("HostConfig", "Privileged")


@pytest.mark.parametrize("body", [
    "{}", '{"HostConfig":{}}', '{"HostConfig":{"Privileged":true,"privileged":false}}',
    '{"HostConfig":{"Memory":1},"Privileged":true}', '{"HostConfig":{"Privileged":true},"HostConfig":null}', "", "[]",
])
def test_what_the_daemon_does_not_read(body: str) -> None:
    """Not privileged, by the same rules."""
    assert not request(body).body.boolean("HostConfig", "Privileged")


def test_every_kind_of_value() -> None:
    """Values by their types; what is missing is empty."""
    body = request('{"Hostname":"web","Env":["A=1"],"Cmd":"sh","Labels":{"A":"1","a":"2"},"Volumes":{"/data":{}},'
                   '"HostConfig":{"Memory":1048576,"Mounts":[{"Type":"bind"}]}}').body
    assert body.string("Hostname") == "web"
    assert body.strings("env") == ["A=1"]
    assert body.command("Cmd") == ["sh"]
    assert body.labels("Labels") == {"A": "1", "a": "2"}
    assert body.keys("Volumes") == ["/data"]
    assert body.integer("HostConfig", "Memory") == 1048576
    assert [mount.string("Type") for mount in body.objects("HostConfig", "Mounts")] == ["bind"]
    assert body.has("Hostname")
    assert (body.string("User"), body.strings("X"), body.integer("Y"), body.labels("Z", "W")) == ("", [], 0, {})


@pytest.mark.parametrize("body", [
    '{"HostConfig":{"Privileged":"yes"}}', '{"HostConfig":{"Privileged":1}}', '{"HostConfig":[]}',
])
def test_other_types_are_refused_as_by_the_daemon(body: str) -> None:
    """The complaint names the field."""
    with pytest.raises(BadRequest, match="HostConfig"):
        request(body).body.boolean("HostConfig", "Privileged")


def test_what_is_no_whole_number() -> None:
    """Fractions and texts are none."""
    for value in ("1.5", '"1"', "1e3"):
        with pytest.raises(BadRequest, match="Memory: expected"):
            request(f'{{"HostConfig":{{"Memory":{value}}}}}').body.integer("HostConfig", "Memory")


def test_changes_are_what_is_sent() -> None:
    """In one spelling; everything else stays."""
    asked = request('{"Image":"a","labels":{"x":"1"},"Privileged":true,"Big":123456789012345678901}')
    asked.body.set("Labels", to={"x": "2"})
    asked.body.set("HostConfig", "Privileged", to=False)
    asked.body.set("HostConfig", "LogConfig", "Type", to="none")
    sent = json.loads(body_of(asked.environ).data)
    assert sent["Labels"] == {"x": "2"}
    assert sent["HostConfig"] == {"Privileged": False, "LogConfig": {"Type": "none"}}
    assert sent["Big"] == 123456789012345678901
    assert "labels" not in sent


def test_fields_are_removed_in_all_spellings() -> None:
    """And nothing is made where there is nothing to remove."""
    asked = request('{"HostConfig":{"Binds":["/:/a"],"binds":["/:/b"],"Memory":1}}')
    asked.body.remove("HostConfig", "Binds")
    asked.body.remove("HostConfig", "Mounts")
    assert json.loads(body_of(asked.environ).data) == {"HostConfig": {"Memory": 1}}


def test_a_body_that_is_no_object_can_not_be_changed() -> None:
    """The daemon will refuse it."""
    with pytest.raises(BadRequest, match="no JSON object"):
        request("[]").body.set("Labels", to={})


def test_streams_are_not_read() -> None:
    """A build's body stays on its way."""
    with pytest.raises(Unsupported, match="may be a stream"):
        _ = request("", "/v1.41/build").body


@pytest.mark.parametrize(("method", "target", "expected"), [
    ("POST", "/v1.41/containers/create?name=web", ("container_create", "", "1.41", "/v1.41/containers/create")),
    ("POST", "/containers/we%62/start", ("container_start", "web", "", "/containers/web/start")),
    ("GET", "/swarm", ("", "", "", "/swarm")),
])
def test_names(method: str, target: str, expected: tuple[Any, ...]) -> None:
    """What the request line says."""
    asked = request(target=target, method=method)
    assert (asked.name, asked.id, asked.version, asked.path) == expected
    assert (asked.method, asked.client) == (method, "")


def test_a_form_is_refused() -> None:
    """Its fields would win over the query at the daemon, unseen by a policy."""
    asked = request("version=2&networkmode=host", "/build?version=1")
    asked.environ["CONTENT_TYPE"] = "application/X-www-Form-Urlencoded; charset=utf-8"
    with pytest.raises(BadRequest, match="a form"):
        _ = asked.query


def test_query() -> None:
    """The first of several counts."""
    assert request(target="/containers/create?name=a&name=b").query["name"] == "a"
