"""What is to be said at launch of who can reach the proxy by TCP."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from weavemw import assembly
from weavemw.dockerapi import hosts
from weavemw.dockerapi.client import DockerClient
from weavemw.dockerapi.hosts import Tcp
from weavemw.errors import DockerError, DockerUnreachable, SettingsError
from weavemw.router.settings import DEFAULT_RANGE
from weavemw.settings import Settings

if TYPE_CHECKING:
    from weavemw.router.host import HostBridge

__all__ = ["check_tls", "hides_users", "lets_in_containers", "open_to_all"]


def check_tls(settings: Settings) -> list[str]:
    """Judge the files of TLS, if there is to be TLS, and what it means for Docker's plugins; gives warnings.

    Raises :class:`~weavemw.errors.SettingsError` for what would keep clients out, or let them do what they may not.
    """
    if not settings.uses_tls:
        return []
    from weavemw.serving import tls_files  # slow to import, and rarely needed

    files = tls_files.of(settings)
    tcp = [each for each in map(hosts.parse, settings.listeners) if isinstance(each, Tcp)]
    warnings = tls_files.check(files, tcp) if files else []
    unseen = hides_users(settings, assembly.docker(settings)) if tcp and settings.tls_verify else ""
    return [*warnings, unseen] if unseen else warnings


def hides_users(settings: Settings, docker: DockerClient) -> str:
    """A warning if Docker asks authorization plugins, who know a user by a client's certificate; empty if it does not.

    Docker hears of our clients' certificates nothing: for its plugins they are all the same, nameless user. Raises
    :class:`~weavemw.errors.SettingsError` unless that is to be ignored. An engine that does not answer is no matter.
    """
    try:
        plugins = (docker.get("/info").get("Plugins") or {}).get("Authorization") or ()
    except (DockerError, DockerUnreachable):
        return ""
    if not plugins:
        return ""
    what = (f"Docker asks {', '.join(map(str, plugins))} who may do what, by the names in clients' certificates; of "
            "--tls-verify's clients it gets no names")
    if settings.ignore_authz:
        return what
    raise SettingsError(what, hint="let them connect to dockerd itself, or use --ignore-authz")


def open_to_all(settings: Settings) -> str:
    """A warning if anybody can reach Docker by TCP, with what helps; empty if not."""
    tcp = [str(each) for each in map(hosts.parse, settings.listeners) if isinstance(each, Tcp)]
    if not tcp or settings.tls_verify:
        return ""
    how = "TLS asks no client for a certificate" if settings.tls else "without TLS"
    return (f"{', '.join(tcp)} {how}: whoever reaches it is root on this host; `weave certs` and `--tls-verify` let "
            "in whom you trust, `weave launch-proxy -H unix:///var/run/weave.sock` opens no port")


def lets_in_containers(settings: Settings, bridges: Callable[[], Iterable[HostBridge]]) -> str:
    """A warning if ``--allow-from`` lets containers in, by their addresses on a bridge of this host; empty if not.

    A weave router's default range counts too: its containers reach the host after ``weave expose``.
    """
    if settings.tls_verify or not settings.allow_from:
        return ""
    of_bridges = {interface.network: each.name for each in bridges() for interface in each.interfaces
                  if not interface.is_link_local}
    known = {**of_bridges, DEFAULT_RANGE: of_bridges.get(DEFAULT_RANGE, "the weave network")}
    found = [f"{allowed} has {network} ({name})" for allowed in hosts.networks(settings.allow_from)
             for network, name in known.items() if allowed.overlaps(network)]
    if not found:
        return ""
    return (f"--allow-from lets containers in, which makes them root on this host: {', '.join(found)}; "
            "name the networks of your clients, or use `--tls-verify`")
