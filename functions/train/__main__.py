"""`python -m functions.train RECIPE`: read the command line, run the recipe, print the reference of what came out.

Standard output carries the result alone, so that a script can take it; what a person reads goes to standard error.
Exit codes: 0 published, 1 not published, 2 the command line or the recipe is wrong, 130 interrupted, 75 (EX_TEMPFAIL)
stopped by SIGTERM or at the end of its time budget, and worth starting again: AWS Batch retries on it, and the same
--run goes on where it was.

Where there are several GPUs, or AWS Batch says that there are several machines, it starts itself once for each GPU:
see `launcher`. Under somebody's own `torchrun` it takes its place among the others.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from rich.console import Console

from functions.train.command_recipe import refuse_cancelled, take
from functions.train.distributed.launcher import fleet, gpus, launch, report
from functions.train.errors import PausedError
from functions.train.identity import given_name
from functions.train.training.compiler import refuse_without_compiler
from functions.train.training.interruption import Interruption
from pilotlight.errors import InvalidInputError, PilotlightError
from pilotlight.recipes.schema import Recipe
from pilotlight.settings import DEFAULT_STORE
from pilotlight.storage.object_store import ObjectStore, open_store

if TYPE_CHECKING:
    from functions.train.distributed.process_group import World
    from functions.train.pipeline import Outcome


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    options = parser().parse_args(words)
    try:
        store, name = open_store(options.store), given_name(options.run, os.environ)
        recipe, folder = take(options.recipe, options.set, store)
        refuse_cancelled(store, name, os.environ)
        if recipe.compile:
            refuse_without_compiler(gpus())
        if several := fleet(os.environ, options.processes, gpus):
            return launch(several, words)
        outcome = train(recipe, store, name, options.time_budget, folder)
    except PilotlightError as exc:
        sys.stderr.write(f"{exc}\n")
        return report(exit_code(exc))
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        return report(130)
    if outcome:
        sys.stdout.write(f"{as_json(outcome, options.store) if options.json else outcome.reference}\n")
    return report(0)


def parser() -> argparse.ArgumentParser:
    """The words of the command line."""
    words = argparse.ArgumentParser(prog="python -m functions.train", description="Run a recipe and publish a version.")
    words.add_argument("recipe", metavar="RECIPE", help="a YAML file, the bare name of a recipe of record, store:KEY")
    words.add_argument(
        "--set", metavar="KEY=VALUE", action="extend", nargs="+", default=[], help="optimiser.learning_rate=0.01"
    )
    words.add_argument(
        "--store",
        metavar="URL",
        default=os.environ.get("PILOTLIGHT_STORE") or DEFAULT_STORE,
        help="where to publish: s3://bucket/prefix, file:///folder or a folder; %(default)s unless given",
    )
    words.add_argument("--run", metavar="NAME", help="a new run's name, or that of one to go on with")
    words.add_argument(
        "--time-budget", metavar="SECONDS", type=seconds, help="save and stop after this long, with exit code 75"
    )
    words.add_argument(
        "--processes", metavar="N", type=count, help="that train together on this machine; one per GPU unless given"
    )
    words.add_argument("--json", action="store_true", help="print the reference, the metrics and the report as JSON")
    return words


def exit_code(error: PilotlightError) -> int:
    """What a script is told of an error."""
    if isinstance(error, PausedError):
        return os.EX_TEMPFAIL
    return 2 if isinstance(error, InvalidInputError) else 1


def seconds(word: str) -> float:
    """A time budget, which must be more than nothing."""
    budget = float(word)
    if not budget > 0:
        raise ValueError
    return budget


def count(word: str) -> int:
    """A number of processes."""
    number = int(word)
    if number < 1:
        raise ValueError
    return number


def train(
    recipe: Recipe, store: ObjectStore, name: str | None, budget_s: float | None, folder: Path
) -> "Outcome | None":
    """Run, ready to be stopped; None where another process has the outcome."""
    interruption = Interruption(budget_s)
    with interruption.listening():  # from before torch is imported: SIGTERM in these seconds, too, means 75
        return start(recipe, store, name, interruption, folder)


def start(
    recipe: Recipe, store: ObjectStore, name: str | None, interruption: Interruption, folder: Path
) -> "Outcome | None":
    """Take part: run, or follow the lead's trainings. None where another process has the outcome."""
    from functions.train.distributed.process_group import (
        joined,  # this brings torch: seconds that a typo in a recipe need not wait
    )

    with joined() as world:
        if world.lead:
            return lead(recipe, store, name, interruption, folder, world)
        from functions.train.distributed.worker import follow

        follow(recipe, store, interruption, folder, world)
        return None


def lead(
    recipe: Recipe, store: ObjectStore, name: str | None, interruption: Interruption, folder: Path, world: "World"
) -> "Outcome":
    """Run, and show on standard error how it goes."""
    from functions.train.evaluation.quantization_report import table
    from functions.train.pipeline import run
    from functions.train.progress import Progress  # these bring what else a run needs, onnx among them

    console = Console(stderr=True)
    progress = Progress(console, before=interruption.check)
    outcome = run(recipe, store, progress, name, interruption, folder, world)
    console.print(table(outcome.report))
    return outcome


def as_json(outcome: "Outcome", store: str) -> str:
    """The outcome for scripts, in one line."""
    variants = outcome.manifest.variants
    said = {
        "reference": str(outcome.reference),
        "store": store,
        "run": outcome.run,
        "metrics": {precision: variant.metrics for precision, variant in variants.items()},
        "report": msgspec.to_builtins(outcome.report),
        "seconds": outcome.seconds,
    }
    if folds := outcome.folds:
        said["folds"] = {"metric": folds.metric, "mean": folds.mean, "sd": folds.sd, "values": folds.values}
    return json.dumps(said)


if __name__ == "__main__":
    sys.exit(main())
