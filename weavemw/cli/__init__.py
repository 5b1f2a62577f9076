"""The command ``weave``: one short function per verb, grouped in a few modules.

The edge of the package: options, environment and configuration file are read
here and become settings; errors become one line on stderr.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from weavemw.cli import launch, shell, status  # each adds its verbs
from weavemw.cli.command import Invocation, weave
from weavemw.errors import WeaveError

__all__ = ["launch", "main", "shell", "status"]

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``weave``; doesn't return. A mistake is one line on stderr and a status other than 0."""
    sys.exit(_status_of(arguments))


def _status_of(arguments: Sequence[str] | None) -> int:
    try:
        done = weave.main(arguments, prog_name="weave", standalone_mode=False, obj=Invocation(os.environ))
        return done if isinstance(done, int) else 0
    except click.ClickException as error:
        return _complain(error.format_message(), error.exit_code)
    except WeaveError as error:
        return _complain(error.message, 1)
    except (click.Abort, KeyboardInterrupt):
        return _INTERRUPTED


def _complain(message: str, status: int) -> int:
    click.echo(f"weave: {' '.join(message.split())}", err=True)
    return status
