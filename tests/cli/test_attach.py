from __future__ import annotations

from ipaddress import ip_interface
from pathlib import Path

import pytest

from weavemw.attaching.attachment import Attachment, NotRunning
from weavemw.cli import run
from weavemw.cli.attach import give, selected, split, take
from weavemw.errors import BadRequest, InvalidCidr, NetworkError, RouterError
from weavemw.network.addresses import Wanted, parse_one
from weavemw.testing import FakeDocker, FakeRouter, RecordingNetwork

FIRST, SECOND = ip_interface("10.32.0.1/24"), ip_interface("10.2.1.1/24")


class Host:
    """A host of fakes."""

    def __init__(self, run_dir: Path) -> None:
        self.docker, self.router, self.network = FakeDocker(), FakeRouter(), RecordingNetwork()
        self.attachment = Attachment(docker=self.docker, router=self.router, network=self.network, run_dir=run_dir,
                                     rewrite_hosts=False)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def _wanted(*words: str) -> list[Wanted]:
    return list(map(parse_one, words))


@pytest.mark.parametrize(("words", "addresses", "rest"), [
    ("-ti ubuntu", [], ["-ti", "ubuntu"]),
    ("10.2.1.1/24 -ti ubuntu", ["ip:10.2.1.1/24"], ["-ti", "ubuntu"]),
    ("net:default ip:10.2.1.1/24 net:10.3.0.0/24 web", ["net:default", "ip:10.2.1.1/24", "net:10.3.0.0/24"], ["web"]),
    ("fd00:2::1/64 web", ["ip:fd00:2::1/64"], ["web"]),
    ("web 10.2.1.1/24", [], ["web", "10.2.1.1/24"]),
    ("123456789012", [], ["123456789012"]),
    ("cafe:1.2", [], ["cafe:1.2"]),
    ("cafe:5000/web", [], ["cafe:5000/web"]),
    ("net:1.0", [], ["net:1.0"]),
    ("1.2.3 sh", [], ["1.2.3", "sh"]),
])
def test_addresses_come_first(words: str, addresses: list[str], rest: list[str]) -> None:
    """What follows is Docker's: an image or a container that merely looks a little like an address too."""
    found, others = split(words.split())
    assert ([*map(str, found)], [*others]) == (addresses, rest)


@pytest.mark.parametrize("word", ["10.2.1.1", "10.2.1.300/24", "net:10.2.1.1/24", "fd00::1", "10.2.1.0/24"])
def test_a_wrong_address_is_no_image(word: str) -> None:
    """The part that is wrong is named."""
    with pytest.raises(InvalidCidr, match=word.partition("/")[0]):
        split([word, "web"])


def test_a_container_is_given_an_address_and_keeps_it(host: Host) -> None:
    """Asked again it has the same; further addresses come beside those that it has."""
    container = host.docker.run(entrypoint=())
    assert give(host.attachment, container, ()) == (FIRST,)
    assert give(host.attachment, container, ()) == (FIRST,)
    assert set(give(host.attachment, container, _wanted("10.2.1.1/24"))) == {FIRST, SECOND}
    assert set(host.network.inside[container.pid].addresses) == {FIRST, SECOND}


def test_a_container_is_given_what_its_environment_says(host: Host) -> None:
    """WEAVE_CIDR counts where the command line is silent."""
    assert give(host.attachment, host.docker.run(env=("WEAVE_CIDR=10.2.1.1/24",)), ()) == (SECOND,)


@pytest.mark.parametrize("fails", ["prepare", "commit"])
def test_an_attach_that_fails_gives_back_what_is_new(host: Host, fails: str) -> None:
    """What it held before stays its own."""
    container = host.docker.run(entrypoint=())
    host.router.claim(container.id, SECOND)
    host.network.failures[fails] = NetworkError("no")
    with pytest.raises(NetworkError):
        give(host.attachment, container, _wanted("net:default"))
    assert host.router.owned() == {container.id: (SECOND,)}


def test_of_several_addresses_one_that_is_taken_leaves_none(host: Host) -> None:
    """The container holds nothing after that."""
    container = host.docker.run(entrypoint=())
    host.router.claim("other", SECOND)
    with pytest.raises(RouterError, match="already owned"):
        give(host.attachment, container, _wanted("net:default", "10.2.1.1/24"))
    assert container.id not in host.router.owned()


@pytest.mark.parametrize(("mode", "reason"), [("host", "the host's network"), ("container:x", "of another container")])
def test_what_has_no_network_of_its_own_is_refused(host: Host, mode: str, reason: str) -> None:
    """With the reason; nothing is allocated."""
    with pytest.raises(BadRequest, match=reason):
        give(host.attachment, host.docker.run(network_mode=mode), ())
    assert not host.router.owned()


def test_what_does_not_run_is_refused(host: Host) -> None:
    """Nothing is allocated."""
    with pytest.raises(NotRunning, match="is not running"):
        give(host.attachment, host.docker.create(), ())
    assert not host.router.owned()


def test_one_of_two_addresses_is_taken_away(host: Host) -> None:
    """The other stays on the interface, with the container's names."""
    container = host.docker.run(entrypoint=())
    give(host.attachment, container, _wanted("net:default", "10.2.1.1/24"), ["web.weave.local"])
    take(host.attachment, container, [SECOND])
    assert host.network.inside[container.pid].addresses == (FIRST,)
    assert host.router.owned() == {container.id: (FIRST,)}
    assert host.router.records == {(container.id, FIRST, "web.weave.local")}


def test_with_its_last_address_goes_the_interface(host: Host) -> None:
    """And its names."""
    container = host.docker.run(entrypoint=())
    give(host.attachment, container, (), ["web.weave.local"])
    take(host.attachment, container, [FIRST])
    assert (host.network.outside, host.router.owned(), host.router.records) == ({}, {}, set())


@pytest.mark.parametrize(("words", "found"), [
    ([], []), (["10.2.1.1/24"], [SECOND]), (["net:10.32.0.0/16"], [FIRST]),
    (["10.2.1.1/24", "net:10.2.0.0/16"], [SECOND]), (["10.2.1.9/24"], []), (["10.2.1.1/16"], []),
    (["net:10.9.0.0/16", "net:10.32.0.0/16"], [FIRST]),
])
def test_those_that_are_meant_are_found(words: list[str], found: list[object]) -> None:
    """Each once; what is not there is no mistake."""
    assert selected([FIRST, SECOND], _wanted(*words), FakeRouter()) == found


def test_the_default_subnet_is_of_both_families() -> None:
    """An address of each."""
    sixth = ip_interface("fd00::1/64")
    assert selected([FIRST, SECOND, sixth], _wanted("net:default"), FakeRouter(subnet6="fd00::/64")) == [FIRST, sixth]


@pytest.mark.parametrize(("arguments", "status", "complaint"), [
    (["run"], 2, "an image is missing"),
    (["run", "10.2.1.1/24"], 2, "an image is missing"),
    (["run", "10.2.1.300/24", "nginx"], 1, '"10.2.1.300" is not an IP address'),
    (["start"], 2, "a container is missing: see `weave start --help`"),
    (["start", "10.2.1.1/24"], 2, "a container is missing"),
    (["attach", "web", "10.2.1.1/24"], 2, "the container comes last, as in `weave attach 10.2.1.1/24 web`"),
    (["attach", "10.2.1/24", "web"], 2, "10.2.1/24 is no address, which is written 10.2.1.1/24"),
    (["attach", ""], 2, "expected [ADDR…] CONTAINER, found ''"),
    (["ps", ""], 2, "expected the name or id of a container, found ''"),
    (["attach", "web", "db"], 2, "expected [ADDR…] CONTAINER"),
    (["attach", "web"], 1, "did not answer: No such file or directory"),
    (["detach", "web"], 1, "did not answer: No such file or directory"),
    (["ps"], 1, "did not answer: No such file or directory"),
    (["run", "nginx"], 1, "weave router"),
])
def test_a_mistake_is_one_line(arguments: list[str], status: int, complaint: str, tmp_path: Path,
                               capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr; nothing on stdout."""
    environ = {"DOCKER_HOST": f"unix://{tmp_path}/docker.sock", "WEAVE_HTTP_ADDR": "127.0.0.1:1",
               "WEAVEMW_RUN_DIR": str(tmp_path)}
    assert run(arguments, environ) == status
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), err[:7]) == ("", 1, "weave: ")
    assert complaint in err
