"""What is to be said at launch of who can reach the proxy by TCP."""

from __future__ import annotations

from weavemw.dockerapi import hosts
from weavemw.dockerapi.hosts import Tcp
from weavemw.settings import Settings

__all__ = ["check_tls", "open_to_all"]


def check_tls(settings: Settings) -> list[str]:
    """Judge the files of TLS, if there is to be TLS; gives warnings.

    Raises :class:`~weavemw.errors.SettingsError` for what would keep clients out.
    """
    if not settings.uses_tls:
        return []
    from weavemw.serving import tls_files  # slow to import, and rarely needed

    files = tls_files.of(settings)
    tcp = [each for each in map(hosts.parse, settings.listeners) if isinstance(each, Tcp)]
    return tls_files.check(files, tcp) if files else []


def open_to_all(settings: Settings) -> str:
    """A warning if anybody can reach Docker by TCP, with what helps; empty if not."""
    tcp = [str(each) for each in map(hosts.parse, settings.listeners) if isinstance(each, Tcp)]
    if not tcp or settings.tls_verify:
        return ""
    how = "TLS asks no client for a certificate" if settings.tls else "without TLS"
    return (f"{', '.join(tcp)} {how}: whoever reaches it is root on this host; `weave certs` and `--tls-verify` let "
            "in whom you trust, `weave launch-proxy -H unix:///var/run/weave.sock` opens no port")
