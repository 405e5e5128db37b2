"""The `pilotlight` command: one module for each verb, or for a few of the same kind."""

import sys
from typing import Annotated

import typer

import pilotlight
from pilotlight.cli import (
    canary,
    chat,
    cost,
    demo,
    deploy,
    destroy,
    doctor,
    drift,
    fit,
    keys,
    logs,
    models,
    predict,
    promote,
    publish,
    retention,
    runs,
    serve,
    sweep,
    train,
    web_pages,
)
from pilotlight.cli.console import ERRORS
from pilotlight.contracts.home_folder import expand_home
from pilotlight.errors import InvalidInputError, PilotlightError

commands = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
VERBS = (
    demo.demo,
    train.train,
    sweep.sweep,
    publish.publish,
    models.models,
    serve.serve,
    predict.predict,
    chat.chat,
    doctor.doctor,
    fit.fit,
    cost.cost,
    promote.promote,
    promote.rollback,
    canary.canary,
    canary.split,
    canary.shadow,
    canary.history,
    drift.drift,
    retention.redrive,
    retention.delete,
    retention.prune,
    deploy.deploy,
    logs.logs,
    destroy.destroy,
)


def print_version(requested: bool) -> None:
    """Print the version and exit, if requested."""
    if requested:
        typer.echo(f"pilotlight {pilotlight.__version__}")
        raise typer.Exit


@commands.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=print_version, is_eager=True)
    ] = False,
) -> None:
    """Serves large models from serverless functions."""  # noqa: D401 - the command's help text, a caption


for verb in VERBS:
    commands.command()(verb)
commands.command("open")(web_pages.open_page)
commands.add_typer(runs.runs, name="runs")
commands.add_typer(keys.keys, name="keys")


def expand_argument(argument: str) -> str:
    """Expand `~` where a shell leaves it: in `--store=~/x`, in quotes, and where no shell has started the command."""
    name, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    return f"{name}{equals}{expand_home(value)}" if value == "~" or value.startswith(("~/", "file://~/")) else argument


def app() -> None:
    """Run the command line. Exit codes: 0 done, 1 failed, 2 the command is wrong."""
    try:
        commands([expand_argument(each) for each in sys.argv[1:]], prog_name="pilotlight")
    except PilotlightError as exc:
        ERRORS.print(str(exc), markup=False, highlight=False, soft_wrap=True)
        sys.exit(2 if isinstance(exc, InvalidInputError) else 1)
