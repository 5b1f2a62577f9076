"""Settings: one frozen dataclass, made once at the edge from a mapping, and passed on as arguments.

Nothing below the edge reads ``os.environ``. Each setting has one name in three
spellings: the field (``docker_host``), the environment variable
(``WEAVEMW_DOCKER_HOST``; a few have the original's own names too), and the
option (``--docker-host``). The fields of :class:`Settings` are the one table of
all of them (:data:`TABLE`): options, variables, ``conf/weavemw.toml`` and
``docs/reference/settings.md`` are made from it.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from weavemw.dockerapi import hosts
from weavemw.errors import SettingsError
from weavemw.ops.run_dir import DEFAULT_ROUTER, RouterAddress, router_at
from weavemw.transport.origin import is_origin

__all__ = ["DEFAULT_LISTENERS", "PREFIX", "TABLE", "Engine", "Group", "Setting", "Settings", "converted", "default_of",
           "engine_in", "kind_of", "nearest", "points_at", "settings_in", "sources_in", "variable_of"]

log = logging.getLogger(__name__)

#: Where the proxy listens unless told otherwise (the original's manual).
DEFAULT_LISTENERS = ("unix:///var/run/weave.sock", "tcp://0.0.0.0:12375")

#: How the variables of all other settings begin.
PREFIX = "WEAVEMW_"

_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off", ""}
_STATE_DIR, _RUN_DIR = Path("/var/lib/weavemw"), Path("/var/run/weavemw")
_LONGEST_INTERFACE = 15  # IFNAMSIZ less its final zero (linux/if.h)


class Group(StrEnum):
    """What settings are about; the order in which they are shown."""

    HOST = "This host: what proxy, router and commands share"
    LISTENING = "Where the proxy listens"
    SECURING = "TCP: TLS, and who may connect"
    ATTACHING = "What containers get"
    NAMING = "Their names"
    TUNING = "Processes"


@dataclass(frozen=True, slots=True)
class Setting:
    """A row of the table: what is to be known about a setting, but for its field's name, type and default.

    ``negated`` is what the option says where it is the opposite of the setting, ``--no-…``; ``unset`` is what holds
    while it is not set, where the default does not tell; ``example`` stands in a file where there is no default.
    """

    group: Group
    text: str
    negated: str = ""
    unset: str = ""
    metavar: str = ""
    options: tuple[str, ...] = ()
    variable: str = ""
    choices: tuple[str, ...] = ()
    example: bool | None = None


def _setting(default: object, group: Group, text: str, **more: Any) -> Any:
    return dataclasses.field(default=default, metadata={"setting": Setting(group, text, **more)})


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set about the proxy.

    Raises :class:`~weavemw.errors.SettingsError` for a value that can't be
    used. Times are in seconds, ``mtu`` is in bytes (0: the bridge's own).
    """

    state_dir: Path = _setting(_STATE_DIR, Group.HOST, "Where state is kept.", metavar="DIR")  # noqa: RUF009
    run_dir: Path = _setting(_RUN_DIR, Group.HOST, "Where locks are kept.", metavar="DIR")  # noqa: RUF009
    docker_host: str = _setting("unix:///var/run/docker.sock", Group.HOST, "The engine.", metavar="unix:///PATH",
                                variable="DOCKER_HOST")
    router_address: str = _setting(DEFAULT_ROUTER, Group.HOST, "The router's HTTP API.", metavar="HOST:PORT",
                                   variable="WEAVE_HTTP_ADDR")
    docker_bridge: str = _setting("docker0", Group.HOST, "Docker's bridge.", metavar="NAME", variable="DOCKER_BRIDGE")
    bridge: str = _setting("weave", Group.HOST, "The weave bridge.", metavar="NAME")
    mtu: int = _setting(0, Group.HOST, "MTU of the weave network, in bytes.", metavar="BYTES", variable="WEAVE_MTU",
                        unset="the bridge's own; 1376 if we make it")
    log_level: str = _setting("info", Group.HOST, "How much is logged.", choices=("debug", "info", "warning", "error"))

    listeners: tuple[str, ...] = _setting(
        DEFAULT_LISTENERS, Group.LISTENING, "Listen there: tcp://address:port or unix:///path.", metavar="HOST",
        options=("-H", "--host"))

    tls: bool = _setting(False, Group.SECURING, "TCP listeners speak TLS.")
    tls_verify: bool = _setting(
        False, Group.SECURING, "TCP listeners speak TLS, and clients must show a certificate of the CA.",
        options=("--tls-verify", "--tlsverify"))
    tls_cacert: str = _setting("", Group.SECURING, "The CA of clients, an absolute path.", metavar="FILE",
                               options=("--tls-cacert", "--tlscacert"), unset="ca.pem in DOCKER_CERT_PATH or ~/.docker")
    tls_cert: str = _setting("", Group.SECURING, "The proxy's certificate, an absolute path.", metavar="FILE",
                             options=("--tls-cert", "--tlscert"), unset="cert.pem there")
    tls_key: str = _setting("", Group.SECURING, "The key of that certificate, an absolute path.", metavar="FILE",
                            options=("--tls-key", "--tlskey"), unset="key.pem there")
    allow_from: tuple[str, ...] = _setting((), Group.SECURING, "Only these addresses may connect by TCP.",
                                           metavar="CIDR", unset="all")
    allow_host: tuple[str, ...] = _setting(
        (), Group.SECURING, "A further name of this host, by which clients may call it without TLS.", metavar="NAME")
    allow_origin: tuple[str, ...] = _setting(
        (), Group.SECURING, "Web pages of this origin may call Docker, and clients that say so (aiodocker: "
        "http://localhost).", metavar="ORIGIN")
    ignore_authz: bool = _setting(
        False, Group.SECURING, "Use --tls-verify although Docker's authorization plugins get no names of its clients.")

    default_ipalloc: bool = _setting(True, Group.ATTACHING, "Containers without a WEAVE_CIDR are attached too.",
                                     negated="Attach only containers that have a WEAVE_CIDR.")
    multicast_route: bool = _setting(True, Group.ATTACHING, "Containers get a route for multicast.",
                                     negated="No route for multicast in containers.")
    allow_spoofing: bool = _setting(
        False, Group.ATTACHING, "Containers may send from addresses on the weave network that are not theirs.")
    rewrite_inspect: bool = _setting(False, Group.ATTACHING, "Show weave addresses in `docker inspect`.")
    hide_wait_program: bool = _setting(
        True, Group.ATTACHING, "Docker's answers do not show how containers are held back.",
        negated="Show in `docker inspect`, `ps` and events how containers are held back.")
    start_timeout: float = _setting(30.0, Group.ATTACHING, "How long a start may wait for its network, in seconds.",
                                    metavar="SECONDS")

    with_dns: bool | None = _setting(
        None, Group.NAMING, "Containers use weaveDNS, whether the router says that it serves or not.",
        options=("-w", "--with-dns"), unset="where the router serves DNS", example=True)
    rewrite_hosts: bool = _setting(True, Group.NAMING, "Write weave's addresses to containers' /etc/hosts.",
                                   negated="Leave /etc/hosts as Docker makes it.")
    hostname_from_label: str = _setting("", Group.NAMING, "Take hostnames from this label, not from the name.",
                                        metavar="KEY")
    hostname_match: str = _setting("(.*)", Group.NAMING, "What of it becomes the hostname.", metavar="REGEXP")
    hostname_replacement: str = _setting("$1", Group.NAMING, "How the match is written.", metavar="EXPR")

    workers: int = _setting(2, Group.TUNING, "Processes that serve.")
    threads: int = _setting(64, Group.TUNING, "Threads in each.")

    def __post_init__(self) -> None:
        hosts.parse(f"unix://{self.docker_socket}")
        for listener in self.listeners:
            hosts.parse(listener)
        hosts.networks(self.allow_from)
        for origin in self.allow_origin:
            _require(is_origin(origin), f"origin {origin!r}: write scheme://host or scheme://host:port, as browsers do")
        self._check_router_address()
        self._check_names()
        _require(min(self.workers, self.threads) >= 1, "workers and threads: at least one of each")
        _require(self.start_timeout > 0, f"start timeout {self.start_timeout:g}: choose more than 0 seconds")
        _require(not self.mtu or 576 <= self.mtu <= 65535,
                 f"MTU {self.mtu}: choose 576 to 65535 bytes, or 0 for the bridge's own")
        _require(self.log_level in TABLE["log_level"].choices,
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
        return cls(**{name: converted(name, value) for name, value in values.items()})  # type: ignore[arg-type]

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


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(value) if isinstance(value, tuple) else str(value)


def converted(name: str, value: object) -> object:
    """A setting's value as its field has it, of what stands in a file, a variable or an option.

    Raises :class:`~weavemw.errors.SettingsError`.
    """
    kind = kind_of(name)
    try:
        return kind.read(value) if isinstance(value, str) else kind.check(value)
    except ValueError:
        raise SettingsError(f"{name.replace('_', '-')} {value!r}: expected {kind.expected}") from None


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise SettingsError(otherwise)


@dataclass(frozen=True, slots=True)
class Kind:
    """A type that settings have: how it is called, read from text, and seen in what is no text."""

    expected: str
    read: Callable[[str], object]
    types: tuple[type, ...] = ()

    def check(self, value: object) -> object:
        """A value that comes from Python or TOML. Raises ``ValueError``."""
        if isinstance(value, self.types) and isinstance(value, bool) <= (bool in self.types):
            return value
        if isinstance(value, list | tuple) and self is _TEXTS and all(isinstance(text, str) for text in value):
            return tuple(value)
        raise ValueError


def _boolean(text: str) -> bool:
    if text.lower() not in _TRUE | _FALSE:
        raise ValueError
    return text.lower() in _TRUE


_TEXTS = Kind("a list of texts", lambda text: tuple(text.replace(",", " ").split()))
_KINDS = {
    "str": Kind("text in quotes", str),
    "int": Kind("a whole number", int, (int,)),
    "float": Kind("a number", float, (int, float)),
    "Path": Kind("a path in quotes", Path, (Path,)),
    "bool": Kind("true or false", _boolean, (bool,)),
    "bool | None": Kind("true or false", _boolean, (bool, type(None))),
    "tuple[str, ...]": _TEXTS,
}
_FIELDS = {field.name: field for field in dataclasses.fields(Settings)}

#: Every setting by its field's name.
TABLE: dict[str, Setting] = {name: field.metadata["setting"] for name, field in _FIELDS.items()}

#: Every variable and its field; where a field has two, the one of its own comes last and wins.
_VARIABLES = {setting.variable: name for name, setting in TABLE.items() if setting.variable} | {
    f"{PREFIX}{name.upper()}": name for name in TABLE}


def kind_of(name: str) -> Kind:
    """The type of a setting."""
    return _KINDS[str(_FIELDS[name].type)]


def default_of(name: str) -> Any:
    """What a setting is unless somebody says otherwise."""
    return _FIELDS[name].default


def variable_of(name: str) -> str:
    """The variable of a setting, the original's or Docker's where there is one."""
    return TABLE[name].variable or f"{PREFIX}{name.upper()}"
