"""`pilotlight serve`: run the local gateway over template.yaml."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from pilotlight.cli.console import ERRORS, STORE, TEMPLATE_FILE, JsonOption, StoreOption, find_checkout, print_json
from pilotlight.errors import InvalidInputError
from pilotlight.local.gateway import Gateway
from pilotlight.settings import Settings

TRAININGS_FOLDER = Settings().trainings  # in the working folder, as the store is


def serve(
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes any free one.")] = 8080,
    store: StoreOption = STORE,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Environments per function.")] = os.cpu_count() or 1,
    capture: Annotated[
        float, typer.Option("--capture", metavar="SHARE", min=0, max=1, help="Of the requests, to keep for drift.")
    ] = 0.0,
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", help="Of the template, Auth=jwt; may be repeated.")
    ] = None,
    calls: Annotated[
        bool | None,
        typer.Option("--calls/--no-calls", help="A JSON line of what each call cost; by default unless on a terminal."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Serve template.yaml's functions on this machine; print the URL when ready, and a line for each request."""
    parameters = dict(map(parse_parameter, parameter or ()))

    def on_ready(url: str) -> None:
        show_access_lines()
        print_json({"url": url, "store": store}) if json else typer.echo(f"Serving {store} at {url}")

    log_calls = not ERRORS.is_terminal if calls is None else calls
    local_gateway = build_gateway(
        store, host=host, port=port, workers=workers, parameters=parameters, log_calls=log_calls, capture_share=capture
    )
    local_gateway.serve(on_ready)


def parse_parameter(text: str) -> tuple[str, str]:
    """Parse `Name=value`; raise `InvalidInputError` for anything else."""
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise InvalidInputError(f"{text!r} is no parameter; write --parameter Name=value, such as Auth=jwt.")
    return name, value


def show_access_lines() -> None:
    """Log a line for each request on standard error, by logging's own handler, since rich's takes 1 ms a line."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log = logging.getLogger("pilotlight.local")
    log.addHandler(handler)
    log.setLevel(logging.INFO)


def build_gateway(
    store: str,
    *,
    host: str,
    port: int,
    workers: int,
    parameters: Mapping[str, str] | None = None,
    log_calls: bool = False,
    capture_share: float = 0.0,
) -> Gateway:
    """Build the gateway over the template with these parameters; the functions read that store.

    With `log_calls` they log each call; they keep `capture_share` of the requests.
    """
    keeping = (
        {"PILOTLIGHT_CAPTURE_RATE": f"{capture_share:g}", "PILOTLIGHT_CAPTURE_SECONDS": "1"} if capture_share else {}
    )
    silent = {} if log_calls else {"PILOTLIGHT_CALL_SECONDS": "-1"}
    places = {"PILOTLIGHT_STORE": resolve_store(store), "PILOTLIGHT_TRAININGS": resolve_store(TRAININGS_FOLDER)}
    return Gateway(
        template=find_checkout() / TEMPLATE_FILE,
        host=host,
        port=port,
        workers=workers,
        environment=places | silent | keeping,
        parameters=parameters or {},
    )


def resolve_store(store: str) -> str:
    """Make a store's URL valid for a process in another folder."""
    return store if "://" in store else str(Path(store).absolute())
