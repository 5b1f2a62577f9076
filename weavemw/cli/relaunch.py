"""Starting anew what runs, with the settings that it has: relaunch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import click

from weavemw.cli.command import Invocation, verb
from weavemw.cli.launch import proxy_serves
from weavemw.cli.management import ManagingClient
from weavemw.cli.options import router_settings
from weavemw.cli.router import router_serves
from weavemw.cli.supervisor import PROXY, ROUTER, Launch, Program, Supervisor, python_environ
from weavemw.errors import Conflict, SettingsError, WeaveError
from weavemw.serving import exposure
from weavemw.settings import Settings

__all__ = ["relaunch"]


@dataclass(frozen=True, slots=True)
class _Again:
    """A program that is to be launched as before; what it was told is known to be valid."""

    program: Program
    launch: Launch
    serves: Callable[[], bool]


@verb("relaunch")
@click.pass_obj
def relaunch(weave: Invocation) -> None:
    """Start router and proxy anew, with the settings that they were launched with: after an upgrade.

    Containers keep running, with their network, addresses and names. What docker commands have under way through
    the proxy ends. If this version can't take the settings, that is said, and nothing is stopped.

    \b
    pip install --upgrade weavemw && weave relaunch
    """
    supervisor = Supervisor(ManagingClient(weave.settings().docker_socket))
    found = [(program, launch) for program in (ROUTER, PROXY) if (launch := supervisor.launched_with(program))]
    if not found:
        raise _nothing(weave)
    for again in [_checked(program, launch) for program, launch in found]:
        environ = {name: value for name, value in again.launch.environ.items() if not name.startswith("PYTHON")}
        supervisor.stop(again.program)
        supervisor.launch(again.program, environ | python_environ(weave.environ), again.serves,
                          arguments=again.launch.arguments)
    supervisor.remove_old_images()


def _checked(program: Program, launch: Launch) -> _Again:
    try:
        return _Again(program, launch, (_router if program is ROUTER else _proxy)(launch))
    except SettingsError as error:
        raise SettingsError(f"{program.title} can't be launched as before: {error.message}; nothing was changed: "
                            "`weave stop`, then `weave launch` with what you want") from error


def _router(launch: Launch) -> Callable[[], bool]:
    address = router_settings(launch.arguments).at
    return lambda: router_serves(address)


def _proxy(launch: Launch) -> Callable[[], bool]:
    settings = Settings.from_environ(launch.environ)
    exposure.check_tls(settings)
    return lambda: proxy_serves(settings)


def _nothing(weave: Invocation) -> WeaveError:
    if proxy := weave.proxy:
        return Conflict(f"weave proxy (pid {proxy['pid']}) is not in a container of Docker's: "
                        "start it anew where it was started")
    return WeaveError("weave is not running: `weave launch` starts it")
