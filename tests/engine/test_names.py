"""Names by the command line, on a real engine."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from host import TestHost
from launched import Launched, eventually

pytestmark = [pytest.mark.root, pytest.mark.engine]


@pytest.fixture(scope="module")
def weave(make_module_host: Callable[..., TestHost]) -> Launched:
    launched = Launched(make_module_host())
    launched.docker("run", "-d", "--name", "web", "busybox", "sleep", "3600")
    launched.docker("run", "-d", "--name", "client", "busybox", "sleep", "3600")
    return launched


def resolves(weave: Launched, name: str) -> bool:
    return bool(weave.host.docker("exec", "client", "ping", "-c1", "-w2", name, check=False).returncode == 0)


def test_a_further_name_of_a_container(weave):
    """dns-add gives a container another name, dns-remove takes it away; its own name stays."""
    weave.weave("dns-add", "web", "-h", "shop.weave.local")
    assert resolves(weave, "shop")
    assert weave.weave("dns-lookup", "shop").stdout.split() == [weave.ethwe("web").partition("/")[0]]
    weave.weave("dns-remove", "web", "-h", "shop.weave.local")
    assert eventually(lambda: not resolves(weave, "shop"), within=10)
    assert resolves(weave, "web")


def test_a_name_of_no_container(weave):
    """dns-add names an address from elsewhere; the name survives a restart of the router."""
    weave.weave("dns-add", "192.0.2.7", "-h", "printer.weave.local")
    assert weave.weave("dns-lookup", "printer").stdout == "192.0.2.7\n"
    weave.weave("stop-router")
    weave.weave("launch-router")
    assert eventually(lambda: weave.weave("dns-lookup", "printer").stdout == "192.0.2.7\n", within=10)
    weave.weave("dns-remove", "192.0.2.7", "-h", "printer.weave.local")
    unknown = weave.weave("dns-lookup", "printer", check=False)
    assert (unknown.returncode, unknown.stdout) == (1, "")


def test_the_arguments_that_docker_would_be_given(weave):
    """dns-args prints the server and the search domain."""
    shown = weave.weave("dns-args", "--name", "web").stdout
    assert "--dns" in shown
    assert "--dns-search" in shown


@pytest.mark.parametrize("arguments", [["dns-add"], ["dns-add", "nosuch", "-h", "x.weave.local"], ["dns-lookup"],
                                       ["dns-remove", "300.1.1.1", "-h", "x.weave.local"]], ids=" ".join)
def test_mistakes_are_one_line(weave, arguments):
    """What can't be is said in one line, without a traceback."""
    failed = weave.weave(*arguments, check=False)
    assert failed.returncode != 0
    assert failed.stdout == ""
    assert "Traceback" not in failed.stderr
