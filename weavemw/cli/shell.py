"""What a shell evaluates: env, config."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

import click

from weavemw.cli.command import Invocation, points_at, verb
from weavemw.listeners import Listener, Tcp, parse

__all__ = ["assignments", "client_endpoint", "config", "entering", "env", "restoring", "shell_family"]

#: How each shell sets and unsets a variable; the value is quoted already.
_SYNTAX = {
    "fish": ("set -gx {name} {value};", "set -e {name};"),
    "csh": ("setenv {name} {value};", "unsetenv {name};"),
}


@verb("env")
@click.option("--restore", is_flag=True, help="Print what gives DOCKER_HOST its first value back.")
@click.option("--shell", type=click.Choice(["sh", "fish", "csh"]), help="Write for this shell. [default: by $SHELL]")
@click.pass_obj
def env(weave: Invocation, restore: bool, shell: str | None) -> None:
    """Print what makes this shell's docker commands go through the proxy.

    \b
    eval "$(weave env)"             sh, bash, zsh
    eval "$(weave env --restore)"   and back
    eval (weave env)                fish
    eval `weave env`                csh
    """
    if not restore:
        changes = entering(weave.environ, _serving(weave))
        _warn_of_tls(weave)
    else:
        changes = restoring(weave.environ, tuple(map(str, weave.proxy_listeners)))
    if changes:
        click.echo(assignments(changes, shell or shell_family(weave.environ.get("SHELL", ""))))


@verb("config")
@click.pass_obj
def config(weave: Invocation) -> None:
    """Print the option that makes one docker command go through the proxy.

    \b
    docker $(weave config) ps
    """
    click.echo(f"-H={client_endpoint(_serving(weave), weave.environ)}")


def client_endpoint(endpoints: Sequence[Listener], environ: Mapping[str, str]) -> Listener:
    """The listener to tell a client of: the first on TCP, with an address to connect to; else the first.

    For a wildcard that is ``PROXY_HOST``, or the host in ``DOCKER_HOST``, or the loopback address.
    """
    chosen = next((each for each in endpoints if isinstance(each, Tcp)), endpoints[0])
    return chosen.seen_from(environ.get("PROXY_HOST") or _host_of(environ.get("DOCKER_HOST", ""))) \
        if isinstance(chosen, Tcp) else chosen


def entering(environ: Mapping[str, str], endpoints: Sequence[Listener]) -> dict[str, str | None]:
    """The variables to set so that docker's commands go through a proxy that listens there.

    What was in ``DOCKER_HOST`` before the first time is kept in ``ORIG_DOCKER_HOST``.
    """
    here = environ.get("DOCKER_HOST", "")
    first = "" if points_at(here, tuple(map(str, endpoints))) else here
    return {"DOCKER_HOST": str(client_endpoint(endpoints, environ)),
            "ORIG_DOCKER_HOST": environ.get("ORIG_DOCKER_HOST", first)}


def restoring(environ: Mapping[str, str], endpoints: Sequence[str]) -> dict[str, str | None]:
    """The variables to set (``None``: unset) so that the shell is as before the first ``weave env``."""
    if "ORIG_DOCKER_HOST" in environ:
        return {"DOCKER_HOST": environ["ORIG_DOCKER_HOST"] or None, "ORIG_DOCKER_HOST": None}
    return {"DOCKER_HOST": None} if points_at(environ.get("DOCKER_HOST", ""), tuple(endpoints)) else {}


def assignments(changes: Mapping[str, str | None], shell: str) -> str:
    """One line that sets and unsets variables in a shell of the family sh, fish or csh."""
    if shell in _SYNTAX:
        put, drop = _SYNTAX[shell]
        return " ".join(drop.format(name=name) if value is None else put.format(name=name, value=shlex.quote(value))
                        for name, value in changes.items())
    put_all = [f"{name}={shlex.quote(value) if value else ''}" for name, value in changes.items() if value is not None]
    drop_all = [name for name, value in changes.items() if value is None]
    lines = [" ".join(["export", *put_all])] if put_all else []
    return "; ".join([*lines, *([" ".join(["unset", *drop_all])] if drop_all else [])])


def shell_family(program: str) -> str:
    """The family of a shell, from the path in ``SHELL``."""
    name = program.rpartition("/")[2]
    return {"fish": "fish", "csh": "csh", "tcsh": "csh"}.get(name, "sh")


def _serving(weave: Invocation) -> list[Listener]:
    if not weave.proxy_listeners:
        raise click.ClickException("weave proxy is not running")
    return weave.proxy_listeners


def _warn_of_tls(weave: Invocation) -> None:
    serves_tls = bool((weave.proxy or {}).get("tls"))
    if weave.environ.get("DOCKER_TLS_VERIFY") and not serves_tls:
        click.echo("weave: warning: DOCKER_TLS_VERIFY is set, and the proxy listens without TLS; "
                   "unset it for docker to reach the proxy", err=True)
    elif serves_tls and not weave.environ.get("DOCKER_TLS_VERIFY"):
        click.echo("weave: the proxy listens with TLS: `export DOCKER_TLS_VERIFY=1` with your certificate in "
                   "DOCKER_CERT_PATH or ~/.docker", err=True)


def _host_of(docker_host: str) -> str:
    if not docker_host.startswith("tcp://"):
        return ""
    there = parse(docker_host)
    return there.host if isinstance(there, Tcp) else ""
