"""`python -m functions.train RECIPE`: read the command line, run the recipe, print the reference of the new version.

Standard output has the result alone, so that a script can read it; progress goes to standard error. Exit codes: 0
published, 1 not published, 2 the command line or the recipe is wrong, 130 interrupted, 75 (EX_TEMPFAIL) stopped by
SIGTERM or at the end of its time budget, or by a failed GPU or a lost process after a new checkpoint. AWS Batch retries
on 75, and the same --run resumes.

Where there are several GPUs, or several machines according to AWS Batch, it starts itself once for each GPU: see
`launcher`. Started by `torchrun`, it is one of the processes.
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

from functions.train.distributed.launcher import (
    EXIT_FILE,
    count_gpus,
    detect_cluster,
    end_process,
    launch_processes,
    report_exit_code,
)
from functions.train.errors import LostProcessError, PausedError
from functions.train.fault_recovery import FAULT, decide_retry
from functions.train.run_setup import load_command_recipe, refuse_cancelled_run, resolve_run_name
from functions.train.training.compiler import refuse_without_compiler
from functions.train.training.interruption import InterruptionMonitor
from pilotlight.errors import InvalidInputError, PilotlightError
from pilotlight.recipes.schema import Recipe
from pilotlight.settings import DEFAULT_STORE
from pilotlight.storage.object_store import ObjectStore, open_store

if TYPE_CHECKING:
    from functions.train.distributed.process_group import ProcessGroup
    from functions.train.pipeline import RunOutcome


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    argv = sys.argv[1:] if arguments is None else list(arguments)
    options = build_train_parser().parse_args(argv)
    try:
        store, run_name = open_store(options.store), resolve_run_name(options.run, os.environ)
        recipe, folder = load_command_recipe(options.recipe, options.set, store)
        refuse_cancelled_run(store, run_name, os.environ)
        if recipe.compile:
            refuse_without_compiler(count_gpus())
        if cluster := detect_cluster(os.environ, options.processes, count_gpus):
            return launch_processes(cluster, argv, lambda reason: decide_retry(store, run_name, reason, write_line))
        outcome = run_interruptibly(recipe, store, run_name, options.time_budget, folder)
    except LostProcessError as exc:
        sys.stderr.write(f"{exc}\n")
        if EXIT_FILE in os.environ:
            return report_exit_code(FAULT)
        return decide_retry(store, run_name, str(exc), write_line)
    except PilotlightError as exc:
        sys.stderr.write(f"{exc}\n")
        return report_exit_code(to_exit_code(exc))
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        return report_exit_code(130)
    if outcome:
        sys.stdout.write(f"{format_outcome_json(outcome, options.store) if options.json else outcome.reference}\n")
    return report_exit_code(0)


def build_train_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m functions.train", description="Run a recipe and publish a version."
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file, the bare name of a recipe of record, store:KEY")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="extend", nargs="+", default=[], help="optimiser.learning_rate=0.01"
    )
    parser.add_argument(
        "--store",
        metavar="URL",
        default=os.environ.get("PILOTLIGHT_STORE") or DEFAULT_STORE,
        help="where to publish: s3://bucket/prefix, file:///folder or a folder; %(default)s unless given",
    )
    parser.add_argument("--run", metavar="NAME", help="a new run's name, or that of one to go on with")
    parser.add_argument(
        "--time-budget", metavar="SECONDS", type=seconds, help="save and stop after this long, with exit code 75"
    )
    parser.add_argument(
        "--processes", metavar="N", type=count, help="that train together on this machine; one per GPU unless given"
    )
    parser.add_argument("--json", action="store_true", help="print the reference, the metrics and the report as JSON")
    return parser


def write_line(message: str) -> None:
    """Write a message on standard error."""
    sys.stderr.write(f"{message}\n")


def to_exit_code(error: PilotlightError) -> int:
    """Map an error to the exit code that a script sees."""
    if isinstance(error, PausedError):
        return os.EX_TEMPFAIL
    return 2 if isinstance(error, InvalidInputError) else 1


def seconds(word: str) -> float:
    """Parse a time budget, which must be positive."""
    budget = float(word)
    if not budget > 0:
        raise ValueError
    return budget


def count(word: str) -> int:
    """Parse a number of processes, which must be at least 1."""
    number = int(word)
    if number < 1:
        raise ValueError
    return number


def run_interruptibly(
    recipe: Recipe, store: ObjectStore, run_name: str | None, time_budget_s: float | None, recipe_folder: Path
) -> "RunOutcome | None":
    """Run so that SIGTERM can stop it; None where another process has the outcome."""
    interruption = InterruptionMonitor(time_budget_s)
    with interruption.handle_sigterm():  # before torch is imported, since SIGTERM in these seconds also means 75
        return join_and_run(recipe, store, run_name, interruption, recipe_folder)


def join_and_run(
    recipe: Recipe, store: ObjectStore, run_name: str | None, interruption: InterruptionMonitor, recipe_folder: Path
) -> "RunOutcome | None":
    """Run as the main process, or work in its trainings; None where another process has the outcome."""
    from functions.train.distributed.process_group import (
        join_process_group,  # imports torch, which takes seconds, after the recipe has been checked
    )

    with join_process_group() as process_group:
        if process_group.is_main:
            return run_main_process(recipe, store, run_name, interruption, recipe_folder, process_group)
        from functions.train.distributed.worker import run_worker

        run_worker(recipe, store, interruption, recipe_folder, process_group)
        return None


def run_main_process(
    recipe: Recipe,
    store: ObjectStore,
    run_name: str | None,
    interruption: InterruptionMonitor,
    recipe_folder: Path,
    process_group: "ProcessGroup",
) -> "RunOutcome":
    """Run, and report progress on standard error."""
    from functions.train.evaluation.quantization_report import build_report_table
    from functions.train.pipeline import run_recipe
    from functions.train.progress import ProgressReporter  # these import what else a run needs, such as onnx

    console = Console(stderr=True)
    progress = ProgressReporter(console, before_stage=interruption.raise_if_interrupted)
    outcome = run_recipe(recipe, store, progress, run_name, interruption, recipe_folder, process_group)
    console.print(build_report_table(outcome.report))
    return outcome


def format_outcome_json(outcome: "RunOutcome", store: str) -> str:
    """Format the outcome for scripts, in one line."""
    variants = outcome.manifest.variants
    document = {
        "reference": str(outcome.reference),
        "store": store,
        "run": outcome.run_name,
        "metrics": {precision: variant.metrics for precision, variant in variants.items()},
        "report": msgspec.to_builtins(outcome.report),
        "seconds": outcome.seconds,
    }
    if folds := outcome.folds:
        document["folds"] = {
            "metric": folds.metric,
            "mean": folds.mean,
            "sd": folds.standard_deviation,
            "values": folds.values,
        }
    return json.dumps(document)


if __name__ == "__main__":
    end_process(main())
