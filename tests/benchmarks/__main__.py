"""Run the benchmarks, all of them or those named: `python -m tests.benchmarks [P3 ...]`; keep the result in .bench/."""

import json
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks import cold, fetch, layers, memory, training, warm
from tests.benchmarks.goal import Measure

RESULTS = Path(".bench")
BENCHMARKS = {
    "P1": cold.measure,
    "P2": cold.measure_floor,
    "P3": warm.measure,
    "P5": memory.measure,
    "P6": fetch.measure,
    "P10": layers.measure,
    "T1": training.measure,
}


def main(names: list[str]) -> None:
    """Measure, print a table, write a JSON file. A missed goal is a finding, not a failure."""
    measures = [measure for name in names or BENCHMARKS for measure in BENCHMARKS[name]()]
    Console().print(table(measures))
    RESULTS.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    result = {
        "at": now.isoformat(),
        "machine": f"{platform.machine()}, python {platform.python_version()}",
        "measures": [measure.as_dict() for measure in measures],
    }
    (RESULTS / f"{now:%Y%m%dT%H%M%S}.json").write_text(json.dumps(result, indent=2) + "\n")


def table(measures: list[Measure]) -> Table:
    """The measures beside their goals."""
    shown = Table(title="DESIGN.md section 7", title_justify="left")
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
