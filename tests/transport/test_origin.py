from __future__ import annotations

import pytest

from weavemw.transport.origin import own_names, strange_name


@pytest.mark.parametrize(("host", "strange"), [
    ("", ""), ("127.0.0.1:6784", ""), ("[fd00::1]:6784", ""), ("LocalHost:6784", ""), ("x.localhost", ""),
    ("Host1:6784", ""), ("host1.", ""), ("login:6784", "login"), ("evil.example.net:6784", "evil.example.net"),
    ("0x7f.1:6784", "0x7f.1"), ("127.0.0.1.evil.net", "127.0.0.1.evil.net"),
])
def test_only_names_of_this_host_are_none(host: str, strange: str) -> None:
    """A name without a dot is one of ours only if it is known, where that matters."""
    assert strange_name(host, lambda: {"host1"}, strict=True) == strange


def test_names_are_not_asked_for_without_need() -> None:
    """They may need an answer of the DNS."""
    assert strange_name("127.0.0.1", lambda: pytest.fail("asked")) == ""
    assert strange_name("docker:2375", lambda: pytest.fail("asked")) == ""


def test_the_host_knows_its_names() -> None:
    """Its own, and those that it is told."""
    assert "alias.example.org" in own_names(["alias.example.org"])
