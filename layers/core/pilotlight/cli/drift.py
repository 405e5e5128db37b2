"""`pilotlight drift NAME`: whether what a model is sent still looks like what it was trained on."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.markup import escape
from rich.table import Table

from pilotlight.cli.console import ERRORS, RESULTS, STORE, JsonOption, StoreOption, print_json, print_table, registry
from pilotlight.cli.train import environment
from pilotlight.contracts.manifest import Reference
from pilotlight.drift import charts
from pilotlight.drift.comparison import CHANCE, Comparison
from pilotlight.drift.report import Inspection, Report, inspect, told
from pilotlight.errors import UnavailableError

FEWEST, MOST = 3, 8  # features that are drawn in the terminal without --all
PICTURED = 64  # in a PNG
COLOURS = {"drifted": "bold red", "changed": "yellow", "stable": "green", "too few": "dim"}


def drift(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model: digits, digits:3, digits@candidate.")],
    days: Annotated[int, typer.Option("--days", min=1, max=366, help="Up to now, of which requests are compared.")] = 7,
    every: Annotated[bool, typer.Option("--all", help="Draw every feature, not the most changed alone.")] = False,
    picture: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE", help="A PNG of the 64 most changed.")
    ] = None,
    store: StoreOption = STORE,
    json: JsonOption = False,
) -> None:
    """Compare what was kept of the requests to a model with what it was trained on."""
    known, reference = registry(store), Reference.parse(name)
    version, now = known.resolve(reference), datetime.now(UTC)
    found = inspect(known, reference.name, version, now - timedelta(days=days), now + timedelta(hours=1))
    if picture is not None:
        draw(found, picture)
    if json:
        print_json(found.report)
        return
    show(found, every=every)


def show(found: Inspection, *, every: bool) -> None:
    """The verdict in a sentence, a table, and then and now beside each other."""
    report = found.report
    RESULTS.print(told(report), markup=False, soft_wrap=True)
    if report.files_left_out:
        left = f"{report.files_left_out:,} of {report.files + report.files_left_out:,} files were left out, evenly."
        ERRORS.print(left, soft_wrap=True)
    if not report.examples:
        RESULTS.print("Nothing was kept in that time: is CaptureRate, or `pilotlight serve --capture`, above 0?")
        return
    print_table(table(report))
    for one in report.ranked if every else chosen(report):
        for line in drawn(found, one):
            RESULTS.print(line, markup=False, soft_wrap=True)


def chosen(report: Report) -> list[Comparison]:
    """What is drawn: all that changed, as far as there is room, and a few to look at if nothing did."""
    worth = report.named("drifted", "changed")
    return report.ranked[: min(MOST, max(FEWEST, len(worth)))]


def table(report: Report) -> Table:
    """A row for each feature and each part of the answers."""
    shown = Table()
    for column in ("feature", "verdict", "PSI", "KS", "p", "missing then", "now", "unseen"):
        shown.add_column(column, justify="left" if column in ("feature", "verdict") else "right", no_wrap=True)
    shown.caption = (
        f"PSI counts where p, for {len(report.comparisons)} comparisons together, is below {CHANCE}: few examples "
        "differ by chance. unseen: beyond all that training saw."
    )
    for one in report.comparisons:
        colour = COLOURS[one.verdict]
        name = one.name if one.part == "feature" else f"answer: {one.name}"
        distance = "" if one.ks is None else f"{one.ks:.3f}"
        gaps = [f"{share:.1%}" for share in (*one.missing, one.outside)]
        verdict = f"[{colour}]{one.verdict}[/{colour}]"
        shown.add_row(escape(name), verdict, f"{one.psi:.3f}", distance, f"{one.p:.2g}", *gaps)
    return shown


def drawn(found: Inspection, one: Comparison) -> list[str]:
    """A feature then and now, in characters."""
    profiles = found.profile.features if one.part == "feature" else found.profile.answers
    tallies = found.tally.features if one.part == "feature" else found.tally.answers
    title = f"{one.name}  {one.verdict}, PSI {one.psi:.3f}"
    return ["", title, *charts.lines(profiles[one.name], tallies[one.name])]


def draw(found: Inspection, file: Path) -> None:
    """Write the PNG, by a process that has matplotlib."""
    if find_spec("matplotlib") is None:
        raise UnavailableError(
            "--picture needs matplotlib, which is not installed here; run pip install -e '.[train]'."
        )
    command = [sys.executable, "-m", "functions.train.evaluation.drift_plot", "--into", str(file)]
    panels = msgspec.json.encode(charts.panels(found)[:PICTURED])
    code = subprocess.run(command, input=panels, env=environment(), check=False).returncode
    if code:
        raise typer.Exit(code)
