"""Where the store is that hosts share, and how it is reached: `etcd://host:2379,host2:2379/network`. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from weavemw.errors import SettingsError

__all__ = ["StoreSettings"]

_MEMBER = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>\d{1,5}))?")
_NETWORK = re.compile(r"[A-Za-z0-9._-]{1,64}")
_FORM = "write etcd://HOST:2379[,HOST:2379…][/NETWORK]"


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """The members of an etcd cluster, and what is needed to get in.

    ``url`` names them, and the network if there are several in one etcd. With ``ca`` they are asked by TLS; ``cert``
    and ``key`` are for one that wants certificates of its clients. The password stands alone in ``password_file``.
    Raises :class:`~weavemw.errors.SettingsError` for what can't be used.
    """

    url: str
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    user: str = ""
    password_file: Path | None = None

    def __post_init__(self) -> None:
        _require(self.url.startswith("etcd://"), f"store {self.url!r}: {_FORM}")
        members, _, network = self.url.removeprefix("etcd://").partition("/")
        for member in members.split(","):
            found = _MEMBER.fullmatch(member)
            _require(found is not None, f"store {self.url!r}: {_FORM}")
            _require(found is None or 0 < int(found["port"] or 2379) < 65536, f"store {self.url!r}: no such port")
        _require(not network.rstrip("/") or _NETWORK.fullmatch(network.rstrip("/")) is not None,
                 f"store {self.url!r}: {_FORM}")
        _require(bool(self.cert) == bool(self.key), "--store-cert and --store-key go together")
        _require(not self.cert or bool(self.ca), "--store-cert needs --store-ca, the authority of the store's own")
        _require(bool(self.user) == bool(self.password_file), "--store-user and --store-password-file go together")

    @property
    def members(self) -> tuple[str, ...]:
        """The addresses of the members, as URLs."""
        hosts = self.url.removeprefix("etcd://").partition("/")[0].split(",")
        return tuple(f"{'https' if self.ca else 'http'}://{each if _has_port(each) else f'{each}:2379'}"
                     for each in hosts)

    @property
    def prefix(self) -> str:
        """What all keys of the network begin with."""
        return f"/weavemw/{self.url.removeprefix('etcd://').partition('/')[2].rstrip('/') or 'weave'}/"

    @property
    def password(self) -> str:
        """What stands in the file, read anew each time. Raises :class:`~weavemw.errors.SettingsError`."""
        if self.password_file is None:
            return ""
        try:
            return self.password_file.read_text().rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise SettingsError(f"can't read {self.password_file}: {reason}") from error


def _has_port(member: str) -> bool:
    found = _MEMBER.fullmatch(member)
    return found is not None and found["port"] is not None


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise SettingsError(otherwise)
