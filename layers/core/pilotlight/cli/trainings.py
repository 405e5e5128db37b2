"""Trainings of a server, for `pilotlight train --remote` and `runs --remote`: started, listed, shown, followed.

Ctrl-C leaves a training going: it is the server's, not this command's.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pilotlight.api.schemas.training import UNDER_WAY, Course, Training
from pilotlight.cli.console import ERRORS, RESULTS, URL, print_json, print_table, server
from pilotlight.cli.differences import Settings, settings
from pilotlight.cli.models import figure
from pilotlight.cli.plot import plot
from pilotlight.client.client import Client
from pilotlight.contracts.run import Line
from pilotlight.errors import UnavailableError
from pilotlight.recipes import restrictions
from pilotlight.recipes.schema import load, of_record
from pilotlight.training_runs.run_store import duration, kept, new_name

STOPPED = frozenset({"cancelled", "paused", "interrupted"})
EX_TEMPFAIL = 75  # as the training job says it: stopped, and worth starting again
INTERRUPTED = 130


def place(*, remote: bool, url: str | None) -> str | None:
    """The server that is meant; None where the command is about a store."""
    return url or (URL if remote else None)


def start(url: str, recipe: str, changes: Sequence[str], run: str | None, nodes: int, *, json: bool) -> int:
    """Have a server train a recipe and follow it; gives the exit code.

    The recipe is checked here first. The run's name is made up here, so that a request that is sent twice is one
    training; a name that was given goes on with a run that was stopped.
    """
    whole = restrictions.check(load(recipe, changes))
    name = run or new_name(whole.name)
    what: str | Mapping[str, Any] = recipe if recipe in of_record() else whole.model_dump(mode="json")
    with server(url) as client:
        client.trainings.start(
            what, changes=changes if isinstance(what, str) else (), run=name, nodes=nodes, resume=run is not None
        )
        return follow(client, name, json=json)


def follow(client: Client, run: str, *, json: bool) -> int:
    """Show a training's log until its end, then what came out; gives the exit code."""
    try:
        course = shown(client, run)
    except KeyboardInterrupt:
        url = client.url
        ERRORS.print(
            f"\n{run} goes on. Follow it again: pilotlight runs show {run} --follow --remote --url {url}\n"
            f"Stop it: pilotlight runs cancel {run} --remote --url {url}",
            markup=False,
            soft_wrap=True,
        )
        return INTERRUPTED
    if json:
        print_json(course)
    elif course.version:
        RESULTS.print(course.version, markup=False)
    return code(course)


def shown(client: Client, run: str) -> Course:
    """The training at its end; until then its log passes on standard error, on a terminal above its curve."""
    with Live(console=ERRORS, auto_refresh=False, transient=True) as live:

        def look() -> None:
            if ERRORS.is_terminal:
                course = client.trainings.show(run)
                live.update(Group(*map(Text, curve(course.lines, course.recipe))), refresh=True)

        for line in client.trainings.follow(run, look=look):
            live.console.print(line, markup=False, soft_wrap=True)
    course = client.trainings.show(run)
    for line in ("", *curve(course.lines, course.recipe), "", *ended(course)):
        ERRORS.print(line, markup=False, soft_wrap=True)
    return course


def code(course: Training) -> int:
    """A training's end as an exit code: that of the same training on this machine."""
    if course.state in UNDER_WAY:
        raise UnavailableError(f"The log of {course.run} has ended, and it is {course.state}; look again.")
    return 0 if course.state == "finished" else EX_TEMPFAIL if course.state in STOPPED else 1


def ended(course: Course) -> list[str]:
    """How a training ended, in sentences."""
    return [line for line in (f"{course.run} {course.state}. {course.reason}".strip(), published(course)) if line]


def listing(url: str, *, json: bool) -> None:
    """Every training of a server, those first that changed last."""
    with server(url) as client:
        found = client.trainings.list()
    if json:
        print_json(found)
    elif found.trainings:
        print_table(table(found.trainings, found.total))
    else:
        RESULTS.print(f"No trainings at {url} yet; `pilotlight train digits --remote` starts one.", soft_wrap=True)


def show(url: str, run: str, *, following: bool, json: bool) -> int:
    """One training of a server, followed to its end where that is wanted; gives the exit code."""
    with server(url) as client:
        if following:
            return follow(client, run, json=json)
        course = client.trainings.show(run)
    if json:
        print_json(course)
    else:
        for line in (*told(course), "", *curve(course.lines, course.recipe)):
            RESULTS.print(line, markup=False, soft_wrap=True)
    return 0


def cancel(url: str, run: str, why: str, *, json: bool) -> None:
    """Stop a training of a server."""
    with server(url) as client:
        course = client.trainings.cancel(run, why)
    said = f"{run} is {course.state}: it saves a checkpoint, and `pilotlight train ... --run {run} --remote` goes on."
    print_json(course) if json else RESULTS.print(said, markup=False, soft_wrap=True)


def table(trainings: Sequence[Training], total: int) -> Table:
    """Trainings for people."""
    rows = Table("run", "state", "epochs", "newest epoch", "version", "started", "took", "job")
    rows.caption = f"{len(trainings)} of {total}" if total > len(trainings) else None
    for one in trainings:
        epochs, when = f"{one.epochs}/{one.of}", one.started[:16].replace("T", " ")
        newest = epoch(one.last) if one.last else ""
        work = f"{one.job.launcher} {one.job.state}" if one.job else ""
        rows.add_row(one.run, one.state, epochs, newest, one.version or "", when, duration(one.seconds), work)
    return rows


def told(course: Course) -> list[str]:
    """One training for people, its curve aside."""
    lines = [f"{course.run}  {course.state}", course.reason]
    if course.job:
        job = course.job
        lines.append(f"{job.launcher} job {job.id}: {job.state}, attempt {job.attempts}, asked for by {job.by}")
        if job.nodes > 1:
            lines.append(f"on {job.nodes} nodes")
    lines.append(f"{course.epochs} of {course.of} epochs in {duration(course.seconds)}, started {course.started[:19]}")
    if best := best_of(course.lines, settings(course.recipe)):
        lines.append(epoch(best))
    return [line for line in (*lines, published(course)) if line]


def published(course: Course) -> str:
    """The version that came out, with what it was measured to do and what the gate says."""
    if not course.version:
        return ""
    measured = ", ".join(f"{key} {figure(key, value)}" for key, value in course.metrics.items())
    verdict = f"; the gate: {course.verdict}" if course.verdict else ""
    return f"published {course.version}: {measured}{verdict}"


def epoch(line: Line) -> str:
    """An epoch's numbers."""
    metric, loss = line.validation_accuracy, line.validation_loss
    judged = "" if metric is None else f"{line.metric} {figure(line.metric, metric)}, "
    return f"{judged}loss {'not finite' if loss is None else f'{loss:.4f}'} in epoch {line.number}"


def best_of(lines: Sequence[Line], recipe: Settings) -> Line | None:
    """The epoch whose weights were kept, so far."""
    return kept(lines, float(recipe.get("early_stopping.min_delta") or 0.0))


def curve(lines: Sequence[Line], recipe: str) -> list[str]:
    """The losses over the epochs."""
    best = best_of(lines, settings(recipe))
    losses = {
        "training loss": [line.train_loss for line in lines],
        "validation loss": [line.validation_loss for line in lines],
    }
    return plot(losses, best.number if best else None)
