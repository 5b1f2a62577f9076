from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from weavemw.errors import BadRequest
from weavemw.router.names import Names, Record
from weavemw.router.store import Database, blob, key_of
from weavemw.router.zone import Zone, wire

ONE, TWO = ip_address("10.32.0.1"), ip_address("10.32.0.2")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "router.db")
    yield database
    database.close()


@pytest.fixture
def names(database: Database) -> Names:
    return Names(database, Zone("weave.local."))


def held(names: Names) -> list[tuple[str, str, str]]:
    return [(record.owner, str(record.address), record.fqdn) for record in names.records()]


def test_records_survive(names: Names, database: Database) -> None:
    """Whoever opens the database next has the same records, and the same zone."""
    names.add("abc", ONE, "Web.weave.local")
    names.add("weave:extern", TWO, "extra.weave.local.")
    again = Names(database, Zone("weave.local."))
    assert again.records() == names.records() == (
        Record("weave:extern", TWO, "extra.weave.local."), Record("abc", ONE, "Web.weave.local."))
    assert again.zone.records == names.zone.records


def test_outside_of_the_domain(names: Names) -> None:
    """A name outside of the domain is accepted and not kept."""
    assert names.add("abc", ONE, "www.example.com") is False
    assert names.records() == ()
    assert names.add("abc", ONE, "web.weave.local") is True


def test_names_of_another_domain_wait(database: Database) -> None:
    """After a change of the domain, the old one's names are not served; they are back when it is."""
    Names(database, Zone("weave.local.")).add("abc", ONE, "web.weave.local")
    assert len(Names(database, Zone("other.example."))) == 0
    assert len(Names(database, Zone("weave.local."))) == 1


def test_case(names: Names) -> None:
    """The same name in other letters is the same record."""
    names.add("abc", ONE, "Web.weave.local")
    names.add("abc", ONE, "wEB.weave.local")
    assert held(names) == [("abc", "10.32.0.1", "Web.weave.local.")]
    assert names.remove(fqdn="WEB.WEAVE.LOCAL") == 1


@pytest.mark.parametrize(("given", "left"), [
    pytest.param({"owner": "abc"}, ["def 10.32.0.1 web"], id="a container's"),
    pytest.param({"owner": "abc", "address": ONE}, ["abc 10.32.0.2 web", "def 10.32.0.1 web"], id="one address's"),
    pytest.param({"owner": "abc", "fqdn": "db.weave.local"}, ["abc 10.32.0.2 web", "abc 10.32.0.1 web",
                                                             "def 10.32.0.1 web"], id="one name's"),
    pytest.param({"fqdn": "web.weave.local"}, ["abc 10.32.0.1 db"], id="a name's, whoever has it"),
    pytest.param({"address": ONE}, ["abc 10.32.0.2 web"], id="an address's, whoever has it"),
    pytest.param({"owner": "abc", "address": TWO, "fqdn": "db.weave.local"}, ["abc 10.32.0.1 db", "abc 10.32.0.2 web",
                                                                             "abc 10.32.0.1 web", "def 10.32.0.1 web"],
                 id="none that matches all"),
    pytest.param({}, [], id="everything"),
])
def test_remove(names: Names, database: Database, given: dict[str, object], left: list[str]) -> None:
    """What matches all that is given is removed, also from the database."""
    for owner, address, name in [("abc", ONE, "web"), ("abc", TWO, "web"), ("abc", ONE, "db"), ("def", ONE, "web")]:
        names.add(owner, address, f"{name}.weave.local")
    assert names.remove(**given) == 4 - len(left)  # type: ignore[arg-type]
    for each in (names, Names(database, Zone("weave.local."))):
        assert sorted(" ".join(row).removesuffix(".weave.local.") for row in held(each)) == sorted(left)


def test_shared_names_and_addresses(names: Names) -> None:
    """A name has the addresses of all its owners, once each, and keeps those of the others when one goes."""
    for owner, address in (("abc", ONE), ("def", ONE), ("def", TWO)):
        names.add(owner, address, "web.weave.local")
    assert count(names, "web.weave.local.") == 2
    names.remove("abc")
    assert count(names, "web.weave.local.") == 2
    names.remove("def", TWO)
    assert count(names, "web.weave.local.") == 1


def count(names: Names, name: str) -> int:
    return sum(map(len, names.zone.records[wire(name)].values()))


def test_load_after_a_loss(names: Names, database: Database) -> None:
    """After a transaction was lost, records are read anew, and the zone with them."""
    names.add("abc", ONE, "web.weave.local")
    database.begin()
    names.add("abc", ONE, "lost.weave.local")
    database.rollback()
    names.load()
    assert held(names) == [("abc", "10.32.0.1", "web.weave.local.")]
    assert wire("lost.weave.local.") not in names.zone.records


def test_no_host_name(names: Names) -> None:
    """What is no host name is refused."""
    with pytest.raises(BadRequest, match=r"invalid host name: 'a\.\.b'"):
        names.add("abc", ONE, "a..b")


def test_many_addresses_of_a_name_are_read_once(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read at the start goes into the zone once for each name and address, not once for each record."""
    with database.transaction():
        for number in range(50):
            database.execute("INSERT INTO name (owner, key, fqdn) VALUES (?, ?, ?)", f"c{number}",
                             blob(key_of(ONE + number)), "many.weave.local.")
    published: list[int] = []
    monkeypatch.setattr(Zone, "publish", lambda self, name, addresses: published.append(len(addresses)))
    Names(database, Zone("weave.local."))
    assert published == [50]


def test_names_stay_if_they_can_not_be_read_anew(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that can't be read makes nobody forget the names that are known."""
    def broken(statement: str) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    names.add("abc", ONE, "web.weave.local")
    monkeypatch.setattr(names, "_execute", broken)
    with pytest.raises(sqlite3.OperationalError):
        names.load()
    assert held(names) == [("abc", "10.32.0.1", "web.weave.local.")]
    assert wire("web.weave.local.") in names.zone.records
