"""What every verb has: the group it belongs to, the options it shares, and what it can ask for."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from weavemw import __version__
from weavemw.cli import sources
from weavemw.cli.original import ALIASES, instead_of_option, instead_of_verb
from weavemw.cli.setting_options import option_of
from weavemw.cli.sources import CONFIG_VARIABLE, Given
from weavemw.dockerapi import hosts
from weavemw.errors import SettingsError, WeaveError
from weavemw.ops import run_file
from weavemw.settings import TABLE, Engine, Group, Settings, default_of, engine_in, variable_of

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from weavemw.dockerapi.client import DockerClient

__all__ = ["Invocation", "require_root", "verb", "weave"]

#: Read if it is there and no other is named.
CONFIG_FILE = Path("/etc/weavemw.toml")

#: Set while a shell asks what completes a command line: its prompt is no place for warnings.
COMPLETING = "_WEAVE_COMPLETE"

_PATHS = ("state_dir", "run_dir", "config")
_OF_LAUNCHING = ("docker_bridge", "bridge", "mtu", "log_level")
_SHARED_WITH_PROXY = ("docker_host", "router_address", "state_dir", "bridge", "docker_bridge", "mtu")


@dataclass
class Invocation:
    """One run of ``weave``: its environment, its shared options, and what follows from them."""

    environ: Mapping[str, str]
    shared: dict[str, Any] = field(default_factory=dict)
    _has_warned: bool = field(default=False, init=False, repr=False)

    def settings(self, options: Mapping[str, Any] | None = None) -> Settings:
        """Settings from, in this order of precedence: options, environment, file, defaults.

        Raises :class:`~weavemw.errors.SettingsError`, which names the source of what can't be used. A ``DOCKER_HOST``
        that is ignored is said on stderr, once.
        """
        given = self.given(options)
        settings = sources.blaming(given, Settings.from_mapping)
        if "docker_host" not in given:
            self._say_of_ignored(self._engine(options), settings)
        return settings

    def given(self, options: Mapping[str, Any] | None = None) -> dict[str, Given]:
        """The settings that are given, and by whom; ``options`` are those that stand on the command line.

        What router and proxy must agree on is the running proxy's unless somebody says otherwise.
        """
        found = self._of_proxy(self.proxy or {}) | self._file() | self._environment(options) | self._options(options)
        uses_tls = sources.blaming(found, Settings.from_mapping).uses_tls
        return (self._certificates() if uses_tls else {}) | found

    def last_settings(self) -> Settings:
        """As :meth:`settings`, but a proxy that no longer runs counts as well."""
        last = self._of_proxy(run_file.last(self.run_dir / run_file.PROXY))
        return sources.blaming(last | self.given(), Settings.from_mapping)

    @property
    def proxy(self) -> dict[str, Any] | None:
        """What the running proxy of this run directory says about itself; ``None`` when none runs."""
        return run_file.running(self.run_dir / run_file.PROXY)

    @property
    def proxy_listeners(self) -> list[hosts.Host]:
        """Where the running proxy listens; empty when none serves."""
        return [hosts.parse(each) for each in (self.proxy or {}).get("listeners", ())]

    def docker(self) -> DockerClient:
        """The engine, never through the proxy."""
        from weavemw.dockerapi.client import DockerClient
        from weavemw.transport.http_client import HttpClient

        return DockerClient(HttpClient(hosts.Unix(self.settings().docker_socket)))

    def file_section(self, name: str) -> dict[str, Given]:
        """A table of the configuration file, its keys as Python names."""
        return sources.in_table(self._configuration().get(name, {}), self._config_path)

    @property
    def run_dir(self) -> Path:
        """Where locks and the files of running programs are."""
        given = self._file() | sources.in_environment(self.environ) | self._options({})
        return Path(given["run_dir"].value) if "run_dir" in given else default_of("run_dir")

    @staticmethod
    def _of_proxy(facts: Mapping[str, Any]) -> dict[str, Given]:
        return {name: Given(facts[name], "the proxy that runs") for name in _SHARED_WITH_PROXY if name in facts}

    def _certificates(self) -> dict[str, Given]:
        """As dockerd: files that are not named are in ``DOCKER_CERT_PATH``, or else in ``~/.docker``."""
        named = self.environ.get("DOCKER_CERT_PATH")
        there = Path(named or Path(self.environ.get("HOME", "/root"), ".docker"))
        source = "DOCKER_CERT_PATH" if named else "default"
        files = {"tls_cacert": "ca.pem", "tls_cert": "cert.pem", "tls_key": "key.pem"}
        return {name: Given(str(there / file), source) for name, file in files.items()}

    def _file(self) -> dict[str, Given]:
        plain = {name: value for name, value in self._configuration().items() if not isinstance(value, dict)}
        return sources.in_table(plain, self._config_path)

    @property
    def _config_named(self) -> str | None:
        return self.shared.get("config") or self.environ.get(CONFIG_VARIABLE)

    @property
    def _config_path(self) -> Path:
        return Path(self._config_named or CONFIG_FILE)

    def _configuration(self) -> dict[str, Any]:
        try:
            return sources.read_file(self._config_path)
        except FileNotFoundError as error:
            if self._config_named is None:
                return {}
            raise SettingsError(f"can't read {self._config_path}: {error.strerror}") from error

    def _environment(self, options: Mapping[str, Any] | None) -> dict[str, Given]:
        return sources.in_environment({**self.environ, "DOCKER_HOST": self._engine(options).host})

    def _engine(self, options: Mapping[str, Any] | None) -> Engine:
        given = self._file() | sources.in_environment(self.environ) | self._options(options)
        listeners = {name: given[name] for name in ("listeners",) if name in given}
        named = sources.blaming(listeners, Settings.from_mapping).listeners
        return engine_in(self.environ, named, self.proxy)

    def _say_of_ignored(self, engine: Engine, settings: Settings) -> None:
        if engine.ignored and not self._has_warned and COMPLETING not in self.environ:
            self._has_warned = True
            click.echo(f"weave: warning: {engine.warning(settings.docker_host)}", err=True)

    def _options(self, options: Mapping[str, Any] | None) -> dict[str, Given]:
        shared = {name: value for name, value in self.shared.items() if name != "config"}
        return {name: Given(value, f"--{name.replace('_', '-')}")
                for name, value in {**shared, **(options or {})}.items()}


#: The verbs by the module that defines them. A module is imported when one of its verbs is wanted: most verbs, and
#: the shell's completion above all, take less time than importing everything would.
VERBS = {
    "attach": ("attach", "detach", "ps", "run", "start"),
    "certs": ("certs",),
    "doctor": ("doctor",),
    "expose": ("docker-bridge-ip", "expose", "hide", "setup"),
    "launch": ("launch", "launch-proxy", "launch-router", "stop", "stop-proxy", "stop-router"),
    "names": ("dns-add", "dns-args", "dns-lookup", "dns-remove"),
    "peers": ("connect", "forget", "prime", "rmpeer"),
    "relaunch": ("relaunch",),
    "report": ("report",),
    "reset": ("reset", "uninstall"),
    "shell": ("config", "env"),
    "status": ("healthcheck", "metrics", "status", "version"),
}


#: What verbs are for, in the order in which `weave --help` shows them: the most used first.
GROUPS = {
    "Starting and stopping": ("launch", "stop", "relaunch", "launch-router", "launch-proxy", "stop-router",
                              "stop-proxy", "setup", "prime", "certs"),
    "Leading docker to the proxy": ("env", "config"),
    "Looking": ("status", "ps", "dns-lookup", "report", "healthcheck", "metrics", "version"),
    "Containers by hand": ("run", "start", "attach", "detach", "dns-add", "dns-remove", "dns-args"),
    "This host, and others": ("expose", "hide", "docker-bridge-ip", "connect", "forget", "rmpeer"),
    "Removing": ("reset", "uninstall"),
}


class _Group(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(verb for verbs in VERBS.values() for verb in verbs)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """In groups; what is in none comes last."""
        grouped = {name for names in GROUPS.values() for name in names}
        others = tuple(name for name in self.list_commands(ctx) if name not in grouped)
        for title, names in (*GROUPS.items(), ("More", others)):
            commands = [(name, self.get_command(ctx, name)) for name in names]
            rows = [(name, found.get_short_help_str(formatter.width - 22)) for name, found in commands if found]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for module, verbs in VERBS.items():
            if cmd_name in verbs:
                importlib.import_module(f"weavemw.cli.{module}")
        return super().get_command(ctx, cmd_name)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """As click's, but bash shows no help: so no verb is imported for its own."""
        if not ctx.obj.environ.get(COMPLETING, "").startswith("bash"):
            return super().shell_complete(ctx, incomplete)
        from click.shell_completion import CompletionItem

        verbs = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        return [*map(CompletionItem, verbs), *click.Command.shell_complete(self, ctx, incomplete)]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args[:1] in (["help"], ["-h"]):
            args = [*args[1:2], "--help"]
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise _no_such_option(ctx, error.option_name) from error

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args:
            args = [ALIASES.get(args[0], args[0]), *args[1:]]
        if args and args[0] not in self.list_commands(ctx):
            import difflib

            if words := instead_of_verb(args[0]):
                raise click.UsageError(f"there is no {args[0]}: {words}")
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), 1)
            hint = f"did you mean {near[0]!r}?" if near else "`weave --help` lists them all"
            raise click.UsageError(f"no command {args[0]!r}: {hint}")
        return super().resolve_command(ctx, args)


class _Verb(click.Command):
    """A command that takes the shared options too, so that they may stand before or after the verb.

    Options are written as with Docker: ``--tls``, ``--tls=true``, ``-H ENDPOINT``, ``-H=ENDPOINT``.
    """

    def __init__(self, *args: Any, launches: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _shared_options(everything=launches)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if self.ignore_unknown_options:  # they are docker's
            return super().parse_args(ctx, args)
        try:
            words, off = _as_click_writes(self, args)
            rest = super().parse_args(ctx, words)
        except click.NoSuchOption as error:
            raise _no_such_option(ctx, error.option_name) from error
        for option in off:
            assert option.name is not None
            ctx.params[option.name] = not option.flag_value
            ctx.set_parameter_source(option.name, click.core.ParameterSource.COMMANDLINE)
        return rest


def _as_click_writes(command: click.Command, words: Sequence[str]) -> tuple[list[str], list[click.Option]]:
    """Docker's ``--flag=true`` and ``-o=value`` in click's spelling; and the flags that are false."""
    named = {name: option for option in command.params if isinstance(option, click.Option) for name in option.opts}
    found, off = [], []
    for word in words[:_end_of_options(words)]:
        name, equals, value = word.partition("=")
        option = named.get(name) if equals else None
        if option is None or not (option.is_flag or len(name) == 2):
            found.append(word)
        elif not option.is_flag:
            found.append(name + value)
        elif _is_true(word, value):
            found.append(name)
        else:
            off.append(option)
    return [*found, *words[_end_of_options(words):]], off


def _end_of_options(words: Sequence[str]) -> int:
    return words.index("--") if "--" in words else len(words)


def _is_true(word: str, value: str) -> bool:
    try:
        return {"1": True, "true": True, "0": False, "false": False}[value.lower()]
    except KeyError:
        name = word.partition("=")[0]
        raise click.UsageError(f"{word!r}: write {name}, {name}=true or {name}=false") from None


def _no_such_option(ctx: click.Context, name: str) -> click.UsageError:
    """The nearest option; or that it stands in the wrong place."""
    import difflib

    near = difflib.get_close_matches(name, _names(ctx.command), 1, cutoff=0.75)
    if words := instead_of_option(ctx.info_name or "", name):
        return click.UsageError(f"{ctx.info_name} has no {name}: {words}; see `{ctx.command_path} --help`")
    if near:
        hint = f"did you mean {near[0]}?"
    elif others := [each for each in weave.list_commands(ctx) if name in _names(weave.get_command(ctx, each))]:
        shown = f"weave {others[0]} {name}"
        hint = f"it stands after the command: {shown}" if ctx.command is weave else f"there is `{shown}`"
    else:
        hint = f"`{ctx.command_path} --help` lists them all"
    who = f"{ctx.info_name} has " if ctx.command is not weave else ""
    return click.UsageError(f"{who}no option {name}: {hint}")


def _names(command: click.Command | None) -> list[str]:
    options = [each for each in (command.params if command else ()) if isinstance(each, click.Option)]
    return [name for option in options for name in option.opts]


def _shared_options(*, everything: bool = True) -> list[click.Parameter]:
    """Those of all verbs; those that mostly matter for launching are hidden elsewhere."""
    options = [option_of(name, also=variable_of(name), hidden=name in _OF_LAUNCHING and not everything,
                         expose_value=False, callback=_keep)
               for name, setting in TABLE.items() if setting.group is Group.HOST]
    config = click.Option(["--config"], metavar="FILE", expose_value=False, callback=_keep,
                          help=f"Read settings from FILE. [default: {CONFIG_FILE}; {CONFIG_VARIABLE}]")
    return [config, *options]


def _keep(ctx: click.Context, option: click.Parameter, value: Any) -> None:
    if value is not None and option.name:
        ctx.obj.shared[option.name] = str(Path(value).absolute()) if option.name in _PATHS else value


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


def require_root(what: str) -> None:
    """Say that only root may do this, before it is begun. Raises :class:`~weavemw.errors.WeaveError`."""
    if os.geteuid() != 0:
        raise WeaveError(f"{what}: try again as root")


def verb(name: str, *, launches: bool = False) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a function the verb of this name; its docstring is its help."""
    return weave.command(name, cls=_Verb, launches=launches)
