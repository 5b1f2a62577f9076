"""One start of a container, from its addresses to its answer: what the middlewares that take part in it share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager

from weavemw.attaching.allocation import still_there
from weavemw.attaching.attachment import Attachment, NotRunning
from weavemw.attaching.decision import Lease, NamesFor
from weavemw.attaching.locks import Busy
from weavemw.attaching.owners import clarify
from weavemw.dockerapi.container import Container
from weavemw.errors import DockerError, DockerUnreachable, RouterError
from weavemw.network.addresses import Wanted

__all__ = ["Start"]

_log = logging.getLogger(__name__)

_STARTED, _ALREADY_STARTED = 204, 304  # a redirect (to a cleaned path) starts nothing


class Start:
    """A start or restart of a container that is to be attached, as long as its request lasts.

    ::

        locked ───► reserved ───► the daemon starts it ───► attached ───► the client hears of it
                       │ fails             │ refuses            │ fails
                       ▼                   ▼                    ▼
                  removed, if         addresses given      killed before its command ran; removed, if
                  AutoRemove          back                 AutoRemove; addresses given back

    The lock is held from the first to the last, so that the watcher doesn't attach what is being refused. Addresses
    are given back if they are new, and no process has them. ``container`` may be as it was before the lock was had:
    what is done if something fails depends on what it is then.
    """

    def __init__(self, attachment: Attachment, container: Container, lease: Lease | None = None) -> None:
        self.attachment = attachment
        self.container = container
        self.lease = lease or Lease(())
        self._code = 0
        self._is_locked = False

    @contextmanager
    def locked(self, timeout: float = 30.0) -> Iterator[None]:
        """Hold the container's lock, unless this start does already.

        Raises :class:`~weavemw.attaching.locks.Busy` after ``timeout`` seconds.
        """
        if self._is_locked:
            yield
            return
        with self._lock(timeout):
            self._is_locked = True
            try:
                yield
            finally:
                self._is_locked = False

    @contextmanager
    def reserved(self, wanted: Iterable[Wanted], *, timeout: float,
                 client_gone: Callable[[], bool] = still_there) -> Iterator[Lease]:
        """Have addresses for the block, in which the daemon is asked; they go back if it fails or doesn't start it.

        Raises as :func:`weavemw.attaching.allocation.allocate` does.
        """
        try:
            self.lease = self._allocated(wanted, timeout, client_gone)
        except BaseException:
            self._remove_unstarted()
            raise
        try:
            yield self.lease
        except BaseException:
            self._give_back()
            raise
        if not self._is_started:
            self._give_back()

    def answered(self, code: int) -> None:
        """What the daemon said, by its HTTP status."""
        self._code = code

    def attach(self, names_for: NamesFor, seen: Container | None = None) -> None:
        """Attach what the daemon started, by the names that it has then; if that fails, refuse the start and raise.

        ``seen`` is the container if it was inspected since.
        """
        if not self._is_started:
            return
        try:
            self.attachment.attach_held(self.container.id, self.lease.addresses, names_for, seen)
        except NotRunning:
            _log.info("container %s ended before it was attached", self.container.short_id)
        except BaseException:
            if self._code != _ALREADY_STARTED:  # else its command may have run for long
                self._refuse()
            raise

    @property
    def _is_started(self) -> bool:
        return self._code in (_STARTED, _ALREADY_STARTED)

    @contextmanager
    def _lock(self, timeout: float) -> Iterator[None]:
        with ExitStack() as held:
            try:
                held.enter_context(self.attachment.lock(self.container.id, timeout))
            except Busy as error:
                busy = f"container {self.container.title} is being started, attached or detached by somebody else"
                raise Busy(busy, hint="try again") from error
            yield

    def _allocated(self, wanted: Iterable[Wanted], timeout: float, client_gone: Callable[[], bool]) -> Lease:
        try:
            return self.attachment.allocate(self.container, wanted, timeout=timeout, client_gone=client_gone)
        except RouterError as error:
            clarify(error, self.attachment.docker)
            raise

    def _give_back(self) -> None:
        if self.lease.fresh and not self.attachment.may_run(self.container.id):
            self.attachment.give_back(self.container.id, self.lease.fresh)

    def _remove_unstarted(self) -> None:
        """``docker run --rm`` waits until the container is gone, and the daemon, which never started it, won't."""
        if self.container.auto_remove and self.attachment.never_ran(self.container):
            with self._logged("is left"):
                self.attachment.docker.remove(self.container.id)

    def _refuse(self) -> None:
        with self._logged("still waits"):
            self.attachment.docker.kill(self.container.id)
            if self.container.auto_remove:
                self.attachment.docker.remove(self.container.id)

    @contextmanager
    def _logged(self, what: str) -> Iterator[None]:
        try:
            yield
        except (DockerError, DockerUnreachable) as error:
            _log.error("container %s, whose start was refused, %s: %s", self.container.short_id, what, error)
