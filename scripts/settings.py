"""Write conf/weavemw.toml and docs/reference/settings.md anew, from the table of settings and the router's options."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import click

from weavemw.cli.configuration import as_toml
from weavemw.cli.options import router_defaults, router_own
from weavemw.cli.setting_options import option_of
from weavemw.settings import PREFIX, TABLE, Group, default_of, variable_of

ROOT = Path(__file__).parents[1]
FILE, PAGE = ROOT / "conf" / "weavemw.toml", ROOT / "docs" / "reference" / "settings.md"
_WIDTH = 116

#: What stands in the file for settings of the router that have no default, or one that differs by host.
_EXAMPLES = {"ipalloc_default_subnet": "10.32.0.0/12", "ipalloc_range6": "fd00:10::/64", "nickname": "host1",
             "store": "etcd://10.0.0.11:2379,10.0.0.12:2379", "store_ca": "/etc/weavemw/ca.pem",
             "store_cert": "/etc/weavemw/host.pem", "store_key": "/etc/weavemw/host.key", "store_user": "weave",
             "store_password_file": "/etc/weavemw/etcd-password"}

_FILE_HEAD = """\
# Settings of weavemw, as /etc/weavemw.toml or by `weave --config FILE` (or WEAVEMW_CONFIG).
# An option wins over the environment (WEAVEMW_… and the name in capitals: WEAVEMW_LOG_LEVEL), which wins over this
# file. What stands here is the default; `weave launch --print-config` shows what counts, and where it comes from.
# Made by scripts/settings.py.
"""
_PAGE_HEAD = """\
# Settings

An option wins over the environment, which wins over the file, `/etc/weavemw.toml` or what `--config` or
`WEAVEMW_CONFIG` names ([conf/weavemw.toml](../../conf/weavemw.toml) is one). `weave launch --print-config` shows what
counts, and where it comes from. In a variable, a list is written with blanks or commas, a switch as `true` or `false`.
Where a setting has a variable of the original's or Docker's, the one that begins with `WEAVEMW_` counts too, and more.

Made by `python scripts/settings.py`.
"""
_COLUMNS = "| in the file | variable | option | default | |\n| --- | --- | --- | --- | --- |\n"


def main() -> None:
    """Write both."""
    PAGE.parent.mkdir(exist_ok=True)
    FILE.write_text(file())
    PAGE.write_text(page())


def file() -> str:
    """The configuration file, in which everything is commented out."""
    groups = [f"\n# {group}\n\n" + "".join(_entry(name, TABLE[name].text, _shown(name), TABLE[name].unset)
                                            for name in _names(group)) for group in Group]
    router = [_entry(_plain(option), _text(option), _router_default(option), "") for option in router_own()]
    return "".join([_FILE_HEAD, *groups, "\n# The router's own settings, as the options of `weave launch-router`.\n",
                    "[router]\n\n", *router])


def page() -> str:
    """The reference."""
    groups = [f"\n## {group}\n\n{_COLUMNS}" + "".join(map(_row, _names(group))) for group in Group]
    return "".join([_PAGE_HEAD, *groups, "\n## The router's own, in the table `[router]`\n\n", _COLUMNS,
                    *map(_router_row, router_own())])


def _names(group: Group) -> list[str]:
    return [name for name, setting in TABLE.items() if setting.group is group]


def _shown(name: str) -> Any:
    default = default_of(name)
    return TABLE[name].example if default is None else default


def _entry(name: str, text: str, value: Any, unset: str) -> str:
    words = text + (f" Unless set: {unset}." if unset else "")
    lines = textwrap.wrap(words, _WIDTH, initial_indent="#   ", subsequent_indent="#   ")
    return "\n".join([f"# {name.replace('_', '-')} = {as_toml(value)}", *lines, ""])


def _row(name: str) -> str:
    setting, default = TABLE[name], default_of(name)
    spellings = option_of(name).opts if name != "with_dns" else [*option_of(name).opts, "--without-dns"]
    return _cells(name, variable_of(name), spellings, setting.unset or _value(default), setting.text)


def _router_row(option: click.Option) -> str:
    name = _plain(option)
    default = "" if option.name == "nickname" else _value(router_defaults()[name].value) if name in router_defaults() \
        else _value(False) if option.is_flag else ""
    return _cells(name, f"{PREFIX}{name.upper()}", option.opts, default, _text(option))


def _cells(name: str, variable: str, options: list[str], default: str, text: str) -> str:
    spelled = " ".join(f"`{option}`" for option in options)
    return f"| `{name.replace('_', '-')}` | `{variable}` | {spelled} | {default} | {text} |\n".replace("|  |", "| |")


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(f"`{each}`" for each in value)
    return "" if value in (None, "") else f"`{as_toml(value)}`" if isinstance(value, bool) else f"`{value}`"


def _router_default(option: click.Option) -> Any:
    name = _plain(option)
    if option.is_flag or option.multiple:
        return False if option.is_flag else ()
    return _EXAMPLES[name] if name in _EXAMPLES else router_defaults()[name].value


def _plain(option: click.Option) -> str:
    return option.opts[0].removeprefix("--").replace("-", "_")


def _text(option: click.Option) -> str:
    return option.help or {"dns_domain": "The domain of weaveDNS.", "dns_port": "Where DNS listens.",
                           "resolv_conf": "Where the host's resolvers stand.",
                           "nickname": "The router's name. Unless set: the host's."}[str(option.name)]


if __name__ == "__main__":
    main()
