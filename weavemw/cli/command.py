"""What every verb has: the group it belongs to, the options it shares, and what it can ask for."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from weavemw import __version__, listeners, runfile
from weavemw.docker import DockerClient
from weavemw.errors import SettingsError
from weavemw.settings import DEFAULT_LISTENERS, Settings, settings_in

__all__ = ["Invocation", "engine_host", "points_at", "verb", "weave"]

#: Read if it is there and no other is named.
CONFIG_FILE = Path("/etc/weavemw.toml")

_DEFAULTS = Settings()


@dataclass
class Invocation:
    """One run of ``weave``: its environment, its shared options, and what follows from them."""

    environ: Mapping[str, str]
    shared: dict[str, Any] = field(default_factory=dict)

    def settings(self, given: Mapping[str, Any] | None = None) -> Settings:
        """Settings from, in this order of precedence: options, environment, file, defaults."""
        settings = Settings.from_mapping(self._file() | self._environment() | self._given(given or {}))
        return self._with_certificates(settings) if settings.uses_tls else settings

    @property
    def proxy(self) -> dict[str, Any] | None:
        """What the running proxy of this run directory says about itself; ``None`` when none runs."""
        return runfile.running(self.run_dir / runfile.PROXY)

    @property
    def proxy_listeners(self) -> list[listeners.Listener]:
        """Where the running proxy listens; empty when none serves."""
        return [listeners.parse(each) for each in (self.proxy or {}).get("listeners", ())]

    def proxy_answers(self) -> dict[str, bool]:
        """The running proxy's listeners, and whether each answers."""
        guarded = bool((self.proxy or {}).get("guarded"))
        return {str(each): listeners.serves(each, guarded=guarded) for each in self.proxy_listeners}

    def docker(self) -> DockerClient:
        """The engine, never through the proxy."""
        return DockerClient(self.settings().docker_socket)

    def file_section(self, name: str) -> dict[str, Any]:
        """A table of the configuration file, its keys as Python names."""
        return _named(self._configuration().get(name, {}))

    @property
    def run_dir(self) -> Path:
        """Where locks and the files of running programs are."""
        values = self._file() | settings_in(self.environ) | self.shared
        return Path(values.get("run_dir", _DEFAULTS.run_dir))

    def _with_certificates(self, settings: Settings) -> Settings:
        """As dockerd: files that are not named are in ``DOCKER_CERT_PATH``, or else in ``~/.docker``."""
        there = Path(self.environ.get("DOCKER_CERT_PATH") or Path(self.environ.get("HOME", "/root"), ".docker"))
        return replace(settings, tls_cacert=settings.tls_cacert or str(there / "ca.pem"),
                       tls_cert=settings.tls_cert or str(there / "cert.pem"),
                       tls_key=settings.tls_key or str(there / "key.pem"))

    def _file(self) -> dict[str, Any]:
        return _named({k: v for k, v in self._configuration().items() if not isinstance(v, dict)})

    def _configuration(self) -> dict[str, Any]:
        named = self.shared.get("config") or self.environ.get("WEAVEMW_CONFIG")
        path = Path(named or CONFIG_FILE)
        try:
            return tomllib.loads(path.read_text())
        except FileNotFoundError as error:
            if named is None:
                return {}
            raise SettingsError(f"can't read {path}: {error.strerror}") from error
        except (OSError, ValueError) as error:
            raise SettingsError(f"can't read {path}: {error}") from error

    def _environment(self) -> dict[str, Any]:
        host = engine_host(self.environ, self.proxy)
        return settings_in({**self.environ, "DOCKER_HOST": host})

    def _given(self, given: Mapping[str, Any]) -> dict[str, Any]:
        shared = {k: v for k, v in self.shared.items() if k != "config"}
        return shared | {k: v for k, v in given.items() if v is not None and v != ()}


def engine_host(environ: Mapping[str, str], proxy: Mapping[str, Any] | None) -> str:
    """The engine's own ``DOCKER_HOST``, also in a shell whose ``DOCKER_HOST`` is the proxy (empty: the default)."""
    host = environ.get("DOCKER_HOST", "")
    if proxy and points_at(host, proxy.get("listeners", ())):
        return str(proxy["docker_host"])
    if "ORIG_DOCKER_HOST" in environ and (not host.startswith("unix:") or points_at(host, DEFAULT_LISTENERS)):
        return environ["ORIG_DOCKER_HOST"]
    return "" if points_at(host, DEFAULT_LISTENERS) else host  # a proxy that has stopped is no engine


def points_at(docker_host: str, endpoints: list[str] | tuple[str, ...]) -> bool:
    """Whether a ``DOCKER_HOST`` is one of these listeners."""
    try:
        there = listeners.parse(docker_host)
    except SettingsError:
        return False
    return any(listeners.same_endpoint(there, listeners.parse(each)) for each in endpoints)


class _Group(click.Group):
    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            near = difflib.get_close_matches(args[0], self.commands, 1)
            hint = f"did you mean {near[0]!r}?" if near else "`weave --help` lists them all"
            raise click.UsageError(f"no command {args[0]!r}: {hint}")
        return super().resolve_command(ctx, args)


class _Verb(click.Command):
    """A command that takes the shared options too, so that they may stand before or after the verb."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _shared_options()


def _shared_options() -> list[click.Parameter]:
    return [
        _shared_option("state_dir", "DIR", f"Where state is kept. [default: {_DEFAULTS.state_dir}; WEAVEMW_STATE_DIR]"),
        _shared_option("run_dir", "DIR", f"Where locks are kept. [default: {_DEFAULTS.run_dir}; WEAVEMW_RUN_DIR]"),
        _shared_option("config", "FILE", f"Read settings from FILE. [default: {CONFIG_FILE}; WEAVEMW_CONFIG]"),
    ]


def _shared_option(name: str, metavar: str, text: str) -> click.Option:
    def keep(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
        if value is not None:
            ctx.obj.shared[name] = str(Path(value).absolute())

    return click.Option([f"--{name.replace('_', '-')}"], metavar=metavar, help=text, expose_value=False, callback=keep)


def _named(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key.replace("-", "_"): value for key, value in table.items()}


@click.group(cls=_Group, params=_shared_options(), context_settings={"max_content_width": 100})
@click.version_option(__version__, message="weave %(version)s")
def weave() -> None:
    """Connect Docker containers to the weave network.

    \b
    Start it, and let this shell's docker commands go through the proxy:
        weave launch
        eval "$(weave env)"
        docker run --rm -ti --name web ubuntu
    See how it is, and end it:
        weave status
        eval "$(weave env --restore)"
        weave stop
    Without the proxy:
        weave run 10.2.1.1/24 -ti ubuntu
    Completion in bash (zsh_source, fish_source):
        eval "$(_WEAVE_COMPLETE=bash_source weave)"
    """


def verb(name: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a function the verb of this name; its docstring is its help."""
    return weave.command(name, cls=_Verb)
