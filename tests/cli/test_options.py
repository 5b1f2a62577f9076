from __future__ import annotations

import click
import pytest

from weavemw.cli.options import proxy_options, proxy_values, router_arguments, router_options
from weavemw.errors import SettingsError
from weavemw.router.__main__ import main as router_program
from weavemw.settings import Settings


@click.command()
@proxy_options
def _proxy(**options: object) -> dict[str, object]:
    return {name: value for name, value in proxy_values(options).items() if value not in (None, ())}


@click.command()
@router_options
def _router(**options: object) -> dict[str, object]:
    return options


@pytest.mark.parametrize(("arguments", "values"), [
    pytest.param("", {}, id="nothing given"),
    pytest.param("-H /w.sock -H tcp://:1 --host=:2", {"listeners": ("/w.sock", "tcp://:1", ":2")}, id="listeners"),
    pytest.param("-w", {"with_dns": True}, id="-w"),
    pytest.param("--with-dns", {"with_dns": True}, id="with DNS"),
    pytest.param("--without-dns", {"with_dns": False}, id="without DNS"),
    pytest.param("--no-default-ipalloc --no-rewrite-hosts --no-multicast-route --rewrite-inspect",
                 {"default_ipalloc": False, "rewrite_hosts": False, "multicast_route": False, "rewrite_inspect": True},
                 id="switches"),
    pytest.param("--hostname-from-label=l --hostname-match ^a --hostname-replacement=$1",
                 {"hostname_from_label": "l", "hostname_match": "^a", "hostname_replacement": "$1"}, id="hostnames"),
])
def test_the_manuals_options_mean_settings(arguments: str, values: dict[str, object]) -> None:
    """Each option gives one field; what was not given is left to environment, file and default."""
    assert _proxy.main(arguments.split(), standalone_mode=False) == values


@pytest.mark.parametrize("arguments", [
    pytest.param([], id="nothing given"),
    pytest.param(["--ipalloc-range=10.2.0.0/16", "--ipalloc-default-subnet=10.2.3.0/24"], id="ranges"),
    pytest.param(["--no-dns"], id="a switch that turns off"),
    pytest.param(["--force", "--dns-ttl=5", "--upstream=10.0.0.1", "--upstream=10.0.0.2"], id="several"),
])
def test_the_routers_options_reach_the_router(arguments: list[str]) -> None:
    """What `weave launch-router` is told, its program is told, word by word."""
    options = _router.main(arguments, standalone_mode=False)
    settings = Settings(router_address="127.0.0.1:5", bridge="w")
    passed = router_arguments(settings, options, {})
    parsed = router_program.make_context("router", list(passed)).params
    assert parsed["http_address"] == "127.0.0.1:5"
    assert {name: parsed[name] for name in options} == options


def test_the_file_speaks_for_the_router_where_no_option_does() -> None:
    """A table's keys are the options' names; an option on the command line wins."""
    options = _router.main(["--dns-ttl=5"], standalone_mode=False)
    table = {"dns_ttl": 3, "dns_domain": "corp.", "no-dns": True, "force": False}
    passed = router_arguments(Settings(), options, table)
    parsed = router_program.make_context("router", list(passed)).params
    assert (parsed["dns_ttl"], parsed["dns_domain"], parsed["dns"], parsed["force"]) == (5, "corp.", False, False)


def test_a_name_in_the_file_that_is_no_option_is_named() -> None:
    """A typing error is not passed over."""
    with pytest.raises(SettingsError, match="unknown setting 'dns_tll' for the router"):
        router_arguments(Settings(), {}, {"dns_tll": 3})
