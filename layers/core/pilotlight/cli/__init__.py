"""The `pilotlight` command: one module per verb."""

import sys

import typer

from pilotlight.cli import demo, fit, models, predict, publish, serve, train
from pilotlight.cli.console import ERRORS
from pilotlight.errors import InvalidInputError, PilotlightError

commands = typer.Typer(
    help="Serves large models from serverless functions.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for verb in (demo.demo, train.train, publish.publish, models.models, serve.serve, predict.predict, fit.fit):
    commands.command()(verb)


def app() -> None:
    """Run the command line. Exit codes: 0 done, 1 it could not be done, 2 what was asked is wrong."""
    try:
        commands(prog_name="pilotlight")
    except PilotlightError as exc:
        ERRORS.print(str(exc), markup=False, highlight=False, soft_wrap=True)
        sys.exit(2 if isinstance(exc, InvalidInputError) else 1)
