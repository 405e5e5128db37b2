"""`pilotlight canary`, `split`, `shadow` and `history`: which version gets which requests, and who decided it."""

import getpass
import re
from typing import Annotated

import typer
from rich.table import Table

from pilotlight.api.schemas.registry import CanaryBody
from pilotlight.cli.console import (
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
from pilotlight.contracts.alias import AliasDocument, Canary, TrafficShare
from pilotlight.contracts.names import CHAMPION, ModelReference, check_alias, check_name
from pilotlight.errors import InvalidInputError
from pilotlight.registry import alias_updates
from pilotlight.registry.approval import refuse_unapproved

AliasOption = Annotated[str, typer.Option("--alias", help="The alias whose requests are shared out.")]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A model.")]
ReasonOption = Annotated[str, typer.Option("--why", help="For the history.")]


def canary(
    reference: Annotated[str, typer.Argument(metavar="NAME:VERSION", help="The version to try.")],
    percent: Annotated[float, typer.Option("--percent", help="Of the alias's requests; 0 ends the trial.")] = 10.0,
    bake: Annotated[str, typer.Option("--bake", help="After which it is promoted if it held: 30m, 2h, 1d.")] = "1h",
    max_error_rate: Annotated[float, typer.Option("--max-error-rate", help="Of its own requests.")] = 0.01,
    max_latency_ratio: Annotated[
        float, typer.Option("--max-latency-ratio", help="Over the champion's, for as many rows.")
    ] = 2.0,
    max_drift: Annotated[float, typer.Option("--max-drift", help="Between their answers, 0 to 1.")] = 0.25,
    alias: AliasOption = CHAMPION,
    why: ReasonOption = "trial",
    store: StoreOption = STORE,
    url: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Try a version on a share of the requests, with automatic promotion or rollback."""
    if url is not None:
        name, version = parse_version_reference(reference)
        request = CanaryBody(version, percent, bake, max_error_rate, max_latency_ratio, max_drift, why=why)
        with open_client(url) as client:
            print_alias_traffic(name, alias, client.registry.set_canary(name, request, check_alias(alias)), json=json)
        return
    model_registry, (name, version) = open_registry(store), parse_version_reference(reference)
    model_registry.load_manifest(name, version)
    refuse_unapproved(model_registry, name, version, required=False)
    trial = Canary(version, alias_updates.compute_bake_end(bake), max_error_rate, max_latency_ratio, max_drift)
    weight, actor = alias_updates.weight_from_percent(percent) if percent else 0, getpass.getuser()

    def update_alias(old: AliasDocument) -> AliasDocument:
        return (
            alias_updates.start_canary(old, trial, weight, actor, why)
            if weight
            else alias_updates.clear_traffic_split(old, actor, why)
        )

    document = model_registry.update_alias(name, check_alias(alias), update_alias)
    print_alias_traffic(name, alias, document, json=json)


def split(
    name: NameArgument,
    shares: Annotated[list[str], typer.Argument(metavar="VERSION=PERCENT...", help="The rest stays with the alias.")],
    alias: AliasOption = CHAMPION,
    why: ReasonOption = "split",
    store: StoreOption = STORE,
    json: JsonOption = False,
) -> None:
    """Share an alias's requests out among versions; an authenticated caller's users stay where they are (A/B/N)."""
    model_registry = open_registry(store)
    parsed_shares = tuple(parse_share(text) for text in shares)
    for one in parsed_shares:
        model_registry.load_manifest(name, one.version)
        refuse_unapproved(model_registry, name, one.version, required=False)
    document = model_registry.update_alias(
        name,
        check_alias(alias),
        lambda old: alias_updates.set_traffic_split(old, parsed_shares, getpass.getuser(), why),
    )
    print_alias_traffic(name, alias, document, json=json)


def shadow(
    reference: Annotated[str, typer.Argument(metavar="NAME:VERSION", help="The version that gets the copies.")],
    percent: Annotated[float, typer.Option("--percent", help="Of the alias's requests; 0 ends it.")] = 10.0,
    alias: AliasOption = CHAMPION,
    why: ReasonOption = "shadow",
    store: StoreOption = STORE,
    json: JsonOption = False,
) -> None:
    """Send copies of requests to another version too, off the caller's path, and record how the answers differ."""
    model_registry, (name, version) = open_registry(store), parse_version_reference(reference)
    model_registry.load_manifest(name, version)
    shadow_share = TrafficShare(version, alias_updates.weight_from_percent(percent)) if percent else None
    document = model_registry.update_alias(
        name, check_alias(alias), lambda old: alias_updates.set_shadow(old, shadow_share, getpass.getuser(), why)
    )
    print_alias_traffic(name, alias, document, json=json)


def history(
    name: NameArgument,
    alias: Annotated[str, typer.Option("--alias", help="The alias that was moved.")] = CHAMPION,
    store: StoreOption = STORE,
    url: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Every move of an alias: when, who, from where to where, and why."""
    if url is not None:
        with open_client(url) as client:
            documents = client.registry.get_alias_history(check_name(name, "model name"), check_alias(alias))
    else:
        documents = open_registry(store).load_alias_history(name, check_alias(alias))
    if json:
        print_json(documents)
    else:
        RESULTS.print(build_history_table(f"{name}@{alias}", documents))


def parse_version_reference(reference: str) -> tuple[str, int]:
    """Parse a reference that must name a version, since an alias may move during a trial."""
    parsed = ModelReference.parse(reference)
    if parsed.version is None:
        raise InvalidInputError(f"{reference!r} names no version; write {parsed.name}:3.")
    return parsed.name, parsed.version


def parse_share(text: str) -> TrafficShare:
    """Parse a share of the requests: `3=25` or `3=25%`."""
    match = re.fullmatch(r"([1-9][0-9]*)=([0-9.]+)%?", text)
    if match is None:
        raise InvalidInputError(f"{text!r} is not VERSION=PERCENT, as in 3=25.")
    return TrafficShare(int(match[1]), alias_updates.weight_from_percent(float(match[2])))


def build_history_table(title: str, documents: list[AliasDocument]) -> Table:
    """Build the table of the history, newest first."""
    table = Table("", "when", "who", "points to", "why", title=title, title_justify="left")
    for document in reversed(documents):
        when = document.at[:19].replace("T", " ")
        table.add_row(str(document.number), when, document.by, format_alias_traffic(document), document.reason)
    return table
