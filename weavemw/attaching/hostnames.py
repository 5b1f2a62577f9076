"""Which hostname a container gets, and the names under which it can be found. Pure.

A hostname on Linux has at most 64 bytes (``sethostname(2)``), a label of a
domain name 63, a domain name 253 (RFC 1035 section 2.3.4, in text form).
Domains are taken with or without their final dot and given without.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weavemw.dockerapi.container import Container

__all__ = ["Naming", "fits_as_hostname", "folded", "fqdn_in", "is_derived", "names_for", "names_left_out", "replaced",
           "search_domains", "source_of_hostname"]

_LONGEST_HOSTNAME, _LONGEST_LABEL, _LONGEST_NAME = 64, 63, 253
_REFERENCE = re.compile(r"\$(?:(\$)|(\w+)|\{(\w+)\})")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,7}", re.ASCII)
_LABEL = re.compile(r"[!-\[\]-~]+")  # what a router takes: printable ASCII without the escape sign


@dataclass(frozen=True, slots=True)
class Naming:
    """How the hostname comes from a container's name, or from its label ``from_label``; see :func:`replaced`."""

    from_label: str = ""
    match: str = "(.*)"
    replacement: str = "$1"

    def derived(self, name: str, labels: Mapping[str, str]) -> str:
        """What a container with this name and these labels is to be called; empty if that says nothing."""
        source = source_of_hostname(name, labels, self.from_label)
        return replaced(source, self.match, self.replacement) if source else ""

    def hostname_now(self, container: Container, domain: str) -> str:
        """The hostname that it is to have by now: one that we gave it follows its name, any other stays."""
        return self.fitting(container, domain) if is_derived(container, domain) else container.hostname

    def fitting(self, container: Container, domain: str) -> str:
        """The hostname made of its name; the one that Docker gave it if that is none, or too long for one."""
        now = self.derived(container.name, dict(container.labels))
        return now if now and fits_as_hostname(now, domain) else container.hostname


def source_of_hostname(name: str, labels: Mapping[str, str], from_label: str = "") -> str:
    """What a hostname is derived from: the label's value if the container has it, else its name."""
    return labels.get(from_label, name) if from_label else name


def replaced(source: str, match: str, replacement: str) -> str:
    """Replace every match as Go's ``Regexp.ReplaceAllString`` does.

    ``$1``, ``$name`` and ``${name}`` stand for groups (the longest name possible
    counts; unknown groups are empty), ``$$`` for a dollar. What does not match stays.
    """
    pattern = re.compile(match, re.ASCII)
    pieces, end, position = [], 0, 0
    while position <= len(source) and (found := pattern.search(source, position)):
        pieces.append(source[end : found.start()])
        if found.end() > end or found.start() == 0:  # not for an empty match right after another one
            pieces.append(_expanded(replacement, found))
        end = found.end()
        position = max(position + 1, end)
    return "".join([*pieces, source[end:]])


def fits_as_hostname(name: str, domain: str) -> bool:
    """Whether the name, within the domain, is short enough for a hostname."""
    fqdn = f"{name}.{_without_dot(domain)}"
    return len(fqdn.encode()) <= _LONGEST_HOSTNAME and _labels_fit(fqdn)


def search_domains(hostname: str, domain: str) -> list[str]:
    """The search list of a container that was given none: with a hostname an empty one (Docker writes it ".")."""
    return ["."] if hostname else [_without_dot(domain)]


def names_for(container: Container, domain: str, naming: Naming | None = None) -> tuple[str, ...]:
    """The names to register for a container.

    First its hostname, if that is within the domain or has none, else its name. Docker's own hostname, made of the
    id, does not count, nor does one that was made of an earlier name. A container with a hostname outside of the
    domain has no such name. Then its network aliases.
    """
    found = [fqdn_in(domain, name) for name in _wanted_names(container, domain, naming or Naming())]
    return tuple(dict.fromkeys(name for name in found if name))


def names_left_out(container: Container, domain: str, naming: Naming | None = None) -> tuple[str, ...]:
    """Those of its names that belong into the domain, and that DNS can't hold."""
    wanted = _wanted_names(container, domain, naming or Naming())
    return tuple(name for name in wanted if not fqdn_in(domain, name) and ("." not in name or _is_in(domain, name)))


def is_derived(container: Container, domain: str) -> bool:
    """Whether its hostname is made of its name.

    Earlier versions did that at create: such a hostname comes with the domain, without a final dot, and our server.
    """
    ours = container.is_ours and container.uts_mode != "host"
    made_at_create = bool(container.hostname and container.dns) and container.domainname.lower() == folded(domain)
    return ours and (container.is_named or made_at_create)


def fqdn_in(domain: str, name: str) -> str:
    """The name within the domain; empty for one that is elsewhere, too long, or no name."""
    name, domain = _without_dot(name), _without_dot(domain)
    if not _is_in(domain, name):
        name = f"{name}.{domain}" if name and "." not in name else ""
    return name if len(name) <= _LONGEST_NAME and _labels_fit(name) else ""


def folded(name: str) -> str:
    """A name as it is compared: without its final dot, in lower case (RFC 4343)."""
    return _without_dot(name).lower()


def _wanted_names(container: Container, domain: str, naming: Naming) -> list[str]:
    own = _own_name(container, domain, naming)
    return [name for name in (own, *container.aliases) if name and name != container.short_id]


def _own_name(container: Container, domain: str, naming: Naming) -> str:
    hostname = ".".join(filter(None, map(_without_dot, (container.hostname, container.domainname))))
    if is_derived(container, domain):
        now = naming.fitting(container, domain)
        return container.name if now == container.short_id else f"{now}.{_without_dot(domain)}"
    return container.name if not hostname or hostname == container.short_id else hostname


def _is_in(domain: str, name: str) -> bool:
    return folded(name).endswith(f".{folded(domain)}")


def _labels_fit(name: str) -> bool:
    return all(len(label) <= _LONGEST_LABEL and _LABEL.fullmatch(label) for label in name.split("."))


def _without_dot(name: str) -> str:
    return name.removesuffix(".")


def _expanded(template: str, found: re.Match[str]) -> str:
    group: Callable[[re.Match[str]], str] = lambda reference: _group(reference, found)  # noqa: E731
    return _REFERENCE.sub(group, template)


def _group(reference: re.Match[str], found: re.Match[str]) -> str:
    dollar, plain, braced = reference.groups()
    if dollar:
        return "$"
    name = plain or braced
    key = int(name) if _NUMBER.fullmatch(name) else name
    known = key <= found.re.groups if isinstance(key, int) else key in found.re.groupindex
    return found[key] or "" if known else ""
