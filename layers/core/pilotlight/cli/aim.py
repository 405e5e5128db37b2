"""Where an alias's requests go, told alike by every verb that moves one."""

import typer

from pilotlight.cli.console import print_json
from pilotlight.contracts.manifest import WHOLE, AliasDocument


def tell(name: str, alias: str, document: AliasDocument, *, json: bool) -> None:
    """Where the alias's requests go now."""
    print_json(document) if json else typer.echo(f"{name}@{alias} is {aims(document)}.")


def aims(document: AliasDocument) -> str:
    """Where requests go, in words: `version 3, 10 % of it to 4 (canary), copies of 5 % to 5`."""
    said = [f"version {document.version}"]
    for one in document.shares:
        kind = " (canary)" if document.canary else ""
        said.append(f"{100 * one.weight / WHOLE:g} % of it to {one.version}{kind}")
    if document.shadow:
        said.append(f"copies of {100 * document.shadow.weight / WHOLE:g} % to {document.shadow.version}")
    if document.suspended:
        said.append("suspended")
    return ", ".join(said)
