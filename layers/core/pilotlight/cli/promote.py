"""`pilotlight promote` and `pilotlight rollback`: move an alias to a version through the gate, or back."""

import getpass
from typing import Annotated

import typer
from rich.table import Table

from pilotlight.cli.console import (
    ERRORS,
    RESULTS,
    STORE,
    JsonOption,
    ServerOption,
    StoreOption,
    format_alias_traffic,
    open_client,
    open_registry,
    print_alias_traffic,
    print_json,
)
from pilotlight.contracts.names import CANDIDATE, CHAMPION, ModelReference, check_alias, check_name
from pilotlight.errors import InvalidInputError
from pilotlight.gate.evaluation import QualityGate
from pilotlight.gate.promotion import GateOverride, PromotionResult, promote_version
from pilotlight.gate.verdict import Verdict
from pilotlight.registry.approval import rollback_alias
from pilotlight.registry.kms import KmsSigner
from pilotlight.settings import Settings

AliasOption = Annotated[str, typer.Option("--alias", help="The alias to move.")]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A model.")]


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
        return promote_on_server(url, reference, check_alias(alias), force, why, json=json)
    gate = QualityGate(open_registry(store), Settings(memory_mb=memory).memory_mb)
    name, version = resolve_version(reference, store)
    actor, signer = getpass.getuser(), KmsSigner(sign_with) if sign_with else None
    if check:
        outcome = PromotionResult(gate.evaluate(name, version, check_alias(alias), actor=actor), None)
    else:
        forced = GateOverride(actor, why) if force else None
        outcome = promote_version(gate, name, version, check_alias(alias), actor=actor, override=forced, signer=signer)
    return exit_with_outcome(outcome, json=json)


def exit_with_outcome(outcome: PromotionResult, *, json: bool) -> None:
    """Print the outcome, and exit with 0 if the version passed or was moved, else with 1."""
    if json:
        print_json({"verdict": outcome.verdict, "moved": outcome.alias_document})
    else:
        print_outcome(outcome)
    raise typer.Exit(0 if outcome.verdict.passed or outcome.alias_document else 1)


def rollback(
    name: NameArgument,
    alias: AliasOption = CHAMPION,
    why: Annotated[str, typer.Option("--why", help="For the history.")] = "rolled back by hand",
    store: StoreOption = STORE,
    url: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """End the alias's canary or, without one, point it to where it pointed before."""
    if url is not None:
        with open_client(url) as client:
            document = client.registry.rollback(check_name(name, "model name"), check_alias(alias), reason=why)
    else:
        model_registry, actor = open_registry(store), getpass.getuser()
        document = model_registry.update_alias(
            name, check_alias(alias), lambda old: rollback_alias(model_registry, name, old, actor, why)
        )
    print_alias_traffic(name, alias, document, json=json)


def promote_on_server(url: str, reference: str, alias: str, force: bool, reason: str, *, json: bool) -> None:
    """Promote on a server, whose gate evaluates the version for the memory of its own functions."""
    model_reference = ModelReference.parse(reference)
    if model_reference.version is None and model_reference.alias not in (CHAMPION, CANDIDATE):
        raise InvalidInputError(f"{reference!r} names an alias; a server takes a version, or the candidate.")
    with open_client(url) as client:
        request = client.registry.promote(
            model_reference.name, model_reference.version, alias, force=force, reason=reason
        )
    if json:
        print_json(request)
    else:
        RESULTS.print(f"{request.model}:{request.version} for {alias}: {request.state}. {request.said}", markup=False)
    raise typer.Exit(0 if request.state == "promoted" else 1)


def resolve_version(reference: str, store: str) -> tuple[str, int]:
    """Resolve the model and version to evaluate: the one named, else that of the candidate."""
    model_reference = ModelReference.parse(reference)
    if model_reference.version is None and model_reference.alias == CHAMPION:
        model_reference = ModelReference(model_reference.name, alias=CANDIDATE)
    return model_reference.name, open_registry(store).resolve_reference(model_reference)


def print_outcome(outcome: PromotionResult) -> None:
    """Print the verdict, check by check, and the result."""
    verdict = outcome.verdict
    RESULTS.print(build_verdict_table(verdict))
    if outcome.alias_document is not None:
        RESULTS.print(
            f"{verdict.name}@{verdict.alias} is {format_alias_traffic(outcome.alias_document)}: "
            f"{outcome.alias_document.reason}."
        )
    elif verdict.passed:
        RESULTS.print(f"{verdict.name}:{verdict.version} passes; nothing was moved.")
    else:
        ERRORS.print(f"{verdict.name}:{verdict.version} is refused. {verdict.reason}", markup=False, soft_wrap=True)


def build_verdict_table(verdict: Verdict) -> Table:
    """Build a table with a row for each check."""
    against = f"against version {verdict.champion}" if verdict.champion else "with no champion to measure against"
    table = Table(
        "check", "", "what was found", title=f"{verdict.name}:{verdict.version} {against}", title_justify="left"
    )
    for check in verdict.checks:
        table.add_row(check.name, check.status if check.passed else f"[bold]{check.status}[/bold]", check.why)
    return table
