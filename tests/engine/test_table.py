"""README.md's tables "What a container gets", each row on a real engine."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest
from host import TestHost
from launched import Launched, eventually

pytestmark = [pytest.mark.root, pytest.mark.engine]

README = Path(__file__).parents[2] / "README.md"


def table(heading: str) -> list[list[str]]:
    """The rows of the first table after a line, without its head."""
    lines = README.read_text().partition(heading)[2].strip().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:lines.index("")]]
    return rows[2:]


def code(cell: str) -> list[str]:
    """What stands in backquotes."""
    return re.findall(r"`([^`]+)`", cell)


ENVIRONMENTS = table("What the environment says, in the request (`-e`) or in the image (`ENV`):")
NETWORKS = table("What the network says:")


@pytest.fixture(scope="module", params=["", "--no-default-ipalloc"], ids=["", "no-default-ipalloc"])
def option(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def weave(make_module_host: Callable[..., TestHost], option: str) -> Launched:
    launched = Launched(make_module_host(), *filter(None, [option]))
    launched.host.docker("network", "create", "shop")
    launched.host.ip("link", "add", "port", "type", "veth", "peer", "name", "cable")
    launched.host.docker("network", "create", "-d", "macvlan", "-o", "parent=port", "lan")
    launched.host.docker("swarm", "init", "--advertise-addr", "127.0.0.1", "--listen-addr", "127.0.0.1")
    launched.host.docker("network", "create", "-d", "overlay", "--attachable", "swarm")
    return launched


@pytest.fixture
def clean(weave: Launched) -> Iterator[Launched]:
    """Nothing is left after the test."""
    before = weave.left()
    yield weave
    for container in weave.host.docker("ps", "-aq", "--filter", "label=test").stdout.split():
        weave.host.docker("rm", "-f", container)
    assert eventually(lambda: weave.left() == before, within=15), (before, weave.left())


def run(weave: Launched, options: list[str], image: str = "busybox") -> str:
    """``docker run -d`` through the proxy; the container's name."""
    weave.docker("run", "-d", "--label", "test", "--name", "it", *options, image, "sleep", "99")
    return "it"


def image_of(weave: Launched, created_with: str) -> str:
    """busybox, or one made of it with the row's ENV."""
    env = [words for words in code(created_with) if words.startswith("ENV ")]
    if not env:
        return "busybox"
    weave.host.docker("run", "--name", "made", "busybox", "true")
    weave.host.docker("commit", "--change", env[0], "made", "with-env")
    weave.host.docker("rm", "made")
    return "with-env"


def options_of(created_with: str) -> list[str]:
    return [word for words in code(created_with) if not words.startswith("ENV ") for word in shlex.split(words)]


def addresses(weave: Launched, container: str) -> list[str]:
    """The addresses on ethwe, as the container sees them."""
    shown = weave.host.docker("exec", container, "ip", "-o", "address", "show", "dev", "ethwe", "scope", "global",
                              check=False).stdout
    return re.findall(r"inet6? (\S+)", shown)


def fits(address: str, text: str) -> bool:
    """Whether an address is the one that is meant, or of the subnet that is meant."""
    return address == text or (ip_interface(text).ip == ip_network(text, strict=False).network_address
                               and ip_interface(address).network == ip_network(text))


def is_left_alone(weave: Launched, container: str, reason: str) -> bool:
    """Docker made what it would have made without us, and ``weave status`` says why."""
    shown = weave.host.docker("inspect", "-f", "{{.Config.Entrypoint}} {{.HostConfig.Binds}}", container).stdout
    assert "/w" not in shown
    return eventually(lambda: any(reason in each["reason"] for each in weave.status()["containers"]["left_alone"]
                                  if each["name"] == container), within=10)


@pytest.mark.parametrize("row", ENVIRONMENTS, ids=lambda row: row[0])
def test_environment(clean: Launched, option: str, row: list[str]) -> None:
    """The row's addresses and no others; or left alone, or refused, with the row's reason."""
    created_with, gets, without_default, why = row
    promised = gets if not option or without_default == "the same" else without_default
    image = image_of(clean, created_with)
    if promised == "refused":
        refused = clean.docker("create", *options_of(created_with), image, check=False)
        assert refused.returncode
        assert code(why)[0] in refused.stderr
        return
    container = run(clean, options_of(created_with), image)
    if promised == "left alone":
        assert addresses(clean, container) == []
        assert is_left_alone(clean, container, code(why)[0] if gets == promised else "--no-default-ipalloc")
        return
    found, wanted = addresses(clean, container), code(promised)
    assert len(found) == len(wanted)
    assert all(any(fits(address, text) for address in found) for text in wanted), (found, wanted)


@pytest.mark.parametrize("row", NETWORKS, ids=lambda row: row[0])
def test_network(clean: Launched, option: str, row: list[str]) -> None:
    """On the weave network or not, whatever WEAVE_CIDR says; and with the interfaces of Docker that the row names."""
    created_with, gets, why = row
    cidr = ["-e", "WEAVE_CIDR=10.33.1.7/24"] if option else []
    if "container:" in created_with:
        clean.docker("run", "-d", "--label", "test", "--name", "web", "-e", "WEAVE_CIDR=10.2.1.1/24",
                     "busybox", "sleep", "99")
    container = run(clean, [*options_of(created_with), *cidr])
    found = addresses(clean, container)
    if gets == "left alone":
        assert found == (["10.2.1.1/24"] if "container:" in created_with else [])
        assert is_left_alone(clean, container, code(why)[0])
        return
    assert len(found) == 1
    assert fits(found[0], "10.33.1.7/24" if option else "10.32.0.0/12")
    links = re.findall(r"^\d+: (\w+)", clean.host.docker("exec", container, "ip", "link").stdout, re.MULTILINE)
    assert sorted(links) == sorted(["lo", "ethwe", *code(gets)])
