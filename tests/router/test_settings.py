from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Any

import pytest

from weavemw.errors import SettingsError
from weavemw.router.settings import RouterSettings, network_setting, split_host_port


def test_defaults() -> None:
    """Nothing needs to be set."""
    settings = RouterSettings()
    assert settings.ranges == (IPv4Network("10.32.0.0/12"),)
    assert settings.docker_socket == "/var/run/docker.sock"


@pytest.mark.parametrize(("values", "message"), [
    ({"http_address": "6784"}, "address '6784': write HOST:PORT"),
    ({"http_address": "127.0.0.1:99999"}, "address '127.0.0.1:99999': write HOST:PORT"),
    ({"range": IPv4Network("10.0.0.0/31")}, "range 10.0.0.0/31: too small, a /30 is the least"),
    ({"range6": IPv6Network("fd00::/127")}, "range fd00::/127: too small"),
    ({"default_subnet": IPv4Network("10.0.0.0/24")}, "default subnet 10.0.0.0/24 is not within the range 10.32.0.0/12"),
    ({"dns_domain": ""}, "DNS domain '': invalid host name: ''"),
    ({"dns_ttl": -1}, "DNS TTL -1: choose 0 to 2147483647 seconds"),
    ({"encrypt": True}, "--encrypt without --store: this host is alone"),
    ({"mtu": 10}, "MTU 10: choose 576 to 65535 bytes"),
    ({"docker_host": "tcp://x"}, "docker host 'tcp://x': only unix:///path is supported"),
    ({"log_level": "loud"}, "log level 'loud': choose debug, info, warning or error"),
    ({"upstream": ("x:y",)}, "address 'x:y': write HOST:PORT"),
])
def test_refused(values: dict[str, Any], message: str) -> None:
    """What can't be used is refused with the value and the reason."""
    with pytest.raises(SettingsError) as caught:
        RouterSettings(**values)
    assert caught.value.message == message


@pytest.mark.parametrize(("text", "default", "found"), [
    ("127.0.0.1:6784", None, ("127.0.0.1", 6784)), ("[::1]:6784", None, ("::1", 6784)),
    ("192.0.2.1", 53, ("192.0.2.1", 53)), ("fd00::1", 53, ("fd00::1", 53)), ("[fd00::1]:5353", 53, ("fd00::1", 5353)),
])
def test_split_host_port(text: str, default: int | None, found: tuple[str, int]) -> None:
    """Hosts and ports are told apart, those of IPv6 too."""
    assert split_host_port(text, default) == found


def test_network_setting() -> None:
    """A range is of the family that the option is for."""
    assert network_setting("10.40.0.0/16", IPv4Network) == IPv4Network("10.40.0.0/16")
    with pytest.raises(SettingsError, match=r"range 10\.40\.0\.0/16: not of IPv6"):
        network_setting("10.40.0.0/16", IPv6Network)
    with pytest.raises(SettingsError, match="invalid CIDR address: nonsense"):
        network_setting("nonsense", IPv4Network)
