from __future__ import annotations

import pytest

from weavemw.dockerapi.hosts import is_allowed, networks
from weavemw.errors import SettingsError
from weavemw.serving import exposure
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
