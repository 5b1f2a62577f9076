"""The router's status, as data and as text for people. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from weavemw.errors import BadRequest

__all__ = ["UnsupportedTemplate", "blocks", "columns", "formatted", "overview"]


class UnsupportedTemplate(BadRequest):
    """A template that needs more of Go's templates than we have; a Weave Net router has all."""

    code = "unsupported_template"

    def __init__(self, expression: str) -> None:
        super().__init__(f"template: {expression!r} is not supported; write {{{{.Name}}}} or {{{{json .Name}}}}")


def overview(report: Mapping[str, Any]) -> str:
    """What ``weave status`` shows: a block per service."""
    dns = report["DNS"]
    return blocks(
        {"Version": report["Version"]},
        _router(report["Router"]),
        _ipam(report["IPAM"]),
        _dns(dns) if dns else {"Service": "dns", "Status": "off"},
        *({"Problem": problem} for problem in report.get("Problems", ())),
    )


def blocks(*services: Mapping[str, object]) -> str:
    """Blocks of "key: value" lines, keys right-aligned, a blank line between blocks."""
    return "\n".join("".join(f"{key:>15}: {value}\n" for key, value in service.items()) for service in services)


def columns(rows: Iterable[Sequence[object]]) -> str:
    """Rows of columns, each as wide as its widest value."""
    texts = [[str(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return "".join(" ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() + "\n"
                   for row in texts)


def formatted(report: Mapping[str, Any], template: str) -> str:
    """A report by the small part of Go's templates that is a path, "{{.IPAM.Range}}", or "{{json .DNS}}" of one.

    Raises :class:`UnsupportedTemplate` for anything else, :class:`~weavemw.errors.BadRequest` for what is not there.
    """
    text = ""
    for number, piece in enumerate(template.replace("}}", "{{").split("{{")):
        text += _value(report, piece.strip()) if number % 2 else piece
    return text


def _value(report: Mapping[str, Any], expression: str) -> str:
    as_json = expression.startswith("json ")
    path = expression.removeprefix("json ").strip()
    if not path.startswith("."):
        raise UnsupportedTemplate(expression)
    value: Any = report
    for name in filter(None, path.split(".")):
        if not isinstance(value, Mapping) or name not in value:
            raise BadRequest(f"template: can't evaluate field {name} in {path}")
        value = value[name]
    return json.dumps(value) if as_json or isinstance(value, dict | list) else str(value)


def _router(router: Mapping[str, Any]) -> dict[str, object]:
    store = router.get("Store")
    if store:
        return _shared(router, store)
    return {
        "Service": "router",
        "Name": f"{router['Name']}({router['NickName']})",
        "Encryption": "disabled",
        "PeerDiscovery": "disabled",
        "Targets": len(router["Targets"]),
        "Connections": 0,
        "Peers": 1,
    }


def _shared(router: Mapping[str, Any], store: Mapping[str, Any]) -> dict[str, object]:
    troubles = {"StoreTrouble": f"{store['Trouble']}, since {store['Since']}"} if store["Trouble"] else {}
    troubles |= {"DataPlane": router["DataPlane"]} if router["DataPlane"] else {}
    return {
        "Service": "router",
        "Name": f"{router['Name']}({router['NickName']})",
        "Encryption": "enabled" if any(peer["Encrypted"] for peer in router["Peers"]) else "disabled",
        "PeerDiscovery": "enabled",
        "Store": f"etcd at {store['Member']} ({store['State']})",
        **troubles,
        "Targets": len(router["Targets"]),
        "Connections": f"{len(router['Connections'])} "
                       f"({sum(each['State'] == 'established' for each in router['Connections'])} established)",
        "Peers": len(router["Peers"]),
    }


def _ipam(ipam: Mapping[str, Any]) -> dict[str, object]:
    second = {"RangeIPv6": ipam["RangeIPv6"]} if ipam["RangeIPv6"] else {}
    return {"Service": "ipam", "Status": "ready", "Range": ipam["Range"], **second,
            "DefaultSubnet": ipam["DefaultSubnet"], "InUse": ipam["InUse"]}


def _dns(dns: Mapping[str, Any]) -> dict[str, object]:
    return {"Service": "dns", "Domain": dns["Domain"], "Address": ", ".join(dns["Listening"]) or "none yet",
            "Upstream": ", ".join(dns["Upstream"]) or "none", "TTL": dns["TTL"], "Entries": len(dns["Entries"])}
