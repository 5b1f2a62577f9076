"""What a shell evaluates: env, config."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from weavemw.cli.command import Invocation, verb
from weavemw.dockerapi.hosts import Host, Tcp, parse
from weavemw.errors import WeaveError
from weavemw.settings import DEFAULT_LISTENERS, points_at

__all__ = ["assignments", "client_host", "config", "entering", "env", "mending", "restoring", "shell_family"]

#: What leads docker's commands, in Docker's order of precedence but for the first, which is looked at first.
_VARIABLES = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_TLS", "DOCKER_CERT_PATH")
_TLS = ("DOCKER_TLS_VERIFY", "DOCKER_TLS")

#: How each shell sets and unsets a variable; the value is quoted already.
_SYNTAX = {
    "fish": ("set -gx {name} {value};", "set -e {name};"),
    "csh": ("setenv {name} {value};", "unsetenv {name};"),
}
_EVALUATE = {"fish": "eval (weave env --restore)", "csh": "eval `weave env --restore`"}
_FAMILIES = {"fish": "fish", "csh": "csh", "tcsh": "csh"} | dict.fromkeys(
    ("sh", "bash", "dash", "zsh", "ksh", "mksh", "ash", "busybox"), "sh")


@verb("env")
@click.option("--restore", is_flag=True, help="Print what gives docker's variables their first values back.")
@click.option("--check", is_flag=True, help="Connect as docker in this shell would, and say what is wrong.")
@click.option("--shell", type=click.Choice(["sh", "bash", "zsh", "fish", "csh", "tcsh"]),
              help="Write for this shell. [default: the one that calls, or else $SHELL]")
@click.pass_obj
def env(weave: Invocation, restore: bool, check: bool, shell: str | None) -> None:
    """Print what makes this shell's docker commands go through the proxy.

    \b
    eval "$(weave env)"             sh, bash, zsh
    eval "$(weave env --restore)"   and back
    eval (weave env)                fish
    eval `weave env`                csh
    weave env --check               is it so?
    """
    if restore and check:
        raise click.UsageError("--restore and --check can't both be")
    if check:
        from weavemw.cli.check import check_shell

        return click.echo(check_shell(weave.environ, weave.proxy or {}, _serving(weave)))
    if restore:
        changes = restoring(weave.environ, (*map(str, weave.proxy_listeners), *DEFAULT_LISTENERS))
    else:
        changes = entering(weave.environ, _serving(weave), tls=_serves_tls(weave))
        _say_of_tls(weave)
    if changes:
        click.echo(assignments(changes, shell_family(shell) if shell else _calling_shell(weave.environ)))
    return None


@verb("config")
@click.pass_obj
def config(weave: Invocation) -> None:
    """Print the options that make one docker command go through the proxy.

    \b
    docker $(weave config) ps
    """
    host = client_host(_serving(weave), weave.environ)
    verify = _serves_tls(weave) and isinstance(host, Tcp) and not weave.environ.get("DOCKER_TLS_VERIFY")
    if not _serves_tls(weave) and weave.environ.get("DOCKER_TLS_VERIFY"):
        click.echo("weave: warning: DOCKER_TLS_VERIFY is set, and the proxy listens without TLS: unset it for docker "
                   "to reach the proxy", err=True)
    click.echo(f"-H={host}{' --tlsverify' if verify else ''}")


def client_host(listeners: Sequence[Host], environ: Mapping[str, str]) -> Host:
    """The listener to tell a client of: the first on TCP, with an address to connect to; else the first.

    For a wildcard that is ``PROXY_HOST``, or the host in ``DOCKER_HOST``, or the loopback address.
    """
    chosen = next((each for each in listeners if isinstance(each, Tcp)), listeners[0])
    return chosen.seen_from(environ.get("PROXY_HOST") or _host_of(environ.get("DOCKER_HOST", ""))) \
        if isinstance(chosen, Tcp) else chosen


def entering(environ: Mapping[str, str], listeners: Sequence[Host], *, tls: bool = False) -> dict[str, str | None]:
    """The variables to set (``None``: unset) so that docker's commands go through a proxy that listens there.

    What led docker before the first time is kept in ``ORIG_DOCKER_HOST`` and, where set, ``ORIG_DOCKER_CONTEXT`` and
    so on. What would keep docker from the proxy goes: a context, and TLS where the proxy has none.
    """
    host = client_host(listeners, environ)
    here = environ.get("DOCKER_HOST", "")
    first = "" if points_at(here, tuple(map(str, listeners))) else here
    changes: dict[str, str | None] = {"DOCKER_HOST": str(host),
                                      "ORIG_DOCKER_HOST": environ.get("ORIG_DOCKER_HOST", first)}
    if "ORIG_DOCKER_HOST" not in environ:
        changes |= {f"ORIG_{name}": environ[name] for name in _VARIABLES[1:] if name in environ}
    in_the_way = ("DOCKER_CONTEXT", *(() if tls and isinstance(host, Tcp) else _TLS))
    return changes | {name: None for name in in_the_way if name in environ}


def restoring(environ: Mapping[str, str], listeners: Sequence[str]) -> dict[str, str | None]:
    """The variables to set (``None``: unset) so that the shell is as before the first ``weave env``."""
    if "ORIG_DOCKER_HOST" not in environ:
        return {"DOCKER_HOST": None} if points_at(environ.get("DOCKER_HOST", ""), listeners) else {}
    first = {name: environ.get(f"ORIG_{name}") for name in _VARIABLES}
    first["DOCKER_HOST"] = environ["ORIG_DOCKER_HOST"] or None
    back = {name: value for name, value in first.items() if value != environ.get(name)}
    return back | {f"ORIG_{name}": None for name in _VARIABLES if f"ORIG_{name}" in environ}


def mending(environ: Mapping[str, str], listeners: Sequence[str]) -> str:
    """The line that leads a shell away from a proxy that has stopped; empty if it is not led there."""
    if not points_at(environ.get("DOCKER_HOST", ""), listeners):
        return ""
    shell = _calling_shell(environ)
    if "ORIG_DOCKER_HOST" in environ:
        return _EVALUATE.get(shell, 'eval "$(weave env --restore)"')
    return assignments(restoring(environ, listeners), shell)


def assignments(changes: Mapping[str, str | None], shell: str) -> str:
    """One line that sets and unsets variables in a shell of the family sh, fish or csh."""
    if shell in _SYNTAX:
        put, drop = _SYNTAX[shell]
        quote = _fish_quote if shell == "fish" else shlex.quote
        return " ".join(drop.format(name=name) if value is None else put.format(name=name, value=quote(value))
                        for name, value in changes.items())
    put_all = [f"{name}={shlex.quote(value) if value else ''}" for name, value in changes.items() if value is not None]
    drop_all = [name for name, value in changes.items() if value is None]
    lines = [" ".join(["export", *put_all])] if put_all else []
    return "; ".join([*lines, *([" ".join(["unset", *drop_all])] if drop_all else [])])


def shell_family(*programs: str) -> str:
    """The family of the first of these names or paths that is a shell's; else that of the Bourne shell."""
    names = [program.rpartition("/")[2] for program in programs]
    return next((_FAMILIES[name] for name in names if name in _FAMILIES), "sh")


def _fish_quote(value: str) -> str:
    """In fish a backslash is one within single quotes too (fish, Language, Quotes)."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return value if shlex.quote(value) == value else f"'{escaped}'"


def _calling_shell(environ: Mapping[str, str]) -> str:
    """``SHELL`` is the shell of the login, not the one that reads what we print: that is our parent."""
    try:
        parent = Path(f"/proc/{os.getppid()}/comm").read_text().strip()
    except OSError:
        parent = ""
    return shell_family(parent, environ.get("SHELL", ""))


def _serving(weave: Invocation) -> list[Host]:
    if not weave.proxy_listeners:
        raise WeaveError("weave proxy is not running: `weave launch` starts it")
    return weave.proxy_listeners


def _serves_tls(weave: Invocation) -> bool:
    return bool((weave.proxy or {}).get("tls"))


def _say_of_tls(weave: Invocation) -> None:
    wanted = weave.environ.get("DOCKER_TLS_VERIFY")
    if wanted and not _serves_tls(weave):
        click.echo("weave: DOCKER_TLS_VERIFY is unset, since the proxy listens without TLS; `weave env --restore` "
                   "brings it back", err=True)
    elif _serves_tls(weave) and not wanted:
        click.echo("weave: the proxy listens with TLS: `export DOCKER_TLS_VERIFY=1` with your certificate in "
                   "DOCKER_CERT_PATH or ~/.docker", err=True)


def _host_of(docker_host: str) -> str:
    if not docker_host.startswith("tcp://"):
        return ""
    there = parse(docker_host)
    return there.host if isinstance(there, Tcp) else ""
