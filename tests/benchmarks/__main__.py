"""Run the benchmarks, all of them or those named: `python -m tests.benchmarks [P3 ...]`; keep the result in .bench/."""

import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks import cold, fetch, layers, memory, resolver, throughput, training, warm
from tests.benchmarks.goal import Measure
from tests.benchmarks.starts import version

RESULTS = Path(".bench")
BENCHMARKS = {
    "P1": cold.measure,
    "P2": cold.measure_floor,
    "P3": warm.measure,
    "P5": memory.measure,
    "P6": fetch.measure,
    "P10": layers.measure,
    "R1": resolver.measure,
    "T1": training.measure,
}
THROUGHPUT = "T2"  # has rows of its own, and no goal


def main(names: list[str]) -> None:
    """Measure, print tables, write a JSON file. A missed goal is a finding, not a failure; what breaks is told, too."""
    names = names or [*BENCHMARKS, THROUGHPUT]
    measures: list[Measure] = []
    rows: list[throughput.Row] = []
    broken: list[str] = []
    for name in names:
        sys.stderr.write(f"{datetime.now(UTC):%H:%M:%S} {name}\n")
        try:
            if name == THROUGHPUT:
                rows = throughput.measure()
            else:
                measures += BENCHMARKS[name]()
        except Exception as exc:  # noqa: BLE001 - one that breaks is told, and does not take the others with it
            broken.append(f"{name}: {type(exc).__name__}: {exc}")
    screen = Console()
    if measures:
        screen.print(table(measures))
    if rows:
        screen.print(throughput.table(rows))
    screen.print(f"Kept in {kept(measures, rows, broken)}")
    if broken:
        sys.exit(f"Not measured: {'; '.join(broken)}")


def kept(measures: list[Measure], rows: list[throughput.Row], broken: list[str]) -> Path:
    """The file that holds the result."""
    RESULTS.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    result = {
        "at": now.isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}",
        "python": {"tests": platform.python_version(), "handlers": version()},
        "measures": [measure.as_dict() for measure in measures],
        "throughput": [row.as_dict() for row in rows],
        "broken": broken,
    }
    path = RESULTS / f"{now:%Y%m%dT%H%M%S}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    return path


def table(measures: list[Measure]) -> Table:
    """The measures beside their goals."""
    shown = Table(title="Goals in numbers", title_justify="left")
    for column in ("goal", "measure", "found", "limit", ""):
        shown.add_column(column)
    for measure in measures:
        verdict = "[green]reached[/green]" if measure.reached else "[red]missed[/red]"
        found, limit = (f"{value:.3g} {measure.unit}".strip() for value in (measure.found, measure.limit))
        bound = "at least" if measure.least else "at most"
        shown.add_row(measure.goal, measure.what, found, f"{bound} {limit}", verdict)
    return shown


if __name__ == "__main__":
    main(sys.argv[1:])
