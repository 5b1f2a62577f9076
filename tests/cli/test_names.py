from __future__ import annotations

import pytest

from weavemw.cli.names import dns_arguments, only_network, targets
from weavemw.errors import BadRequest


@pytest.mark.parametrize(("words", "fqdn", "addresses", "container"), [
    (["web"], "", [], "web"),
    (["web"], "a.weave.local", [], "web"),
    (["10.2.1.27", "web"], "", ["10.2.1.27"], "web"),
    (["10.2.1.27", "fd00::1", "web"], "", ["10.2.1.27", "fd00::1"], "web"),
    (["192.0.2.7"], "a.weave.local", ["192.0.2.7"], ""),
])
def test_every_form_is_read(words: list[str], fqdn: str, addresses: list[str], container: str) -> None:
    """Addresses and a container, one of them, or addresses and a name."""
    found = targets(words, fqdn)
    assert ([str(each.ip) for each in found.addresses], found.container) == (addresses, container)


@pytest.mark.parametrize(("words", "fqdn"), [
    ([], ""), ([], "a.weave.local"), (["10.2.1.27"], ""), (["web", "db"], ""), (["web", "10.2.1.27"], ""),
])
def test_what_is_no_form_is_refused(words: list[str], fqdn: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(BadRequest, match=r"expected|missing"):
        targets(words, fqdn)


@pytest.mark.parametrize(("arguments", "added"), [
    ([], ["--dns-search=weave.local"]),
    (["--name", "web"], ["--dns-search=.", "--hostname=web.weave.local"]),
    (["--name=web", "-d"], ["--dns-search=.", "--hostname=web.weave.local"]),
    (["--name=web", "-h", "a.b"], ["--dns-search=."]),
    (["--hostname=a"], ["--dns-search=."]),
    (["--dns-search", "x"], []),
    (["--name=web", "--uts=host"], ["--dns-search=weave.local"]),
    ([f"--name={'w' * 60}"], ["--dns-search=weave.local"]),
])
def test_docker_run_is_told_what_the_proxy_would_say(arguments: list[str], added: list[str]) -> None:
    """The server first, a search list unless there is one, a hostname made of the name."""
    assert dns_arguments(arguments, "172.17.0.1", "weave.local.") == ["--dns=172.17.0.1", *added]


@pytest.mark.parametrize(("arguments", "network"), [
    ([], ""), (["--net", "none"], "weave"), (["--network=none", "-d"], "weave"), (["--net=shop"], ""),
])
def test_who_has_no_other_network_asks_on_the_weave_bridge(arguments: list[str], network: str) -> None:
    """The router is asked for the address that can be reached."""
    assert only_network(arguments) == network
