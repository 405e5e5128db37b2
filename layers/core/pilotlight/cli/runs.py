"""`pilotlight runs`: what trainings there were, how one went, and how several compare."""

from collections.abc import Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from pilotlight.cli import trainings
from pilotlight.cli.console import (
    RESULTS,
    STORE,
    JsonOption,
    RemoteOption,
    ServerOption,
    StoreOption,
    print_json,
    print_table,
)
from pilotlight.cli.differences import Settings, differing, grouped, said, settings, value
from pilotlight.cli.models import figure
from pilotlight.contracts.run import Line
from pilotlight.errors import InvalidInputError, NotFoundError
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import ObjectStore, open_store
from pilotlight.training_runs.run_store import Run, duration, names, pictures, read, read_all

SILENT_S = 900  # a run that has said nothing for so long may have been killed
SIDE_BY_SIDE = 3  # runs that stand beside each other; more stand below each other

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Its name, as in the list.")]
runs = typer.Typer(help="Trainings: list, show, compare or cancel them.", add_completion=False)


@runs.callback(invoke_without_command=True)
def overview(
    context: typer.Context,
    store: StoreOption = STORE,
    remote: RemoteOption = False,
    url: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Trainings: list, show, compare or cancel them. Without a command, list."""
    if context.invoked_subcommand is None:
        listing(store, remote, url, json)
    elif any(given(context, option) for option in ("store", "remote", "url", "json")):
        raise InvalidInputError(f"Write the options after {context.invoked_subcommand!r}, not before it.")


def given(context: typer.Context, option: str) -> bool:
    """Whether an option stands on the command line."""
    source = context.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


@runs.command("list")
def listing(
    store: StoreOption = STORE, remote: RemoteOption = False, url: ServerOption = None, json: JsonOption = False
) -> None:
    """Every run, the newest first."""
    if server := trainings.place(remote=remote, url=url):
        trainings.listing(server, json=json)
        return
    found = open_store(store)
    every = sorted(read_all(found, names(found)), key=started, reverse=True)
    if json:
        print_json([summary(run) | {"changes": changes(run, every)} for run in every])
    elif every:
        print_table(overall(every))
    else:
        RESULTS.print(f"No runs in {store} yet; `pilotlight train digits` makes one.", markup=False, soft_wrap=True)


@runs.command("show")
def show(
    run: RunArgument,
    following: Annotated[bool, typer.Option("--follow", help="With --remote: its log until its end.")] = False,
    store: StoreOption = STORE,
    remote: RemoteOption = False,
    url: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """One run: how it is, its curve, where its pictures are."""
    if server := trainings.place(remote=remote, url=url):
        raise typer.Exit(trainings.show(server, run, following=following, json=json))
    if following:
        raise InvalidInputError("--follow is for --remote; a training on this machine shows its log where it runs.")
    found = open_store(store)
    one = read(found, run)
    drawn = [f"{found.url}/{key}" for key in pictures(found, run)]
    if json:
        print_json(summary(one) | {"test": tested(found, one), "metrics": one.lines, "pictures": drawn})
        return
    for line in [*told(one, tested(found, one)), "", *curve(one), "", *drawn]:
        RESULTS.print(line, markup=False, soft_wrap=True)


@runs.command("cancel")
def cancel(
    run: RunArgument,
    why: Annotated[str, typer.Option("--why", metavar="WORDS", help="Kept with the run.")] = "cancelled by hand",
    remote: RemoteOption = False,
    url: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Stop a server's training: it saves a checkpoint first, and `train --remote --run RUN` goes on from there."""
    server = trainings.place(remote=remote, url=url)
    if server is None:
        raise InvalidInputError("A run is cancelled at its server: add --remote. One on this machine ends by Ctrl-C.")
    trainings.cancel(server, run, why, json=json)


@runs.command("compare")
def compare(
    several: Annotated[list[str], typer.Argument(metavar="RUN RUN ...", help="Names; * stands for any letters.")],
    store: StoreOption = STORE,
    json: JsonOption = False,
) -> None:
    """Two runs or more: where their recipes differ, and what they came to."""
    found = open_store(store)
    every = read_all(found, matching(names(found), several))
    if len(every) < 2:
        raise InvalidInputError(f"{' '.join(several)} names one run; give two or more, or a pattern: 'sweep-*'.")
    recipes = [settings(run.recipe) for run in every]
    paths = differing(recipes)
    if json:
        print_json({"differing": paths, "runs": [compared(found, run, paths) for run in every]})
        return
    print_table(beside(every, recipes, paths, [tested(found, run) for run in every]))


def matching(known: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """The runs that names and patterns mean, each once; `NotFoundError` for one that means none."""
    chosen: dict[str, None] = {}
    for pattern in wanted:
        met = [name for name in known if fnmatchcase(name, pattern)]
        if not met:
            raise NotFoundError(f"There is no run {pattern!r}; `pilotlight runs` lists all.")
        chosen |= dict.fromkeys(met)
    return list(chosen)


def summary(run: Run) -> dict[str, Any]:
    """A run in one line."""
    recipe = settings(run.recipe)
    best = best_of(run, recipe)
    return {
        "run": run.name,
        "model": recipe.get("name", ""),
        "state": run.state,
        "reason": run.status.reason if run.status else "",
        "started": started(run),
        "heard": run.heard,
        "lives": run.status.lives if run.status else 1,
        "seconds": round(run.seconds, 3),
        "epochs": len(run.lines),
        "of": recipe.get("epochs"),
        "metric": best.metric if best else None,
        "best": best,
        "version": str(run.published) if run.published else None,
    }


def best_of(run: Run, recipe: Settings) -> Line | None:
    """The epoch whose weights were kept, so far."""
    return trainings.best_of(run.lines, recipe)


def final(run: Run) -> dict[str, Any]:
    """What the last epoch gave."""
    last = run.lines[-1] if run.lines else None
    return {
        "train_loss": last.train_loss if last else None,
        "validation_loss": last.validation_loss if last else None,
        "remaining_s": last.remaining_s if last and run.state == "running" else None,
    }


def compared(store: ObjectStore, run: Run, paths: Sequence[str]) -> dict[str, Any]:
    """A run's line of a comparison for scripts; null is a setting that its recipe does not have."""
    recipe = settings(run.recipe)
    return (
        summary(run) | final(run) | {"test": tested(store, run), "settings": {path: recipe.get(path) for path in paths}}
    )


def tested(store: ObjectStore, run: Run) -> dict[str, float]:
    """What the served variant of the run's version was measured to do on the test set; nothing without a version."""
    if run.published is None or run.published.version is None:
        return {}
    manifest = Registry(store).manifest(run.published.name, run.published.version)
    return manifest.variants[manifest.serve].metrics


def started(run: Run) -> str:
    """When the run was first started; unknown of those from before there was a status."""
    return run.status.started if run.status else ""


def changes(run: Run, every: Sequence[Run]) -> dict[str, Any]:
    """In which settings a run differs from the first one of the same model."""
    recipe = settings(run.recipe)
    alike = [settings(other.recipe) for other in sorted(every, key=started)]
    first = next(other for other in alike if other.get("name") == recipe.get("name"))
    return {path: recipe.get(path) for path in differing([first, recipe])}


def overall(every: Sequence[Run]) -> Table:
    """All runs for people."""
    shown = Table()
    for column in ("run", "state", "epochs", "best on validation", "version", "started", "took", "changed"):
        side: Literal["left", "right"] = "right" if column in ("epochs", "took") else "left"
        shown.add_column(column, justify=side, no_wrap=column in ("run", "epochs", "took"))
    shown.caption = "changed: other than the first run of the same model"
    for run in every:
        one = summary(run)
        epochs = f"{one['epochs']}/{one['of']}"
        changed = changes(run, every)
        parts = grouped(list(changed)).items()
        words = [f"{part} {said(changed, paths)}" if paths == [part] else said(changed, paths) for part, paths in parts]
        when = one["started"][:16].replace("T", " ")
        version, took = one["version"] or "", duration(run.seconds)
        shown.add_row(run.name, condition(run), epochs, best(one), version, when, took, "; ".join(words))
    return shown


def told(run: Run, measured: dict[str, float]) -> list[str]:
    """One run for people, its curve aside."""
    one = summary(run)
    lines = [f"{run.name}  {condition(run)}", one["reason"]]
    lines.append(f"{one['epochs']} of {one['of']} epochs in {duration(run.seconds)}, started {one['started'][:19]}")
    lines.append(best(one))
    if run.state == "running" and run.lines and (left := run.lines[-1].remaining_s):
        lines.append(f"at most {duration(left)} left")
    if run.published:
        lines.append(
            f"published {run.published}: {', '.join(f'{key} {figure(key, measured[key])}' for key in measured)}"
        )
    return [line for line in lines if line]


def condition(run: Run) -> str:
    """A run's state in words: one that is under way but has said nothing for long may have been killed."""
    if run.state != "running":
        return {"paused": "paused (75)"}.get(run.state, run.state)
    silent = (datetime.now(UTC) - datetime.fromisoformat(run.heard)).total_seconds()
    return f"running, silent for {duration(silent)}" if silent > SILENT_S else "running"


def best(one: dict[str, Any]) -> str:
    """The kept epoch's numbers."""
    line: Line | None = one["best"]
    if line is None:
        return ""
    metric = line.validation_accuracy
    judged = "" if metric is None else f"{line.metric} {figure(line.metric, metric)}, "
    return f"{judged}loss {number(line.validation_loss)} in epoch {line.number}"


def curve(run: Run) -> list[str]:
    """The losses over the epochs."""
    return trainings.curve(run.lines, run.recipe)


def beside(every: Sequence[Run], recipes: Sequence[Settings], paths: Sequence[str], test: Sequence[Any]) -> Table:
    """A comparison for people: few runs as columns, many as rows."""
    rows = [["run", *(run.name for run in every)], ["state", *map(condition, every)]]
    parts = grouped(paths)
    if len(every) <= SIDE_BY_SIDE:
        rows += [[path, *(value(one, path) for one in recipes)] for path in paths]
    else:
        rows += [[part, *(said(one, inside) for one in recipes)] for part, inside in parts.items()]
    ends = [final(run) for run in every]
    rows.append(["epochs done", *(str(len(run.lines)) for run in every)])
    rows.append(["final training loss", *(number(end["train_loss"]) for end in ends)])
    rows.append(["final validation loss", *(number(end["validation_loss"]) for end in ends)])
    rows.append(["best on validation", *(best(summary(run)) for run in every)])
    rows.append(["served, on the test set", *map(headline, every, test)])
    rows.append(["took", *(duration(run.seconds) for run in every)])
    lines = rows if len(every) <= SIDE_BY_SIDE else [list(column) for column in zip(*rows, strict=True)]
    shown = Table(*lines[0], show_lines=False)
    for line in lines[1:]:
        shown.add_row(*line)
    return shown


def headline(run: Run, measured: dict[str, float]) -> str:
    """What training showed as it went, on the test set."""
    metric = run.lines[-1].metric if run.lines else ""
    return f"{metric} {figure(metric, measured[metric])}" if metric in measured else ""


def number(value: float | None) -> str:
    """A loss, or what there is instead of one."""
    return "not finite" if value is None else f"{value:.4f}"
