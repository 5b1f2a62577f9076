"""One small tree of errors, each of which knows what to answer.

A docker client shows the ``message`` of a JSON body; so every error here
carries the HTTP status that the daemon would use and a message fit to be read
at a terminal. :class:`weavemw.middleware.errors.ErrorResponder` turns them
into responses, the command line turns them into one line on stderr.

Programs look at the class or at ``code``, which stays as it is, and at the
attributes; messages are for people, and may change.

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
    "NoSuchContainer",
    "NotARouter",
    "Overloaded",
    "PayloadTooLarge",
    "RequestTimeout",
    "RouterBusy",
    "RouterError",
    "RouterUnreachable",
    "SettingsError",
    "Unsupported",
    "WeaveError",
]


class WeaveError(Exception):
    """Base of all errors of weavemw; ``status`` is the HTTP status to answer with.

    ``hint`` says what would help, where that is known and the message does not say it.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "failed"

    def __init__(self, message: str = "", *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    @property
    def message(self) -> str:
        """What the person at the terminal is to read."""
        return str(self)

    @property
    def advice(self) -> str:
        """The message, and the hint if there is one."""
        return f"{self.message}; {self.hint}" if self.hint else self.message

    @property
    def is_mistake(self) -> bool:
        """Whether what was asked for can't be, and nothing is wrong here: then it is no trouble of the host's."""
        return self.status < 500

    @property
    def errno(self) -> int:
        """The number of the system's error behind this one (``errno.ECONNREFUSED``); 0 if there is none."""
        cause = self.__cause__
        while cause is not None and not (isinstance(cause, OSError) and cause.errno):
            cause = cause.__cause__
        return cause.errno or 0 if isinstance(cause, OSError) else 0


class BadRequest(WeaveError):
    """The client asked for something that can't be."""

    status = 400
    code = "bad_request"


class InvalidCidr(BadRequest):
    """A ``WEAVE_CIDR`` (or an address on the command line) that makes no sense."""

    code = "invalid_cidr"

    def __init__(self, value: str, reason: str) -> None:
        super().__init__(f'invalid WEAVE_CIDR "{value}": {reason}')
        self.value = value
        self.reason = reason


class Forbidden(WeaveError):
    """A request that a web page made a browser send."""

    status = 403
    code = "forbidden"


class RequestTimeout(WeaveError):
    """A request that makes no progress."""

    status = 408
    code = "request_timeout"


class Overloaded(WeaveError):
    """As many requests wait as may: asking again later may help."""

    status = 503
    code = "overloaded"


class PayloadTooLarge(WeaveError):
    """A body that must be read whole is larger than we are ready to hold."""

    status = 413
    code = "payload_too_large"


class Unsupported(WeaveError):
    """The WSGI server that we run under can't do what a call needs."""

    status = 501
    code = "unsupported"


class Conflict(WeaveError):
    """What was asked for collides with something that exists."""

    status = 409
    code = "conflict"


class SettingsError(WeaveError):
    """A setting, an option or a file named in one is wrong."""

    code = "bad_setting"


class NetworkError(WeaveError):
    """The kernel refused to make, move or configure an interface."""

    code = "network_failed"


class RouterError(WeaveError):
    """The router answered, and said no; the message is the router's own. ``mistaken``: by its 4xx."""

    code = "router_refused"

    def __init__(self, message: str = "", *, hint: str = "", mistaken: bool = False) -> None:
        super().__init__(message, hint=hint)
        self._mistaken = mistaken

    @property
    def is_mistake(self) -> bool:
        """As of all errors; the status, which is the original's, does not say it."""
        return self._mistaken


class AddressTaken(RouterError):
    """Somebody else holds the address."""

    code = "address_taken"

    def __init__(self, address: str, owner: str) -> None:
        super().__init__(f"Unable to claim: address {address} is already owned by {owner}", mistaken=True)
        self.address = address
        self.owner = owner


class NotARouter(RouterError):
    """What answered at the router's address is something else."""

    code = "not_a_router"

    def __init__(self, address: str) -> None:
        super().__init__(f"what answers at {address} is no weave router", hint="correct WEAVE_HTTP_ADDR, or end it")
        self.address = address


class RouterUnreachable(RouterError):
    """Nothing answered at the router's address, or not in time; ``absent``: nothing listens there."""

    code = "router_unreachable"

    def __init__(self, message: str = "", *, absent: bool = False) -> None:
        super().__init__(message)
        self.absent = absent


class RouterBusy(RouterUnreachable):
    """The router took the question and did not answer in time: asking again may help."""

    code = "router_busy"


class ClientGone(WeaveError):
    """The client closed its connection while we worked for it; nobody reads the answer (499 is nginx's number)."""

    status = 499
    code = "client_gone"


class NoAnswer(WeaveError):
    """A server that we asked gave no proper answer; ``reason`` says why, in the system's words.

    ``timed_out``: it took the request, and had no answer in time.
    """

    status = 502
    code = "no_answer"

    def __init__(self, reason: str, *, timed_out: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.timed_out = timed_out


class DockerUnreachable(WeaveError):
    """Nothing answered at Docker's socket."""

    status = 502
    code = "docker_unreachable"


class DockerError(WeaveError):
    """The daemon refused one of our own questions; status and message are the daemon's."""

    code = "docker_refused"

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status  # type: ignore[misc]  # the one error whose status is not its class's


class NoSuchContainer(DockerError):
    """The daemon knows no container of this name or id."""

    code = "no_such_container"

    def __init__(self, container: str, message: str) -> None:
        super().__init__(404, message)
        self.container = container
