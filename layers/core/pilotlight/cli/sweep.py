"""`pilotlight sweep`: train a recipe in every combination of some settings, one run each, and compare the runs."""

import os
import re
from collections.abc import Sequence
from itertools import product
from typing import Annotated, Any

import msgspec
import typer
import yaml

from pilotlight.cli import subprocesses
from pilotlight.cli.console import ERRORS, STORE, JsonOption, StoreOption
from pilotlight.cli.runs import print_comparison
from pilotlight.cli.train import build_job_command, build_job_environment
from pilotlight.errors import InvalidInputError

MAX_NAME_LENGTH = 64  # characters of a run's name
EX_FAILED = 1  # the exit code of a run that published nothing; any other ends the sweep
Setting = tuple[str, Any]  # a key of the recipe, and its value


def sweep(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A YAML file, or a recipe of record: digits.")],
    axes: Annotated[list[str], typer.Argument(metavar="KEY=[A,B,...]...", help=r"'optimiser.name=\[sgd, adam]'")],
    changes: Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="In every run.")] = [],  # noqa: B006 - typer reads it, nothing writes it
    run: Annotated[str, typer.Option("--run", metavar="NAME", help="How the runs' names begin.")] = "sweep",
    store: StoreOption = STORE,
    json: JsonOption = False,
) -> None:
    """Train every combination of some settings, and compare the runs. Started again, it goes on where it was."""
    combinations = list(product(*map(parse_axis, axes)))
    every = build_run_names(run, combinations)
    failed = 0
    for number, (name, chosen) in enumerate(zip(every, combinations, strict=True), 1):
        ERRORS.print(f"{number} of {len(every)}: {name}", markup=False)
        settings = [*changes, *(f"{key}={msgspec.json.encode(value).decode()}" for key, value in chosen)]
        code = subprocesses.run_command(
            [*build_job_command(recipe, store, settings), "--run", name], build_job_environment(), quiet=True
        )
        if code not in (os.EX_OK, EX_FAILED):
            raise typer.Exit(code)
        failed += code == EX_FAILED
    print_comparison(every, store, json)
    if failed:
        ERRORS.print(f"{failed} of {len(every)} runs published nothing.", markup=False)
        raise typer.Exit(EX_FAILED)


def parse_axis(argument: str) -> list[Setting]:
    """Parse `KEY=[A, B]` as settings; raise `InvalidInputError` if it is not one, or has less than two values."""
    key, _, text = argument.partition("=")
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise InvalidInputError(f"{argument!r} is not KEY=[A, B, ...]: {' '.join(str(exc).split())}.") from exc
    if not key or not isinstance(values, list) or len(values) < 2:
        raise InvalidInputError(f"{argument!r} is not KEY=[A, B, ...] with two values or more; write one with --set.")
    return [(key, value) for value in values]


def build_run_names(prefix: str, combinations: Sequence[tuple[Setting, ...]]) -> list[str]:
    """Build a name for each run from its settings; number the runs if two names are equal or one is too long."""
    run_names = ["-".join([prefix, *(format_name_part(value) for _, value in chosen)]) for chosen in combinations]
    if len(set(run_names)) < len(run_names) or max(map(len, run_names)) > MAX_NAME_LENGTH:
        return [f"{prefix}-{number}" for number in range(1, len(run_names) + 1)]
    return run_names


def format_name_part(value: object) -> str:
    """Format a setting's value as a part of a name: of a mapping its `name`, or all values."""
    if isinstance(value, dict):
        value = value.get("name") or "-".join(map(str, value.values()))
    return re.sub(r"[^A-Za-z0-9._-]+", "-", str(value)).strip("-") or "none"
