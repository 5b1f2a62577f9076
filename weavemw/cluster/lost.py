"""What may go wrong between a host and the store."""

from __future__ import annotations

from weavemw.errors import WeaveError

__all__ = ["Compacted", "HistoryLost", "StoreRefused", "StoreUnavailable", "Unsure"]


class StoreUnavailable(WeaveError):
    """No member of the store answers, or none can: they lack a leader. Nothing was changed."""

    status = 503
    code = "store_unavailable"


class Unsure(StoreUnavailable):
    """The answer was lost: it may or may not have been done."""


class StoreRefused(WeaveError):
    """The store answered, and said no: for its password, its rights, its limits."""

    status = 503
    code = "store_refused"


class Compacted(StoreRefused):
    """What came to be since a revision is no longer known: list again."""


class HistoryLost(StoreRefused):
    """The store's revision went back: it was restored from a backup, or is another one."""
