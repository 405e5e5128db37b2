"""`pilotlight promote` and `pilotlight rollback`: a version becomes champion through the gate, or goes back."""

import getpass
from typing import Annotated

import typer
from rich.table import Table

from pilotlight.cli.aim import aims, tell
from pilotlight.cli.console import (
    ERRORS,
    RESULTS,
    STORE,
    JsonOption,
    ServerOption,
    StoreOption,
    print_json,
    registry,
    server,
)
from pilotlight.contracts.manifest import CANDIDATE, CHAMPION, Reference, check_alias, check_name
from pilotlight.errors import InvalidInputError
from pilotlight.gate.evaluation import Gate
from pilotlight.gate.promotion import Force, Promotion
from pilotlight.gate.promotion import promote as through
from pilotlight.gate.verdict import Verdict
from pilotlight.registry.approval import go_back
from pilotlight.registry.kms import KmsSigner
from pilotlight.settings import Settings

AliasOption = Annotated[str, typer.Option("--alias", help="The alias to move.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A model.")]


def promote(
    reference: Annotated[str, typer.Argument(metavar="NAME[:VERSION]", help="The candidate if no version is named.")],
    alias: AliasOption = CHAMPION,
    check: Annotated[bool, typer.Option("--check", help="Examine only: move nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Move it even if refused; the history keeps it.")] = False,
    why: Annotated[str, typer.Option("--why", help="Of --force, for the history.")] = "no reason was given",
    sign_with: Annotated[
        str | None, typer.Option("--sign-with", metavar="KEY", help="Of AWS KMS, by ARN or alias/NAME.")
    ] = None,
    memory: Annotated[int, typer.Option("--memory", metavar="MB", help="Of the function it must fit into.")] = 1769,
    store: StoreOption = STORE,
    url: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Examine a version as the handlers would serve it and, if it passes, make it champion."""
    if url is not None:
        if check or sign_with:
            raise InvalidInputError(
                "--check and --sign-with are for a store; a server's gate signs by its own settings."
            )
        return remotely(url, reference, check_alias(alias), force, why, json=json)
    gate, (name, version) = Gate(registry(store), Settings(memory_mb=memory).memory_mb), meant(reference, store)
    by, signer = getpass.getuser(), KmsSigner(sign_with) if sign_with else None
    if check:
        outcome = Promotion(gate.examine(name, version, check_alias(alias), by=by), None)
    else:
        forced = Force(by, why) if force else None
        outcome = through(gate, name, version, check_alias(alias), by=by, force=forced, signer=signer)
    if json:
        print_json({"verdict": outcome.verdict, "moved": outcome.moved})
    else:
        show(outcome)
    raise typer.Exit(0 if outcome.verdict.passed or outcome.moved else 1)


def rollback(
    name: Name,
    alias: AliasOption = CHAMPION,
    why: Annotated[str, typer.Option("--why", help="For the history.")] = "rolled back by hand",
    store: StoreOption = STORE,
    url: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """End the alias's canary or, without one, point it to where it pointed before."""
    if url is not None:
        with server(url) as client:
            document = client.registry.rollback(check_name(name, "model name"), check_alias(alias), why=why)
    else:
        found, by = registry(store), getpass.getuser()
        document = found.change(name, check_alias(alias), lambda old: go_back(found, name, old, by, why))
    tell(name, alias, document, json=json)


def remotely(url: str, reference: str, alias: str, force: bool, why: str, *, json: bool) -> None:
    """The same by a server, whose gate examines the version for the memory of its own functions."""
    asked = Reference.parse(reference)
    if asked.version is None and asked.alias not in (CHAMPION, CANDIDATE):
        raise InvalidInputError(f"{reference!r} names an alias; a server takes a version, or the candidate.")
    with server(url) as client:
        errand = client.registry.promote(asked.name, asked.version, alias, force=force, why=why)
    if json:
        print_json(errand)
    else:
        RESULTS.print(f"{errand.model}:{errand.version} for {alias}: {errand.state}. {errand.said}", markup=False)
    raise typer.Exit(0 if errand.state == "promoted" else 1)


def meant(reference: str, store: str) -> tuple[str, int]:
    """The model and version to examine: the one named, else where the candidate points."""
    asked = Reference.parse(reference)
    if asked.version is None and asked.alias == CHAMPION:
        asked = Reference(asked.name, alias=CANDIDATE)
    return asked.name, registry(store).resolve(asked)


def show(outcome: Promotion) -> None:
    """The verdict for people, check by check, and what came of it."""
    verdict = outcome.verdict
    RESULTS.print(table(verdict))
    if outcome.moved is not None:
        RESULTS.print(f"{verdict.name}@{verdict.alias} is {aims(outcome.moved)}: {outcome.moved.reason}.")
    elif verdict.passed:
        RESULTS.print(f"{verdict.name}:{verdict.version} passes; nothing was moved.")
    else:
        ERRORS.print(f"{verdict.name}:{verdict.version} is refused. {verdict.why}", markup=False, soft_wrap=True)


def table(verdict: Verdict) -> Table:
    """Each check in a row."""
    against = f"against version {verdict.champion}" if verdict.champion else "with no champion to measure against"
    shown = Table(
        "check", "", "what was found", title=f"{verdict.name}:{verdict.version} {against}", title_justify="left"
    )
    for check in verdict.checks:
        shown.add_row(check.name, "passed" if check.passed else "[bold]refused[/bold]", check.why)
    return shown
