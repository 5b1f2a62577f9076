"""Starting and stopping: launch, launch-router, launch-proxy, stop, stop-router, stop-proxy."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import click

from weavemw.cli import configuration, peers, sources
from weavemw.cli.command import Invocation, verb
from weavemw.cli.management import ManagingClient
from weavemw.cli.options import (
    on_command_line,
    peer_options,
    proxy_options,
    proxy_values,
    router_arguments,
    router_defaults,
    router_given,
    router_names,
    router_options,
    router_settings,
)
from weavemw.cli.router import router_serves
from weavemw.cli.shell import mending
from weavemw.cli.supervisor import PROXY, ROUTER, Supervisor, python_environ
from weavemw.dockerapi import hosts
from weavemw.errors import Conflict, SettingsError, WeaveError
from weavemw.ops import run_file
from weavemw.router.settings import RouterSettings, split_host_port
from weavemw.serving import exposure, listeners
from weavemw.settings import DEFAULT_LISTENERS, Settings
from weavemw.transport import ports

__all__ = ["launch", "launch_proxy", "launch_router", "proxy_serves", "stop", "stop_proxy", "stop_router",
           "stop_running_proxy", "stop_running_router"]

_STOP_LIMIT = 10.0
_foreground = click.option("--foreground", is_flag=True, help="Serve here, not in a container of Docker's.")
_print_config = click.option("--print-config", is_flag=True,
                             help="Print the settings that would be used, and where they come from; do nothing.")


@verb("launch", launches=True)
@peer_options
@router_options
@proxy_options
@_print_config
@click.pass_obj
def launch(weave: Invocation, /, print_config: bool, **options: Any) -> None:
    """Start the router (addresses, weaveDNS) and the proxy.

    \b
    weave launch
    weave launch --ipalloc-range 10.2.0.0/16 -H unix:///var/run/weave.sock
    weave launch --store etcd://10.0.0.11:2379,10.0.0.12:2379

    Without --store, this host is alone; hosts that name the same store share one network. PEER is taken as the original
    takes it, without effect.
    """
    written = on_command_line(options)
    if print_config:
        return _print(weave, proxy_values(written), _router_given(weave, written))
    _warn(*_without_effect(weave, options, written))
    settings = weave.settings(proxy_values(written))
    arguments = _router_arguments(weave, settings, written)
    exposure.check_tls(settings)
    _refuse_second(weave, settings)
    _launch_router(weave, settings, arguments)
    try:
        _launch_proxy(weave, settings)
    except BaseException:
        _supervisor(settings).stop(ROUTER)
        raise
    return _show_attaching(settings)


@verb("launch-router", launches=True)
@peer_options
@router_options
@_foreground
@_print_config
@click.pass_obj
def launch_router(weave: Invocation, /, foreground: bool, print_config: bool, **options: Any) -> None:
    """Start the router only: addresses, names, weaveDNS, the bridge.

    \b
    weave launch-router --ipalloc-range 10.2.0.0/16 --dns-domain corp.internal

    Without --store, this host is alone; hosts that name the same store share one network. PEER is taken as the original
    takes it, without effect.
    """
    written = on_command_line(options)
    if print_config:
        return _print(weave, {}, _router_given(weave, written))
    _warn(*_without_effect(weave, options, written))
    settings = weave.settings()
    arguments = _router_arguments(weave, settings, written)
    if foreground:
        from weavemw.router.__main__ import main

        main(list(arguments), prog_name="weave-router", standalone_mode=False)
    else:
        _launch_router(weave, settings, arguments)
    return None


@verb("launch-proxy", launches=True)
@proxy_options
@_foreground
@_print_config
@click.pass_obj
def launch_proxy(weave: Invocation, /, foreground: bool, print_config: bool, **options: Any) -> None:
    """Start the proxy only.

    \b
    weave launch-proxy -H tcp://127.0.0.1:9999 -H unix:///var/run/weave.sock
    weave launch-proxy --no-default-ipalloc --without-dns
    """
    written = proxy_values(on_command_line(options))
    if print_config:
        return _print(weave, written)
    _warn(*_strange_variables(weave))
    settings = weave.settings(written)
    if foreground:
        from weavemw.serving.program import serve

        serve(settings)
    _launch_proxy(weave, settings)
    return _show_attaching(settings)


@verb("stop")
@click.pass_obj
def stop(weave: Invocation) -> None:
    """Stop proxy and router. Containers keep running, with their network.

    \b
    weave stop
    """
    settings = weave.settings()  # asked once: DOCKER_HOST may be the proxy, which says what the engine is while it runs
    stop_running_proxy(weave, settings)
    stop_running_router(settings)


@verb("stop-router")
@click.pass_obj
def stop_router(weave: Invocation) -> None:
    """Stop the router only.

    \b
    weave stop-router
    """
    stop_running_router(weave.settings())


@verb("stop-proxy")
@click.pass_obj
def stop_proxy(weave: Invocation) -> None:
    """Stop the proxy only.

    \b
    weave stop-proxy
    """
    stop_running_proxy(weave, weave.settings())


def _launch_router(weave: Invocation, settings: Settings, arguments: tuple[str, ...]) -> None:
    if router_serves(settings.router_at):
        raise Conflict(f"weave router is already running (at {settings.router_address}); `weave stop-router` stops it")
    if who := ports.holder(*split_host_port(settings.router_address)):
        raise Conflict(f"the router can't listen on {settings.router_address}: {who} listens there already; choose "
                       "another by WEAVE_HTTP_ADDR or --router-address")
    dns = _without_dns(settings, router_settings(arguments))
    _supervisor(settings).launch(ROUTER, python_environ(weave.environ), arguments=arguments,
                                 is_ready=lambda: router_serves(settings.router_at))
    _warn(*dns)


def _without_dns(settings: Settings, router: RouterSettings) -> list[str]:
    """What to say of addresses where others serve DNS already; asked before the router itself does."""
    from weavemw.router.host import addresses_of, bridges

    addresses = router.dns_listen or addresses_of(settings.docker_bridge, bridges())
    holders = {address: ports.holder(address, router.dns_port, "udp") for address in addresses if router.dns}
    return [f"weaveDNS can't serve at {address}, since {who} has port {router.dns_port} there: names are not found "
            "until it is gone" for address, who in holders.items() if who]


def _router_given(weave: Invocation, written: Mapping[str, Any]) -> dict[str, sources.Given]:
    return router_given(written, weave.environ, _router_table(weave))


def _router_table(weave: Invocation) -> dict[str, sources.Given]:
    return {name: each for name, each in weave.file_section("router").items() if name not in peers.OPTIONS}


def _router_arguments(weave: Invocation, settings: Settings, written: Mapping[str, Any]) -> tuple[str, ...]:
    return router_arguments(settings, _router_given(weave, written))


def _print(weave: Invocation, proxy: Mapping[str, Any], router: Mapping[str, sources.Given] | None = None) -> None:
    settings = weave.settings(proxy)
    if router is not None:
        router_arguments(settings, router)  # raises for what can't be used
        router = {**router_defaults(), **router}
    click.echo("\n".join(configuration.lines(settings, weave.given(proxy), router)))


def _without_effect(weave: Invocation, options: Mapping[str, Any], written: Mapping[str, Any]) -> list[str]:
    given = _router_given(weave, written)
    table = {name: each.value for name, each in weave.file_section("router").items()}
    if "store" in given:  # hosts find each other there
        if (options.get("password") or table.get("password")) and "encrypt" not in given:
            raise SettingsError("--password: hosts that share a store have keys instead; encrypt with --encrypt")
        options, table = {"peers": ()}, {}
    peers_given = peers.ignored({name: options.get(name) or table.get(name) for name in peers.OPTIONS})
    return [peers_given, *_strange_variables(weave)]


def _strange_variables(weave: Invocation) -> list[str]:
    return sources.strange_variables(weave.environ, [*Settings.__dataclass_fields__, *router_names()])


def _launch_proxy(weave: Invocation, settings: Settings) -> None:
    from weavemw.router.host import bridges

    warnings = exposure.check_tls(settings)
    _refuse_second_proxy(weave, settings)
    environ = settings.to_environ() | {sources.CONFIG_VARIABLE: os.devnull} | python_environ(weave.environ)
    _supervisor(settings).launch(PROXY, environ, is_ready=lambda: proxy_serves(settings))
    _warn(*warnings, exposure.open_to_all(settings), exposure.lets_in_containers(settings, bridges))


def _show_attaching(settings: Settings) -> None:
    """Show how containers that wait are attached, which the watcher does, until it has tried all of them."""
    from weavemw.cli.waiting import Waiting
    from weavemw.network.netlink import NetlinkNetwork

    waiting = Waiting(ManagingClient(settings.docker_socket), NetlinkNetwork(settings.bridge), settings.run_dir)
    waiting.show()
    if waiting.refused:
        _warn(f"{len(waiting.refused)} of the containers that wait could not be attached yet: `weave status` says why")


def _refuse_second(weave: Invocation, settings: Settings) -> None:
    _refuse_second_proxy(weave, settings)
    if router_serves(settings.router_at):
        raise Conflict("weave router is already running: `weave launch-proxy` starts the proxy beside it")


def _refuse_second_proxy(weave: Invocation, settings: Settings) -> None:
    if proxy := weave.proxy:
        raise Conflict(f"weave proxy is already running (pid {proxy['pid']}); `weave stop-proxy` stops it")
    if _supervisor(settings).is_running(PROXY):
        raise Conflict("weave proxy is already running; `weave stop-proxy` stops it")


def proxy_serves(settings: Settings) -> bool:
    """Whether the proxy of these settings answers at each of its listeners."""
    facts = run_file.running(settings.run_dir / run_file.PROXY)
    if not facts or not facts.get("listeners"):
        return False
    return all(listeners.serves(hosts.parse(each), guarded=facts["guarded"]) for each in settings.listeners)


def stop_running_proxy(weave: Invocation, settings: Settings) -> None:
    """Stop the proxy, however it was started; if it does not run, or the shell is still led to it, that is said."""
    proxy = weave.proxy
    stopped = _supervisor(settings).stop(PROXY)
    if proxy and not stopped:  # one in the foreground, or systemd's
        _end(weave, proxy["pid"])
    if not (proxy or stopped):
        click.echo("weave proxy is not running", err=True)
    if mend := mending(weave.environ, (*(proxy or {}).get("listeners", ()), *DEFAULT_LISTENERS)):
        _warn(f"DOCKER_HOST still points at the proxy; this mends the shell: {mend}")


def _end(weave: Invocation, pid: int) -> None:
    try:
        run_file.terminate(weave.run_dir / run_file.PROXY)
    except PermissionError as error:
        raise WeaveError(f"weave proxy (pid {pid}) is somebody else's: try again as root") from error
    deadline = time.monotonic() + _STOP_LIMIT
    while weave.proxy is not None:
        if time.monotonic() > deadline:
            raise WeaveError(f"weave proxy (pid {pid}) has not stopped within {_STOP_LIMIT:g} s")
        time.sleep(0.05)


def stop_running_router(settings: Settings) -> None:
    """Stop the router's container; if there is none, that is said, and of a router that runs elsewhere too."""
    if _supervisor(settings).stop(ROUTER):
        return
    if router_serves(settings.router_at):
        click.echo(f"the router at {settings.router_address} is not in a container of weave's: "
                   "stop it where it was started", err=True)
    else:
        click.echo("weave router is not running", err=True)


def _warn(*warnings: str) -> None:
    for warning in filter(None, warnings):
        click.echo(f"weave: warning: {warning}", err=True)


def _supervisor(settings: Settings) -> Supervisor:
    return Supervisor(ManagingClient(settings.docker_socket))
