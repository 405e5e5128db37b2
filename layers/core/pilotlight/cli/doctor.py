"""`pilotlight doctor`: check this machine, a store or a server, and print what to do about what fails."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from pilotlight.cli.console import ERRORS, RESULTS, STORE, JsonOption, print_json
from pilotlight.cli.known_servers import find_credentials, resolve_url
from pilotlight.doctor import machine
from pilotlight.doctor.broken_documents import BrokenDocument, find_broken_documents, repair_all
from pilotlight.doctor.finding import CheckResult, HealthCheck, run_check
from pilotlight.doctor.golden_prompts import GoldenPromptChecks
from pilotlight.doctor.inference import InferenceChecks
from pilotlight.doctor.models import ModelChecks
from pilotlight.doctor.server import ServerChecks, check_url
from pilotlight.doctor.store import list_store_checks
from pilotlight.errors import InvalidInputError
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import ObjectStore, open_store

COLOURS = {"passes": "green", "fails": "bold red", "not checked": "dim"}


def doctor(
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            metavar="URL|STACK",
            help="Of a server, with its stage, or a stack's name; PILOTLIGHT_KEY, _TOKEN or _AUTH=iam opens it.",
            callback=resolve_url,
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store", envvar="PILOTLIGHT_STORE", metavar="URL", help="With --url: the server's, which is only read."
        ),
    ] = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every document, and every file of served versions, and hash it.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Find documents of the store that cannot be read, and mend them.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --repair: do not ask.")] = False,
    json: JsonOption = False,
) -> None:
    """Check this machine and the store or, with --url, a server end to end; nothing on a server is changed."""
    if repair:
        if url is not None:
            raise InvalidInputError("--repair is for a store: give --store alone.")
        return repair_store(open_store(store or STORE), yes=yes, json=json)
    checks = check_machine(store or STORE, deep=deep) if url is None else check_server(url, store, deep=deep)
    results = list(print_results(checks, json=json))
    counts = Counter(one.state for one in results)
    if json:
        print_json({"passed": not counts["fails"], "checks": results})
    else:
        RESULTS.print(f"{counts['passes']} pass, {counts['fails']} fail, {counts['not checked']} are not checked.")
    raise typer.Exit(1 if counts["fails"] else 0)


def repair_store(store: ObjectStore, *, yes: bool, json: bool) -> None:
    """Show the documents that cannot be read and, once that is confirmed, mend them; exit with 1 if some are left."""
    broken = find_broken_documents(store)
    if not json:
        print_broken_documents(broken)
    mendable = any(one.is_mendable for one in broken)
    if mendable and not yes and not json:
        typer.confirm("Mend what can be mended? Bytes are kept, and no version is removed.", abort=True)
    results = list(repair_all(store, broken)) if yes or (mendable and not json) else []
    mended = {one.path for one, is_mended, _ in results if is_mended}
    if json:
        said = {one.path: text for one, _, text in results}
        print_json({"broken": broken, "mended": sorted(mended), "said": said})
    for _, _, text in [] if json else results:
        RESULTS.print(text, markup=False, soft_wrap=True)
    raise typer.Exit(1 if len(mended) < len(broken) else 0)


def print_broken_documents(broken: list[BrokenDocument]) -> None:
    """Print what is broken, what it costs, and what mends it."""
    for one in broken:
        RESULTS.print(f"{one.error}\n  {one.cost} Repair: {one.repair}.", markup=False, soft_wrap=True)
    if not broken:
        RESULTS.print("Every document of the store can be read.", markup=False)


def check_machine(url: str, *, deep: bool) -> Iterator[CheckResult]:
    """Check the machine, then its store, to which an object is written for a moment."""
    yield from map(run_check, machine.list_machine_checks())
    if "://" not in url and not Path(url).exists():
        yield CheckResult("store", "not checked", f"There is none at {url} yet; `pilotlight train digits` makes it.")
        return
    store = open_store(url)
    yield from map(run_check, list_store_checks(store, deep=deep))
    yield from map(run_check, ModelChecks(Registry(store), print_progress, deep=deep).list_checks())


def check_server(url: str, store: str | None, *, deep: bool) -> Iterator[CheckResult]:
    """Check a server, with its store if that is given."""
    registry = Registry(open_store(store)) if store else None
    with ServerChecks(url, find_credentials(url)) as server:
        check_url(server)
        for check in (HealthCheck("TLS", server.check_tls), HealthCheck("stage", server.check_stage)):
            yield run_check(check)
        yield (live := run_check(HealthCheck("live", server.check_liveness)))
        inference = InferenceChecks(server.client, registry).list_checks()
        generation = GoldenPromptChecks(server.client, registry).list_checks()
        for check in (*server.list_checks(), *inference, *generation):
            yield (
                run_check(check)
                if live.state == "passes"
                else CheckResult(check.name, "not checked", "Nothing is live.")
            )
    if registry is not None:
        yield from map(run_check, ModelChecks(registry, print_progress, deep=deep).list_checks())


def print_progress(message: str) -> None:
    """Print what is being checked."""
    ERRORS.print(f"  {message}", markup=False, style="dim")


def print_results(results: Iterable[CheckResult], *, json: bool) -> Iterator[CheckResult]:
    """Print each result as it comes: on standard output, or as progress on standard error if that will have JSON."""
    console = ERRORS if json else RESULTS
    for one in results:
        console.print(f"[{COLOURS[one.state]}]{one.state:<12}[/]", f"{one.check:<18}", end=" ")
        console.print(one.said, markup=False, soft_wrap=True)
        yield one
