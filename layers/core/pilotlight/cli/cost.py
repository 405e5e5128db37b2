"""`pilotlight cost`: the bill of a month, with calls or without, and what calls have cost by tenant and model."""

import sys
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.table import Table

from pilotlight.cli.console import ERRORS, STORE, JsonOption, StoreOption, open_registry, print_json, print_table
from pilotlight.cli.idle_cost import print_idle_cost
from pilotlight.contracts.names import ModelReference
from pilotlight.costs.estimate import CostEstimate, Workload, estimate_cost
from pilotlight.costs.usage_report import UsageReport, UsageRow, build_usage_report
from pilotlight.errors import InvalidInputError
from pilotlight.runtime.sizing import build_sizing_report

MAX_BAR_WIDTH = 40  # characters of the longest bar


class Architecture(StrEnum):
    """Lambda's two."""

    X86_64 = "x86_64"
    ARM64 = "arm64"


def cost(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="A model; memory and ms then come from its fit.")] = "",
    rps: Annotated[float, typer.Option(help="Requests per second, the mean over the month.")] = 0.0,
    ms: Annotated[float, typer.Option(help="Of a warm call, as Lambda bills it.")] = 0.0,
    memory: Annotated[int, typer.Option(metavar="MB", help="MemorySize of the function.")] = 0,
    cold_share: Annotated[float, typer.Option(help="Cold calls as a part of 1.")] = 0.0,
    init_ms: Annotated[float, typer.Option(help="How much longer a cold call takes; with NAME by its fit.")] = 0.0,
    arch: Annotated[Architecture, typer.Option(help="Of the function.")] = Architecture.X86_64,
    from_logs: Annotated[
        str, typer.Option(metavar="FILE", help="Add up what functions have logged; - for standard input.")
    ] = "",
    idle: Annotated[
        bool, typer.Option("--idle", help="Of a month without a call, by the template of the checkout.")
    ] = False,
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", help="Of the template, with --idle; may be repeated.")
    ] = None,
    stack_name: Annotated[
        str, typer.Option("--stack-name", help="With --idle: take the parameters of this deployed stack.")
    ] = "",
    store: StoreOption = STORE,
    json: JsonOption = False,
) -> None:
    """Estimate what a month costs, line by line, or add up what calls have cost.

    For example:

    pilotlight cost --rps 20 --ms 20 --memory 1769

    pilotlight cost digits --rps 5 --cold-share 0.01 --arch arm64

    pilotlight cost --idle --parameter MonitoringLevel=full

    pilotlight serve 2> calls.log; pilotlight cost --from-logs calls.log

    aws logs tail GROUP --since 1d --format short | pilotlight cost --from-logs -
    """
    if (parameter or stack_name) and not idle:
        raise InvalidInputError(
            "--parameter and --stack-name are for --idle; without it, say --rps, --ms and --memory."
        )
    if idle:
        print_idle_cost(stack_name, parameter or (), json=json)
        return
    if from_logs:
        print_usage(build_usage_report(read_log(from_logs)), json=json)
        return
    workload = Workload(
        rps=rps, ms=ms, memory_mb=memory, cold_share=cold_share, init_ms=init_ms, architecture=arch.value
    )
    print_estimate(estimate_cost(complete_workload(workload, store, name)), json=json)


def complete_workload(workload: Workload, store: str, name: str) -> Workload:
    """Fill in what the options leave open, from the fit of the model where one is named."""
    if name:
        workload = fill_missing_from_sizing(workload, store, name)
    if not (workload.rps and workload.ms and workload.memory_mb):
        raise InvalidInputError(
            "Say --rps, and --ms and --memory or a model's name; pilotlight cost --help has examples."
        )
    return workload


def fill_missing_from_sizing(workload: Workload, store: str, name: str) -> Workload:
    """Fill in what the options leave open, from the model's fit."""
    model_registry = open_registry(store)
    reference = ModelReference.parse(name)
    needs = build_sizing_report(
        model_registry.load_manifest(reference.name, model_registry.resolve_reference(reference)),
        architecture=workload.architecture,
    )
    if not (workload.memory_mb or needs.memory_mb):
        raise InvalidInputError(f"{reference} fits into no function; pilotlight fit {name} says why.")
    return msgspec.structs.replace(
        workload,
        memory_mb=workload.memory_mb or needs.memory_mb or 0,
        ms=workload.ms or needs.warm_ms,
        init_ms=workload.init_ms or needs.load_seconds * 1e3,
    )


def read_log(source: str) -> str:
    """Read a log from a file or from standard input."""
    if source == "-":
        return sys.stdin.read()
    try:
        return Path(source).read_text(errors="replace")
    except OSError as exc:
        raise InvalidInputError(f"{source} cannot be read: {exc.strerror}.") from exc


def print_estimate(result: CostEstimate, *, json: bool) -> None:
    """Print the bill, as a table with bars or as JSON."""
    print_json(result) if json else print_table(build_estimate_table(result))


def build_estimate_table(result: CostEstimate) -> Table:
    """Build the table of the bill; the dearest line has the longest bar."""
    load = result.load
    size = f"{load.ms:g} ms at {load.memory_mb:,} MB {load.architecture}"
    table = Table(title=f"{result.requests / 1e6:,.1f} million requests a month, {size}", show_footer=True)
    table.title_justify = table.caption_justify = "left"
    table.title_style, table.caption = "bold", f"{result.region}, prices of {result.prices_as_of}"
    table.add_column("", "together")
    table.add_column("$ a month", f"{result.usd:,.2f}", justify="right")
    table.add_column("$ a million", f"{result.usd_per_million:,.2f}", justify="right")
    table.add_column("", no_wrap=True)
    most = max((line.usd for line in result.lines), default=1.0)
    for line in result.lines:
        each = f"{line.usd / result.requests * 1e6:,.2f}"
        table.add_row(line.what, f"{line.usd:,.2f}", each, format_bar(line.usd / most))
    return table


def format_bar(share: float) -> str:
    """Draw a share of the longest bar, to an eighth of a character."""
    eighths = round(share * MAX_BAR_WIDTH * 8)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def print_usage(result: UsageReport, *, json: bool) -> None:
    """Print what was spent; numbers in JSON are as exact as the log's."""
    if json:
        print_json(result)
    else:
        print_table(build_usage_table(result))
    if result.unread:
        ERRORS.print(f"{result.unread} lines were cut off or broken, and are not counted.", markup=False)


def build_usage_table(result: UsageReport) -> Table:
    """Build the table of costs by tenant, model and version, the dearest first."""
    table = Table(title=f"{result.calls:,} calls", title_justify="left", title_style="bold", show_footer=True)
    totals = {
        "tenant": "together",
        "model": "",
        "version": "",
        "calls": f"{result.calls:,}",
        "failed": "",
        "GB-seconds": f"{result.gb_seconds:,}",
        "$": f"{result.usd:f}",
        "$ a million": format_usd_per_million(result.usd, result.calls),
    }
    for column, total in totals.items():
        table.add_column(column, total, justify="left" if column in ("tenant", "model") else "right")
    table.add_column("", no_wrap=True)
    most = max(account.usd for account in result.accounts) or Decimal(1)
    for account in result.accounts:
        table.add_row(*format_usage_row(account), format_bar(float(account.usd / most) / 2))
    return table


def format_usage_row(account: UsageRow) -> list[str]:
    """Format the cells of a row."""
    numbers = f"{account.calls:,}", f"{account.failed:,}", f"{account.gb_seconds:,}", f"{account.usd:f}"
    return [
        account.tenant,
        account.model,
        account.version,
        *numbers,
        format_usd_per_million(account.usd, account.calls),
    ]


def format_usd_per_million(usd: Decimal, calls: int) -> str:
    """Format the price of a million such calls."""
    return f"{float(usd) / max(1, calls) * 1e6:,.2f}"
