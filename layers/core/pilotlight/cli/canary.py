"""`pilotlight canary`, `split`, `shadow` and `history`: who gets which version, and who decided so."""

import getpass
import re
from typing import Annotated

import typer
from rich.table import Table

from pilotlight.api.schemas.registry import Try
from pilotlight.cli.aim import aims, tell
from pilotlight.cli.console import RESULTS, STORE, JsonOption, ServerOption, StoreOption, print_json, registry, server
from pilotlight.contracts.manifest import CHAMPION, AliasDocument, Canary, Reference, Share, check_alias, check_name
from pilotlight.errors import InvalidInputError
from pilotlight.registry import alias_updates
from pilotlight.registry.approval import refuse_unapproved

AliasOption = Annotated[str, typer.Option("--alias", help="The alias whose requests are shared out.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A model.")]
WHY = Annotated[str, typer.Option("--why", help="For the history.")]


def canary(
    reference: Annotated[str, typer.Argument(metavar="NAME:VERSION", help="The version to try.")],
    percent: Annotated[float, typer.Option("--percent", help="Of the alias's requests; 0 ends the trial.")] = 10.0,
    bake: Annotated[str, typer.Option("--bake", help="After which it is promoted if it held: 30m, 2h, 1d.")] = "1h",
    max_error_rate: Annotated[float, typer.Option("--max-error-rate", help="Of its own requests.")] = 0.01,
    max_latency_ratio: Annotated[float, typer.Option("--max-latency-ratio", help="Over the champion's.")] = 2.0,
    max_drift: Annotated[float, typer.Option("--max-drift", help="Between their answers, 0 to 1.")] = 0.25,
    alias: AliasOption = CHAMPION,
    why: WHY = "trial",
    store: StoreOption = STORE,
    url: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Try a version on a share of the requests, with automatic promotion or rollback."""
    if url is not None:
        name, version = named(reference)
        asked = Try(version, percent, bake, max_error_rate, max_latency_ratio, max_drift, why=why)
        with server(url) as client:
            tell(name, alias, client.registry.canary(name, asked, check_alias(alias)), json=json)
        return
    found, (name, version) = registry(store), named(reference)
    found.manifest(name, version)
    refuse_unapproved(found, name, version, required=False)
    trial = Canary(version, alias_updates.until(bake), max_error_rate, max_latency_ratio, max_drift)
    weight, by = alias_updates.weight(percent) if percent else 0, getpass.getuser()

    def changed(old: AliasDocument) -> AliasDocument:
        return (
            alias_updates.tried(old, trial, weight, by, why) if weight else alias_updates.without_shares(old, by, why)
        )

    document = found.change(name, check_alias(alias), changed)
    tell(name, alias, document, json=json)


def split(
    name: Name,
    shares: Annotated[list[str], typer.Argument(metavar="VERSION=PERCENT...", help="The rest stays with the alias.")],
    alias: AliasOption = CHAMPION,
    why: WHY = "split",
    store: StoreOption = STORE,
    json: JsonOption = False,
) -> None:
    """Share an alias's requests out among versions, each caller always to the same one (A/B/N)."""
    found = registry(store)
    given = tuple(share(text) for text in shares)
    for one in given:
        found.manifest(name, one.version)
        refuse_unapproved(found, name, one.version, required=False)
    document = found.change(
        name, check_alias(alias), lambda old: alias_updates.shared(old, given, getpass.getuser(), why)
    )
    tell(name, alias, document, json=json)


def shadow(
    reference: Annotated[str, typer.Argument(metavar="NAME:VERSION", help="The version that gets the copies.")],
    percent: Annotated[float, typer.Option("--percent", help="Of the alias's requests; 0 ends it.")] = 10.0,
    alias: AliasOption = CHAMPION,
    why: WHY = "shadow",
    store: StoreOption = STORE,
    json: JsonOption = False,
) -> None:
    """Send copies of requests to another version too, off the caller's path, and record how the answers differ."""
    found, (name, version) = registry(store), named(reference)
    found.manifest(name, version)
    copied = Share(version, alias_updates.weight(percent)) if percent else None
    document = found.change(
        name, check_alias(alias), lambda old: alias_updates.shadowed(old, copied, getpass.getuser(), why)
    )
    tell(name, alias, document, json=json)


def history(
    name: Name,
    alias: Annotated[str, typer.Option("--alias", help="The alias that was moved.")] = CHAMPION,
    store: StoreOption = STORE,
    url: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Every move of an alias: when, who, from where to where, and why."""
    if url is not None:
        with server(url) as client:
            documents = client.registry.history(check_name(name, "model name"), check_alias(alias))
    else:
        documents = registry(store).history(name, check_alias(alias))
    if json:
        print_json(documents)
    else:
        RESULTS.print(table(f"{name}@{alias}", documents))


def named(reference: str) -> tuple[str, int]:
    """The model and the version, which must be named: an alias may move while it is being tried."""
    asked = Reference.parse(reference)
    if asked.version is None:
        raise InvalidInputError(f"{reference!r} names no version; write {asked.name}:3.")
    return asked.name, asked.version


def share(text: str) -> Share:
    """`3=25` or `3=25%` as a share."""
    found = re.fullmatch(r"([1-9][0-9]*)=([0-9.]+)%?", text)
    if found is None:
        raise InvalidInputError(f"{text!r} is not VERSION=PERCENT, as in 3=25.")
    return Share(int(found[1]), alias_updates.weight(float(found[2])))


def table(title: str, documents: list[AliasDocument]) -> Table:
    """The history, newest first, since that is what one looks for."""
    shown = Table("", "when", "who", "points to", "why", title=title, title_justify="left")
    for document in reversed(documents):
        when = document.at[:19].replace("T", " ")
        shown.add_row(str(document.number), when, document.by, aims(document), document.reason)
    return shown
