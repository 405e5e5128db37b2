"""`pilotlight logs`: what the functions of a stack have written to CloudWatch, merged by time, a line for each."""

from collections.abc import Iterable
from typing import Annotated

import typer

from pilotlight.cli.console import RESULTS, JsonOption, print_json
from pilotlight.cli.stack_options import ProfileOption, RegionOption, StackNameOption, choose_stack
from pilotlight.contracts.durations import parse_duration
from pilotlight.deployment.aws_clients import open_aws_client
from pilotlight.deployment.log_events import (
    LogEvent,
    LogReader,
    choose_log_groups,
    compute_start_ms,
    find_log_groups,
)
from pilotlight.deployment.log_lines import describe_message, format_event
from pilotlight.deployment.stack import get_stack

STYLES = {"ERROR": "red", "CRITICAL": "bold red", "WARN": "yellow", "WARNING": "yellow", "DEBUG": "dim"}
EX_INTERRUPTED = 130


def logs(
    function: Annotated[
        str | None, typer.Argument(metavar="[FUNCTION]", help="predict, batch, gateway, ...; all of them if left out.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="How far back: 90s, 10m, 2h, 1d.")] = "10m",
    grep: Annotated[str, typer.Option("--grep", metavar="TEXT", help="Only lines that contain it.")] = "",
    stack_name: StackNameOption = None,
    profile: ProfileOption = None,
    region: RegionOption = None,
    json: JsonOption = False,
) -> None:
    """Show the log of a stack's functions and gateway: time in UTC, function, level, message, correlation id."""
    start_ms = compute_start_ms(parse_duration(since).total_seconds())
    chosen = choose_stack(stack_name, profile, region)
    cloudformation = open_aws_client("cloudformation")
    groups = choose_log_groups(find_log_groups(cloudformation, get_stack(cloudformation, chosen.name).id), function)
    reader = LogReader(open_aws_client("logs"), groups, grep)
    try:
        count = print_events(
            reader.follow(start_ms) if follow else reader.read(start_ms), max(map(len, groups)), json=json
        )
    except KeyboardInterrupt:
        raise typer.Exit(EX_INTERRUPTED) from None
    if not count:
        typer.echo(
            f"{', '.join(groups)} wrote nothing like that in the last {since}; --since goes back further.", err=True
        )


def print_events(events: Iterable[LogEvent], width: int, *, json: bool) -> int:
    """Print events as they come, and return how many there were."""
    count = 0
    for event in events:
        count += 1
        if json:
            print_json({"at": event.at, "source": event.source, "message": event.message})
        elif RESULTS.is_terminal:
            style = STYLES.get(describe_message(event.message)[0])
            RESULTS.print(format_event(event, width), markup=False, soft_wrap=True, style=style)
        else:
            typer.echo(format_event(event, width))
    return count
