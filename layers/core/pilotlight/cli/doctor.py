"""`pilotlight doctor`: whether this machine, a store or a server is as it should be, and what to do where it is not."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from pilotlight.cli.console import ERRORS, RESULTS, STORE, JsonOption, print_json
from pilotlight.client.auth import Credentials
from pilotlight.doctor import machine
from pilotlight.doctor import store as stores
from pilotlight.doctor.answers import Answers
from pilotlight.doctor.finding import Check, Finding, finding
from pilotlight.doctor.models import Models
from pilotlight.doctor.server import Server, reachable
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store

COLOURS = {"passes": "green", "fails": "bold red", "not checked": "dim"}


def doctor(
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            metavar="URL",
            help="Of a server, with its stage; PILOTLIGHT_API_KEY, _TOKEN or _AUTH=iam opens it.",
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store", envvar="PILOTLIGHT_STORE", metavar="URL", help="With --url: the server's, which is only read."
        ),
    ] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Read every file of served versions, and hash it.")] = False,
    json: JsonOption = False,
) -> None:
    """Check this machine and the store or, with --url, a server end to end; nothing on a server is changed."""
    checks = of_machine(store or STORE, deep=deep) if url is None else of_server(url, store, deep=deep)
    found = list(shown(checks, json=json))
    counts = Counter(one.state for one in found)
    if json:
        print_json({"passed": not counts["fails"], "checks": found})
    else:
        RESULTS.print(f"{counts['passes']} pass, {counts['fails']} fail, {counts['not checked']} are not checked.")
    raise typer.Exit(1 if counts["fails"] else 0)


def of_machine(url: str, *, deep: bool) -> Iterator[Finding]:
    """The machine, then its store, which is written to for a moment."""
    yield from map(finding, machine.checks())
    if "://" not in url and not Path(url).exists():
        yield Finding("store", "not checked", f"There is none at {url} yet; `pilotlight train digits` makes it.")
        return
    store = open_store(url)
    yield from map(finding, stores.checks(store))
    yield from map(finding, Models(Registry(store), tell, deep=deep).checks())


def of_server(url: str, store: str | None, *, deep: bool) -> Iterator[Finding]:
    """A server, and what its store says, if that is given."""
    registry = Registry(open_store(store)) if store else None
    with Server(url, Credentials.of(os.environ, url)) as server:
        reachable(server)
        for check in (Check("TLS", server.tls), Check("stage", server.stage)):
            yield finding(check)
        yield (live := finding(Check("live", server.live)))
        for check in (*server.checks(), *Answers(server.client, registry).checks()):
            yield finding(check) if live.state == "passes" else Finding(check.name, "not checked", "Nothing is live.")
    if registry is not None:
        yield from map(finding, Models(registry, tell, deep=deep).checks())


def tell(what: str) -> None:
    """What is under way, for whoever waits."""
    ERRORS.print(f"  {what}", markup=False, style="dim")


def shown(findings: Iterable[Finding], *, json: bool) -> Iterator[Finding]:
    """Show each finding as it comes: as the result, or as progress where the result will be JSON."""
    console = ERRORS if json else RESULTS
    for one in findings:
        console.print(f"[{COLOURS[one.state]}]{one.state:<12}[/]", f"{one.check:<18}", end=" ")
        console.print(one.said, markup=False, soft_wrap=True)
        yield one
