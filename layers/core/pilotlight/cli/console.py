"""What the verbs share: the consoles to which they write, the options that they all take, and the checkout."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from pilotlight.cli.known_servers import LOCAL_URL, explain_default, find_credentials, resolve_url
from pilotlight.client.client import Client
from pilotlight.contracts.alias import TOTAL_WEIGHT, AliasDocument
from pilotlight.errors import InvalidInputError
from pilotlight.registry.registry import Registry
from pilotlight.settings import DEFAULT_STORE
from pilotlight.storage.object_store import open_store

RESULTS = Console(highlight=False)
ERRORS = Console(stderr=True, highlight=False)

StoreOption = Annotated[
    str,
    typer.Option(
        "--store", envvar="PILOTLIGHT_STORE", metavar="URL", help="s3://bucket/prefix, file:///folder, a folder."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL|STACK",
        help=f"The server with its stage, or a stack's name; else PILOTLIGHT_URL, or {LOCAL_URL}.",
        callback=resolve_url,
    ),
]
ServerOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL|STACK",
        help="A server, or a stack by name, to ask instead of a store; PILOTLIGHT_KEY, _TOKEN or _AUTH=iam open it.",
        callback=resolve_url,
    ),
]
RemoteOption = Annotated[
    bool, typer.Option("--remote", help="Of the server at --url or PILOTLIGHT_URL, or of pilotlight serve.")
]
STORE = DEFAULT_STORE
TEMPLATE_FILE = "template.yaml"


def open_registry(store: str) -> Registry:
    """Open the registry of the store at that URL."""
    return Registry(open_store(store))


def print_table(table: Table) -> None:
    """Print a table on standard output: as wide as the terminal, and in a pipe or a file as wide as it needs to be."""
    natural = RESULTS.measure(table, options=RESULTS.options.update(max_width=10_000)).maximum
    console = RESULTS if RESULTS.is_terminal else Console(highlight=False, width=natural)
    console.print(table)


@contextmanager
def open_client(url: str) -> Iterator[Client]:
    """Open a client of the server at that URL, with the credentials of the environment, or the stack's own key."""
    credentials = find_credentials(url)
    with explain_default(url), Client(url, headers=credentials.headers, auth=credentials.auth) as client:
        yield client


def print_json(content: Any) -> None:  # noqa: ANN401 - any JSON
    """Print one JSON document on standard output, for scripts."""
    typer.echo(msgspec.json.encode(content).decode())


def print_alias_traffic(name: str, alias: str, document: AliasDocument, *, json: bool) -> None:
    """Print where the alias's requests go now."""
    print_json(document) if json else typer.echo(f"{name}@{alias} is {format_alias_traffic(document)}.")


def format_alias_traffic(document: AliasDocument) -> str:
    """Describe where requests go: `version 3, 10 % of it to 4 (canary), copies of 5 % to 5`."""
    parts = [f"version {document.version}"]
    for one in document.shares:
        kind = " (canary)" if document.canary else ""
        parts.append(f"{100 * one.weight / TOTAL_WEIGHT:g} % of it to {one.version}{kind}")
    if document.shadow:
        parts.append(f"copies of {100 * document.shadow.weight / TOTAL_WEIGHT:g} % to {document.shadow.version}")
    if document.suspended:
        parts.append("suspended")
    return ", ".join(parts)


def find_checkout() -> Path:
    """Find the folder with template.yaml and functions/: at or above the working folder, else above this package.

    Raises `InvalidInputError` if there is none.
    """
    here = Path.cwd()
    for candidate in (here, *here.parents, *Path(__file__).resolve().parents):
        if (candidate / TEMPLATE_FILE).is_file() and (candidate / "functions").is_dir():
            return candidate
    raise InvalidInputError(f"No {TEMPLATE_FILE} beside a functions folder in {here} or above; run this in a checkout.")
