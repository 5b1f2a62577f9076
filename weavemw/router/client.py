"""The proxy's side of a weave router's HTTP API.

Only this protocol is spoken, so that a real Weave Net router (2.8) can stand
behind the proxy as well as ours. Every call has a limit; what can't be reached
raises :class:`~weavemw.errors.RouterUnreachable`, a refusal raises
:class:`~weavemw.errors.RouterError` with the router's own words.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from typing import Protocol
from urllib.parse import quote

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ProtocolError

from weavemw.errors import RouterBusy, RouterError, RouterUnreachable

__all__ = ["Interface", "Router", "RouterClient"]

Interface = IPv4Interface | IPv6Interface

_IDLE = 256  # connections that are kept for later calls: there are not so many threads
_REMEMBER = 2.0  # seconds, for what changes only when a router is started, or Docker's bridge made


class Router(Protocol):
    """What the middlewares ask of a router; :class:`weavemw.testing.FakeRouter` is another one."""

    def allocate(self, container_id: str, subnet: str = "") -> Interface:
        """An address for the container, in the default subnet or in ``subnet`` ("10.32.2.0/24").

        Asked again: the same address.
        """

    def claim(self, container_id: str, address: Interface) -> None:
        """Reserve exactly this address."""

    def default_subnet6(self) -> str:
        """Where containers get an IPv6 address besides ("fd00:10::/64"); empty if there is no range of IPv6."""

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
    """:class:`Router` over HTTP; ``address`` is host:port, ``timeout`` in seconds per call.

    An allocation may take as long as the router's peers need to agree: after
    ``patience`` seconds it raises :class:`~weavemw.errors.RouterBusy`, and can be asked for again.
    """

    def __init__(self, address: str, *, timeout: float = 5.0, patience: float = 0.8,
                 session: Callable[[], requests.Session] = requests.Session) -> None:
        self.address = address
        self.timeout = timeout
        self.patience = patience
        self._session = session()
        self._session.trust_env = False
        self._session.mount("http://", HTTPAdapter(pool_connections=1, pool_maxsize=_IDLE))
        self._said: dict[str, tuple[float, str | None]] = {}

    def allocate(self, container_id: str, subnet: str = "") -> Interface:
        path = _path("ip", container_id, *subnet.split("/", 1) if subnet else ())
        return ip_interface(self._call("POST", path, timeout=self.patience).text.strip())

    def claim(self, container_id: str, address: Interface) -> None:
        self._call("PUT", _path("ip", container_id, *str(address).split("/")), timeout=self.patience)

    def addresses(self, container_id: str) -> tuple[Interface, ...]:
        return self._owned(f"?containerid={quote(container_id)}").get(container_id, ())

    def owned(self) -> Mapping[str, tuple[Interface, ...]]:
        return self._owned()

    def default_subnet6(self) -> str:
        return self._remembered("/ipinfo/defaultsubnet6") or ""

    def release(self, container_id: str, address: Interface | None = None) -> None:
        path = _path("ip", container_id, str(address.ip)) if address else _path("ip", container_id)
        self._call("DELETE", path, also=(400,))

    def register(self, container_id: str, address: Interface, fqdn: str) -> None:
        self._call("PUT", _path("name", container_id, str(address.ip)), data=[("fqdn", fqdn)])

    def deregister(self, container_id: str, address: Interface | None = None, fqdn: str = "") -> None:
        path = _path("name", container_id, *([str(address.ip)] if address else []))
        self._call("DELETE", f"{path}?fqdn={quote(fqdn)}" if fqdn else path)

    def names(self) -> tuple[Mapping[str, object], ...]:
        return tuple(self._call("GET", "/name", headers={"Accept": "application/json"}).json() or ())

    def domain(self) -> str:
        return self._remembered("/domain") or ""

    def dns_address(self, network: str = "") -> str | None:
        return self._remembered(f"/dns-address?network={quote(network)}" if network else "/dns-address")

    def ask(self, method: str, path: str, form: Sequence[tuple[str, str]] = (), *, also: Sequence[int] = (),
            accept: str = "*/*") -> str:
        """Any other call of the API: the text of its answer; ``also`` are statuses that are no failure."""
        return self._call(method, path, also=also, data=form, headers={"Accept": accept}).text

    def _owned(self, query: str = "") -> dict[str, tuple[Interface, ...]]:
        reply = self._call("GET", "/ip" + query).json()
        return {row["containerid"]: tuple(map(ip_interface, row["addrs"])) for row in reply.get("owned") or ()}

    def _remembered(self, path: str) -> str | None:
        """What the router says there: each start asks several times. ``None``, if it has no such thing (yet)."""
        asked, said = self._said.get(path, (-_REMEMBER, None))
        if time.monotonic() >= asked + _REMEMBER:
            reply = self._call("GET", path, also=(404, 405))
            if reply.status_code != 200:
                return None
            said = reply.text.strip()
            self._said[path] = time.monotonic(), said
        return said

    def _call(self, method: str, path: str, *, also: Sequence[int] = (), data: Sequence[tuple[str, str]] = (),
              headers: Mapping[str, str] | None = None, timeout: float | None = None) -> requests.Response:
        ask = partial(self._session.request, method, f"http://{self.address}{path}", data=list(data), headers=headers,
                      timeout=timeout or self.timeout, allow_redirects=False)
        try:
            reply = _asked(ask)
        except requests.ReadTimeout as error:
            raise RouterBusy(f"the weave router at {self.address} did not answer in time") from error
        except requests.RequestException as error:
            raise RouterUnreachable(f"the weave router at {self.address} did not answer: {_cause(error)}") from error
        if reply.status_code >= 300 and reply.status_code not in also:
            raise RouterError(reply.text.strip() or f"the weave router answered {reply.status_code}")
        return reply


def _asked(ask: Callable[[], requests.Response]) -> requests.Response:
    """Ask, and once more if the connection was one that the router had just closed: asking twice changes nothing."""
    try:
        return ask()
    except requests.ConnectionError as error:
        cause = error.args[0] if error.args else None
        if not isinstance(cause, ProtocolError):
            raise
    return ask()


def _path(*parts: str) -> str:
    return "".join("/" + quote(part, safe=":") for part in parts)


def _cause(error: Exception) -> str:
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    return "connection refused" if "refused" in str(error) else type(error).__name__
