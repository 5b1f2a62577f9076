"""Options of the original's `weave` that ours has not: why not, and what there is instead. Pure."""

from __future__ import annotations

__all__ = ["ALIASES", "instead_of_option", "instead_of_verb"]

#: Other names of our verbs, each of which works: the original's, of any age.
ALIASES = {"restart": "relaunch", "proxy-env": "env", "proxy-config": "config"}

_DNS = "weaveDNS is a part of the router: {} both"
_VERBS = {
    "launch-dns": _DNS.format("`weave launch-router` starts"),
    "stop-dns": _DNS.format("`weave stop-router` stops"),
}

_LAUNCHING = {
    "--port": "hosts reach each other by VXLAN, at a port of the kernel's: there is no port to choose here",
    "--name": "a host finds an id for itself, and keeps it: --nickname gives it a name to be read",
    "--trusted-subnets": "hosts are encrypted all or none",
    "--no-restart": "Docker restarts what it runs: with --foreground, launch-router and launch-proxy leave that to you",
    "--resume": "nothing need be resumed: the router keeps what it knows, and begins with it",
    "--dns-listen-address": "weaveDNS listens on the bridges by which containers reach it; --no-dns switches it off",
    "--conn-limit": "hosts have no connections to each other that could be limited",
    "--metrics-addr": "metrics are at the router's API, --http-addr, under /metrics",
    "--ipalloc-init": "--init-peer-count says how many hosts there are at the beginning",
    "--no-detect-tls": "TLS is never guessed: --tls and its kin say what is wanted",
}
_OPTIONS = {
    "launch": _LAUNCHING, "launch-router": _LAUNCHING, "launch-proxy": _LAUNCHING,
    "attach": {"--add-host": "`docker run --add-host` keeps such lines in /etc/hosts over every attach"},
}


def instead_of_option(verb: str, option: str) -> str:
    """What to say of an option that only the original's verb has; empty for any other."""
    return _OPTIONS.get(verb, {}).get(option, "")


def instead_of_verb(verb: str) -> str:
    """What to say of a verb that only the original has; empty for any other."""
    return _VERBS.get(verb, "")
