"""An option for each row of the table of settings."""

from __future__ import annotations

from typing import Any

import click

from weavemw.settings import TABLE, Setting, default_of

__all__ = ["option_of"]


def option_of(name: str, *, also: str = "", **more: Any) -> click.Option:
    """The option of a setting; ``also`` stands in its help behind the default, ``more`` is click's own."""
    setting, default = TABLE[name], default_of(name)
    return click.Option([*_spellings(name, setting, default), name], metavar=setting.metavar or None,
                        help=_help(setting, default, also), **_type(setting, default), **more)


def _spellings(name: str, setting: Setting, default: Any) -> tuple[str, ...]:
    plain = name.replace("_", "-")
    return setting.options or (f"--no-{plain}" if default is True else f"--{plain}",)


def _type(setting: Setting, default: Any) -> dict[str, Any]:
    if default is None or isinstance(default, bool):
        return {"flag_value": not default, "default": None}
    if isinstance(default, tuple):
        return {"multiple": True}
    if setting.choices:
        return {"type": click.Choice(setting.choices)}
    return {"type": type(default)} if isinstance(default, int | float) else {}


def _help(setting: Setting, default: Any, also: str) -> str:
    texts = [setting.negated or setting.text, "Repeatable." if isinstance(default, tuple) else "", _default(
        setting, default, also)]
    return " ".join(filter(None, texts))


def _default(setting: Setting, default: Any, also: str) -> str:
    if default is None or isinstance(default, bool):
        return ""
    shown = setting.unset or (", ".join(default) if isinstance(default, tuple) else f"{default}".removesuffix(".0"))
    return f"[default: {'; '.join(filter(None, (shown, also)))}]" if shown else ""
