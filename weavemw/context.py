"""What one middleware leaves for another in ``environ``: every key, its type, who writes it.

=======================  ===========================  ========================================
key                      type                         written by
=======================  ===========================  ========================================
``weavemw.call``         ``routes.Call | None``       whoever asks first (`routes.call_of`)
``weavemw.body``         ``payload.Body``             whoever asks first (`payload.body_of`)
``weavemw.decision``     ``decision.Decision``        CidrParser, on create, start and restart
``weavemw.names``        ``decision.NamesFor``        DnsInjector, on start and restart
``weavemw.lease``        ``decision.Lease``           IpamClient, on start and restart
``weavemw.start``        ``starting.Start``           IpamClient, on start and restart
``weavemw.running``      ``container.Container``      CommandChecker, after a start
``weavemw.headers``      ``list[tuple[str, str]]``    hijack: the request's headers as sent
``weavemw.connection``   ``hijack.ClientConnection``  a server that gives its connections away
``weavemw.handover``     ``hijack.Offer``             hijack: the offer to take the connection
``weavemw.client_gone``  ``Callable[[], bool]``       hijack: whether the client has left
``weavemw.request_id``   ``str``                      ErrorResponder, for logs
``weavemw.filter``       ``relay.Filter``             TraceRemover, on events
``weavemw.reviser``      ``hijack.Reviser``           TraceRemover, on what can show the wait program
=======================  ===========================  ========================================

A missing key means that nobody upstream had anything to say: each middleware
then passes the request on untouched.
"""

from __future__ import annotations

__all__ = ["BODY", "CALL", "CLIENT_GONE", "CONNECTION", "DECISION", "FILTER", "HANDOVER", "HEADERS", "LEASE",
           "NAMES", "REQUEST_ID", "REVISER", "RUNNING", "START"]

CALL = "weavemw.call"
BODY = "weavemw.body"
DECISION = "weavemw.decision"
NAMES = "weavemw.names"
LEASE = "weavemw.lease"
START = "weavemw.start"
RUNNING = "weavemw.running"
HEADERS = "weavemw.headers"
CLIENT_GONE = "weavemw.client_gone"
REQUEST_ID = "weavemw.request_id"
HANDOVER = "weavemw.handover"
CONNECTION = "weavemw.connection"
FILTER = "weavemw.filter"
REVISER = "weavemw.reviser"
