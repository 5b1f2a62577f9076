from __future__ import annotations

from pathlib import Path

import pytest

from weavemw.cluster.store_settings import StoreSettings
from weavemw.errors import SettingsError


@pytest.mark.parametrize(("url", "members", "prefix"), [
    ("etcd://a", ("http://a:2379",), "/weavemw/weave/"),
    ("etcd://10.0.0.11:2379,b:1", ("http://10.0.0.11:2379", "http://b:1"), "/weavemw/weave/"),
    ("etcd://[fd00::1]:2379,[fd00::2]/blue", ("http://[fd00::1]:2379", "http://[fd00::2]:2379"), "/weavemw/blue/"),
    ("etcd://a/", ("http://a:2379",), "/weavemw/weave/"),
])
def test_members_and_prefix(url: str, members: tuple[str, ...], prefix: str) -> None:
    settings = StoreSettings(url)
    assert (settings.members, settings.prefix) == (members, prefix)
    assert StoreSettings(url, ca=Path("ca")).members[0].startswith("https://")


@pytest.mark.parametrize("url", ["", "a:2379", "etcd://", "etcd://a,,b", "etcd://a:0", "etcd://a:99999", "etcd://a b",
                                 "etcd://a/b/c", "etcd://a/ü", "http://a:2379", "etcd://fd00::1"])
def test_what_names_no_store(url: str) -> None:
    with pytest.raises(SettingsError, match="store "):
        StoreSettings(url)


@pytest.mark.parametrize("half", [{"cert": Path("c")}, {"key": Path("k")}, {"user": "u"}, {"password_file": Path("p")},
                                  {"cert": Path("c"), "key": Path("k")}])
def test_what_goes_together(half: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        StoreSettings("etcd://a", **half)  # type: ignore[arg-type]


def test_a_password_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        _ = StoreSettings("etcd://a", user="u", password_file=tmp_path / "none").password
