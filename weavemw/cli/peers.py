"""The router's peers: connect, forget, rmpeer, prime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import click

from weavemw.cli.command import Invocation, verb
from weavemw.cli.router import call_router

__all__ = ["OPTIONS", "connect", "forget", "ignored", "prime", "rmpeer"]

#: What only matters among peers.
OPTIONS = ("peers", "password", "init_peer_count", "no_discovery")

_PATIENCE = 300.0  # seconds for peers to agree
_ALONE = "single host"  # what the built-in router says of connections


@verb("connect")
@click.argument("peers", nargs=-1, required=True, metavar="PEER…")
@click.option("--replace", is_flag=True, help="Forget the peers known until now.")
@click.pass_obj
def connect(weave: Invocation, peers: tuple[str, ...], replace: bool) -> None:
    """Let the router connect to peers, each HOST[:PORT].

    \b
    weave connect host2 host3:6783
    weave connect --replace host4
    """
    address = weave.settings().router_at
    call_router(address, "POST", "/connect", _form(peers, replace=replace))
    if _ALONE in call_router(address, "GET", "/status/connections"):
        click.echo(f"weave: warning: {', '.join(peers)}: noted, but the router built in serves a single host and "
                   "connects to none; a Weave Net router does", err=True)


@verb("forget")
@click.argument("peers", nargs=-1, required=True, metavar="PEER…")
@click.pass_obj
def forget(weave: Invocation, peers: tuple[str, ...]) -> None:
    """Let the router no longer try to connect to peers.

    \b
    weave forget host2
    """
    call_router(weave.settings().router_at, "POST", "/forget", _form(peers))


@verb("rmpeer")
@click.argument("peers", nargs=-1, required=True, metavar="PEER-ID…")
@click.option("--force", is_flag=True, help="Even if the peer is up.")
@click.pass_obj
def rmpeer(weave: Invocation, peers: tuple[str, ...], force: bool) -> None:
    """Take over the addresses of peers that are gone for good; the names are those of `weave status peers`.

    \b
    weave rmpeer 0a:1b:2c:3d:4e:5f
    """
    for peer in peers:
        path = f"/peer/{quote(peer, safe=':')}{'?force=true' if force else ''}"
        click.echo(call_router(weave.settings().router_at, "DELETE", path).rstrip("\n"))


@verb("prime")
@click.pass_obj
def prime(weave: Invocation) -> None:
    """Wait until the router can give addresses: until its peers, if it has any, agree on who gives which.

    \b
    weave prime && docker run -d nginx
    """
    # A router without peers has no ring that could be waited for, and is ready when it answers.
    call_router(weave.settings().router_at, "GET", "/ring", timeout=_PATIENCE, also=(404,))


def ignored(options: Mapping[str, Any]) -> str:
    """What to say of options that only matter among peers; empty if none was given. Passwords are not shown."""
    given = [f"peer {peer}" for peer in options.get("peers") or ()]
    given += [f"--{name.replace('_', '-')}" for name in OPTIONS[1:]
              if options.get(name)]
    if not given:
        return ""
    return f"without effect: {', '.join(given)}: the router built in serves a single host; a Weave Net router has peers"


def _form(peers: Sequence[str], *, replace: bool = False) -> list[tuple[str, str]]:
    return [*(("peer", peer) for peer in peers), *([("replace", "true")] if replace else [])]
