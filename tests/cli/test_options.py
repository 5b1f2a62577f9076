from __future__ import annotations

import random
import re
import tomllib
from pathlib import Path

import click
import pytest

from weavemw.cli import run
from weavemw.cli.options import (
    on_command_line,
    proxy_options,
    proxy_values,
    router_arguments,
    router_given,
    router_names,
    router_options,
    router_settings,
)
from weavemw.cli.sources import Given
from weavemw.errors import SettingsError
from weavemw.router.__main__ import main as router_program
from weavemw.settings import Settings


@click.command()
@proxy_options
def _proxy(**options: object) -> dict[str, object]:
    return proxy_values(on_command_line(options))


@click.command()
@router_options
def _router(**options: object) -> dict[str, object]:
    return on_command_line(options)


@pytest.mark.parametrize(("arguments", "values"), [
    pytest.param("", {}, id="nothing given"),
    pytest.param("-H /w.sock -H tcp://:1 --host=:2", {"listeners": ("/w.sock", "tcp://:1", ":2")}, id="listeners"),
    pytest.param("-w", {"with_dns": True}, id="-w"),
    pytest.param("--with-dns", {"with_dns": True}, id="with DNS"),
    pytest.param("--without-dns", {"with_dns": False}, id="without DNS"),
    pytest.param("--no-default-ipalloc --no-rewrite-hosts --no-multicast-route --rewrite-inspect "
                 "--no-hide-wait-program",
                 {"default_ipalloc": False, "rewrite_hosts": False, "multicast_route": False, "rewrite_inspect": True,
                  "hide_wait_program": False},
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
    pytest.param(["--dns-client=10.0.0.0/8", "--dns-client=10.1.0.0/16"], id="networks"),
])
def test_the_routers_options_reach_the_router(arguments: list[str]) -> None:
    """What `weave launch-router` is told, its program is told, word by word."""
    written = _router.main(arguments, standalone_mode=False)
    passed = router_arguments(Settings(router_address="127.0.0.1:5", bridge="w"), router_given(written, {}, {}))
    parsed = router_program.make_context("router", list(passed)).params
    assert parsed["http_address"] == "127.0.0.1:5"
    assert {name: parsed[name] for name in written} == written


def _table(**values: object) -> dict[str, Given]:
    return {name: Given(value, "/weave.toml") for name, value in values.items()}


def test_options_win_over_the_environment_which_wins_over_the_file_for_the_router_too() -> None:
    """Also where an option says what is the default anyway."""
    written = _router.main(["--dns-ttl=1"], standalone_mode=False)
    environ = {"WEAVEMW_DNS_TTL": "2", "WEAVEMW_DNS_DOMAIN": "a.", "WEAVEMW_UPSTREAM": "10.0.0.1 10.0.0.2"}
    table = _table(dns_ttl=3, dns_domain="corp.", dns_port=54, no_dns=True, force=False, nickname="n")
    found = router_settings(router_arguments(Settings(), router_given(written, environ, table)))
    assert (found.dns_ttl, found.dns_domain, found.dns_port, found.nickname) == (1, "a.", 54, "n")
    assert (found.dns, found.force, found.upstream) == (False, False, ("10.0.0.1", "10.0.0.2"))


@pytest.mark.parametrize(("table", "complaint"), [
    pytest.param(_table(dns_tll=3), "/weave.toml: unknown setting 'dns-tll' for the router: did you mean 'dns-ttl'?",
                 id="no option"),
    pytest.param(_table(dns_ttl="x"), "/weave.toml: .*'x' is not a valid integer", id="no number"),
    pytest.param(_table(ipalloc_range="10.2.0.0/31"), "/weave.toml: range 10.2.0.0/31: too small", id="too small"),
    pytest.param(_table(ipalloc_default_subnet="10.99.0.0/24", ipalloc_range="10.2.0.0/16"),
                 "default subnet 10.99.0.0/24 is not within", id="two that don't fit"),
])
def test_what_the_file_has_wrong_for_the_router_is_named(table: dict[str, Given], complaint: str) -> None:
    """Before anything is started."""
    with pytest.raises(SettingsError, match=complaint.replace("?", r"\?")):
        router_arguments(Settings(), router_given({}, {}, table))


#: Every option that the manual and the original's usage text have for `launch`, with a value and without.
_MANUAL = ["-H tcp://127.0.0.1:9999", "--with-dns", "--no-default-ipalloc", "--no-rewrite-hosts",
           "--no-multicast-route", "--rewrite-inspect", "--hostname-from-label key", "--hostname-match (a)",
           "--hostname-replacement b", "--log-level debug", "--tls", "--tlsverify",
           "--tlscacert /ca", "--tlscert /cert", "--tlskey /key",
           "--ipalloc-range 10.2.0.0/16", "--ipalloc-default-subnet 10.2.3.0/24", "--dns-domain corp.", "--dns-ttl 5",
           "--no-dns", "--mtu 1400", "--nickname me", "--password secret", "--init-peer-count 3", "--no-discovery",
           "--bridge w2", "--state-dir /state", "host2", "10.0.0.3:6783"]


def _configured(words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> dict[str, object]:
    assert run(words, {"WEAVEMW_RUN_DIR": str(tmp_path)}) == 0
    return tomllib.loads(capsys.readouterr().out)


@pytest.mark.parametrize("seed", range(8))
def test_the_manuals_options_come_in_any_order_and_spelling(seed: int, capsys: pytest.CaptureFixture[str],
                                                            tmp_path: Path) -> None:
    """With a space or an equals sign, switches with or without =true, among the peers, and what all verbs share before
    the verb too."""
    plain = _configured(["launch", "--print-config", *" ".join(_MANUAL).split()], capsys, tmp_path)
    assert (plain["tls-verify"], plain["mtu"], plain["listeners"]) == (True, 1400, ["tcp://127.0.0.1:9999"])
    rng = random.Random(seed)
    words = [rng.choice([each, each.replace(" ", "=")]) for each in _MANUAL]
    words = [f"{each}=true" if each.startswith("--") and not {" ", "="} & set(each) and rng.random() < 0.5 else each
             for each in words]
    words = [each.replace("--tlscert", "--tls-cert") if rng.random() < 0.5 else each for each in words]
    rng.shuffle(words)
    first = [each for each in words if each[:5] in ("--mtu", "--log", "--bri", "--sta") and rng.random() < 0.5]
    rest = [each for each in words if each not in first]
    line = " ".join([*first, "launch", *rest, "--print-config"]).split()
    assert _configured(line, capsys, tmp_path) == plain


def test_the_file_that_comes_along_names_every_setting() -> None:
    """What is commented out in conf/weavemw.toml is valid, and there is nothing else to be set."""
    text = (Path(__file__).parents[2] / "conf/weavemw.toml").read_text()
    found = tomllib.loads(re.sub(r"^# (?=[a-z0-9-]+ = )", "", text, flags=re.M))
    router = {name.replace("-", "_"): Given(value, "file") for name, value in found.pop("router").items()}
    names = {name.replace("-", "_") for name in found}
    assert names == set(Settings.__dataclass_fields__)
    assert set(router) == set(router_names())
    settings = Settings.from_mapping({name.replace("-", "_"): value for name, value in found.items()})
    assert settings == Settings(with_dns=True)
    router_arguments(settings, router_given({}, {}, router))


def test_a_password_is_not_taken_for_encryption(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Hosts that share a store would else talk in plain text, whose user asked for the opposite."""
    words = ["launch-router", "--store", "etcd://127.0.0.1:1", "--password", "secret"]
    assert run(words, {"WEAVEMW_RUN_DIR": str(tmp_path)}) == 1
    said = capsys.readouterr().err
    assert "encrypt with --encrypt" in said
    assert "secret" not in said
