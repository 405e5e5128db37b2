"""`pilotlight open`: show a page about a stack in the browser: its dashboard, routes, or place in AWS's console."""

import webbrowser
from enum import StrEnum
from typing import Annotated
from urllib.parse import quote

import typer

from pilotlight.cli.console import JsonOption, print_json
from pilotlight.cli.stack_options import ProfileOption, RegionOption, StackNameOption, choose_stack
from pilotlight.deployment.aws_clients import find_region, open_aws_client
from pilotlight.deployment.stack import CloudFormationStack, get_stack
from pilotlight.errors import InvalidInputError

DASHBOARD_OUTPUT = "Dashboard"  # of a stack with MonitoringLevel=full
KEYLESS_TEXT = "A browser sends no key, and the stack asks for one; `pilotlight serve` has this page at http://127.0.0.1:8080/docs."


class Page(StrEnum):
    """A page about a stack."""

    DASHBOARD = "dashboard"
    DOCS = "docs"
    LOGS = "logs"
    BUCKET = "bucket"
    STACK = "stack"


def open_page(
    page: Annotated[
        Page | None,
        typer.Argument(help="The dashboard, or else the logs, if left out; docs are the routes.", show_default=False),
    ] = None,
    stack_name: StackNameOption = None,
    profile: ProfileOption = None,
    region: RegionOption = None,
    json: JsonOption = False,
) -> None:
    """Open a page about a stack in the browser, and print its URL."""
    chosen = choose_stack(stack_name, profile, region)
    where = find_region()
    if where is None:
        raise InvalidInputError("No region is named; give --region, or set AWS_REGION.")
    stack = get_stack(open_aws_client("cloudformation"), chosen.name)
    page = page or (Page.DASHBOARD if DASHBOARD_OUTPUT in stack.outputs else Page.LOGS)
    reached = chosen.remembered.url if chosen.remembered else stack.outputs["Url"]
    url = f"{reached}/docs" if page is Page.DOCS else build_console_url(page, stack, where)
    if page is Page.DOCS and stack.parameters.get("Auth") != "open":
        typer.echo(KEYLESS_TEXT, err=True)
    is_shown = bool(webbrowser.open(url))
    print_json({"url": url, "opened": is_shown}) if json else typer.echo(url)


def build_console_url(page: Page, stack: CloudFormationStack, region: str) -> str:
    """Build the URL of a page of AWS's console, in the partition of the region."""
    host = "console.amazonaws.cn" if region.startswith("cn-") else "console.aws.amazon.com"
    return f"https://{region}.{host}{build_console_path(page, stack, region)}"


def build_console_path(page: Page, stack: CloudFormationStack, region: str) -> str:
    """Build the path of a page of AWS's console; raise `InvalidInputError` for the dashboard of a stack without one."""
    match page:
        case Page.BUCKET:
            return f"/s3/buckets/{stack.outputs['Bucket']}?region={region}"
        case Page.STACK:
            return f"/cloudformation/home?region={region}#/stacks/stackinfo?stackId={quote(stack.id, safe='')}"
        case Page.LOGS:
            return f"/cloudwatch/home?region={region}#logsV2:log-groups$3FlogGroupNameFilter$3D{stack.name}"
    if DASHBOARD_OUTPUT not in stack.outputs:
        raise InvalidInputError(
            f"{stack.name} has no dashboard; `pilotlight deploy --parameter MonitoringLevel=full` makes one."
        )
    return f"/cloudwatch/home?region={region}#dashboards/dashboard/{quote(stack.outputs[DASHBOARD_OUTPUT])}"
