"""Start, list, show and follow trainings of a server, for `pilotlight train --remote` and `runs --remote`.

Ctrl-C does not stop a training, which belongs to the server.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pilotlight.api.schemas.training import ACTIVE_STATES, TrainingDetail, TrainingSummary
from pilotlight.cli.console import ERRORS, RESULTS, open_client, print_json, print_table
from pilotlight.cli.known_servers import find_default_url
from pilotlight.cli.plot import plot_curves
from pilotlight.cli.recipe_diff import RecipeSettings, flatten_recipe
from pilotlight.client.client import Client
from pilotlight.contracts.metric import format_value
from pilotlight.contracts.run import EpochRecord
from pilotlight.errors import UnavailableError
from pilotlight.recipes import restrictions
from pilotlight.recipes.schema import list_builtin_recipes, load_recipe
from pilotlight.training_runs.run_store import find_best_epoch, format_duration, generate_run_name

STOPPED_STATES = frozenset({"cancelled", "paused", "interrupted"})
EX_TEMPFAIL = 75  # of the training job too: stopped, and worth starting again
EX_INTERRUPTED = 130


def resolve_server_url(*, remote: bool, url: str | None) -> str | None:
    """Return the URL of the server; None if the command is about a store."""
    return url or (find_default_url() if remote else None)


def start_training(url: str, recipe: str, changes: Sequence[str], run: str | None, nodes: int, *, json: bool) -> int:
    """Start a training of a recipe on a server, follow it, and return the exit code.

    The recipe is checked here first. The run's name is generated here, so that a request that is sent twice starts one
    training; a given name continues a run that was stopped.
    """
    whole = restrictions.check_restrictions(load_recipe(recipe, changes))
    name = run or generate_run_name(whole.name)
    what: str | Mapping[str, Any] = recipe if recipe in list_builtin_recipes() else whole.model_dump(mode="json")
    with open_client(url) as client:
        client.trainings.start(
            what, changes=changes if isinstance(what, str) else (), run=name, nodes=nodes, resume=run is not None
        )
        return follow_training(client, name, json=json)


def follow_training(client: Client, run: str, *, json: bool) -> int:
    """Print a training's log until its end, then its result, and return the exit code."""
    try:
        training = follow_with_curve(client, run)
    except KeyboardInterrupt:
        url = client.url
        # Not by rich's console: an interrupt within its `print` may leave it collecting what it is given for ever.
        typer.echo(
            f"\n{run} goes on. Follow it again: pilotlight runs show {run} --follow --remote --url {url}\n"
            f"Stop it: pilotlight runs cancel {run} --remote --url {url}",
            err=True,
        )
        return EX_INTERRUPTED
    if json:
        print_json(training)
    elif training.version:
        RESULTS.print(training.version, markup=False)
    return get_exit_code(training)


def follow_with_curve(client: Client, run: str) -> TrainingDetail:
    """Print the log on standard error, on a terminal above the curve, and return the training at its end."""
    with Live(console=ERRORS, auto_refresh=False, transient=True) as live:

        def update_curve() -> None:
            if ERRORS.is_terminal:
                course = client.trainings.get(run)
                live.update(Group(*map(Text, plot_losses(course.lines, course.recipe))), refresh=True)

        for line in client.trainings.follow_log(run, on_pause=update_curve):
            live.console.print(line, markup=False, soft_wrap=True)
    training = client.trainings.get(run)
    for line in ("", *plot_losses(training.lines, training.recipe), "", *format_ending(training)):
        ERRORS.print(line, markup=False, soft_wrap=True)
    return training


def get_exit_code(training: TrainingSummary) -> int:
    """Return the exit code of a training: that of the same training on this machine."""
    if training.state in ACTIVE_STATES:
        raise UnavailableError(f"The log of {training.run} has ended, and it is {training.state}; look again.")
    return 0 if training.state == "finished" else EX_TEMPFAIL if training.state in STOPPED_STATES else 1


def format_ending(training: TrainingDetail) -> list[str]:
    """Describe how a training ended."""
    return [
        line
        for line in (f"{training.run} {training.state}. {training.reason}".strip(), format_published_version(training))
        if line
    ]


def print_trainings(url: str, *, json: bool) -> None:
    """Print every training of a server, the last changed first."""
    with open_client(url) as client:
        page = client.trainings.list()
    if json:
        print_json(page)
    elif page.trainings:
        print_table(build_trainings_table(page.trainings, page.total))
    else:
        RESULTS.print(f"No trainings at {url} yet; `pilotlight train digits --remote` starts one.", soft_wrap=True)


def print_training(url: str, run: str, *, follow_log: bool, json: bool) -> int:
    """Print one training of a server, and follow it to its end if requested; return the exit code."""
    with open_client(url) as client:
        if follow_log:
            return follow_training(client, run, json=json)
        training = client.trainings.get(run)
    if json:
        print_json(training)
    else:
        for line in (*format_training(training), "", *plot_losses(training.lines, training.recipe)):
            RESULTS.print(line, markup=False, soft_wrap=True)
    return 0


def cancel_training(url: str, run: str, reason: str, *, json: bool) -> None:
    """Cancel a training of a server."""
    with open_client(url) as client:
        training = client.trainings.cancel(run, reason)
    message = (
        f"{run} is {training.state}: it saves a checkpoint, and `pilotlight train ... --run {run} --remote` goes on."
    )
    print_json(training) if json else RESULTS.print(message, markup=False, soft_wrap=True)


def build_trainings_table(trainings: Sequence[TrainingSummary], total: int) -> Table:
    """Build the table of trainings."""
    rows = Table("run", "state", "epochs", "newest epoch", "version", "started", "took", "job")
    rows.caption = f"{len(trainings)} of {total}" if total > len(trainings) else None
    for one in trainings:
        epochs, when = f"{one.epochs}/{one.of}", one.started[:16].replace("T", " ")
        newest = format_epoch(one.last) if one.last else ""
        work = f"{one.job.launcher} {one.job.state}" if one.job else ""
        rows.add_row(one.run, one.state, epochs, newest, one.version or "", when, format_duration(one.seconds), work)
    return rows


def format_training(training: TrainingDetail) -> list[str]:
    """Format one training, without its curve."""
    lines = [f"{training.run}  {training.state}", training.reason]
    if training.job:
        job = training.job
        lines.append(f"{job.launcher} job {job.id}: {job.state}, attempt {job.attempts}, asked for by {job.by}")
        if job.nodes > 1:
            lines.append(f"on {job.nodes} nodes")
    lines.append(
        f"{training.epochs} of {training.of} epochs in {format_duration(training.seconds)}, started "
        f"{training.started[:19]}"
    )
    if best := find_best_for_recipe(training.lines, flatten_recipe(training.recipe)):
        lines.append(format_epoch(best))
    return [line for line in (*lines, format_published_version(training)) if line]


def format_published_version(training: TrainingDetail) -> str:
    """Format the published version, with its metrics and the gate's verdict."""
    if not training.version:
        return ""
    measured = ", ".join(f"{key} {format_value(key, value)}" for key, value in training.metrics.items())
    verdict = f"; the gate: {training.verdict}" if training.verdict else ""
    return f"published {training.version}: {measured}{verdict}"


def format_epoch(line: EpochRecord) -> str:
    """Format the numbers of an epoch."""
    metric, loss = line.validation_accuracy, line.validation_loss
    judged = "" if metric is None else f"{line.metric} {format_value(line.metric, metric)}, "
    return (
        f"{judged}{format_monitored(line)}loss {'not finite' if loss is None else f'{loss:.4f}'} in epoch {line.number}"
    )


def format_monitored(line: EpochRecord) -> str:
    """Format what early stopping goes by, where that is neither the loss nor shown already."""
    name, value = line.monitored, line.monitored_value
    return "" if value is None or name == line.metric else f"{name} {format_value(name, value)}, "


def find_best_for_recipe(lines: Sequence[EpochRecord], recipe: RecipeSettings) -> EpochRecord | None:
    """Find the epoch whose weights were kept, so far."""
    return find_best_epoch(lines, float(recipe.get("early_stopping.min_delta") or 0.0))


def plot_losses(lines: Sequence[EpochRecord], recipe: str) -> list[str]:
    """Plot the losses over the epochs."""
    best = find_best_for_recipe(lines, flatten_recipe(recipe))
    losses = {
        "training loss": [line.train_loss for line in lines],
        "validation loss": [line.validation_loss for line in lines],
    }
    return plot_curves(losses, best.number if best else None)
