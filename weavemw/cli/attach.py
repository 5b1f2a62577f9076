"""Containers on the network without the proxy: run, start, attach, detach, ps."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

import click

from weavemw import assembly
from weavemw.attaching.attachment import Attachment, NotRunning
from weavemw.attaching.policy import promised_to, shared_network
from weavemw.cli import completion
from weavemw.cli.command import Invocation, require_root, verb
from weavemw.cli.mistakes import explained
from weavemw.cli.names import dns_arguments, only_network
from weavemw.cli.options import together
from weavemw.dockerapi.client import Docker
from weavemw.dockerapi.container import Container
from weavemw.errors import AddressTaken, BadRequest, DockerError, WeaveError
from weavemw.network.addresses import Claim, Default, Interface, Subnet, Wanted, parse_one
from weavemw.network.bridge import EXPOSE, look
from weavemw.network.plan import Network, ProcessEnded
from weavemw.router.client import Router
from weavemw.settings import Settings

__all__ = ["attach", "detach", "echo_addresses", "give", "ps", "run", "say_kept", "selected", "split", "start", "take"]

#: What is an address, right or wrong, and neither a container nor an image ("net:1.0", "cafe:5000/web").
_ADDRESS = re.compile(r"net:default|(net:|ip:)?([0-9]+(\.[0-9]+){3}|[0-9a-f]*:[0-9a-f]*:[0-9a-f:.]*)(/.*)?", re.I)
_GONE = (404, ProcessEnded.status)
_DOCKERS_OWN = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_TLS")
_naming = [
    click.option("--with-dns", flag_value=True, default=None, help="The container uses weaveDNS."),
    click.option("--without-dns", "with_dns", flag_value=False, help="It does not, and gets no name."),
]
_no_hosts = click.option("--no-rewrite-hosts", "rewrite_hosts", flag_value=False, default=None,
                         help="Leave its /etc/hosts as it is.")
_no_route = click.option("--no-multicast-route", "multicast_route", flag_value=False, default=None,
                         help="No route for multicast.")


@verb("run")
@together(*_naming, _no_hosts, _no_route)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[ADDR…] DOCKER-RUN-ARGUMENTS")
@click.pass_obj
def run(weave: Invocation, /, words: tuple[str, ...], **options: Any) -> None:
    """Run a container in the background, attach it when it has started, and print its id.

    Without ADDR it gets an address of the default subnet. Its command does not wait for the network: through the
    proxy it does. The arguments are those of docker run, --rm among them.

    \b
    weave run -ti ubuntu
    weave run 10.2.1.1/24 net:10.32.2.0/24 --name web nginx
    """
    settings = _settings(weave, options)
    wanted, arguments = split(words)
    if not arguments:
        raise click.UsageError("an image is missing")
    require_root("run changes a container's network")
    _refuse_taken(settings, wanted)
    container_id = _docker_run(weave, settings, [*_dns(settings, arguments), *arguments])
    click.echo(container_id)
    try:
        _attach(settings, container_id, wanted)
    except WeaveError as error:
        raise WeaveError(_why_unattached(error, container_id[:12], weave)) from error


run.context_settings = {"ignore_unknown_options": True, "allow_interspersed_args": False}  # they are docker's


@verb("start")
@together(*_naming, _no_hosts, _no_route)
@click.argument("words", nargs=-1, metavar="[ADDR…] CONTAINER", shell_complete=completion.containers(status=""))
@click.pass_obj
def start(weave: Invocation, /, words: tuple[str, ...], **options: Any) -> None:
    """Start a container that exists, and attach it, with the addresses that it had or with others besides.

    It is `weave launch` that starts weave itself.

    \b
    weave start web
    weave start 10.2.1.1/24 web
    """
    settings = _settings(weave, options)
    wanted, name = _one_container(words)
    require_root("start changes a container's network")
    assembly.docker(settings).start(name)
    _attach(settings, name, wanted)
    click.echo(name)


@verb("attach")
@together(*_naming, _no_route)
@click.option("--rewrite-hosts", is_flag=True, help="Write its name into its /etc/hosts too.")
@click.argument("words", nargs=-1, metavar="[ADDR…] CONTAINER", shell_complete=completion.containers())
@click.pass_obj
def attach(weave: Invocation, /, words: tuple[str, ...], **options: Any) -> None:
    """Attach a running container, or give it further addresses; prints those that were asked for, without prefix.

    Without ADDR: those that it had or was promised, else one of the default subnet.

    \b
    weave attach web
    weave attach 10.2.1.1/24 net:10.32.2.0/24 web
    """
    wanted, name = _one_container(words)
    require_root("attach changes a container's network")
    settings = _settings(weave, options)
    held = _attach(settings, name, wanted)
    echo_addresses(selected(held, wanted, assembly.router(settings)) if wanted else held)


@verb("detach")
@click.argument("words", nargs=-1, metavar="[ADDR…] CONTAINER", shell_complete=completion.containers())
@click.pass_obj
def detach(weave: Invocation, words: tuple[str, ...]) -> None:
    """Take addresses from a container, with the last of them the network; prints those that are free again.

    Without ADDR: its address of the default subnet. One that it has not is no mistake. A container made through
    the proxy is attached again when it is started again.

    \b
    weave detach web
    weave detach 10.2.1.1/24 web
    """
    settings = weave.settings()
    wanted, name = _one_container(words)
    require_root("detach changes a container's network")
    container = assembly.docker(settings).inspect(name)
    router = assembly.router(settings)
    held = router.addresses(container.id)
    gone = selected(held, wanted or (Default(),), router)
    if gone:
        take(assembly.attachment(settings), container, gone)
    echo_addresses(gone)
    say_kept("detach", [each for each in held if each not in gone] if not gone else (), f" {name}")


@verb("ps")
@click.argument("containers", nargs=-1, metavar="[CONTAINER…]", shell_complete=completion.containers(EXPOSE))
@click.pass_obj
def ps(weave: Invocation, containers: tuple[str, ...]) -> None:
    """List attached containers: id, MAC address and addresses of each; the host's own are "weave:expose".

    \b
    weave ps
    weave ps web weave:expose
    """
    settings = weave.settings()
    from weavemw.network.netlink import NetlinkNetwork

    docker, network = assembly.docker(settings), NetlinkNetwork(settings.bridge)
    if "" in containers:
        raise click.UsageError("expected the name or id of a container, found ''")
    for name in containers or (EXPOSE, *docker.container_ids()):
        row = _host_row(settings) if name == EXPOSE else _row(docker, network, name, is_asked=bool(containers))
        if row:
            click.echo(" ".join(row))


def split(words: Sequence[str]) -> tuple[tuple[Wanted, ...], tuple[str, ...]]:
    """The addresses that come first, and the rest. Raises :class:`~weavemw.errors.InvalidCidr`."""
    count = next((n for n, word in enumerate(words) if not _ADDRESS.fullmatch(word)), len(words))
    return tuple(map(parse_one, words[:count])), tuple(words[count:])


def give(attachment: Attachment, container: Container, wanted: Sequence[Wanted],
         names: Sequence[str] = ()) -> tuple[Interface, ...]:
    """Attach a running container with what it holds and what is wanted; by default what it held, or was promised.

    If it fails, it holds what it held before. Raises :class:`~weavemw.errors.WeaveError`.
    """
    if reason := shared_network(container.network_mode):
        raise BadRequest(f"{container.name or container.short_id} can't be attached: {reason}")
    if not container.is_alive:
        name = container.name or container.short_id
        raise NotRunning(name, f"{name} is not running")
    with attachment.lock(container.id):
        held = attachment.router.addresses(container.id)
        try:
            lease = attachment.allocate(container, wanted or (() if held else promised_to(container)))
            attachment.attach(container.id, lease.addresses, names)
        except BaseException:
            attachment.give_back(container.id, set(attachment.router.addresses(container.id)) - set(held))
            raise
    return lease.addresses


def take(attachment: Attachment, container: Container, gone: Sequence[Interface]) -> None:
    """Take these addresses from a container; with the last of them goes its interface."""
    with attachment.lock(container.id):
        left = tuple(one for one in attachment.router.addresses(container.id) if one not in gone)
        if not left:
            return attachment.keep_away(container)
        names = _names_of(attachment, container)
        attachment.router.deregister(container.id)
        if container.is_alive:
            attachment.attach(container.id, left, names)
        attachment.give_back(container.id, gone)
    return None


def selected(held: Sequence[Interface], wanted: Sequence[Wanted], router: Router) -> list[Interface]:
    """Those of the addresses held that are meant."""
    return list(dict.fromkeys(found for one in wanted for found in _matching(held, one, router)))


def echo_addresses(addresses: Sequence[Interface]) -> None:
    """Print addresses on one line, without prefix, so that a shell can take them; nothing if there are none."""
    if addresses:
        click.echo(" ".join(str(address.ip) for address in addresses))


def say_kept(verb: str, kept: Sequence[Interface], whose: str = "") -> None:
    """Say on stderr, where nothing was taken away, what there is that could be."""
    if kept:
        click.echo(f"weave: nothing to {verb}; there is: " + " ".join(f"`weave {verb} {each}{whose}`" for each in kept),
                   err=True)


def _matching(held: Sequence[Interface], one: Wanted, router: Router) -> list[Interface]:
    if isinstance(one, Claim):
        return [each for each in held if each == one.interface]
    subnets = [one.network] if isinstance(one, Subnet) else _default_subnets(router)
    return [each for each in held if any(each.ip in subnet for subnet in subnets)]


def _default_subnets(router: Router) -> list[IPv4Network | IPv6Network]:
    return [ip_network(subnet) for subnet in (router.default_subnet(), router.default_subnet6()) if subnet]


def _names_of(attachment: Attachment, container: Container) -> list[str]:
    rows = attachment.router.names()
    return list(dict.fromkeys(str(row["Hostname"]) for row in rows if row["ContainerID"] == container.id))


def _settings(weave: Invocation, options: dict[str, Any]) -> Settings:
    return replace(weave.settings(), **{name: value for name, value in options.items() if value is not None})


def _one_container(words: Sequence[str]) -> tuple[tuple[Wanted, ...], str]:
    wanted, rest = split(words)
    if len(rest) == 1 and rest[0] and "/" not in rest[0]:  # no container has such a name
        return wanted, rest[0]
    if not rest:
        raise click.UsageError("a container is missing")
    hint = next((f": {word} is no address, which is written 10.2.1.1/24" for word in rest if "/" in word), "")
    if len(rest) > 1 and all(map(_ADDRESS.fullmatch, rest[1:])):
        path = click.get_current_context().command_path
        hint = f": the container comes last, as in `{path} {' '.join([*rest[1:], rest[0]])}`"
    raise click.UsageError(f"expected [ADDR…] CONTAINER, found {' '.join(words)!r}{hint}")


def _attach(settings: Settings, name: str, wanted: Sequence[Wanted]) -> tuple[Interface, ...]:
    container = assembly.docker(settings).inspect(name)
    names = assembly.names_for(settings, assembly.router(settings))(container)
    return give(assembly.attachment(settings), container, wanted, names)


def _dns(settings: Settings, arguments: Sequence[str]) -> list[str]:
    router = assembly.router(settings)
    address = router.dns_address(only_network(arguments)) if settings.with_dns is not False else None
    if settings.with_dns and not address:
        raise WeaveError("--with-dns: the router serves no DNS")
    return dns_arguments(arguments, address, router.domain()) if address else []


def _refuse_taken(settings: Settings, wanted: Sequence[Wanted]) -> None:
    """Before there is a container: after that it would run, without its address."""
    owned = assembly.router(settings).owned()
    for claim in (one for one in wanted if isinstance(one, Claim)):
        for owner, addresses in owned.items():
            if claim.interface.ip in (address.ip for address in addresses):
                raise AddressTaken(str(claim.interface), owner)


def _why_unattached(error: WeaveError, container: str, weave: Invocation) -> str:
    if isinstance(error, NotRunning) or error.status == _GONE[0]:
        return f"{container} ended before it could be attached"
    return f"{explained(error, weave)}; {container} runs, without the weave network"


def _docker_run(weave: Invocation, settings: Settings, arguments: Sequence[str]) -> str:
    environ = {name: value for name, value in weave.environ.items() if name not in _DOCKERS_OWN}
    command = ["docker", f"--host={settings.docker_host}", "run", "--detach", *arguments]
    try:
        import subprocess

        done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, text=True, check=False)
    except OSError as error:
        raise WeaveError(f"can't execute docker: {os.strerror(error.errno or 0)}") from error
    if done.returncode:
        click.get_current_context().exit(done.returncode)  # docker has said why
    return done.stdout.strip()


def _host_row(settings: Settings) -> list[str]:
    bridge = look(settings.bridge)
    if bridge is None:
        return []
    shown = [str(address) for address in bridge.addresses if not address.is_link_local]  # the others are weaveDNS's
    return [EXPOSE, bridge.mac, *shown]


def _row(docker: Docker, network: Network, name: str, *, is_asked: bool) -> list[str]:
    """A container's row; one that can't be attached, or ends while all are listed, has none."""
    try:
        container = docker.inspect(name)
        if shared_network(container.network_mode) or not container.is_alive:
            return []
        with network.namespace(container.pid, container.sandbox_key) as namespace:
            found = namespace.ethwe()
    except (DockerError, ProcessEnded) as error:
        if is_asked or error.status not in _GONE:
            raise
        return []
    return [container.short_id, found.mac, *map(str, found.addresses)] if found else []


