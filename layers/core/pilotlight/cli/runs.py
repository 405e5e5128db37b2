"""`pilotlight runs`: list the trainings, show one, compare several, cancel one."""

from collections.abc import Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from pilotlight.cli import remote_trainings
from pilotlight.cli.console import (
    ERRORS,
    RESULTS,
    STORE,
    JsonOption,
    RemoteOption,
    ServerOption,
    StoreOption,
    print_json,
    print_table,
)
from pilotlight.cli.known_servers import find_remote_url
from pilotlight.cli.recipe_diff import (
    RecipeSettings,
    find_differing_paths,
    flatten_recipe,
    format_setting,
    format_settings,
    group_paths,
)
from pilotlight.contracts.metric import format_value
from pilotlight.contracts.run import EpochRecord
from pilotlight.errors import BrokenDocumentError, InvalidInputError, NotFoundError
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import ObjectStore, open_store
from pilotlight.training_runs.run_store import (
    TrainingRun,
    format_duration,
    list_pictures,
    list_runs,
    load_run,
    load_runs,
)

MAX_SILENCE_S = 900  # seconds without news, after which a run may have been killed
MAX_RUN_COLUMNS = 3  # runs that are columns of a comparison; more are rows

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Its name, as in the list.")]
runs = typer.Typer(help="Trainings: list, show, compare or cancel them.", add_completion=False)


@runs.callback(invoke_without_command=True)
def print_runs_by_default(
    context: typer.Context,
    store: StoreOption = STORE,
    remote: RemoteOption = False,
    url: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Trainings: list, show, compare or cancel them. Without a command, list."""
    if context.invoked_subcommand is None:
        print_runs(store, remote, url, json)
    elif any(is_option_given(context, option) for option in ("store", "remote", "url", "json")):
        raise InvalidInputError(f"Write the options after {context.invoked_subcommand!r}, not before it.")


def is_option_given(context: typer.Context, option: str) -> bool:
    """Return whether an option is given on the command line."""
    source = context.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


@runs.command("list")
def print_runs(
    store: StoreOption = STORE, remote: RemoteOption = False, url: ServerOption = None, json: JsonOption = False
) -> None:
    """Every run, the newest first."""
    if server := remote_trainings.resolve_server_url(remote=remote, url=url):
        remote_trainings.print_trainings(server, json=json)
        return
    object_store = open_store(store)
    all_runs = sorted(load_runs(object_store, list_runs(object_store)), key=get_start_time, reverse=True)
    if json:
        print_json([build_run_summary(run) | {"changes": find_changed_settings(run, all_runs)} for run in all_runs])
    elif all_runs:
        print_table(build_runs_table(all_runs))
        for run in all_runs:
            if run.error:
                ERRORS.print(f"{run.name}: {run.error}", markup=False, soft_wrap=True)
    else:
        RESULTS.print(f"No runs in {store} yet; `pilotlight train digits` makes one.", markup=False, soft_wrap=True)


@runs.command("show")
def print_run(
    run: RunArgument,
    following: Annotated[bool, typer.Option("--follow", help="With --remote: its log until its end.")] = False,
    store: StoreOption = STORE,
    remote: RemoteOption = False,
    url: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """One run: how it is, its curve, where its pictures are."""
    if server := remote_trainings.resolve_server_url(remote=remote, url=url):
        raise typer.Exit(remote_trainings.print_training(server, run, follow_log=following, json=json))
    if following and (current := find_remote_url()):
        raise typer.Exit(remote_trainings.print_training(current, run, follow_log=True, json=json))
    if following:
        raise InvalidInputError("--follow is for --remote; a training on this machine shows its log where it runs.")
    object_store = open_store(store)
    one = load_run(object_store, run)
    drawn = [f"{object_store.url}/{key}" for key in list_pictures(object_store, run)]
    if json:
        print_json(
            build_run_summary(one)
            | {"test": read_test_metrics(object_store, one), "metrics": one.epochs, "pictures": drawn}
        )
        return
    for line in [*format_run(one, read_test_metrics(object_store, one)), "", *plot_run_losses(one), "", *drawn]:
        RESULTS.print(line, markup=False, soft_wrap=True)


@runs.command("cancel")
def cancel_run(
    run: RunArgument,
    why: Annotated[str, typer.Option("--why", metavar="WORDS", help="Kept with the run.")] = "cancelled by hand",
    remote: RemoteOption = False,
    url: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Stop a server's training: it saves a checkpoint first, and `train --remote --run RUN` goes on from there."""
    server = remote_trainings.resolve_server_url(remote=remote, url=url) or find_remote_url()
    if server is None:
        raise InvalidInputError("A run is cancelled at its server: add --remote. One on this machine ends by Ctrl-C.")
    remote_trainings.cancel_training(server, run, why, json=json)


@runs.command("compare")
def print_comparison(
    several: Annotated[list[str], typer.Argument(metavar="RUN RUN ...", help="Names; * stands for any letters.")],
    store: StoreOption = STORE,
    json: JsonOption = False,
) -> None:
    """Two runs or more: where their recipes differ, and what they came to."""
    object_store = open_store(store)
    every = load_runs(object_store, match_run_names(list_runs(object_store), several))
    if len(every) < 2:
        raise InvalidInputError(f"{' '.join(several)} names one run; give two or more, or a pattern: 'sweep-*'.")
    recipes = [flatten_recipe(run.recipe) for run in every]
    paths = find_differing_paths(recipes)
    if json:
        print_json({"differing": paths, "runs": [build_run_comparison(object_store, run, paths) for run in every]})
        return
    print_table(build_comparison_table(every, recipes, paths, [read_test_metrics(object_store, run) for run in every]))


def match_run_names(existing: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Match names and patterns to runs, each once; raise `NotFoundError` for one that matches none."""
    chosen: dict[str, None] = {}
    for pattern in patterns:
        met = [name for name in existing if fnmatchcase(name, pattern)]
        if not met:
            raise NotFoundError(f"There is no run {pattern!r}; `pilotlight runs` lists all.")
        chosen |= dict.fromkeys(met)
    return list(chosen)


def build_run_summary(run: TrainingRun) -> dict[str, Any]:
    """Summarize a run."""
    recipe = flatten_recipe(run.recipe)
    best = find_best_of_run(run, recipe)
    return {
        "run": run.name,
        "model": recipe.get("name", ""),
        "state": run.state,
        "reason": run.status.reason if run.status else "",
        "started": get_start_time(run),
        "heard": run.last_update,
        "lives": run.status.lives if run.status else 1,
        "seconds": round(run.seconds, 3),
        "epochs": len(run.epochs),
        "of": recipe.get("epochs"),
        "metric": best.metric if best else None,
        "best": best,
        "version": str(run.published_reference) if run.published_reference else None,
        "error": run.error,
    }


def find_best_of_run(run: TrainingRun, recipe: RecipeSettings) -> EpochRecord | None:
    """Find the epoch whose weights were kept, so far."""
    return remote_trainings.find_best_for_recipe(run.epochs, recipe)


def get_final_losses(run: TrainingRun) -> dict[str, Any]:
    """Return the losses of the last epoch."""
    last = run.epochs[-1] if run.epochs else None
    return {
        "train_loss": last.train_loss if last else None,
        "validation_loss": last.validation_loss if last else None,
        "remaining_s": last.remaining_s if last and run.state == "running" else None,
    }


def build_run_comparison(store: ObjectStore, run: TrainingRun, paths: Sequence[str]) -> dict[str, Any]:
    """Build a run's entry of a comparison for scripts; null is a setting that its recipe does not have."""
    recipe = flatten_recipe(run.recipe)
    return (
        build_run_summary(run)
        | get_final_losses(run)
        | {"test": read_test_metrics(store, run), "settings": {path: recipe.get(path) for path in paths}}
    )


def read_test_metrics(store: ObjectStore, run: TrainingRun) -> dict[str, float]:
    """Read the metrics of the served variant of the run's version on the test set; empty without a version."""
    if run.published_reference is None or run.published_reference.version is None:
        return {}
    try:
        manifest = Registry(store).load_manifest(run.published_reference.name, run.published_reference.version)
    except (NotFoundError, BrokenDocumentError):
        return {}  # deleted since, or unreadable
    return manifest.variants[manifest.serve].metrics


def get_start_time(run: TrainingRun) -> str:
    """Return when the run was first started; empty for old runs, which have no status."""
    return run.status.started if run.status else ""


def find_changed_settings(run: TrainingRun, all_runs: Sequence[TrainingRun]) -> dict[str, Any]:
    """Find the settings in which a run differs from the first one of the same model."""
    recipe = flatten_recipe(run.recipe)
    alike = [flatten_recipe(other.recipe) for other in sorted(all_runs, key=get_start_time)]
    first = next(other for other in alike if other.get("name") == recipe.get("name"))
    return {path: recipe.get(path) for path in find_differing_paths([first, recipe])}


def build_runs_table(all_runs: Sequence[TrainingRun]) -> Table:
    """Build the table of all runs."""
    table = Table()
    for column in ("run", "state", "epochs", "best on validation", "version", "started", "took", "changed"):
        side: Literal["left", "right"] = "right" if column in ("epochs", "took") else "left"
        table.add_column(column, justify=side, no_wrap=column in ("run", "epochs", "took"))
    table.caption = "changed: other than the first run of the same model"
    for run in all_runs:
        one = build_run_summary(run)
        epochs = f"{one['epochs']}/{one['of']}"
        changed = find_changed_settings(run, all_runs)
        parts = group_paths(list(changed)).items()
        words = [
            f"{part} {format_settings(changed, paths)}" if paths == [part] else format_settings(changed, paths)
            for part, paths in parts
        ]
        when = one["started"][:16].replace("T", " ")
        version, took = one["version"] or "", format_duration(run.seconds)
        table.add_row(
            run.name, format_state(run), epochs, format_best_epoch(one), version, when, took, "; ".join(words)
        )
    return table


def format_run(run: TrainingRun, test_metrics: dict[str, float]) -> list[str]:
    """Format one run, without its curve."""
    one = build_run_summary(run)
    lines = [f"{run.name}  {format_state(run)}", one["reason"], run.error]
    lines.append(
        f"{one['epochs']} of {one['of']} epochs in {format_duration(run.seconds)}, started {one['started'][:19]}"
    )
    lines.append(format_best_epoch(one))
    if run.state == "running" and run.epochs and (left := run.epochs[-1].remaining_s):
        lines.append(f"at most {format_duration(left)} left")
    if run.published_reference:
        lines.append(
            f"published {run.published_reference}: "
            f"{', '.join(f'{key} {format_value(key, test_metrics[key])}' for key in test_metrics)}"
        )
    return [line for line in lines if line]


def format_state(run: TrainingRun) -> str:
    """Format a run's state; a running one without news for long may have been killed."""
    if run.state != "running":
        return {"paused": "paused (75)"}.get(run.state, run.state)
    silent = (datetime.now(UTC) - datetime.fromisoformat(run.last_update)).total_seconds()
    return f"running, silent for {format_duration(silent)}" if silent > MAX_SILENCE_S else "running"


def format_best_epoch(run_summary: dict[str, Any]) -> str:
    """Format the numbers of the kept epoch."""
    line: EpochRecord | None = run_summary["best"]
    if line is None:
        return ""
    metric = line.validation_accuracy
    judged = "" if metric is None else f"{line.metric} {format_value(line.metric, metric)}, "
    judged += remote_trainings.format_monitored(line)
    return f"{judged}loss {format_loss(line.validation_loss)} in epoch {line.number}"


def plot_run_losses(run: TrainingRun) -> list[str]:
    """Plot the losses over the epochs."""
    return remote_trainings.plot_losses(run.epochs, run.recipe)


def build_comparison_table(
    all_runs: Sequence[TrainingRun],
    recipes: Sequence[RecipeSettings],
    paths: Sequence[str],
    test_metrics: Sequence[Any],
) -> Table:
    """Build the table of a comparison: few runs as columns, many as rows."""
    rows = [["run", *(run.name for run in all_runs)], ["state", *map(format_state, all_runs)]]
    parts = group_paths(paths)
    if len(all_runs) <= MAX_RUN_COLUMNS:
        rows += [[path, *(format_setting(one, path) for one in recipes)] for path in paths]
    else:
        rows += [[part, *(format_settings(one, inside) for one in recipes)] for part, inside in parts.items()]
    ends = [get_final_losses(run) for run in all_runs]
    rows.append(["epochs done", *(str(len(run.epochs)) for run in all_runs)])
    rows.append(["final training loss", *(format_loss(end["train_loss"]) for end in ends)])
    rows.append(["final validation loss", *(format_loss(end["validation_loss"]) for end in ends)])
    rows.append(["best on validation", *(format_best_epoch(build_run_summary(run)) for run in all_runs)])
    rows.append(["served, on the test set", *map(format_test_metric, all_runs, test_metrics)])
    rows.append(["took", *(format_duration(run.seconds) for run in all_runs)])
    lines = rows if len(all_runs) <= MAX_RUN_COLUMNS else [list(column) for column in zip(*rows, strict=True)]
    table = Table(*lines[0], show_lines=False)
    for line in lines[1:]:
        table.add_row(*line)
    return table


def format_test_metric(run: TrainingRun, test_metrics: dict[str, float]) -> str:
    """Format the metric of the training on the test set."""
    metric = run.epochs[-1].metric if run.epochs else ""
    return f"{metric} {format_value(metric, test_metrics[metric])}" if metric in test_metrics else ""


def format_loss(value: float | None) -> str:
    """Format a loss, which may not be finite."""
    return "not finite" if value is None else f"{value:.4f}"
