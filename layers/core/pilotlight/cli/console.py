"""Where the command writes, results to standard output and the rest to standard error, and the options of all verbs."""

import os
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from pilotlight.client.auth import Credentials
from pilotlight.client.client import Client
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
UrlOption = Annotated[str, typer.Option("--url", metavar="URL", help="Of the server, with its stage if it has one.")]
ServerOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="Of a server to ask instead of a store; PILOTLIGHT_API_KEY, _TOKEN or _AUTH=iam open it.",
    ),
]
RemoteOption = Annotated[bool, typer.Option("--remote", help="Of the server at --url, or of pilotlight serve.")]
STORE = DEFAULT_STORE
LOCAL_URL = "http://127.0.0.1:8080"


def open_registry(store: str) -> Registry:
    """The registry in the store at that URL."""
    return Registry(open_store(store))


def print_table(table: Table) -> None:
    """A table on standard output: as wide as the terminal, and in a pipe or a file as wide as it needs to be."""
    natural = RESULTS.measure(table, options=RESULTS.options.update(max_width=10_000)).maximum
    console = RESULTS if RESULTS.is_terminal else Console(highlight=False, width=natural)
    console.print(table)


def open_client(url: str) -> Client:
    """A client of the server at that URL, with the credentials of the environment."""
    credentials = Credentials.from_environment(os.environ, url)
    return Client(url, headers=credentials.headers, auth=credentials.iam_auth)


def print_json(content: Any) -> None:  # noqa: ANN401 - anything that JSON can say
    """One JSON document on standard output, for scripts."""
    typer.echo(msgspec.json.encode(content).decode())
