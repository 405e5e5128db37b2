"""Where an alias's requests go, told alike by every verb that moves one."""

import typer

from pilotlight.cli.console import print_json
from pilotlight.contracts.alias import TOTAL_WEIGHT, AliasDocument


def print_alias_traffic(name: str, alias: str, document: AliasDocument, *, json: bool) -> None:
    """Where the alias's requests go now."""
    print_json(document) if json else typer.echo(f"{name}@{alias} is {format_alias_traffic(document)}.")


def format_alias_traffic(document: AliasDocument) -> str:
    """Where requests go, in words: `version 3, 10 % of it to 4 (canary), copies of 5 % to 5`."""
    parts = [f"version {document.version}"]
    for one in document.shares:
        kind = " (canary)" if document.canary else ""
        parts.append(f"{100 * one.weight / TOTAL_WEIGHT:g} % of it to {one.version}{kind}")
    if document.shadow:
        parts.append(f"copies of {100 * document.shadow.weight / TOTAL_WEIGHT:g} % to {document.shadow.version}")
    if document.suspended:
        parts.append("suspended")
    return ", ".join(parts)
