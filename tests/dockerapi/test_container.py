"""What is read from an inspect."""

from __future__ import annotations

from typing import Any

import pytest

from weavemw.dockerapi.container import Container

BIND = "/var/lib/weavemw/wait/0123456789ab/w:/dev/w:ro"
FORMER_BIND = "/var/lib/weavemw/wait/0123456789ab:/w:ro"


def inspected(entrypoint: object, binds: object, mode: str = "default") -> Container:
    """A container of which inspect says this."""
    reply: dict[str, Any] = {"Id": "c1", "Config": {"Entrypoint": entrypoint},
                             "HostConfig": {"Binds": binds, "NetworkMode": mode}}
    return Container.from_inspect(reply)


@pytest.mark.parametrize(("entrypoint", "binds", "is_ours"), [
    pytest.param(["/dev/w", "sh"], ["/a:/b", BIND], True, id="ours"),
    pytest.param(["/w/w", "sh"], [FORMER_BIND], True, id="an earlier version's"),
    pytest.param(["/.dockerenv"], [BIND.replace("/dev/w:", "/.dockerenv:")], True, id="at the other place"),
    pytest.param(["/w/w"], None, False, id="an image's program of that name"),
    pytest.param(["/w/w"], ["/a:/w:ro"], False, id="another's mount"),
    pytest.param(["/w/w"], [BIND], False, id="our mount, elsewhere"),
    pytest.param(["sh"], [BIND], False, id="only the mount"),
    pytest.param(["sh", "/dev/w"], [BIND], False, id="not first"),
    pytest.param(None, None, False, id="nothing"), pytest.param([""], ["/a:/b"], False, id="empty"),
])
def test_ours_has_our_entrypoint_and_our_mount(entrypoint: object, binds: object, is_ours: bool) -> None:
    """An image can have the one, but not the other."""
    assert inspected(entrypoint, binds).is_ours is is_ours


@pytest.mark.parametrize(("mode", "shares"), [
    ("host", True), ("container:web", True), ("default", False), ("bridge", False), ("none", False), ("hosts", False),
])
def test_what_shares_a_network_is_never_ours(mode: str, shares: bool) -> None:
    """Whatever it looks like."""
    container = inspected(["/dev/w"], [BIND], mode)
    assert (container.shares_network, container.is_ours) == (shares, not shares)


@pytest.mark.parametrize(("settings", "key"), [({"SandboxKey": "/var/run/docker/netns/1"}, "/var/run/docker/netns/1"),
                                               ({"SandboxKey": None}, ""), ({}, "")])
def test_the_sandbox_is_read(settings: dict[str, Any], key: str) -> None:
    """Engines that don't give one leave it empty."""
    assert Container.from_inspect({"Id": "c1", "NetworkSettings": settings}).sandbox_key == key
