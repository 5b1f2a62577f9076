from __future__ import annotations

import socket
from typing import Any, cast

import pytest

from weavemw.dockerapi.hosts import is_allowed, networks
from weavemw.errors import SettingsError
from weavemw.serving import exposure
from weavemw.serving.admission import Admission
from weavemw.serving.tls_front import Front
from weavemw.settings import Settings


@pytest.mark.parametrize(("address", "allowed"), [
    ("10.1.2.3", True), ("11.1.2.3", False), ("192.0.2.7", True), ("192.0.2.8", False), ("fd00::1", True),
    ("fe80::1%eth0", False), ("::ffff:10.1.2.3", True), ("::ffff:11.1.2.3", False),
])
def test_who_is_allowed(address: str, allowed: bool) -> None:
    """Addresses in one of the networks, in whichever form they come."""
    assert is_allowed(address, networks(["10.0.0.0/8", "192.0.2.7", "fd00::/64"])) is allowed


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0/33", "host1"])
def test_what_is_no_network_is_refused(text: str) -> None:
    """With the reason."""
    with pytest.raises(SettingsError, match="allow-from: "):
        networks([text])


@pytest.mark.parametrize(("given", "said"), [
    ({}, "tcp://0.0.0.0:12375 without TLS"), ({"tls": True}, "TLS asks no client for a certificate"),
    ({"tls_verify": True}, ""), ({"listeners": "/run/weave.sock"}, ""),
])
def test_what_is_said_of_an_open_port(given: dict[str, object], said: str) -> None:
    """Who reaches it is root, unless clients need a certificate."""
    warning = exposure.open_to_all(Settings.from_mapping(given))
    assert said in warning
    assert bool(warning) is bool(said)


class RecordingFront:
    """Takes connections, and like the real one has the length of none at first."""

    def __init__(self) -> None:
        self.added: list[socket.socket] = []

    def __len__(self) -> int:
        return 0

    def add(self, client: socket.socket, connected: Any, lost: Any) -> None:
        self.added.append(client)


@pytest.mark.parametrize(("address", "with_tls", "adopted", "fronted"), [
    ("10.0.0.1", False, 1, 0), ("10.0.0.1", True, 0, 1), ("11.0.0.1", False, 0, 0), ("11.0.0.1", True, 0, 0),
])
def test_who_gets_in(address: str, with_tls: bool, adopted: int, fronted: int) -> None:
    """By address first; with TLS nothing is served that has not come through it."""
    front, served = RecordingFront(), []
    admission = Admission(lambda client, _: served.append(client), allowed=networks(["10.0.0.0/8"]),
                          front=cast(Front, front) if with_tls else None)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        admission(ours, (address, 1))
        assert (len(served), len(front.added)) == (adopted, fronted)
        assert (ours.fileno() == -1) is (not adopted and not fronted)
