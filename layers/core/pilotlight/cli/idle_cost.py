"""The bill of a month in which nobody calls the stack, for `pilotlight cost --idle`."""

from collections.abc import Sequence

from rich.table import Table

from pilotlight.cli.console import TEMPLATE_FILE, find_checkout, print_json, print_table
from pilotlight.cli.serve import parse_parameter
from pilotlight.cli.stack_options import choose_stack
from pilotlight.costs.idle import IdleCost, IdleCostLine, estimate_idle_cost
from pilotlight.deployment.aws_clients import open_aws_client
from pilotlight.deployment.stack import get_stack
from pilotlight.local.stack_inventory import count_inventory

CAPTION = (
    "{region}, prices of {prices_as_of}. The free tier is the account's, for all that it runs. Models come on top."
)


def print_idle_cost(stack_name: str, parameters: Sequence[str], *, json: bool) -> None:
    """Print the bill of this checkout's template, with these parameters over those of the deployed stack, if named."""
    chosen = dict(map(parse_parameter, parameters))
    if stack_name:
        name = choose_stack(stack_name, None, None).name
        chosen = {**get_stack(open_aws_client("cloudformation"), name).parameters, **chosen}
    result = estimate_idle_cost(count_inventory(find_checkout() / TEMPLATE_FILE, chosen))
    print_json(result) if json else print_table(build_idle_table(result))


def build_idle_table(result: IdleCost) -> Table:
    """Build the table of the bill."""
    table = Table(title="A month without a call", show_footer=True, title_justify="left", title_style="bold")
    table.caption = CAPTION.format(region=result.region, prices_as_of=result.prices_as_of)
    table.caption_justify = "left"
    table.add_column("", "together")
    table.add_column("how many", justify="right")
    table.add_column("$ each", justify="right")
    table.add_column("$ a month", f"{result.usd:,.2f}", justify="right")
    table.add_column("after free tier", f"{result.usd_after_free_tier:,.2f}", justify="right")
    table.add_column("to make it less")
    for line in result.lines:
        table.add_row(*format_idle_row(line))
    return table


def format_idle_row(line: IdleCostLine) -> tuple[str, ...]:
    """Format the cells of a row."""
    units = f"{line.units:,.0f}" if line.units >= 1 else f"{line.units:.2g}"
    each = f"{line.usd_each:.10f}".rstrip("0").rstrip(".")
    return line.what, units, each, f"{line.usd:,.3f}", f"{line.usd_after_free_tier:,.3f}", line.advice
