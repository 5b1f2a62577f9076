"""Hostnames and names. Replacements were compared with Go's Regexp.ReplaceAllString."""

from __future__ import annotations

import pytest

from weavemw.attaching.hostnames import (
    Naming,
    fits_as_hostname,
    fqdn_in,
    names_for,
    names_left_out,
    replaced,
    search_domains,
    source_of_hostname,
)
from weavemw.dockerapi.container import Container

ID = "0123456789abcdef" * 4


@pytest.mark.parametrize(("source", "match", "replacement", "expected"), [
    pytest.param("web", "(.*)", "$1", "web", id="default"),
    pytest.param("web", "(.*)", "$1-x", "web-x", id="an empty match at the end does not count"),
    pytest.param("aws-12-web", "^aws-[0-9]+-(.*)$", "my-app-$1", "my-app-web", id="part"),
    pytest.param("web", "^aws-(.*)$", "$1", "web", id="no match keeps it"),
    pytest.param("web-1", "(?P<what>[a-z]+)-(?P<n>[0-9]+)", "${n}x$what", "1xweb", id="names"),
    pytest.param("web", "(.*)", "$1x", "", id="the longest name counts"),
    pytest.param("web", "(.*)", "${1}x", "webx", id="braces"),
    pytest.param("web", "(.*)", "$$1", "$1", id="dollar"),
    pytest.param("web", "(.*)", "$-${-$", "$-${-$", id="no reference"),
    pytest.param("web", "(.*)", "$2", "", id="unknown group"),
    pytest.param("ab", "(a)|(b)", "<$2>", "<><b>", id="group that did not take part"),
    pytest.param("web", "(.*)", "$01", "", id="leading zero"),
    pytest.param("a.b", r"\.", "-", "a-b", id="all matches"),
    pytest.param("-a", "b*|a", "x", "x-xax", id="an empty match moves on"),
    pytest.param("", "(.*)", "$1", "", id="empty"),
])
def test_replacement_is_gos(source: str, match: str, replacement: str, expected: str) -> None:
    """--hostname-match and --hostname-replacement work as in the original, which is written in Go."""
    assert replaced(source, match, replacement) == expected


@pytest.mark.parametrize(("from_label", "expected"), [("", "web"), ("host", "db"), ("other", "web")])
def test_a_label_may_name_the_host(from_label: str, expected: str) -> None:
    """The label's value comes before the container's name."""
    assert source_of_hostname("web", {"host": "db"}, from_label) == expected


@pytest.mark.parametrize(("name", "domain", "fits"), [
    ("web", "weave.local.", True), ("a" * 52, "weave.local", True), ("a" * 53, "weave.local", False),
    ("a" * 63, ".", False), ("a.b", "weave.local.", True), ("a..b", "weave.local.", False),
    ("é" * 27, "weave.local", False),
])
def test_hostnames_have_at_most_64_bytes(name: str, domain: str, fits: bool) -> None:
    """What Linux would refuse as a hostname is not made one."""
    assert fits_as_hostname(name, domain) is fits


@pytest.mark.parametrize(("hostname", "expected"), [("", ["weave.local"]), ("web", ["."])])
def test_search_domains(hostname: str, expected: list[str]) -> None:
    """Without a hostname the domain is searched; with one the list is empty."""
    assert search_domains(hostname, "weave.local.") == expected


@pytest.mark.parametrize(("name", "expected"), [
    ("web", "web.weave.local"), ("web.weave.local", "web.weave.local"), ("web.weave.local.", "web.weave.local"),
    ("Web.WEAVE.local", "Web.WEAVE.local"), ("a.b.weave.local", "a.b.weave.local"), ("web.example.com", ""),
    ("xweave.local", ""), ("", ""), ("a" * 63, "a" * 63 + ".weave.local"), ("a" * 64, ""), ("a..weave.local", ""),
    (".weave.local", ""), ("weave.local", ""), (".".join(["a" * 60] * 4) + ".weave.local", ""),
])
def test_names_in_the_domain(name: str, expected: str) -> None:
    """A name without a dot is in the domain, one elsewhere or too long is none."""
    assert fqdn_in("weave.local.", name) == expected


@pytest.mark.parametrize(("fields", "expected"), [
    pytest.param({"name": "c1"}, ("c1.weave.local",), id="name"),
    pytest.param({"name": "c1", "hostname": ID[:12]}, ("c1.weave.local",), id="Docker's own hostname"),
    pytest.param({"name": "c1", "hostname": "web", "domainname": "weave.local"}, ("web.weave.local",),
                 id="hostname wins"),
    pytest.param({"name": "c1", "hostname": "web.weave.local"}, ("web.weave.local",), id="in one word"),
    pytest.param({"name": "c1", "hostname": "web.weave.local."}, ("web.weave.local",), id="final dot"),
    pytest.param({"name": "c1", "hostname": "web"}, ("web.weave.local",), id="without domain"),
    pytest.param({"name": "c1", "hostname": "web.a", "domainname": "weave.local"}, ("web.a.weave.local",),
                 id="subdomain"),
    pytest.param({"name": "c1", "hostname": "web", "domainname": "example.com"}, (), id="elsewhere"),
    pytest.param({"name": "c1", "hostname": ID[:12], "domainname": "example.com"}, (), id="Docker's own elsewhere"),
    pytest.param({"name": "c1", "hostname": "w.example.com", "aliases": ("db",)}, ("db.weave.local",), id="alias"),
    pytest.param({"name": "p-web-1", "aliases": ("p-web-1", "web", ID[:12])},
                 ("p-web-1.weave.local", "web.weave.local"), id="Compose"),
    pytest.param({"name": "a" * 64}, (), id="too long"),
    pytest.param({}, (), id="nothing"),
])
def test_names_to_register(fields: dict[str, str], expected: tuple[str, ...]) -> None:
    """A container is found by its hostname in the domain, else by its name; and by its aliases."""
    assert names_for(Container(id=ID, **fields), "weave.local.") == expected  # type: ignore[arg-type]


OURS = {"entrypoint": ("/dev/w", "sleep"), "binds": ("/var/lib/weave/wait/0123456789ab/w:/dev/w:ro",)}
FROM_NAME = {**OURS, "hostname": "old", "domainname": "weave.local", "dns": ("172.17.0.1",)}
NAMED = {"hostname": ID[:12], "entrypoint": ("/dev/w",), "binds": ("/wait/0123456789ab/./w:/dev/w:ro",)}


@pytest.mark.parametrize(("fields", "naming", "names", "hostname"), [
    pytest.param({"name": "new", **FROM_NAME}, Naming(), ("new.weave.local",), "new", id="renamed"),
    pytest.param({"name": "app.new", **FROM_NAME}, Naming(), ("app.new.weave.local",), "app.new", id="with a dot"),
    pytest.param({"name": "aws-1-b", **FROM_NAME}, Naming("", "^aws-(.*)$", "my-$1"), ("my-1-b.weave.local",),
                 "my-1-b", id="by an expression"),
    pytest.param({"name": "b", "labels": (("host", "x"),), **FROM_NAME}, Naming("host"), ("x.weave.local",), "x",
                 id="by a label"),
    pytest.param({"name": "new", **NAMED}, Naming(), ("new.weave.local",), "new", id="of our making at the start"),
    pytest.param({"name": "b", "labels": (("host", "x"),), **NAMED}, Naming("host"), ("x.weave.local",), "x",
                 id="by a label at the start"),
    pytest.param({"name": "y" * 60, **NAMED}, Naming(), ("y" * 60 + ".weave.local",), ID[:12],
                 id="too long for a hostname at the start"),
    pytest.param({"name": "y" * 60, **FROM_NAME}, Naming(), ("old.weave.local",), "old",
                 id="too long for a hostname"),
    pytest.param({"name": "new", **FROM_NAME, "domainname": "weave.local."}, Naming(), ("old.weave.local",), "old",
                 id="a user's, in our domain"),
    pytest.param({"name": "new", **FROM_NAME, "dns": ()}, Naming(), ("old.weave.local",), "old",
                 id="a user's, in the very domain"),
    pytest.param({"name": "new", **FROM_NAME, "domainname": "example.com"}, Naming(), (), "old", id="elsewhere"),
    pytest.param({"name": "new", **OURS, "hostname": "old"}, Naming(), ("old.weave.local",), "old", id="a user's"),
    pytest.param({"name": "new", **FROM_NAME, "entrypoint": ()}, Naming(), ("old.weave.local",), "old",
                 id="not created through us"),
])
def test_names_follow_the_container(fields: dict[str, str], naming: Naming, names: tuple[str, ...],
                                    hostname: str) -> None:
    """What we made of an earlier name is made of the present one; what the user said stays."""
    container = Container(id=ID, **fields)  # type: ignore[arg-type]
    assert names_for(container, "weave.local.", naming) == names
    assert naming.hostname_now(container, "weave.local.") == hostname


@pytest.mark.parametrize("name", ["foo bar", "\u00fcn\u00ef", "a\\b", "a" * 64, "x\ty", "foo bar.weave.local"])
def test_names_that_dns_cannot_hold(name: str) -> None:
    """They are left out, whether hostname or alias, and said; those of other domains are not missed."""
    container = Container(id=ID, name="c", hostname=name, aliases=("db", "\u00fc", "x.example.com"))
    assert names_for(container, "weave.local.") == ("db.weave.local",)
    assert names_left_out(container, "weave.local.") == (name, "\u00fc")
