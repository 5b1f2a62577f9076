"""How Docker completes a create's configuration with the image's."""

from __future__ import annotations

import pytest

from weavemw.dockerapi.configs import (
    host_config,
    merged_command,
    merged_env,
    network_mode,
    set_host_config,
    unwrapped,
    wrapped,
)
from weavemw.dockerapi.payload import Body
from weavemw.dockerapi.wait_mount import PLACES


@pytest.mark.parametrize(("entrypoint", "cmd", "image_entrypoint", "image_cmd", "expected"), [
    pytest.param(None, None, None, None, (None, None), id="nothing at all"),
    pytest.param(None, None, None, ["sh"], (None, ["sh"]), id="image's command"),
    pytest.param(None, None, ["e"], ["c"], (["e"], ["c"]), id="image's both"),
    pytest.param(None, ["x"], ["e"], ["c"], (["e"], ["x"]), id="own command"),
    pytest.param(["y"], None, ["e"], ["c"], (["y"], None), id="own entrypoint drops the image's command"),
    pytest.param(["y"], ["x"], ["e"], ["c"], (["y"], ["x"]), id="own both"),
    pytest.param([], None, ["e"], ["c"], ([], ["c"]), id="empty entrypoint keeps the image's command"),
    pytest.param([], ["x"], ["e"], ["c"], ([], ["x"]), id="empty entrypoint, own command"),
    pytest.param([""], None, ["e"], ["c"], (None, None), id="cleared, nothing left"),
    pytest.param([""], ["x"], ["e"], ["c"], (None, ["x"]), id="cleared, own command"),
    pytest.param(None, [], ["e"], ["c"], (["e"], ["c"]), id="an empty command is none"),
    pytest.param(None, [""], ["e"], ["c"], (["e"], [""]), id="a command of one empty word is one"),
    pytest.param(["y"], [], ["e"], ["c"], (["y"], []), id="an empty command stays beside an entrypoint"),
    pytest.param(None, [], ["e"], None, (["e"], None), id="an empty command gives way to none"),
    pytest.param(None, None, [""], ["c"], (None, ["c"]), id="image cleared its own"),
    pytest.param(["", "a"], None, None, None, (["", "a"], None), id="an empty word and more"),
])
def test_entrypoint_and_command_are_merged_as_docker_does(
        entrypoint: list[str] | None, cmd: list[str] | None, image_entrypoint: list[str] | None,
        image_cmd: list[str] | None, expected: tuple[list[str] | None, list[str] | None]) -> None:
    """What runs through the proxy is what would run without it."""
    assert merged_command(entrypoint, cmd, image_entrypoint, image_cmd) == expected


@pytest.mark.parametrize(("request_env", "image", "expected"), [
    ([], ["A=1"], ["A=1"]), (["A=2"], ["A=1", "B=1"], ["A=2", "B=1"]), (["A"], ["A=1"], ["A"]),
    (["A=1", "A=2"], [], ["A=1", "A=2"]), (["AB=1"], ["A=1"], ["AB=1", "A=1"]), (["A="], ["A=1"], ["A="]),
])
def test_the_requests_environment_goes_before_the_images(request_env: list[str], image: list[str],
                                                         expected: list[str]) -> None:
    """The image's variables count where the request does not name them."""
    assert merged_env(request_env, image) == expected


@pytest.mark.parametrize(("entrypoint", "expected"), [
    (None, None), ([], []), (["e"], ["e"]), (["/dev/w"], [""]), (["/dev/w", "e"], ["e"]),
    (["/dev/./w"], []), (["/dev/./w", "/dev/w"], []), (["/./.dockerenv"], []), (["/.dockerenv"], [""]),
    (["/dev/w", "/.dockerenv", "e"], ["e"]), (["e", "/dev/w"], ["e", "/dev/w"]), (["/w/w"], ["/w/w"]),
])
def test_unwrapping(entrypoint: list[str] | None, expected: list[str] | None) -> None:
    """However often it was wrapped, the container's own entrypoint is left; [""] is a create's way to get null."""
    assert unwrapped(entrypoint) == expected


@pytest.mark.parametrize("program", PLACES)
@pytest.mark.parametrize(("entrypoint", "comes_back"), [(None, [""]), ([], []), (["e", "f"], ["e", "f"])])
def test_what_was_wrapped_can_be_told(entrypoint: list[str] | None, comes_back: list[str], program: str) -> None:
    """Null and an empty list are two things."""
    assert unwrapped(wrapped(entrypoint, program)) == comes_back


@pytest.mark.parametrize(("text", "mode"), [
    pytest.param('{"HostConfig":{"NetworkMode":"host"}}', "host", id="in its place"),
    pytest.param('{"NetworkMode":"host"}', "host", id="beside the config"),
    pytest.param('{"networkmode":"host","HostConfig":null}', "host", id="beside a null"),
    pytest.param('{"NetworkMode":"host","HostConfig":{}}', "default", id="the object counts"),
    pytest.param('{"HostConfig":{"NetworkMode":""}}', "default", id="empty"),
    pytest.param('{"Image":"x"}', "default", id="none"),
])
def test_network_mode_is_found_where_the_daemon_looks(text: str, mode: str) -> None:
    """A HostConfig's fields may stand beside the others, as in old API versions."""
    document = Body(text.encode()).document
    assert document is not None
    assert network_mode(host_config(document)) == mode


def test_a_new_host_config_takes_along_what_stood_beside() -> None:
    """Once there is a HostConfig object old daemons no longer look beside it: it must hold everything."""
    body = Body(b'{"Image":"x","Dns":["1.1.1.1"],"Memory":9}')
    assert body.document is not None
    host = host_config(body.document)
    assert host is not None
    host.set("Binds", ["/a:/b"])
    set_host_config(body.document, host)
    assert body.data == (b'{"Image":"x","Dns":["1.1.1.1"],"Memory":9,'
                         b'"HostConfig":{"Dns":["1.1.1.1"],"Memory":9,"Binds":["/a:/b"]}}')
