"""Which stack a command is about: the options for it, and what the last deploy from here remembers of it."""

import os
from typing import Annotated, NamedTuple

import typer

from pilotlight.cli.known_servers import open_remembered_stacks
from pilotlight.deployment.remembered_stacks import RememberedStack
from pilotlight.deployment.stack import check_stack_name

DEFAULT_STACK = "pilotlight"
CREDENTIAL_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")

StackNameOption = Annotated[
    str | None,
    typer.Option(
        "--stack-name", metavar="NAME", help=f"The stack that was deployed last from here, or {DEFAULT_STACK}."
    ),
]
ProfileOption = Annotated[
    str | None, typer.Option("--profile", metavar="NAME", help="Of ~/.aws/config, in place of the environment's keys.")
]
RegionOption = Annotated[
    str | None, typer.Option("--region", metavar="REGION", help="The remembered stack's, or the environment's.")
]


class ChosenStack(NamedTuple):
    """A stack by its name, and what is remembered of it; None if it was not deployed from here."""

    name: str
    remembered: RememberedStack | None
    profile: str


def choose_stack(stack_name: str | None, profile: str | None, region: str | None) -> ChosenStack:
    """Choose the stack, and set the environment's profile and region, by which boto3, the store and SAM go alike.

    Credentials in the environment go before a remembered profile, and after one that is given.
    """
    remembered = open_remembered_stacks().find(stack_name or "")
    name = check_stack_name(stack_name or (remembered.name if remembered else DEFAULT_STACK))
    if profile is None and remembered is not None and not {"AWS_PROFILE", *CREDENTIAL_VARIABLES} & os.environ.keys():
        profile = remembered.profile
    if profile:
        for variable in CREDENTIAL_VARIABLES:
            os.environ.pop(variable, None)
        os.environ["AWS_PROFILE"] = profile
    if region := region or (remembered.region if remembered else None):
        os.environ.update(dict.fromkeys(REGION_VARIABLES, region))
    return ChosenStack(name, remembered, profile or os.environ.get("AWS_PROFILE", ""))
