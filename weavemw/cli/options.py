"""The options of the proxy and of the router: each names a field of their settings."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from weavemw.cli.setting_options import option_of
from weavemw.cli.sources import Given, blaming
from weavemw.errors import SettingsError
from weavemw.router.settings import RouterSettings
from weavemw.settings import PREFIX, TABLE, Group, Settings, nearest

__all__ = [
    "on_command_line",
    "peer_options",
    "proxy_options",
    "proxy_values",
    "router_arguments",
    "router_defaults",
    "router_given",
    "router_names",
    "router_options",
    "router_own",
    "router_settings",
    "together",
]

F = TypeVar("F", bound=Callable[..., Any])

#: Options of the router that are given to it in another way here.
_ROUTER_SHARED = {"http_address", "state_dir", "run_dir", "docker_host", "docker_bridge", "bridge", "mtu", "log_level"}


def proxy_options(function: F) -> F:
    """The proxy's own options."""
    options = [option_of(name) for name, setting in TABLE.items() if setting.group is not Group.HOST]
    without = click.Option(["--without-dns"], flag_value=True, default=None, help="Containers never use weaveDNS.")
    place = next(number for number, option in enumerate(options, 1) if option.name == "with_dns")
    return _with(function, [*options[:place], without, *options[place:]])


def proxy_values(options: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the proxy that options give. Raises ``click.UsageError`` for contradictions."""
    values = {name: value for name, value in options.items() if name in TABLE}
    if options.get("without_dns"):
        if values.get("with_dns"):
            raise click.UsageError("--with-dns and --without-dns can't both be")
        values["with_dns"] = False
    return values


def router_options(function: F) -> F:
    """The router's own options, as the program of the router has them."""
    return _with(function, router_own())


def peer_options(function: F) -> F:
    """What the original's router is told of its peers; ours has none."""
    return together(*_PEERS)(function)


def on_command_line(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the running command's options that somebody wrote, their defaults left out."""
    source = click.get_current_context().get_parameter_source
    return {name: value for name, value in options.items()
            if source(name) is click.core.ParameterSource.COMMANDLINE}


def router_names() -> list[str]:
    """The names of the router's own settings, as variables and files have them, with ``_``."""
    return [_plain(option) for option in router_own()]


def router_defaults() -> dict[str, Given]:
    """The router's own settings, as they are unless somebody says otherwise; switches, which are off, left out."""
    settings = RouterSettings()
    values = {_plain(option): getattr(settings, str(option.name)) for option in router_own() if not option.is_flag}
    return {name: Given(value, "default") for name, value in values.items() if value not in (None, (), "")}


def router_given(options: Mapping[str, Any], environ: Mapping[str, str],
                 table: Mapping[str, Given]) -> dict[str, Given]:
    """The router's own settings, and by whom they are given; options win over the environment, which wins over the
    table of the file. Raises :class:`~weavemw.errors.SettingsError` for a name in the table that is no option.
    """
    own = {_plain(option): option for option in router_own()}
    for name in set(table) - set(own):
        raise SettingsError(f"{table[name].source}: unknown setting {name.replace('_', '-')!r} for the router"
                            f"{nearest(name, own)}")
    variables = {name: f"{PREFIX}{name.upper()}" for name in own}
    environment = {name: Given(environ[each], each) for name, each in variables.items() if environ.get(each)}
    written = {name: Given(options[str(option.name)] == option.flag_value or options[str(option.name)],
                           option.opts[0]) for name, option in own.items() if option.name in options}
    return {**table, **environment, **written}


def router_arguments(settings: Settings, given: Mapping[str, Given]) -> tuple[str, ...]:
    """The command line of ``python -m weavemw.router`` that means what these settings and its own say.

    Raises :class:`~weavemw.errors.SettingsError` for what the router can't use.
    """
    shared = {"http-addr": settings.router_address, "state-dir": settings.state_dir,
              "run-dir": settings.run_dir,
              "docker-host": settings.docker_host, "docker-bridge": settings.docker_bridge,
              "bridge": settings.bridge, "log-level": settings.log_level,
              **({"mtu": settings.mtu} if settings.mtu else {})}
    words = blaming(given, _words_of)
    return (*(f"--{name}={value}" for name, value in shared.items()), *words)


def router_settings(arguments: Sequence[str]) -> RouterSettings:
    """What the router's command line means. Raises :class:`~weavemw.errors.SettingsError` if it means nothing."""
    from weavemw.router.__main__ import main

    try:
        return RouterSettings(**main.make_context("weave-router", list(arguments)).params)
    except click.ClickException as error:
        raise SettingsError(error.format_message()) from error


def _words_of(values: Mapping[str, Any]) -> list[str]:
    own = {_plain(option): option for option in router_own()}
    words = [*itertools.chain.from_iterable(_words(own[name], value) for name, value in values.items())]
    router_settings(words)
    return words


def _words(option: click.Option, value: Any) -> list[str]:
    name = option.opts[0]
    if option.is_flag:
        return [name] if _is_true(name, value) else []
    several = value.replace(",", " ").split() if option.multiple and isinstance(value, str) else value
    return [f"{name}={each}" for each in (several if isinstance(several, list | tuple) else [several])]


def _is_true(name: str, value: Any) -> bool:
    known = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    try:
        return known[str(value).lower()]
    except KeyError:
        raise SettingsError(f"{name.removeprefix('--')} {value!r}: expected true or false") from None


def _plain(option: click.Option) -> str:
    return option.opts[0].removeprefix("--").replace("-", "_")


def router_own() -> list[click.Option]:
    """The options of the router's program for its own settings."""
    from weavemw.router.__main__ import main

    return [each for each in main.params if isinstance(each, click.Option) and each.name not in _ROUTER_SHARED]


def _with(function: F, options: Sequence[click.Option]) -> F:
    """The function with these options, in this order."""
    function.__dict__.setdefault("__click_params__", []).extend(reversed(options))
    return function


def together(*options: Callable[[Any], Any]) -> Callable[[F], F]:
    """Several options as one decorator, in the order in which ``--help`` is to show them."""

    def decorated(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorated


_PEERS: list[Any] = [
    click.argument("peers", nargs=-1, metavar="[PEER…]"),
    click.option("--password", metavar="PASSWORD", envvar="WEAVE_PASSWORD", help="For peers; see PEER."),
    click.option("--init-peer-count", type=int, metavar="N", help="For peers; see PEER."),
    click.option("--no-discovery", is_flag=True, help="For peers; see PEER."),
]
