"""`pilotlight deploy`: check, build, deploy to AWS, create the first key, and examine the result from outside."""

import getpass
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from pilotlight.api_keys.key_store import KeyStore
from pilotlight.cli.console import RESULTS, JsonOption, find_checkout, print_json
from pilotlight.cli.doctor import check_server, print_results
from pilotlight.cli.known_servers import find_credentials, open_remembered_stacks
from pilotlight.cli.progress import format_elapsed, print_line, show_progress
from pilotlight.cli.serve import parse_parameter
from pilotlight.cli.stack_options import ChosenStack, ProfileOption, RegionOption, StackNameOption, choose_stack
from pilotlight.client.auth import AWS_HOST_PATTERN
from pilotlight.client.client import Client
from pilotlight.contracts.names import NAME_PATTERN
from pilotlight.contracts.scopes import ALL_SCOPES
from pilotlight.deployment.aws_clients import open_aws_client
from pilotlight.deployment.package import PackageBuilder
from pilotlight.deployment.prerequisites import DeployChecks, DeployRequest
from pilotlight.deployment.remembered_stacks import RememberedStack
from pilotlight.deployment.removal import delete_stack
from pilotlight.deployment.sam_deploy import SamCommand
from pilotlight.deployment.stack import ROLLED_BACK, CloudFormationStack, get_stack
from pilotlight.doctor.finding import CheckResult, run_check
from pilotlight.doctor.server import is_live
from pilotlight.errors import PilotlightError, UnavailableError
from pilotlight.storage.object_store import open_store

LOG_FILE = Path(".aws-sam", "deploy.log")
KEY_MODES = ("keys", "open")  # of Auth, in which a key opens routes
FALLBACK_NAME = "operator"  # of the first key, where the user's name is no name of a key
LIVE_S = 30.0  # within which a new API and a new key are known everywhere
POLL_S = 2.0


class Deployment(NamedTuple):
    """What a deploy has made: the stack, how it is reached, and its first key, empty unless it was created now."""

    stack: CloudFormationStack
    remembered: RememberedStack
    key: str


def deploy(
    stack_name: StackNameOption = None,
    profile: ProfileOption = None,
    region: RegionOption = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", metavar="NAME=VALUE", help="Of template.yaml, Auth=iam; may be repeated."),
    ] = None,
    build: Annotated[
        bool, typer.Option("--build/--no-build", help="Build the package first, or take the one that is there.")
    ] = True,
    url: Annotated[
        str | None,
        typer.Option("--url", metavar="URL", help="Where the stack is reached, if not at its output Url: a domain."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Deploy this checkout to AWS as a stack, or update that; then check it from outside."""
    began = time.monotonic()
    chosen = choose_stack(stack_name, profile, region)
    request = DeployRequest(find_checkout(), chosen.name, dict(map(parse_parameter, parameter or ())), build)
    checks = DeployChecks(request)
    check_prerequisites(checks)
    deploy_package(checks, build_package(checks))
    made = record_deployment(chosen, checks.region or "", url)
    print_line(f"{chosen.name} is deployed, {format_elapsed(began)} after the start. It is checked from outside:")
    results = examine(made.remembered.url)
    print_deployment(made, results, json=json)
    raise typer.Exit(1 if any(one.state == "fails" for one in results) else 0)


def check_prerequisites(checks: DeployChecks) -> None:
    """Print every check of what a deploy needs; raise `UnavailableError` if one fails."""
    results = list(print_results(map(run_check, checks.list_checks()), json=True))
    failed = [one.check for one in results if one.state == "fails"]
    if failed:
        raise UnavailableError(f"Nothing was built or deployed: see {', '.join(failed)}.")


def build_package(checks: DeployChecks) -> Path:
    """Build the package unless the one that is there is to be taken, and return its template."""
    checkout, sam = checks.request.checkout, checks.sam or "sam"
    builder = PackageBuilder(checkout, sam, checks.python, checks.architecture)
    if checks.request.build:
        with show_progress("Building the package") as tell:
            builder.build(tell)
    return builder.template


def deploy_package(checks: DeployChecks, template: Path) -> None:
    """Deploy a package by SAM, and wait until CloudFormation is done."""
    request = checks.request
    cloudformation, parameters = open_aws_client("cloudformation"), checks.choose_parameters()
    command = SamCommand(checks.sam or "sam", request.stack, request.checkout / LOG_FILE, cloudformation)
    if checks.stack is not None and checks.stack.status in ROLLED_BACK:
        with show_progress(f"Deleting what a failed deploy left of {request.stack}") as tell:
            delete_stack(cloudformation, checks.stack, tell)
    with show_progress(f"Deploying {request.stack}") as tell:
        command.deploy(template, parameters, tell)


def record_deployment(chosen: ChosenStack, region: str, url: str | None) -> Deployment:
    """Read what was deployed, create the stack's first key, and remember how the stack is reached."""
    stack = get_stack(open_aws_client("cloudformation"), chosen.name)
    key = create_first_key(stack) if stack.parameters.get("Auth") in KEY_MODES else ""
    reached = (url or find_own_url(chosen, stack) or stack.outputs["Url"]).rstrip("/")
    remembered = RememberedStack(chosen.name, reached, stack.outputs["Bucket"], region, chosen.profile, key)
    open_remembered_stacks().remember(remembered)
    return Deployment(stack, remembered, key)


def find_own_url(chosen: ChosenStack, stack: CloudFormationStack) -> str | None:
    """Find the URL that an earlier deploy of this stack was given: a domain, which an update does not change."""
    known = chosen.remembered
    if known is None or known.bucket != stack.outputs["Bucket"] or AWS_HOST_PATTERN.match(known.url):
        return None
    return known.url


def create_first_key(stack: CloudFormationStack) -> str:
    """Create a key of all scopes if the stack has never had one; return it, or an empty text.

    A bucket that cannot be read or written does not undo the deploy: it is told, and no key is made.
    """
    name = getpass.getuser()
    try:
        keys = KeyStore(open_store(f"s3://{stack.outputs['Bucket']}"))
        if any(keys.list_keys()):
            return ""
        created = keys.create_key(
            name if re.fullmatch(NAME_PATTERN, name) else FALLBACK_NAME, ALL_SCOPES, actor=getpass.getuser()
        )
    except PilotlightError as exc:
        print_line(f"No key was created: {exc} `pilotlight keys create` makes one.")
        return ""
    return created.key


def examine(url: str) -> list[CheckResult]:
    """Examine the stack as `pilotlight doctor` does, once it answers to its key."""
    wait_until_live(url)
    return list(print_results(check_server(url, None, deep=False), json=True))


def wait_until_live(url: str) -> None:
    """Wait until a stack takes its key, which its authorizer learns in some seconds; what is wrong, doctor tells."""
    end, credentials = time.monotonic() + LIVE_S, find_credentials(url)
    with (
        show_progress("Waiting for its first answer") as tell,
        Client(url, headers=credentials.headers, auth=credentials.auth) as client,
    ):
        while not is_answering(client, tell) and time.monotonic() < end:
            time.sleep(POLL_S)


def is_answering(client: Client, tell: Callable[[str], None]) -> bool:
    """Return whether a server is live, and tell why if it is not."""
    try:
        reply = client.send_request("GET", "/v2/health/live")
    except UnavailableError as exc:
        tell(str(exc))
        return False
    tell(f"it answers {reply.status}")
    return is_live(reply)


def print_deployment(made: Deployment, results: Sequence[CheckResult], *, json: bool) -> None:
    """Print how the stack is reached, its new key, what doctor found, and what to do next."""
    stack, remembered = made.stack, made.remembered
    if json:
        shown = {"stack": stack.name, "url": remembered.url, "bucket": remembered.bucket, "region": remembered.region}
        print_json({**shown, "key": made.key or None, "outputs": stack.outputs, "checks": results})
        return
    counts = Counter(one.state for one in results)
    lines = [
        f"url      {remembered.url}",
        f"store    s3://{remembered.bucket}",
        *describe_key(made),
        f"doctor   {counts['passes']} pass, {counts['fails']} fail, {counts['not checked']} are not checked.",
        "",
        "Next:",
        f"  pilotlight train digits --store s3://{remembered.bucket}",
        f"  pilotlight predict digits --input FILE --url {stack.name}",
        "  pilotlight logs --follow",
    ]
    for line in lines:
        RESULTS.print(line, markup=False, soft_wrap=True)


def describe_key(made: Deployment) -> list[str]:
    """Describe the key that was created, which is shown once, or what opens the stack otherwise."""
    mode = made.stack.parameters.get("Auth", "")
    if made.key:
        path = open_remembered_stacks().path
        return [f"key      {made.key}", f"         It is shown once. This command finds it in {path}, for you alone."]
    if mode in KEY_MODES:
        return ["key      none was created: the stack has had keys before, see `pilotlight keys list`."]
    return [f"Auth     {mode}: set {'PILOTLIGHT_TOKEN' if mode == 'jwt' else 'PILOTLIGHT_AUTH=iam'} to call it."]
