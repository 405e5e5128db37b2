"""`pilotlight train`: train a recipe on this machine or, with --remote, on a server.

The job is a process of its own, `python -m functions.train`, as on AWS Batch: this process does not import torch.
SIGTERM, Ctrl-C and the exit code, which is 75 for a pause, pass through.
"""

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Annotated

import typer

from pilotlight.cli import remote_trainings, subprocesses
from pilotlight.cli.console import STORE, JsonOption, RemoteOption, ServerOption, StoreOption, find_checkout
from pilotlight.errors import InvalidInputError, UnavailableError


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A YAML file, or a recipe of record: digits.")],
    changes: Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="optimiser.learning_rate=0.01")] = [],  # noqa: B006 - typer reads it, nothing writes it
    run: Annotated[str | None, typer.Option("--run", metavar="NAME", help="A new run's name, or one to go on.")] = None,
    budget: Annotated[
        float | None,
        typer.Option("--time-budget", metavar="SECONDS", help="Save and stop after this long, with exit code 75."),
    ] = None,
    remote: RemoteOption = False,
    url: ServerOption = None,
    nodes: Annotated[int, typer.Option("--nodes", min=1, help="Machines, of a server that has a queue for them.")] = 1,
    store: StoreOption = STORE,
    json: JsonOption = False,
) -> None:
    """Run a recipe, publish a version, print its reference."""
    if server := remote_trainings.resolve_server_url(remote=remote, url=url):
        if budget is not None:
            raise InvalidInputError("--time-budget is for this machine; a stack has its own, the parameter TimeBudget.")
        raise typer.Exit(remote_trainings.start_training(server, recipe, changes, run, nodes, json=json))
    if nodes > 1:
        raise InvalidInputError("--nodes is for --remote; on this machine training takes all its GPUs by itself.")
    optional = {"--run": run, "--time-budget": budget}
    words = [word for name, value in optional.items() if value is not None for word in (name, str(value))]
    raise typer.Exit(
        subprocesses.run_command(
            [*build_job_command(recipe, store, changes, json=json), *words], build_job_environment()
        )
    )


def build_job_command(recipe: str, store: str, changes: Sequence[str] = (), *, json: bool = False) -> list[str]:
    """Build the training job's command line; raise `UnavailableError` if only serving is installed."""
    if find_spec("torch") is None:
        raise UnavailableError("Training needs torch, which is not installed here; run pip install -e '.[train]'.")
    settings = [word for change in changes for word in ("--set", change)]
    return [sys.executable, "-m", "functions.train", recipe, *settings, "--store", store, *(["--json"] if json else [])]


def build_job_environment() -> dict[str, str]:
    """Build the environment of the job: this one, with the checkout on the path of modules."""
    paths = [str(find_checkout()), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
