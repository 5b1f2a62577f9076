"""The command ``weave``: one short function per verb, grouped in a few modules.

The edge of the package: options, environment and configuration file are read
here and become settings; errors become one line on stderr.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

import click

from weavemw.cli import attach, certs, expose, launch, names, peers, relaunch, reset, shell, status  # each adds
from weavemw.cli.command import Invocation, weave
from weavemw.errors import WeaveError

__all__ = ["attach", "certs", "expose", "launch", "main", "names", "peers", "relaunch", "reset", "run", "shell",
           "status"]

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``weave``; doesn't return."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments, os.environ))


def run(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run one command line and give its exit status. A mistake is one line on stderr and a status other than 0."""
    try:
        done = weave.main(list(arguments), prog_name="weave", standalone_mode=False, obj=Invocation(environ))
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
