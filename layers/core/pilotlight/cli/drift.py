"""`pilotlight drift NAME`: compare the requests to a model with the data on which it was trained."""

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

from pilotlight.cli.console import (
    ERRORS,
    RESULTS,
    STORE,
    JsonOption,
    StoreOption,
    open_registry,
    print_json,
    print_table,
)
from pilotlight.cli.train import build_job_environment
from pilotlight.contracts.names import ModelReference
from pilotlight.drift import charts
from pilotlight.drift.comparison import FALSE_ALARM_RATE, Comparison
from pilotlight.drift.report import DriftAnalysis, DriftReport, analyze_drift, format_report
from pilotlight.errors import UnavailableError

MIN_DRAWN, MAX_DRAWN = 3, 8  # features that are drawn in the terminal without --all
MAX_PICTURED = 64  # in a PNG
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
    model_registry, reference = open_registry(store), ModelReference.parse(name)
    version, now = model_registry.resolve_reference(reference), datetime.now(UTC)
    inspection = analyze_drift(
        model_registry, reference.name, version, now - timedelta(days=days), now + timedelta(hours=1)
    )
    if picture is not None:
        write_picture(inspection, picture)
    if json:
        print_json(inspection.report)
        return
    print_drift_report(inspection, draw_all=every)


def print_drift_report(inspection: DriftAnalysis, *, draw_all: bool) -> None:
    """Print the verdict in a sentence, a table, and charts of then and now."""
    report = inspection.report
    RESULTS.print(format_report(report), markup=False, soft_wrap=True)
    if report.files_left_out:
        left = f"{report.files_left_out:,} of {report.files + report.files_left_out:,} files were left out, evenly."
        ERRORS.print(left, soft_wrap=True)
    if not report.examples:
        RESULTS.print("Nothing was kept in that time: is CaptureRate, or `pilotlight serve --capture`, above 0?")
        return
    print_table(build_drift_table(report))
    for one in report.comparisons_by_severity if draw_all else select_features(report):
        for line in draw_feature(inspection, one):
            RESULTS.print(line, markup=False, soft_wrap=True)


def select_features(report: DriftReport) -> list[Comparison]:
    """Select the features to draw: all that changed, as far as there is room, or else the first few."""
    worth = report.select_names("drifted", "changed")
    return report.comparisons_by_severity[: min(MAX_DRAWN, max(MIN_DRAWN, len(worth)))]


def build_drift_table(report: DriftReport) -> Table:
    """Build a table with a row for each feature and each part of the answers."""
    table = Table()
    for column in ("feature", "verdict", "PSI", "KS", "p", "missing then", "now", "unseen"):
        table.add_column(column, justify="left" if column in ("feature", "verdict") else "right", no_wrap=True)
    table.caption = (
        f"PSI counts where p, for {len(report.comparisons)} comparisons together, is below {FALSE_ALARM_RATE}: few "
        "examples "
        "differ by chance. unseen: beyond all that training saw."
    )
    for one in report.comparisons:
        colour = COLOURS[one.verdict]
        name = one.name if one.part == "feature" else f"answer: {one.name}"
        distance = "" if one.ks is None else f"{one.ks:.3f}"
        gaps = [f"{share:.1%}" for share in (*one.missing, one.outside)]
        verdict = f"[{colour}]{one.verdict}[/{colour}]"
        table.add_row(escape(name), verdict, f"{one.psi:.3f}", distance, f"{one.p:.2g}", *gaps)
    return table


def draw_feature(inspection: DriftAnalysis, comparison: Comparison) -> list[str]:
    """Draw a feature then and now, in characters."""
    profiles = inspection.profile.features if comparison.part == "feature" else inspection.profile.answers
    counts = inspection.aggregator.features if comparison.part == "feature" else inspection.aggregator.answers
    title = f"{comparison.name}  {comparison.verdict}, PSI {comparison.psi:.3f}"
    return ["", title, *charts.format_chart(profiles[comparison.name], counts[comparison.name])]


def write_picture(inspection: DriftAnalysis, file: Path) -> None:
    """Write the PNG in a process that has matplotlib."""
    if find_spec("matplotlib") is None:
        raise UnavailableError(
            "--picture needs matplotlib, which is not installed here; run pip install -e '.[train]'."
        )
    command = [sys.executable, "-m", "functions.train.evaluation.drift_plot", "--into", str(file)]
    panels = msgspec.json.encode(charts.build_panels(inspection)[:MAX_PICTURED])
    code = subprocess.run(command, input=panels, env=build_job_environment(), check=False).returncode
    if code:
        raise typer.Exit(code)
