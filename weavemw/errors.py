"""One small tree of errors, each of which knows what to answer.

A docker client shows the ``message`` of a JSON body; so every error here
carries the HTTP status that the daemon would use and a message fit to be read
at a terminal. :class:`weavemw.middleware.errors.ErrorResponder` turns them
into responses, the command line turns them into one line on stderr.

Foreign exceptions are translated where they arrive, chained with ``from``.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AddressTaken",
    "BadRequest",
    "ClientGone",
    "Conflict",
    "DockerError",
    "DockerUnreachable",
    "Forbidden",
    "InvalidCidr",
    "NetworkError",
    "NoAnswer",
    "Overloaded",
    "PayloadTooLarge",
    "RequestTimeout",
    "RouterBusy",
    "RouterError",
    "RouterUnreachable",
    "SettingsError",
    "WeaveError",
]


class WeaveError(Exception):
    """Base of all errors of weavemw; ``status`` is the HTTP status to answer with."""

    status: ClassVar[int] = 500

    @property
    def message(self) -> str:
        """What the person at the terminal is to read."""
        return str(self)


class BadRequest(WeaveError):
    """The client asked for something that can't be."""

    status = 400


class InvalidCidr(BadRequest):
    """A ``WEAVE_CIDR`` (or an address on the command line) that makes no sense."""

    def __init__(self, value: str, reason: str) -> None:
        super().__init__(f'invalid WEAVE_CIDR "{value}": {reason}')
        self.value = value
        self.reason = reason


class Forbidden(WeaveError):
    """A request that a web page made a browser send."""

    status = 403


class RequestTimeout(WeaveError):
    """A request that makes no progress."""

    status = 408


class Overloaded(WeaveError):
    """As many requests wait as may: asking again later may help."""

    status = 503


class PayloadTooLarge(WeaveError):
    """A body that must be read whole is larger than we are ready to hold."""

    status = 413


class Conflict(WeaveError):
    """What was asked for collides with something that exists."""

    status = 409


class SettingsError(WeaveError):
    """A setting, an option or a file named in one is wrong."""


class NetworkError(WeaveError):
    """The kernel refused to make, move or configure an interface."""


class RouterError(WeaveError):
    """The router answered, and said no; the message is the router's own."""


class AddressTaken(RouterError):
    """Somebody else holds the address."""

    def __init__(self, address: str, owner: str) -> None:
        super().__init__(f"Unable to claim: address {address} is already owned by {owner}")


class RouterUnreachable(RouterError):
    """Nothing answered at the router's address, or not in time."""


class RouterBusy(RouterUnreachable):
    """The router took the question and did not answer in time: asking again may help."""


class ClientGone(WeaveError):
    """The client closed its connection while we worked for it; nobody reads the answer (499 is nginx's number)."""

    status = 499


class NoAnswer(WeaveError):
    """A server that we asked gave no proper answer; ``reason`` says why, in the system's words.

    ``timed_out``: it took the request, and had no answer in time. ``errno`` is the system's number where connecting
    failed, else 0.
    """

    status = 502

    def __init__(self, reason: str, *, timed_out: bool = False, errno: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.timed_out = timed_out
        self.errno = errno


class DockerUnreachable(WeaveError):
    """Nothing answered at Docker's socket."""

    status = 502


class DockerError(WeaveError):
    """The daemon refused one of our own questions; status and message are the daemon's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status  # type: ignore[misc]  # the one error whose status is not its class's
