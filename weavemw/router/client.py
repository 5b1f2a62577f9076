"""The proxy's side of a weave router's HTTP API.

Only this protocol is spoken, so that a real Weave Net router (2.8) can stand
behind the proxy as well as ours. Every call has a limit; what can't be reached
raises :class:`~weavemw.errors.RouterUnreachable`, a refusal raises
:class:`~weavemw.errors.RouterError` with the router's own words.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from ipaddress import ip_interface
from typing import Any, Protocol
from urllib.parse import quote, urlencode

from weavemw.dockerapi import hosts
from weavemw.dockerapi.requester import Answer
from weavemw.errors import AddressTaken, NoAnswer, NotARouter, RouterBusy, RouterError, RouterUnreachable
from weavemw.network.addresses import Interface, Wanted
from weavemw.ops.run_dir import RouterAddress
from weavemw.transport.http_client import HttpClient

__all__ = ["Interface", "Router", "RouterClient"]

_REMEMBER = 2.0  # seconds, for what changes only when a router is started, or Docker's bridge made
_REMEMBER_FOR_GOOD = 60.0  # seconds, for what stays as long as a router runs
#: What a router, ours and Weave Net 2.8, says of an address that is taken.
_TAKEN = re.compile(r"Unable to claim: address (?P<address>\S+) is already owned by (?P<owner>\S+)")
_FORM = "application/x-www-form-urlencoded"


class Router(Protocol):
    """What the middlewares ask of a router; :class:`weavemw.testing.FakeRouter` is another one."""

    def allocate(self, container_id: str, subnet: str = "") -> Interface:
        """An address for the container, in the default subnet or in ``subnet`` ("10.32.2.0/24").

        Asked again: the same address.
        """

    def claim(self, container_id: str, address: Interface) -> None:
        """Reserve exactly this address."""

    def default_subnet(self) -> str:
        """Where containers get an IPv4 address by default ("10.32.0.0/12")."""

    def default_subnet6(self) -> str:
        """Where containers get an IPv6 address besides ("fd00:10::/64"); empty if there is no range of IPv6."""

    def objection(self, wanted: Wanted) -> str:
        """Why no container gets this, whoever holds which address; empty if that is not so, or not known."""

    def addresses(self, container_id: str) -> tuple[Interface, ...]:
        """All addresses that the container holds."""

    def owned(self) -> Mapping[str, tuple[Interface, ...]]:
        """Every owner and its addresses."""

    def release(self, container_id: str, address: Interface | None = None) -> None:
        """Give back one address, or all; giving back nothing is no error."""

    def register(self, container_id: str, address: Interface, fqdn: str) -> None:
        """Make ``fqdn`` resolve to the address."""

    def deregister(self, container_id: str, address: Interface | None = None, fqdn: str = "") -> None:
        """Remove the container's names: all, or those of an address, or one of them."""

    def names(self) -> tuple[Mapping[str, object], ...]:
        """All names: ``ContainerID``, ``Addr``, ``Hostname``, …"""

    def domain(self) -> str:
        """The DNS domain, with its final dot."""

    def dns_address(self, network: str = "") -> str | None:
        """Where containers reach the DNS server, or ``None`` if there is none.

        ``network="weave"`` asks for those that are on no other network; a Weave Net router doesn't know of them, and
        answers as it does for all.
        """


class RouterClient:
    """:class:`Router` over HTTP; ``address`` is host:port if it is a text, ``timeout`` in seconds per call.

    A router's unix socket is used where there is one and we may; else TCP, as for any router.

    An allocation may take as long as the router's peers need to agree: after
    ``patience`` seconds it raises :class:`~weavemw.errors.RouterBusy`, and can be asked for again.
    """

    def __init__(self, address: str | RouterAddress, *, timeout: float = 5.0, patience: float = 0.8) -> None:
        self.address = str(address)
        self.timeout = timeout
        self.patience = patience
        self._tcp = HttpClient(hosts.parse(f"tcp://{address}"))
        socket = address.socket if isinstance(address, RouterAddress) else None
        self._unix = HttpClient(hosts.Unix(str(socket))) if socket else None
        self._said: dict[str, tuple[float, str]] = {}
        self._said_for_good: dict[str, tuple[float, int, str]] = {}

    def allocate(self, container_id: str, subnet: str = "") -> Interface:
        path = _path("ip", container_id, *subnet.split("/", 1) if subnet else ())
        return ip_interface(self._call("POST", path, timeout=self.patience).text.strip())

    def claim(self, container_id: str, address: Interface) -> None:
        self._call("PUT", _path("ip", container_id, *str(address).split("/")), timeout=self.patience)

    def objection(self, wanted: Wanted) -> str:
        answer = self._call("GET", f"/ipinfo/objection?wanted={quote(str(wanted))}", also=(400, 404, 405))
        return answer.text.strip() if answer.status == HTTPStatus.OK else ""

    def addresses(self, container_id: str) -> tuple[Interface, ...]:
        return self._owned(f"?containerid={quote(container_id)}").get(container_id, ())

    def owned(self) -> Mapping[str, tuple[Interface, ...]]:
        return self._owned()

    def default_subnet(self) -> str:
        return self._remembered("/ipinfo/defaultsubnet") or ""

    def default_subnet6(self) -> str:
        return self._asked_seldom("/ipinfo/defaultsubnet6")

    def release(self, container_id: str, address: Interface | None = None) -> None:
        path = _path("ip", container_id, str(address.ip)) if address else _path("ip", container_id)
        self._call("DELETE", path, also=(400,))

    def register(self, container_id: str, address: Interface, fqdn: str) -> None:
        self._call("PUT", _path("name", container_id, str(address.ip)), form=[("fqdn", fqdn)])

    def deregister(self, container_id: str, address: Interface | None = None, fqdn: str = "") -> None:
        path = _path("name", container_id, *([str(address.ip)] if address else []))
        self._call("DELETE", f"{path}?fqdn={quote(fqdn)}" if fqdn else path)

    def names(self) -> tuple[Mapping[str, object], ...]:
        return tuple(self._json("/name", accept="application/json") or ())

    def domain(self) -> str:
        return self._asked_seldom("/domain")

    def dns_address(self, network: str = "") -> str | None:
        return self._remembered(f"/dns-address?network={quote(network)}" if network else "/dns-address")

    def ask(self, method: str, path: str, form: Sequence[tuple[str, str]] = (), *, also: Sequence[int] = (),
            accept: str = "*/*") -> str:
        """Any other call of the API: the text of its answer; ``also`` are statuses that are no failure."""
        return self._call(method, path, also=also, form=form, accept=accept).text

    def _owned(self, query: str = "") -> dict[str, tuple[Interface, ...]]:
        reply = self._json(f"/ip{query}")
        return {row["containerid"]: tuple(map(ip_interface, row["addrs"])) for row in reply.get("owned") or ()}

    def _remembered(self, path: str) -> str | None:
        """What the router says there: each start asks several times. ``None``, if it has no such thing (yet)."""
        asked, said = self._said.get(path, (-_REMEMBER, ""))
        if time.monotonic() >= asked + _REMEMBER:
            answer = self._call("GET", path, also=(404, 405))
            if answer.status != 200:
                return None
            said = answer.text.strip()
            self._said[path] = time.monotonic(), said
        return said

    def _asked_seldom(self, path: str) -> str:
        """What the router says there for as long as it runs; empty if it has no such call.

        Another router may say something else: while a connection of that time lives, the router is the same.
        """
        asked, router, said = self._said_for_good.get(path, (-_REMEMBER_FOR_GOOD, 0, ""))
        if time.monotonic() < asked + _REMEMBER_FOR_GOOD and router == self._http.unbroken() != 0:
            return said
        said = self._remembered(path) or ""
        self._said_for_good[path] = time.monotonic(), self._http.unbroken(), said
        return said

    def _json(self, path: str, accept: str = "*/*") -> Any:
        try:
            return self._call("GET", path, accept=accept).json()
        except ValueError as error:
            raise NotARouter(self.address) from error

    def _call(self, method: str, path: str, *, also: Sequence[int] = (), form: Sequence[tuple[str, str]] = (),
              accept: str = "*/*", timeout: float = 0) -> Answer:
        headers = {"Accept": accept} | ({"Content-Type": _FORM} if form else {})
        try:
            answer = self._asked(method, path, urlencode(form).encode() if form else None, headers,
                                 timeout or self.timeout)
        except NoAnswer as error:
            raise self._unanswered(error) from error
        if answer.status >= 300 and answer.status not in also:
            raise self._refused(answer)
        return answer

    def _refused(self, answer: Answer) -> RouterError:
        """The router's own words; what is HTML is not a router's."""
        words = answer.text.strip()
        if words.startswith("<"):
            return NotARouter(self.address)
        if taken := _TAKEN.fullmatch(words):
            return AddressTaken(taken["address"], taken["owner"])
        return RouterError(words or f"the weave router answered {answer.status}", mistaken=answer.status < 500)

    def _asked(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], timeout: float) -> Answer:
        """An answer by the unix socket or by TCP: no call of the API does more the second time."""
        http = self._http
        try:
            return http.ask(method, path, timeout=timeout, headers=headers, repeatable=True, body=body)
        except NoAnswer as error:
            if http is self._tcp or error.timed_out:
                raise
        return self._tcp.ask(method, path, timeout=timeout, headers=headers, repeatable=True, body=body)

    @property
    def _http(self) -> HttpClient:
        """The client of the unix socket if we may use that, else of TCP."""
        return self._unix if self._unix and os.access(self._unix.where, os.W_OK) else self._tcp

    def _unanswered(self, error: NoAnswer) -> RouterUnreachable:
        if error.timed_out:
            return RouterBusy(f"the weave router at {self.address} did not answer in time")
        return RouterUnreachable(f"the weave router at {self.address} did not answer: {error.reason.lower()}",
                                 absent=error.errno == errno.ECONNREFUSED)


def _path(*parts: str) -> str:
    return "".join("/" + quote(part, safe=":") for part in parts)

