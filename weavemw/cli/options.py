"""The options of the proxy and of the router: each names a field of their settings."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from weavemw.errors import SettingsError
from weavemw.settings import DEFAULT_LISTENERS, Settings

__all__ = ["common_options", "peer_options", "proxy_options", "proxy_values", "router_arguments", "router_options"]

F = TypeVar("F", bound=Callable[..., Any])

_D = Settings()
_LEVELS = click.Choice(["debug", "info", "warning", "error"])

#: Options of the router that are given to it in another way here.
_ROUTER_SHARED = {"http_address", "state_dir", "docker_host", "docker_bridge", "bridge", "mtu", "log_level"}


def common_options(function: F) -> F:
    """Options that proxy and router have in common; here too, values that were not given are ``None``."""
    return _decorated(function, _COMMON)


def proxy_options(function: F) -> F:
    """The proxy's own options."""
    return _decorated(function, _LISTENING + _SECURING + _ATTACHING + _NAMING + _TUNING)


def proxy_values(options: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that options give. Raises ``click.UsageError`` for contradictions."""
    values = {name: options[name] for name in _PROXY_FIELDS if name in options}
    if options.get("without_dns"):
        if values.get("with_dns"):
            raise click.UsageError("--with-dns and --without-dns can't both be")
        values["with_dns"] = False
    return values


def router_options(function: F) -> F:
    """The router's own options, as the program of the router has them."""
    for option in reversed(_router_own()):
        function.__dict__.setdefault("__click_params__", []).append(option)
    return function


def peer_options(function: F) -> F:
    """What the original's router is told of its peers; ours has none."""
    return _decorated(function, _PEERS)


def router_arguments(settings: Settings, options: Mapping[str, Any], table: Mapping[str, Any]) -> tuple[str, ...]:
    """The command line of ``python -m weavemw.router`` that means what settings and options say.

    ``table`` is the configuration file's; options win over it. Raises
    :class:`~weavemw.errors.SettingsError` for a name in it that is no option.
    """
    own = {option.opts[0]: option for option in _router_own()}
    shared = {"http-addr": settings.router_address, "state-dir": settings.state_dir,
              "docker-host": settings.docker_host, "docker-bridge": settings.docker_bridge,
              "bridge": settings.bridge, "log-level": settings.log_level,
              **({"mtu": settings.mtu} if settings.mtu else {})}
    from_file = (_from_file(_router_option(own, key), value) for key, value in table.items())
    given = (_written(option, options.get(option.name or "")) for option in own.values())
    return (*(f"--{name}={value}" for name, value in shared.items()), *itertools.chain(*from_file, *given))


def _router_option(own: Mapping[str, click.Option], key: str) -> click.Option:
    try:
        return own["--" + key.replace("_", "-")]
    except KeyError:
        raise SettingsError(f"unknown setting {key!r} for the router") from None


def _written(option: click.Option, value: Any) -> list[str]:
    if option.is_flag:
        return [option.opts[0]] if value is (option.flag_value is not False) else []
    if value is None or value == option.default or value == ():
        return []
    values: Sequence[Any] = value if option.multiple else [value]
    return [f"{option.opts[0]}={each}" for each in values]


def _from_file(option: click.Option, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [option.opts[0]] if value else []
    return _written(option, value)


def _router_own() -> list[click.Option]:
    from weavemw.router.__main__ import main

    return [each for each in main.params if isinstance(each, click.Option) and each.name not in _ROUTER_SHARED]


def _decorated(function: F, options: Sequence[Callable[[F], F]]) -> F:
    for option in reversed(options):
        function = option(function)
    return function


_LISTENING: list[Any] = [
    click.option("-H", "--host", "listeners", multiple=True, metavar="ENDPOINT",
                 help=f"Listen there: tcp://address:port or unix:///path. Repeatable. "
                      f"[default: {', '.join(DEFAULT_LISTENERS)}]"),
]
_SECURING: list[Any] = [
    click.option("--tls", flag_value=True, default=None, help="TCP listeners speak TLS."),
    click.option("--tls-verify", "--tlsverify", flag_value=True, default=None,
                 help="TCP listeners speak TLS, and clients must show a certificate of the CA."),
    click.option("--tls-cacert", "--tlscacert", metavar="FILE",
                 help="The CA of clients, an absolute path. [default: ca.pem in DOCKER_CERT_PATH or ~/.docker]"),
    click.option("--tls-cert", "--tlscert", metavar="FILE",
                 help="The proxy's certificate, an absolute path. [default: cert.pem there]"),
    click.option("--tls-key", "--tlskey", metavar="FILE",
                 help="The key of that certificate, an absolute path. [default: key.pem there]"),
    click.option("--allow-from", multiple=True, metavar="CIDR",
                 help="Only these addresses may connect by TCP. Repeatable. [default: all]"),
    click.option("--allow-host", multiple=True, metavar="NAME",
                 help="A further name of this host, by which clients may call it without TLS. Repeatable."),
]
_ATTACHING: list[Any] = [
    click.option("--no-default-ipalloc", "default_ipalloc", flag_value=False, default=None,
                 help="Attach only containers that have a WEAVE_CIDR."),
    click.option("--no-multicast-route", "multicast_route", flag_value=False, default=None,
                 help="No route for multicast in containers."),
    click.option("--rewrite-inspect", "rewrite_inspect", flag_value=True, default=None,
                 help="Show weave addresses in `docker inspect`."),
    click.option("--start-timeout", type=float, metavar="SECONDS",
                 help=f"How long a start may wait for its network. [default: {_D.start_timeout:g}]"),
]
_NAMING: list[Any] = [
    click.option("-w", "--with-dns", "with_dns", flag_value=True, default=None,
                 help="Containers use weaveDNS, whether the router says that it serves or not."),
    click.option("--without-dns", "without_dns", flag_value=True, default=None, help="Containers never use weaveDNS."),
    click.option("--no-rewrite-hosts", "rewrite_hosts", flag_value=False, default=None,
                 help="Leave /etc/hosts as Docker makes it."),
    click.option("--hostname-from-label", metavar="KEY", help="Take hostnames from this label, not from the name."),
    click.option("--hostname-match", metavar="REGEXP",
                 help=f"What of it becomes the hostname. [default: {_D.hostname_match}]"),
    click.option("--hostname-replacement", metavar="EXPR",
                 help=f"How the match is written. [default: {_D.hostname_replacement}]"),
]
_PEERS: list[Any] = [
    click.argument("peers", nargs=-1, metavar="[PEER…]"),
    click.option("--password", metavar="PASSWORD", envvar="WEAVE_PASSWORD", help="For peers; see PEER."),
    click.option("--init-peer-count", type=int, metavar="N", help="For peers; see PEER."),
    click.option("--no-discovery", is_flag=True, help="For peers; see PEER."),
]
_COMMON: list[Any] = [
    click.option("--docker-bridge", metavar="NAME", help=f"Docker's bridge. [default: {_D.docker_bridge}]"),
    click.option("--bridge", metavar="NAME", help=f"The weave bridge. [default: {_D.bridge}]"),
    click.option("--mtu", type=int, metavar="BYTES",
                 help="MTU of the weave network. [default: the bridge's own; 1376 if we make it]"),
    click.option("--router-address", metavar="HOST:PORT",
                 help=f"The router's HTTP API. [default: {_D.router_address}; WEAVE_HTTP_ADDR]"),
    click.option("--docker-host", metavar="unix:///PATH",
                 help=f"The engine. [default: {_D.docker_host}; DOCKER_HOST]"),
    click.option("--log-level", type=_LEVELS, help=f"[default: {_D.log_level}]"),
]
_TUNING: list[Any] = [
    click.option("--workers", type=int, help=f"Processes that serve. [default: {_D.workers}]"),
    click.option("--threads", type=int, help=f"Threads in each. [default: {_D.threads}]"),
]
_PROXY_FIELDS = tuple(each.name for each in dataclasses.fields(Settings))
