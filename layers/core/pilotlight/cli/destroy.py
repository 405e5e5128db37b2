"""`pilotlight destroy`: delete a stack, after it was told what goes and what stays, and how that goes too."""

from collections.abc import Sequence
from typing import Annotated

import typer

from pilotlight.cli.console import RESULTS, JsonOption, print_json
from pilotlight.cli.known_servers import open_remembered_stacks
from pilotlight.cli.progress import print_line, show_progress
from pilotlight.cli.stack_options import ProfileOption, RegionOption, StackNameOption, choose_stack
from pilotlight.deployment.aws_clients import open_aws_client
from pilotlight.deployment.removal import (
    KeptResource,
    delete_stack,
    find_kept_resources,
    remove_kept,
    remove_uploads,
)
from pilotlight.deployment.stack import CloudFormationStack, find_stack
from pilotlight.errors import ConflictError, InvalidInputError, NotFoundError


def destroy(
    stack_name: StackNameOption = None,
    profile: ProfileOption = None,
    region: RegionOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; what stays without --everything, stays.")] = False,
    everything: Annotated[
        bool,
        typer.Option("--everything", help="Remove what stays, too, with all models; asks for the stack's name."),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Delete a stack; what may be the only copy of something stays, unless all is to go."""
    chosen = choose_stack(stack_name, profile, region)
    stack = find_stack(open_aws_client("cloudformation"), chosen.name)
    if stack is None:
        open_remembered_stacks().forget(chosen.name)
        raise NotFoundError(f"There is no stack {chosen.name!r} in this account and region; it is forgotten here.")
    check_deletable(stack)
    kept, gone = find_kept_resources(open_aws_client, stack.id)
    print_plan(stack, kept, gone, everything=everything)
    confirm(stack.name, yes=yes, everything=everything)
    with show_progress(f"Deleting {stack.name}") as tell:
        delete_stack(open_aws_client("cloudformation"), stack, tell)
        remove_uploads(open_aws_client, stack.name)
    left = remove_all(kept) if everything else kept
    open_remembered_stacks().forget(stack.name)
    print_left(stack, left, json=json)


def check_deletable(stack: CloudFormationStack) -> None:
    """Raise an error for a stack that is not Pilotlight's, or that somebody is changing."""
    if not stack.is_ours:
        raise InvalidInputError(
            f"{stack.name} is not a stack of Pilotlight; `aws cloudformation delete-stack` asks less."
        )
    if stack.is_busy:
        raise ConflictError(f"{stack.name} is {stack.status}, changed by somebody else; try again when that is over.")


def print_plan(stack: CloudFormationStack, kept: Sequence[KeptResource], gone: int, *, everything: bool) -> None:
    """Print what goes, and what stays or goes after it."""
    print_line(f"{stack.name}, {stack.id}:")
    print_line(
        f"  {gone} resources go: functions, roles, API, rules, alarms, logs. Nothing answers at its URL any more."
    )
    print_line("These go after it, for good:" if everything else "These stay, since they may be the only copy:")
    for one in kept:
        judged = "stays: others may use it" if everything and not one.command else one.content
        print_line(f"  {one.resource.logical_id:<16}{one.resource.physical_id}{f'  ({judged})' if judged else ''}")


def confirm(name: str, *, yes: bool, everything: bool) -> None:
    """Ask whether to go on; for everything the stack's name must be typed, also with --yes."""
    if everything:
        typed = typer.prompt("Type the stack's name to remove all of this for good", err=True)
        if typed != name:
            raise InvalidInputError(f"{typed!r} is not {name!r}; nothing was removed.")
    elif not yes:
        typer.confirm("Delete the stack?", abort=True, err=True)


def remove_all(kept: Sequence[KeptResource]) -> list[KeptResource]:
    """Remove what stayed, and return what is for its owner to judge."""
    for one in kept:
        if one.command:
            with show_progress(f"Removing {one.resource.physical_id}"):
                remove_if_there(one)
    return [one for one in kept if not one.command]


def remove_if_there(kept: KeptResource) -> None:
    """Remove a resource, unless somebody has removed it already."""
    try:
        remove_kept(open_aws_client, kept)
    except NotFoundError as exc:
        print_line(f"  {exc}")


def print_left(stack: CloudFormationStack, left: Sequence[KeptResource], *, json: bool) -> None:
    """Print what is left, each with the command by which it goes."""
    if json:
        rows = [{"type": one.resource.type, "id": one.resource.physical_id, "command": one.command} for one in left]
        print_json({"deleted": stack.name, "left": rows})
        return
    RESULTS.print(f"{stack.name} is deleted.", markup=False)
    for one in left:
        how = one.command or "judge by yourself: the console shows who uses it"
        RESULTS.print(f"{one.resource.physical_id} stays; it goes by:\n  {how}", markup=False, soft_wrap=True)
