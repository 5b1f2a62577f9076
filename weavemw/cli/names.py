"""Names in weaveDNS, by hand: dns-add, dns-remove, dns-lookup, dns-args."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING

import click

from weavemw import assembly
from weavemw.attaching import hostnames
from weavemw.attaching.added_names import Added
from weavemw.cli import completion
from weavemw.cli.command import Invocation, verb
from weavemw.cli.router import router_text
from weavemw.dockerapi.container import Container
from weavemw.errors import BadRequest, RouterError, RouterUnreachable, SettingsError, WeaveError
from weavemw.router.client import Interface, RouterClient

if TYPE_CHECKING:
    import dns.message

__all__ = ["Targets", "dns_add", "dns_args", "dns_arguments", "dns_lookup", "dns_remove", "in_domain", "only_network",
           "targets"]

#: The owner of names that belong to no container.
EXTERN = "weave:extern"

_LIMIT = 5.0  # seconds for an answer
_fqdn = click.option("-h", "--hostname", "fqdn", metavar="FQDN", default="", help="The name, in the DNS domain.")


@dataclass(frozen=True, slots=True)
class Targets:
    """What ``[IP…] [CONTAINER]`` says: addresses, and a container or an empty string."""

    addresses: tuple[Interface, ...]
    container: str


@verb("dns-add")
@click.argument("words", nargs=-1, metavar="[IP…] [CONTAINER]", shell_complete=completion.containers())
@_fqdn
@click.pass_obj
def dns_add(weave: Invocation, words: tuple[str, ...], fqdn: str) -> None:
    """Make a name resolve to a container's addresses, or to any others.

    \b
    weave dns-add web                                 # its own name, all its weave addresses
    weave dns-add web -h shop.weave.local             # one more name
    weave dns-add 10.2.1.27 web -h shop.weave.local   # for this address only
    weave dns-add 192.0.2.7 -h printer.weave.local    # of no container
    """
    asked, router = targets(words, fqdn), _router(weave)
    container = weave.docker().inspect(asked.container) if asked.container else None
    names = _names(router, container, fqdn, assembly.naming(weave.settings()))
    lasting = names if fqdn or asked.addresses else ()  # its own names are its own at every start
    if container and not container.is_alive:
        _add_later(weave, container, lasting, asked)
    else:
        _add_now(router, container, names, asked)
        if container and lasting:
            _keep(weave, container.id, lasting, asked)


@verb("dns-remove")
@click.argument("words", nargs=-1, metavar="[IP…] [CONTAINER]", shell_complete=completion.containers())
@_fqdn
@click.pass_obj
def dns_remove(weave: Invocation, words: tuple[str, ...], fqdn: str) -> None:
    """Remove names: a container's, those of some of its addresses, or those of no container.

    \b
    weave dns-remove web                                 # all its names
    weave dns-remove web -h shop.weave.local             # this one
    weave dns-remove 10.2.1.27 web                       # those of this address
    weave dns-remove 192.0.2.7 -h printer.weave.local    # of no container
    """
    asked, router = targets(words, fqdn), _router(weave)
    owner = weave.docker().inspect(asked.container).id if asked.container else EXTERN
    name = in_domain(fqdn, router.domain()) if fqdn else ""
    for address in asked.addresses or (None,):
        if asked.container:
            _keep_no_more(weave, owner, name, address)
        router.deregister(owner, address, name)


@verb("dns-lookup")
@click.argument("name")
@click.pass_obj
def dns_lookup(weave: Invocation, name: str) -> None:
    """Print the addresses of a name, one a line; the status is 1 when there are none.

    \b
    weave dns-lookup web
    weave dns-lookup web.weave.local
    """
    address = weave.settings().router_at
    server = router_text(address, "/dns-address-port")
    if server is None:
        raise RouterError(f"the weave router at {address} does not run, or serves no DNS")
    domain = RouterClient(address).domain()
    found = _addresses(server.strip(), f"{name}.{domain}" if "." not in name else name)
    if not found:
        raise WeaveError(f'no address for "{name}"')
    click.echo("\n".join(found))


@verb("dns-args")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[DOCKER RUN ARGUMENTS]")
@click.pass_obj
def dns_args(weave: Invocation, arguments: tuple[str, ...]) -> None:
    """Print what to add to docker run, without the proxy, for weaveDNS to be used; nothing where it is not served.

    \b
    docker run $(weave dns-args --name web) --name web -d nginx
    """
    router = _router(weave)
    if address := router.dns_address(only_network(arguments)):
        click.echo(" ".join(dns_arguments(arguments, address, router.domain())))


dns_args.context_settings = {"ignore_unknown_options": True, "allow_interspersed_args": False}  # they are docker's


def targets(words: Sequence[str], fqdn: str) -> Targets:
    """Read ``[IP…] [CONTAINER]``. Raises :class:`~weavemw.errors.BadRequest` for what is neither form."""
    addresses = tuple(ip_interface(word) for word in words if _is_address(word))
    others = [word for word in words if not _is_address(word)]
    if len(others) > 1 or (others and words[-1] != others[0]):
        raise BadRequest(f"expected [IP…] CONTAINER, found {' '.join(words)!r}")
    if not others and not (addresses and fqdn):
        raise BadRequest("a container, or addresses and -h FQDN, are missing")
    return Targets(addresses, others[0] if others else "")


def only_network(arguments: Sequence[str]) -> str:
    """What to ask the router's DNS address for: "weave" where ``docker run ARGUMENTS`` has no other network."""
    return "weave" if _value(arguments, "--net", "--network") == "none" else ""


def dns_arguments(arguments: Sequence[str], address: str, domain: str) -> list[str]:
    """The options that make ``docker run ARGUMENTS`` use weaveDNS; ``domain`` with or without its final dot."""
    name, hostname = _value(arguments, "--name"), _value(arguments, "--hostname", "-h")
    added = []
    if name and not hostname and _value(arguments, "--uts") != "host" and hostnames.fits_as_hostname(name, domain):
        hostname = f"{name}.{domain.removesuffix('.')}"
        added = [f"--hostname={hostname}"]
    search = [] if _value(arguments, "--dns-search") else hostnames.search_domains(hostname, domain)
    return [f"--dns={address}", *(f"--dns-search={each}" for each in search), *added]


def _value(arguments: Sequence[str], *options: str) -> str:
    """An option's value, in either form; what is given last counts, as with Docker."""
    found = ""
    for word, following in zip(arguments, [*arguments[1:], ""], strict=False):
        option, equals, value = word.partition("=")
        if option in options:
            found = value if equals else following
    return found


def _names(router: RouterClient, container: Container | None, fqdn: str,
           naming: hostnames.Naming) -> tuple[str, ...]:
    domain = router.domain()
    if fqdn or container is None:
        return (in_domain(fqdn, domain),)
    names = hostnames.names_for(container, domain, naming)
    if not names:
        raise BadRequest(f"{container.name} has no name in {domain}: give one by -h")
    return names


def _add_now(router: RouterClient, container: Container | None, names: Sequence[str], asked: Targets) -> None:
    owner = container.id if container else EXTERN
    addresses = asked.addresses or router.addresses(owner)
    if not addresses:
        raise WeaveError(f"{asked.container} has no address on the weave network")
    for address in addresses:
        for name in names:
            router.register(owner, address, name)


def _add_later(weave: Invocation, container: Container, names: Sequence[str], asked: Targets) -> None:
    """No name leads to a container that does not run."""
    if not names:
        raise WeaveError(f"{asked.container} is not running: it gets its names when it starts")
    _keep(weave, container.id, names, asked)
    click.echo(f"{asked.container} is not running: the name is there when it starts", err=True)


def _keep(weave: Invocation, container_id: str, names: Sequence[str], asked: Targets) -> None:
    added = [Added(name, address) for name in names for address in asked.addresses or (None,)]
    try:
        assembly.attachment(weave.settings()).keep_names(container_id, added)
    except (OSError, SettingsError) as error:
        click.echo(f"the name lasts until the container stops: {_why_not(error)}", err=True)


def _keep_no_more(weave: Invocation, container_id: str, name: str, address: Interface | None) -> None:
    try:
        assembly.attachment(weave.settings()).keep_names_no_more(container_id, name, address)
    except (OSError, SettingsError) as error:
        click.echo(f"the name is back when the container starts: {_why_not(error)}", err=True)


def _why_not(error: OSError | SettingsError) -> str:
    return f"can't write {error.filename}: {error.strerror}" if isinstance(error, OSError) else error.message


def in_domain(fqdn: str, domain: str) -> str:
    """The name within the domain. Raises :class:`~weavemw.errors.BadRequest` for one that is elsewhere, or no name."""
    name = hostnames.fqdn_in(domain, fqdn)
    if not name:
        raise BadRequest(f'"{fqdn}" is no name in {domain}')
    return name


def _addresses(server: str, name: str) -> list[str]:
    host, _, port = server.rpartition(":")
    found = []
    for kind in ("A", "AAAA"):
        reply = _asked(name, kind, host.strip("[]"), int(port))
        found += [record.address for answers in reply.answer if answers.rdtype == reply.question[0].rdtype
                  for record in answers]
    return found


def _asked(name: str, kind: str, host: str, port: int) -> dns.message.Message:
    import dns.exception
    import dns.message
    import dns.query
    import dns.rcode

    try:
        query = dns.message.make_query(name, kind)
        reply, _ = dns.query.udp_with_fallback(query, host, port=port, timeout=_LIMIT)
    except (dns.exception.DNSException, OSError) as error:
        raise RouterUnreachable(f"weaveDNS at {host} did not answer: {error}") from error
    if reply.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise RouterError(f"weaveDNS answered {dns.rcode.to_text(reply.rcode())}")
    return reply


def _is_address(word: str) -> bool:
    try:
        return bool(ip_address(word.split("/")[0]))
    except ValueError:
        return False


def _router(weave: Invocation) -> RouterClient:
    return RouterClient(weave.settings().router_at)
