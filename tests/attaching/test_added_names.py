from __future__ import annotations

from ipaddress import ip_interface
from pathlib import Path

import pytest

from weavemw.attaching.added_names import Added, AddedNames

ID, OTHER = "1" * 64, "2" * 64
SHOP, HERE = Added("shop.weave.local"), Added("shop.weave.local", ip_interface("10.2.1.27/32"))
ALL = ip_interface("10.32.0.1/12")


@pytest.fixture
def names(tmp_path: Path) -> AddedNames:
    return AddedNames(tmp_path / "names")


def test_what_was_added_is_there_for_whoever_looks(names: AddedNames) -> None:
    """Names are kept by container, each once, in their order."""
    assert (names.of(ID), names.owners()) == ((), set())
    names.add(ID, [SHOP])
    names.add(ID, [HERE, SHOP])
    assert AddedNames(names.directory).of(ID) == (SHOP, HERE)
    assert (names.of(OTHER), names.owners()) == ((), {ID})


@pytest.mark.parametrize(("fqdn", "address", "left"), [
    ("", None, ()), ("SHOP.weave.local", None, ()), ("other.weave.local", None, (SHOP, HERE)),
    ("", HERE.address, (SHOP,)), ("shop.weave.local", ALL, (SHOP, HERE)),
])
def test_what_matches_is_removed(names: AddedNames, fqdn: str, address: object, left: object) -> None:
    """By name in whatever case, by address, by both, or all; nothing is left of the last one."""
    names.add(ID, [SHOP, HERE])
    names.remove(ID, fqdn, address)  # type: ignore[arg-type]
    assert names.of(ID) == left
    assert names.owners() == ({ID} if left else set())


def test_nothing_is_left_of_who_is_forgotten(names: AddedNames) -> None:
    """Forgetting may be done again."""
    names.add(ID, [SHOP])
    for _ in range(2):
        names.forget(ID)
    assert list(names.directory.iterdir()) == []


@pytest.mark.parametrize(("name", "addresses"), [(SHOP, (ALL,)), (HERE, (HERE.address,))])
def test_a_name_is_of_all_addresses_or_of_one(name: Added, addresses: object) -> None:
    """Without an address of its own it names those that the container has."""
    assert name.at((ALL,)) == addresses


@pytest.mark.parametrize("damaged", [b"shop not-an-address", b" 10.32.0.1/24", b"\x00" * 20, b"\xff\xfe", b"a\x07b"])
def test_a_damaged_line_costs_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture, damaged: bytes) -> None:
    """After a power failure, say: what can be read counts, what can't is logged."""
    names = AddedNames(tmp_path)
    (tmp_path / ID).write_bytes(b"shop\n" + damaged + b"\ntill 10.32.0.1/24\n")
    assert [each.fqdn for each in names.of(ID)] == ["shop", "till"]
    assert "is damaged" in caplog.text
