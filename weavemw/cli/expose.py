"""The host itself on the network, and what it has for it: expose, hide, docker-bridge-ip, setup."""

from __future__ import annotations

from collections.abc import Sequence

import click

from weavemw import assembly, wait
from weavemw.cli.attach import echo_addresses, say_kept, selected, split
from weavemw.cli.command import Invocation, require_root, verb
from weavemw.cli.management import ManagingClient
from weavemw.cli.names import in_domain
from weavemw.cli.supervisor import Supervisor
from weavemw.errors import Conflict, NetworkError
from weavemw.network import bridge, exposed
from weavemw.network.addresses import Claim, Default, Interface, Wanted
from weavemw.network.bridge import EXPOSE
from weavemw.network.netlink import ensure_bridge
from weavemw.router.client import RouterClient
from weavemw.router.host import addresses_of, bridges, overlapping, routes
from weavemw.settings import Settings

__all__ = ["docker_bridge_ip", "expose", "hide", "setup"]


@verb("expose")
@click.argument("words", nargs=-1, metavar="[ADDR…]")
@click.option("-h", "--hostname", "fqdn", metavar="FQDN", default="", help="Let this name resolve to the addresses.")
@click.option("--without-masquerade", is_flag=True,
              help="Let packets between the network and elsewhere keep their source.")
@click.option("--force", is_flag=True, help="Also an address of a network to which this host has a route already.")
@click.pass_obj
def expose(weave: Invocation, words: tuple[str, ...], fqdn: str, without_masquerade: bool, force: bool) -> None:
    """Give this host an address on the weave network; prints it, without prefix.

    It stays until `weave hide`, or a reboot.

    \b
    weave expose
    weave expose 10.2.1.132/24 -h host1.weave.local
    """
    require_root("expose changes the network of this host")
    settings = weave.settings()
    router = assembly.router(settings)
    name = in_domain(fqdn, router.domain()) if fqdn else ""
    wanted, held = _addresses(words) or (Default(),), router.addresses(EXPOSE)
    if not force:
        _refuse_overlap([one for one in wanted if isinstance(one, Claim)], settings.bridge)
    try:
        found = [_held(router, one) for one in wanted]
        _show(settings, found, masquerade=not without_masquerade)
    except BaseException:
        _take(settings, router, [each for each in router.addresses(EXPOSE) if each not in held])
        raise
    for address in found if name else ():
        router.register(EXPOSE, address, name)
    echo_addresses(found)


@verb("hide")
@click.argument("words", nargs=-1, metavar="[ADDR…]")
@click.pass_obj
def hide(weave: Invocation, words: tuple[str, ...]) -> None:
    """Take this host's addresses off the weave network; prints those that are free again, without prefix.

    Without ADDR: its address of the default subnet. One that it has not is no mistake.

    \b
    weave hide
    weave hide 10.2.1.132/24
    """
    require_root("hide changes the network of this host")
    settings = weave.settings()
    router = assembly.router(settings)
    held = router.addresses(EXPOSE)
    gone = selected(held, _addresses(words) or (Default(),), router)
    if gone:
        _take(settings, router, gone)
    echo_addresses(gone)
    say_kept("hide", held if not gone else ())


@verb("docker-bridge-ip")
@click.pass_obj
def docker_bridge_ip(weave: Invocation) -> None:
    """Print the address of Docker's bridge.

    \b
    docker run --dns "$(weave docker-bridge-ip)" alpine
    """
    name = weave.settings().docker_bridge
    found = addresses_of(name, bridges())
    if not found:
        raise NetworkError(f"Docker's bridge {name} is not there, or has no address; another is named by DOCKER_BRIDGE")
    click.echo(found[0])


@verb("setup")
@click.pass_obj
def setup(weave: Invocation) -> None:
    """Put in place what launching needs, without launching: the wait program, and our containers' image.

    \b
    weave setup && weave launch
    """
    settings = weave.settings()
    click.echo(wait.install(settings.state_dir))
    click.echo(Supervisor(ManagingClient(settings.docker_socket)).install_image())


def _addresses(words: Sequence[str]) -> tuple[Wanted, ...]:
    wanted, rest = split(words)
    if rest:
        raise click.UsageError(f"expected [ADDR…], found {rest[0]!r}")
    return wanted


def _refuse_overlap(claims: Sequence[Claim], name: str) -> None:
    """With a second route to a network, one of the two could no longer be reached."""
    for claim in claims:
        if route := overlapping([claim.interface.network], routes(), name):
            raise Conflict(f"{claim.interface} overlaps the route {route} of this host; choose another, or use --force")


def _held(router: RouterClient, one: Wanted) -> Interface:
    if isinstance(one, Claim):
        router.claim(EXPOSE, one.interface)
        return one.interface
    return router.allocate(EXPOSE, "" if isinstance(one, Default) else str(one.network))


def _show(settings: Settings, addresses: Sequence[Interface], *, masquerade: bool) -> None:
    ensure_bridge(settings.bridge, settings.mtu)
    for address in addresses:
        bridge.add_address(settings.bridge, address)
    before, networks = exposed.masqueraded(settings.run_dir), {each.network for each in addresses}
    exposed.masquerade(settings.run_dir, before | networks if masquerade else before - networks)


def _take(settings: Settings, router: RouterClient, gone: Sequence[Interface]) -> None:
    for address in gone:
        bridge.delete_address(settings.bridge, address)
        router.deregister(EXPOSE, address)
        router.release(EXPOSE, address)
    left = {each.network for each in router.addresses(EXPOSE)}
    exposed.masquerade(settings.run_dir, exposed.masqueraded(settings.run_dir) & left)
