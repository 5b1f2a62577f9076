from __future__ import annotations

import pytest

from weavemw.errors import BadRequest
from weavemw.router.status import blocks, columns, formatted

REPORT = {"Version": "1", "IPAM": {"Range": "10.32.0.0/12", "InUse": 3}, "DNS": None}


def test_blocks() -> None:
    """Keys are right-aligned, and a blank line parts the services."""
    assert blocks({"Service": "a", "Range": "r"}, {"Service": "b"}) == (
        "        Service: a\n          Range: r\n\n        Service: b\n")


def test_columns() -> None:
    """Columns are as wide as their widest value, without blanks at the end of a line."""
    assert columns([("web", "10.32.0.1"), ("database", "")]) == "web      10.32.0.1\ndatabase\n"
    assert columns([]) == ""


@pytest.mark.parametrize(("template", "text"), [
    ("{{.IPAM.Range}}", "10.32.0.0/12"), ("{{ .IPAM.InUse }} of {{.Version}}", "3 of 1"), ("plain", "plain"),
    ("{{json .IPAM}}", '{"Range": "10.32.0.0/12", "InUse": 3}'), ("{{json .IPAM.Range}}", '"10.32.0.0/12"'),
    ("{{json .DNS}}", "null"), ("{{.IPAM}}", '{"Range": "10.32.0.0/12", "InUse": 3}'),
])
def test_formatted(template: str, text: str) -> None:
    """Paths of a Go template are filled in."""
    assert formatted(REPORT, template) == text


@pytest.mark.parametrize("template", ["{{range .IPAM}}", "{{.Nothing}}", "{{.Version.More}}", "{{", "{{}}"])
def test_not_formatted(template: str) -> None:
    """What is more than a path, or leads nowhere, is refused."""
    with pytest.raises(BadRequest, match="template"):
        formatted(REPORT, template)
