"""Settings: one frozen dataclass, made once at the edge from a mapping, and passed on as arguments.

Nothing below the edge reads ``os.environ``. Each setting has one name in three
spellings: the field (``docker_host``), the environment variable
(``WEAVEMW_DOCKER_HOST``; a few have the original's own names, see
:data:`ENVIRONMENT`), and the option (``--docker-host``).
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from weavemw.dockerapi import hosts
from weavemw.errors import SettingsError
from weavemw.ops.run_dir import DEFAULT_ROUTER, RouterAddress, router_at

__all__ = ["DEFAULT_LISTENERS", "ENVIRONMENT", "PREFIX", "Engine", "Settings", "engine_in", "nearest", "points_at",
           "settings_in", "sources_in"]

log = logging.getLogger(__name__)

#: Where the proxy listens unless told otherwise (the original's manual).
DEFAULT_LISTENERS = ("unix:///var/run/weave.sock", "tcp://0.0.0.0:12375")

#: Variables with names of their own: the original's, and Docker's.
ENVIRONMENT = {
    "DOCKER_HOST": "docker_host",
    "DOCKER_BRIDGE": "docker_bridge",
    "WEAVE_HTTP_ADDR": "router_address",
    "WEAVE_MTU": "mtu",
}

#: How the variables of all other settings begin.
PREFIX = "WEAVEMW_"

_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off", ""}
_LONGEST_INTERFACE = 15  # IFNAMSIZ less its final zero (linux/if.h)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set about the proxy.

    Raises :class:`~weavemw.errors.SettingsError` for a value that can't be
    used. Times are in seconds, ``mtu`` is in bytes (0: the bridge's own).
    """

    docker_host: str = "unix:///var/run/docker.sock"
    listeners: tuple[str, ...] = DEFAULT_LISTENERS
    router_address: str = DEFAULT_ROUTER
    state_dir: Path = Path("/var/lib/weavemw")
    run_dir: Path = Path("/var/run/weavemw")
    docker_bridge: str = "docker0"
    bridge: str = "weave"
    mtu: int = 0
    default_ipalloc: bool = True
    with_dns: bool | None = None
    rewrite_hosts: bool = True
    rewrite_inspect: bool = False
    hide_wait_program: bool = True
    multicast_route: bool = True
    hostname_from_label: str = ""
    hostname_match: str = "(.*)"
    hostname_replacement: str = "$1"
    start_timeout: float = 30.0
    workers: int = 2
    threads: int = 64
    log_level: str = "info"
    tls: bool = False
    tls_verify: bool = False
    tls_cacert: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    allow_from: tuple[str, ...] = ()
    allow_host: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        hosts.parse(f"unix://{self.docker_socket}")
        for listener in self.listeners:
            hosts.parse(listener)
        hosts.networks(self.allow_from)
        self._check_router_address()
        self._check_names()
        _require(min(self.workers, self.threads) >= 1, "workers and threads: at least one of each")
        _require(self.start_timeout > 0, f"start timeout {self.start_timeout:g}: choose more than 0 seconds")
        _require(not self.mtu or 576 <= self.mtu <= 65535,
                 f"MTU {self.mtu}: choose 576 to 65535 bytes, or 0 for the bridge's own")
        _require(self.log_level in ("debug", "info", "warning", "error"),
                 f"log level {self.log_level!r}: choose debug, info, warning or error")

    def _check_router_address(self) -> None:
        host, _, port = self.router_address.rpartition(":")
        fits = host and "/" not in host and port.isascii() and port.isdigit() and 0 < int(port) < 65536
        _require(bool(fits), f"router address {self.router_address!r}: write HOST:PORT, as {DEFAULT_ROUTER}")

    def _check_names(self) -> None:
        for directory in (self.state_dir, self.run_dir):
            _require(directory.is_absolute(), f"directory {str(directory)!r}: write an absolute path")
        for bridge in (self.bridge, self.docker_bridge):
            _require(0 < len(bridge.encode()) <= _LONGEST_INTERFACE and not re.search(r"[/\s:]", bridge),
                     f"bridge {bridge!r}: choose at most {_LONGEST_INTERFACE} letters or digits")
        try:
            re.compile(self.hostname_match)
        except re.error as error:
            raise SettingsError(f"hostname match {self.hostname_match!r}: {error}") from error

    @property
    def uses_tls(self) -> bool:
        """Whether TCP listeners speak TLS; to verify clients is to do so."""
        return self.tls or self.tls_verify

    @property
    def docker_socket(self) -> str:
        """The path of the Docker socket to forward to."""
        parts = urlsplit(self.docker_host)
        if parts.scheme != "unix" or not parts.path.startswith("/"):
            raise SettingsError(f"docker host {self.docker_host!r}: only unix:///path is supported, since weave works "
                                "on the machine that Docker runs on")
        return parts.path

    @property
    def router_at(self) -> RouterAddress:
        """Where the router's API is."""
        return router_at(self.run_dir, self.router_address)

    @classmethod
    def from_mapping(cls, values: Mapping[str, object]) -> Settings:
        """Make settings from field names and values; strings are converted to the field's type."""
        known = {f.name: f for f in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                raise SettingsError(f"unknown setting {name.replace('_', '-')!r}{nearest(name, known)}")
        return cls(**{name: _converted(name, str(known[name].type), value)
                      for name, value in values.items()})  # type: ignore[arg-type]

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Make settings from environment variables; unknown variables are not ours to judge.

        Logs a warning if ``DOCKER_HOST`` can't be the engine and the default is used (see :func:`engine_in`).
        """
        named = cls.from_mapping(settings_in({**environ, "DOCKER_HOST": ""}))
        if "docker_host" in settings_in({**environ, "DOCKER_HOST": ""}):
            return named
        engine = engine_in(environ, named.listeners)
        if engine.ignored:
            log.warning("%s", engine.warning(named.docker_host))
        return cls.from_mapping(settings_in({**environ, "DOCKER_HOST": engine.host}))

    def to_environ(self) -> dict[str, str]:
        """The environment that :meth:`from_environ` reads these settings from."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {PREFIX + name.upper(): _text(value) for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Engine:
    """The engine that an environment means (empty: the default), and a ``DOCKER_HOST`` that was ignored for it."""

    host: str
    ignored: str = ""

    def warning(self, used: str) -> str:
        """What to say of the ``DOCKER_HOST`` that was ignored; ``used`` is the engine that is used instead."""
        return f"DOCKER_HOST is {self.ignored}, which is no Docker Engine's socket on this machine: {used} is used"


def engine_in(environ: Mapping[str, str], listeners: Sequence[str] = (),
              proxy: Mapping[str, Any] | None = None) -> Engine:
    """The engine in a shell whose ``DOCKER_HOST`` may lead to a proxy, as ``weave env`` makes it. Pure.

    ``listeners`` are those of the proxy that is to serve, ``proxy`` is what a running one says of itself. TCP is
    never the engine: weave works on the machine that Docker runs on. A unix socket is, unless we know better: a proxy
    that is told to listen there has to refuse.
    """
    host = environ.get("DOCKER_HOST", "")
    if proxy and points_at(host, proxy.get("listeners", ())):
        return Engine(str(proxy["docker_host"]))
    ours = (*listeners, *DEFAULT_LISTENERS)
    if "ORIG_DOCKER_HOST" in environ and (not host.startswith("unix:") or points_at(host, ours)):
        host = environ["ORIG_DOCKER_HOST"]
    if host.startswith("tcp:") or points_at(host, DEFAULT_LISTENERS):
        return Engine("", ignored=host)
    return Engine(host)


def points_at(docker_host: str, listeners: Iterable[str]) -> bool:
    """Whether a ``DOCKER_HOST`` is one of these listeners."""
    try:
        there = hosts.parse(docker_host)
    except SettingsError:
        return False
    return any(hosts.same_host(there, hosts.parse(listener)) for listener in listeners)


def settings_in(environ: Mapping[str, str]) -> dict[str, str]:
    """The settings that an environment holds, as field names and strings; an empty variable is none."""
    return {field: environ[variable] for field, variable in sources_in(environ).items()}


def sources_in(environ: Mapping[str, str]) -> dict[str, str]:
    """The settings that an environment holds, as field names and the variables that count for them."""
    return {field: variable for variable, field in _VARIABLES.items() if environ.get(variable)}


def nearest(name: str, known: Iterable[str]) -> str:
    """": did you mean …?" with the nearest of what is known; empty if nothing is near."""
    import difflib

    found = difflib.get_close_matches(name.replace("_", "-"), [each.replace("_", "-") for each in known], 1)
    return f": did you mean {found[0]!r}?" if found else ""


#: Every variable and its field; where a field has two, the one of its own comes last and wins.
_VARIABLES = ENVIRONMENT | {f"{PREFIX}{f.name.upper()}": f.name for f in dataclasses.fields(Settings)}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(value) if isinstance(value, tuple) else str(value)


def _converted(name: str, kind: str, value: object) -> object:
    try:
        return _CONVERTERS[kind](value) if isinstance(value, str) else _checked(kind, value)
    except ValueError as error:
        raise SettingsError(f"{name.replace('_', '-')} {value!r}: {error}") from error


def _checked(kind: str, value: object) -> object:
    """A value that is no string, as it comes from Python or TOML."""
    if isinstance(value, list | tuple) and kind == "tuple[str, ...]" and all(isinstance(each, str) for each in value):
        return tuple(value)
    if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and "bool" not in kind):
        raise ValueError(f"expected {_EXPECTED[kind]}")
    return value


def _number(kind: type[int] | type[float], text: str) -> object:
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"expected {_EXPECTED[kind.__name__]}") from None


def _boolean(text: str) -> bool:
    if text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    raise ValueError(f"expected {_EXPECTED['bool']}")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise SettingsError(otherwise)


_CONVERTERS: dict[str, Callable[[str], object]] = {
    "str": str,
    "int": lambda text: _number(int, text),
    "float": lambda text: _number(float, text),
    "Path": Path,
    "bool": _boolean,
    "bool | None": _boolean,
    "tuple[str, ...]": lambda text: tuple(text.replace(",", " ").split()),
}
_TYPES: dict[str, tuple[type, ...]] = {
    "str": (), "int": (int,), "float": (int, float), "Path": (Path,), "bool": (bool,),
    "bool | None": (bool, type(None)), "tuple[str, ...]": (),
}
_EXPECTED = {
    "str": "text in quotes", "int": "a whole number", "float": "a number", "Path": "a path in quotes",
    "bool": "true or false", "bool | None": "true or false", "tuple[str, ...]": "a list of texts",
}
