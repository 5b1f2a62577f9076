from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from weavemw.ops import logs
from weavemw.testing import await_true

_FILTER = logs.Summed.filter  # of which other tests know nothing


@pytest.fixture
def filtering(monkeypatch: pytest.MonkeyPatch) -> logs.Summed:
    """Three of a kind pass."""
    monkeypatch.setattr(logs.Summed, "filter", _FILTER)
    return logs.Summed(3, 60)


@pytest.fixture
def log(filtering: logs.Summed) -> Iterator[logging.Logger]:
    """A logger that sums up."""
    logger = logging.getLogger("tests.summed")
    logger.addFilter(filtering)
    yield logger
    logger.removeFilter(filtering)


def test_a_message_is_one_line_of_the_log() -> None:
    """Names that clients choose can't pretend to be lines of the log, nor move a terminal's cursor."""
    record = logging.LogRecord("weavemw", logging.INFO, "", 0, "leaving %s alone", ("x\n[ERROR] forged\x1b[2J",), None)
    assert logs.OneLine("%(message)s").format(record) == r"leaving x\x0a[ERROR] forged\x1b[2J alone"


def test_many_lines_of_a_kind_are_summed_up(log: logging.Logger, filtering: logs.Summed,
                                            caplog: pytest.LogCaptureFixture) -> None:
    """One per refused client would push everything else out of the log."""
    for number in range(5453):
        log.warning("refused %s", f"192.0.2.{number}")
    log.error("something %s", "else")
    filtering.end()
    assert caplog.messages == ["refused 192.0.2.0", "refused 192.0.2.1", "refused 192.0.2.2", "something else",
                               "refused 192.0.2.3 … and 5,449 more in 60 s"]
    assert caplog.records[-1].levelname == "WARNING"


def test_a_level_is_a_kind_of_its_own(log: logging.Logger, filtering: logs.Summed,
                                      caplog: pytest.LogCaptureFixture) -> None:
    """The fourth of a kind is shown at the end, as it was; then they pass again."""
    caplog.set_level("INFO")
    for _ in range(4):
        log.info("said %s", "this")
    log.warning("said %s", "that")
    filtering.end()
    log.info("said %s", "these")
    assert caplog.messages == [*["said this"] * 3, "said that", "said this", "said these"]


def test_it_is_said_without_being_asked(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the time is over, though no line follows."""
    monkeypatch.setattr(logs.Summed, "filter", _FILTER)
    log, filtering = logging.getLogger("tests.alone"), logs.Summed(0, 0.05)
    log.addFilter(filtering)
    log.warning("withheld")
    await_true(lambda: caplog.messages == ["withheld"])
    log.removeFilter(filtering)


def test_a_logger_sums_up_once() -> None:
    """However many ask for it."""
    assert logs.summed("tests.of-a-module") is logs.summed("tests.of-a-module")
    assert [type(each) for each in logging.getLogger("tests.of-a-module").filters] == [logs.Summed]
