"""The command line. Thin commands: parse, one library call, render. One file for each command, imported late."""

from __future__ import annotations

import os
import sys

import typer

from lbt_sim.cli import (
    classroom,
    compare,
    doctor,
    fork,
    init,
    models,
    prompts,
    replay,
    report,
    resume,
    run,
    schema,
    show,
    study,
    validate,
)
from lbt_sim.errors import Interrupted, LbtError

__all__ = ["app", "main"]

app = typer.Typer(
    name="lbt-sim",
    help="A classroom simulator for learning by teaching: does a teacher get better by teaching?",
    epilog="Start with: lbt-sim run quickstart",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for command in (
    run,
    study,
    compare,
    resume,
    replay,
    fork,
    show,
    report,
    validate,
    prompts,
    classroom,
    schema,
    init,
    doctor,
):
    name = command.__name__.rsplit(".", 1)[-1]
    app.command(name)(getattr(command, name))
app.add_typer(models.app, name="models")


@app.callback(invoke_without_command=True)
def _options(version: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
    if version:
        from importlib.metadata import version as of

        typer.echo(f"lbt-sim {of('lbt-sim')}")
        raise typer.Exit


def main() -> None:
    """Runs the command line; our errors are printed plainly, only a bug shows a traceback."""
    try:
        app()
    except LbtError as error:
        print_error(error)
        if isinstance(error, Interrupted):
            # Everything is closed. Leaving now, past the interpreter's own shutdown, a further Ctrl-C cannot change
            # the exit status.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(error.status)
        sys.exit(error.status)
    except BrokenPipeError:
        # Whoever read our output has left (`| head`): nothing more to say, and nothing to complain about.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)


def print_error(error: LbtError) -> None:
    """What, where, valid choices, what to do, on standard error; nothing in it is markup."""
    from rich.console import Console
    from rich.text import Text

    from lbt_sim.transcript.safe import plain_text

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    first, *rest = plain_text(str(error)).splitlines() or [""]
    console.print(Text(first, style="bold"))
    for line in rest:
        console.print(Text(line))
