from __future__ import annotations

import dataclasses
import os
from ipaddress import ip_interface

import pytest

from weavemw.dockerapi.container import Container
from weavemw.network.hosts import hosts_of, rewrite, rewritten
from weavemw.network.own_files import is_dockers

ID = "c" * 64
A, B = ip_interface("10.32.0.1/12"), ip_interface("fd00::1/64")
DOCKERS = ("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
           "1.2.3.4\tplain\n1.2.3.5\tequals\n2001:db8::7\tsix\n172.17.0.1\tgateway\n172.17.0.2\tweb\n")


def test_weave_comes_first_and_the_rest_stays():
    """Each weave address has a line with all names before Docker's lines, --add-host's among them, as they were."""
    text = rewritten(DOCKERS, (A, B), ("web.weave.local", "web"))
    assert text == ("10.32.0.1\tweb.weave.local web\t# weave\nfd00::1\tweb.weave.local web\t# weave\n" + DOCKERS)


def test_written_again_it_is_the_same_and_changes_follow():
    """The same again changes nothing; other names or addresses replace ours and nothing else."""
    once = rewritten(DOCKERS, (A,), ("web",))
    assert rewritten(once, (A,), ("web",)) == once
    assert rewritten(once, (B,), ("db",)) == "fd00::1\tdb\t# weave\n" + DOCKERS
    assert rewritten(once, (), ("web",)) == rewritten(once, (A,), ()) == DOCKERS


def test_a_name_of_its_own_means_the_weave_address_alone():
    """Docker's line for the container itself is a comment while ours is there; a name that it has no more is Docker's.

    The gateway, and what has Docker's address by another name, are not the container's own.
    """
    text = DOCKERS + "172.17.0.2\tmine\nfd00:d::2\tweb.weave.local web\n"
    once = rewritten(text, (A,), ("web.weave.local", "web"), ("172.17.0.2", "fd00:d::2"))
    assert [line for line in once.splitlines() if "web" in line] == [
        "10.32.0.1\tweb.weave.local web\t# weave", "# weave: 172.17.0.2\tweb",
        "# weave: fd00:d::2\tweb.weave.local web"]
    assert "\n172.17.0.2\tmine\n" in once
    assert rewritten(once, (A,), ("web.weave.local", "web"), ("172.17.0.2", "fd00:d::2")) == once
    assert rewritten(once, (A,), ("db",), ("172.17.0.2",)) == "10.32.0.1\tdb\t# weave\n" + text
    assert rewritten(once, (), (), ("172.17.0.2", "fd00:d::2")) == text


@pytest.mark.parametrize("text", ["", "no end of line", "a\x0bb\x85c\u2028d\n", "\n\n"])
def test_odd_files_are_kept(text):
    """Only line feeds separate lines, and what is there stays."""
    kept = rewritten(text, (A,), ("web",)).removeprefix("10.32.0.1\tweb\t# weave\n")
    assert kept.rstrip("\n") == text.rstrip("\n")


def test_add_host_with_the_weave_address_stays():
    """A line that the user asked for stays, even if it has a weave address."""
    text = "10.32.0.1\tmine\n" + DOCKERS
    assert rewritten(text, (A,), ("web",)).endswith(text)


@pytest.mark.parametrize(("fqdns", "fields", "names"), [
    (["web.weave.local."], {}, ("web.weave.local", "web")),
    (["web.weave.local.", "db.weave.local."], {}, ("web.weave.local", "web", "db.weave.local", "db")),
    ([], {"hostname": "abc"}, ("abc",)),
    ([], {"hostname": "abc", "domainname": "example.org"}, ("abc.example.org", "abc")),
    (["web.weave.local."], {"hostname": "web", "domainname": "weave.local"}, ("web.weave.local", "web")),
    (["web.weave.local."], {"hostname": "theirs", "uts_mode": "host"}, ("web.weave.local", "web")),
    ([], {}, ()),
])
def test_names_in_full_in_short_and_the_hostname(fqdns, fields, names):
    """Registered names come first, then the hostname, unless that is the host's own."""
    assert hosts_of(fqdns, Container(ID, **fields)) == names


@pytest.mark.parametrize(("path", "mounts", "is_so"), [
    (f"/var/lib/docker/containers/{ID}/hosts", (), True),
    (f"/d/containers/{ID}/hosts", ("/data",), True),
    (f"/var/lib/docker/containers/{ID}/hosts", ("/etc/hosts",), False),
    ("/home/me/hosts", (), False),
    ("/etc/hosts", (), False),
    (f"/var/lib/docker/containers/{'d' * 64}/hosts", (), False),
    ("", (), False),
])
def test_only_dockers_own_file_is_written(path, mounts, is_so):
    """A user's own file, mounted over /etc/hosts, is never touched."""
    assert is_dockers(Container(ID, mount_targets=mounts), path, "/etc/hosts") is is_so


@pytest.fixture
def container(tmp_path):
    path = tmp_path / "containers" / ID / "hosts"
    path.parent.mkdir(parents=True)
    path.write_text(DOCKERS)
    return Container(ID, hosts_path=str(path), hostname="web")


def test_the_file_is_written_in_place(container, tmp_path):
    """The inode stays, since the container has that mounted; a shorter text leaves no rest of the longer."""
    path = tmp_path / "containers" / ID / "hosts"
    inode = path.stat().st_ino
    assert rewrite(container, (A,), ("a-very-long-name-indeed.weave.local.",))
    assert rewrite(container, (A,), ())
    assert path.read_text() == "10.32.0.1\tweb\t# weave\n" + DOCKERS
    assert path.stat().st_ino == inode


def test_bytes_that_are_no_text_survive(container, tmp_path):
    """Docker's lines are kept to the byte."""
    path = tmp_path / "containers" / ID / "hosts"
    path.write_bytes(b"1.2.3.4\t\xff\xfe\n")
    assert rewrite(container, (A,), ())
    assert path.read_bytes() == b"10.32.0.1\tweb\t# weave\n1.2.3.4\t\xff\xfe\n"


@pytest.mark.parametrize("spoil", [
    pytest.param(lambda path: path.unlink(), id="missing"),
    pytest.param(lambda path: (path.unlink(), path.mkdir()), id="a directory"),
    pytest.param(lambda path: (path.rename(path.parent / "x"), path.symlink_to(path.parent / "x")), id="a link"),
    pytest.param(lambda path: path.write_bytes(b"#" * (1 << 21)), id="huge"),
])
def test_failure_is_a_warning(container, tmp_path, caplog, spoil):
    """What can't be written is said once, and is no error: the network works without."""
    spoil(tmp_path / "containers" / ID / "hosts")
    assert not rewrite(container, (A,), ())
    assert "is left as Docker wrote it" in caplog.text


def test_foreign_file_is_not_touched(container, tmp_path):
    """With a mount over /etc/hosts nothing is opened."""
    mounted = dataclasses.replace(container, mount_targets=("/etc/hosts",))
    assert not rewrite(mounted, (A,), ())
    assert (tmp_path / "containers" / ID / "hosts").read_text() == DOCKERS


def test_a_full_disk_leaves_the_file_as_it_was(container, tmp_path, caplog, monkeypatch):
    """What does not fit is not written half."""
    def pwrite(descriptor, data, offset):
        return write(descriptor, data[:len(DOCKERS)], offset)

    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", pwrite)
    assert not rewrite(container, (A,), ("web.weave.local.",))
    assert (tmp_path / "containers" / ID / "hosts").read_text() == DOCKERS
    assert "No space left on device" in caplog.text
