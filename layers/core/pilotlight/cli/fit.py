"""`pilotlight fit`: what a version needs of a function, and what its calls will cost."""

from typing import Annotated

import typer
from rich.table import Table

from pilotlight.cli.console import ERRORS, RESULTS, STORE, JsonOption, StoreOption, open_registry, print_json
from pilotlight.contracts.names import ModelReference
from pilotlight.costs import prices
from pilotlight.runtime.model_benchmark import measure_load
from pilotlight.runtime.sizing import MAX_MEMORY_MB, SizingReport, build_sizing_report


def fit(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model: name, name:3 or name@alias.")],
    measure: Annotated[bool, typer.Option("--measure", help="Open it in a fresh process and measure.")] = False,
    arm: Annotated[bool, typer.Option("--arm", help="Prices of arm64 instead of x86_64.")] = False,
    store: StoreOption = STORE,
    json: JsonOption = False,
) -> None:
    """Peak memory, load time, smallest safe MemorySize and $ per million calls."""
    model_registry = open_registry(store)
    reference = ModelReference.parse(name)
    manifest = model_registry.load_manifest(reference.name, model_registry.resolve_reference(reference))
    measurement = measure_load(store, manifest, MAX_MEMORY_MB) if measure else None
    result = build_sizing_report(manifest, measurement, "arm64" if arm else "x86_64")
    if json:
        print_json(result)
        return
    RESULTS.print(build_sizing_table(result))
    for warning in result.warnings:
        ERRORS.print(warning, markup=False, soft_wrap=True)


def build_sizing_table(result: SizingReport) -> Table:
    """Build the table of what the version needs."""
    table = Table(title=f"{result.model}:{result.version}", title_justify="left", title_style="bold", show_header=False)
    memory = f"{result.memory_mb:,} MB" if result.memory_mb else "none is large enough"
    cost = f"${result.usd_per_million:,.2f}" if result.usd_per_million is not None else "-"
    for what, value in (
        ("model", f"{result.model_bytes / 1e6:,.1f} MB"),
        ("peak memory", f"{result.peak_bytes / 1e6:,.0f} MB, {result.source}"),
        ("smallest safe MemorySize", memory),
        ("load time on Lambda", f"{result.load_seconds:,.2f} s"),
        ("warm call", f"{result.warm_ms:,.2f} ms"),
        ("a million calls", f"{cost}, {result.architecture}, prices of {prices.AS_OF}"),
    ):
        table.add_row(what, value)
    return table
