"""What one middleware leaves for another in ``environ``: every key, its type, who writes it.

====================  ==============================  ======================================
key                   type                            written by
====================  ==============================  ======================================
``weavemw.endpoint``  :class:`~weavemw.endpoints.     whoever asks first (`endpoints.of`)
                      Endpoint` or ``None``
``weavemw.body``      :class:`~weavemw.payload.Body`  whoever asks first (`payload.body_of`)
``weavemw.decision``  :data:`Decision`                CidrParser, on create, start, restart
``weavemw.names``     ``tuple[str, ...]``             DnsInjector, on start and restart
``weavemw.lease``     :class:`Lease`                  IpamClient, on start and restart
``weavemw.headers``   ``list[tuple[str, str]]``       hijack: the request's headers as sent
``weavemw.handover``  :class:`~weavemw.hijack.        hijack: the offer to take the client's
                      Handover`                       connection away from the WSGI server
``weavemw.client_gone``  ``Callable[[], bool]``        hijack: whether the client has left
``weavemw.request_id``   ``str``                       ErrorResponder, for logs
====================  ==============================  ======================================

A missing key means that nobody upstream had anything to say: each middleware
then passes the request on untouched.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipaddress import IPv4Interface, IPv6Interface

    from weavemw.container import Container
    from weavemw.network.addresses import Wanted

__all__ = ["BODY", "CLIENT_GONE", "DECISION", "ENDPOINT", "HANDOVER", "HEADERS", "LEASE", "NAMES", "REQUEST_ID",
           "Attach", "Decision", "Lease", "LeaveAlone"]

ENDPOINT = "weavemw.endpoint"
BODY = "weavemw.body"
DECISION = "weavemw.decision"
NAMES = "weavemw.names"
LEASE = "weavemw.lease"
HEADERS = "weavemw.headers"
CLIENT_GONE = "weavemw.client_gone"
REQUEST_ID = "weavemw.request_id"
HANDOVER = "weavemw.handover"


@dataclass(frozen=True, slots=True)
class Attach:
    """This container is to be on the weave network, with these addresses.

    ``container`` is ``None`` on create, where there is none yet.
    ``image`` is the image's ``Config`` object on create (empty when it has none).
    """

    wanted: tuple[Wanted, ...]
    container: Container | None = None
    image: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LeaveAlone:
    """This container is not ours to touch; ``reason`` completes "leaving container alone because …"."""

    reason: str


Decision = Attach | LeaveAlone


@dataclass(frozen=True, slots=True)
class Lease:
    """Addresses that a container holds at the router.

    ``fresh`` are those of ``addresses`` that this very request made: they are
    given back when the request fails, the others stay.
    """

    addresses: tuple[IPv4Interface | IPv6Interface, ...]
    fresh: tuple[IPv4Interface | IPv6Interface, ...] = ()
