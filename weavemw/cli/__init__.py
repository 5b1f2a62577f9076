"""The command ``weave``: one short function per verb, grouped in a few modules.

The edge of the package: options, environment and configuration file are read
here and become settings; errors become one line on stderr.
"""

from __future__ import annotations

import io
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence

import click
from click.exceptions import NoArgsIsHelpError

from weavemw.cli.command import Invocation, weave
from weavemw.errors import WeaveError

__all__ = ["main", "run"]

_INTERRUPTED, _TERMINATED = 130, 143  # 128 and the signal's number, as shells have it


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``weave``; doesn't return."""
    signal.signal(signal.SIGTERM, _end)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # an encoding that lacks "…" is no reason to fail
    sys.exit(run(sys.argv[1:] if arguments is None else arguments, os.environ))


def run(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run one command line and give its exit status. A mistake is one line on stderr and a status other than 0."""
    invocation = Invocation(environ)
    try:
        return _run(list(arguments), invocation)
    except NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except click.UsageError as error:
        words = re.sub(r"Invalid value for '\[.*?\]': ", "", error.format_message().removesuffix("."))
        where = error.ctx.command_path if error.ctx else "weave"
        return _complain(words if "`" in words or "?" in words else f"{words}: see `{where} --help`", error.exit_code)
    except click.ClickException as error:
        return _complain(error.format_message(), error.exit_code)
    except WeaveError as error:
        from weavemw.cli.mistakes import explained  # it imports much that a command which succeeds may not need

        return _complain(explained(error, invocation), 1)
    except OSError as error:
        _forget_output()
        about = f"{error.filename}: " if error.filename else ""
        hint = ": try again as root" if isinstance(error, PermissionError) and os.geteuid() != 0 else ""
        return _complain(f"{about}{error.strerror or error}{hint}", 1)
    except (click.Abort, KeyboardInterrupt):
        return _INTERRUPTED


def _run(arguments: list[str], invocation: Invocation) -> int:
    for argument in arguments:
        if argument != argument.encode(errors="ignore").decode():
            raise click.UsageError(f"{argument!a} is not UTF-8")
    done = weave.main(arguments, prog_name="weave", standalone_mode=False, obj=invocation)
    if sys.stdout:
        sys.stdout.flush()
    return done if isinstance(done, int) else 0


def _forget_output() -> None:
    """What could not be written is not written at the end either."""
    if sys.stdout:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _end(number: int, _frame: object) -> None:
    """By an exception, so that what was begun is taken back."""
    sys.exit(_TERMINATED)


def _complain(message: str, status: int) -> int:
    click.echo(f"weave: {' '.join(message.split())}", err=True)
    return status
