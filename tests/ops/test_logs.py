from __future__ import annotations

import logging

from weavemw.ops import logs


def test_a_message_is_one_line_of_the_log() -> None:
    """Names that clients choose can't pretend to be lines of the log, nor move a terminal's cursor."""
    record = logging.LogRecord("weavemw", logging.INFO, "", 0, "leaving %s alone", ("x\n[ERROR] forged\x1b[2J",), None)
    assert logs.OneLine("%(message)s").format(record) == r"leaving x\x0a[ERROR] forged\x1b[2J alone"
