"""`pilotlight fit`: what a version needs of a function, and what its calls will cost."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from pilotlight.cli.console import ERRORS, RESULTS, STORE, JsonOption, StoreOption, open_registry, print_json
from pilotlight.contracts.manifest import Manifest
from pilotlight.contracts.names import ModelReference
from pilotlight.costs import prices
from pilotlight.runtime.model_benchmark import measure_load
from pilotlight.runtime.sizing import MAX_MEMORY_MB, SizingReport, build_sizing_report

if TYPE_CHECKING:
    from pilotlight.runtime.generation_sizing import GenerationSizing


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
    architecture = "arm64" if arm else "x86_64"
    if manifest.decoder is not None:
        return print_generation_sizing(store, manifest, architecture, measure=measure, json=json)
    measurement = measure_load(store, manifest, MAX_MEMORY_MB) if measure else None
    result = build_sizing_report(manifest, measurement, architecture)
    if json:
        return print_json(result)
    RESULTS.print(build_sizing_table(result))
    return print_warnings(result.warnings)


def print_warnings(warnings: Sequence[str]) -> None:
    """Print why a version cannot be served well."""
    for warning in warnings:
        ERRORS.print(warning, markup=False, soft_wrap=True)


def print_generation_sizing(store: str, manifest: Manifest, architecture: str, *, measure: bool, json: bool) -> None:
    """Print what a language model needs, as measured now, at its publish, or by formula."""
    from pilotlight.runtime.generation_cost import measure_stored_generation
    from pilotlight.runtime.generation_sizing import build_generation_sizing

    measured = measure_stored_generation(open_registry(store).store, manifest) if measure else None
    result = build_generation_sizing(manifest, measured, architecture)
    if json:
        return print_json(result)
    for table in build_generation_tables(result):
        RESULTS.print(table)
    return print_warnings(result.warnings)


def build_generation_tables(result: "GenerationSizing") -> Iterator[Table]:
    """Build the tables of a language model: what it needs by context length, and what its tokens cost by memory."""
    title = (
        f"{result.model}:{result.version}, {result.model_bytes / 1e6:,.0f} MB, {result.source}; "
        f"loads on Lambda in {result.load_seconds:,.1f} s"
    )
    contexts = Table("context", "keys and values", "peak memory", "MemorySize", title=title, title_justify="left")
    for each in result.contexts:
        memory = f"{each.memory_mb:,} MB" if each.memory_mb else "none is large enough"
        cache, peak = (f"{count / 1e6:,.0f} MB" for count in (each.cache_bytes, each.peak_bytes))
        contexts.add_row(f"{each.tokens:,} tokens", cache, peak, memory)
    yield contexts
    speeds = Table(
        "MemorySize", "prompt", "answer", "first of 512", "$ a million in", "out",
        title=f"tokens per second and prices, {result.architecture}, prices of {result.prices_as_of}",
        title_justify="left",
    )  # fmt: skip
    for speed in result.speeds:
        speeds.add_row(
            f"{speed.memory_mb:,} MB",
            f"{speed.prompt_tokens_per_second:,.0f} /s",
            f"{speed.answer_tokens_per_second:,.0f} /s",
            f"{speed.first_token_seconds:,.2f} s",
            f"{speed.usd_per_million_prompt_tokens:,.2f}",
            f"{speed.usd_per_million_answer_tokens:,.2f}",
        )
    yield speeds


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
