"""Who polls: one thread at a time, and another once that one waits."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from weavemw.serving.lead import Lead


@pytest.fixture
def lead() -> Iterator[Lead]:
    made = Lead()
    yield made
    made.end()


def taking(lead: Lead) -> threading.Event:
    """A thread that waits to lead; the event is set once it does."""
    taken = threading.Event()

    def take() -> None:
        lead.take()
        taken.set()

    threading.Thread(target=take, daemon=True).start()
    return taken


def test_one_leads_until_it_leaves(lead: Lead) -> None:
    """And it knows that it does not lead any more."""
    lead.take()
    other = taking(lead)
    assert lead.has(threading.get_ident())
    assert not other.wait(0.05)
    lead.leave()
    assert other.wait(15)
    assert not lead.has(threading.get_ident())


def test_who_does_not_lead_can_leave(lead: Lead) -> None:
    """Nothing comes of it."""
    lead.take()
    thread = threading.Thread(target=lead.leave)
    thread.start()
    thread.join()
    assert lead.has(threading.get_ident())


def test_deputy_replaces_who_is_at_one_thing_for_long(lead: Lead) -> None:
    """Also if it slept, since nothing was done for a while; who polls may do so for as long as it likes."""
    lead.take()
    threading.Thread(target=lead.watch, daemon=True).start()
    other = taking(lead)
    lead.polls()
    assert not other.wait(2)
    lead.begins()
    assert other.wait(15)


def test_end_lets_all_go_on(lead: Lead) -> None:
    """Each that takes the lead then passes it on."""
    lead.take()
    deputy = threading.Thread(target=lead.watch, daemon=True)
    deputy.start()
    others = [taking(lead)]
    lead.end()
    assert all(other.wait(15) for other in others)
    deputy.join(15)
    assert not deputy.is_alive()
