"""`pilotlight serve`: run the local gateway over template.yaml."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from pilotlight.cli.console import ERRORS, STORE, TEMPLATE_FILE, JsonOption, StoreOption, find_checkout, print_json
from pilotlight.errors import InvalidInputError
from pilotlight.local.authorizer import is_loopback
from pilotlight.local.gateway import Gateway
from pilotlight.settings import Settings

AUTH_MODES = ("keys", "jwt", "open")
TRAININGS_FOLDER = Settings().trainings  # in the working folder, as the store is


def serve(
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes any free one.")] = 8080,
    store: StoreOption = STORE,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Environments per function.")] = os.cpu_count() or 1,
    capture: Annotated[
        float, typer.Option("--capture", metavar="SHARE", min=0, max=1, help="Of the requests, to keep for drift.")
    ] = 0.0,
    auth: Annotated[
        str | None,
        typer.Option(
            "--auth",
            metavar="MODE",
            help="Ask for keys, jwt (with --parameter JwtIssuer=...) or, where models are not called, keys: open. "
            "On loopback nothing is asked by default; elsewhere keys.",
        ),
    ] = None,
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
    parameters = choose_auth(dict(map(parse_parameter, parameter or ())), auth, host)

    def on_ready(url: str) -> None:
        show_access_lines()
        ERRORS.print(describe_auth(parameters.get("Auth"), host, store), markup=False, soft_wrap=True)
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


def choose_auth(parameters: dict[str, str], auth: str | None, host: str) -> dict[str, str]:
    """Complete the parameters with Auth: as the option says, else keys on an address that others may reach."""
    if auth is not None and parameters.setdefault("Auth", auth) != auth:
        raise InvalidInputError(f"--auth {auth} and --parameter Auth={parameters['Auth']} differ; leave one out.")
    if not is_loopback(host):
        parameters.setdefault("Auth", "keys")
    if parameters.get("Auth", "keys") not in AUTH_MODES:
        raise InvalidInputError(
            f"{parameters['Auth']!r} cannot be asked for here; --auth takes {', '.join(AUTH_MODES)}, and iam only AWS."
        )
    return parameters


def describe_auth(auth: str | None, host: str, store: str) -> str:
    """Describe who may call what; with a warning where others than this machine may call without a key."""
    create = f"`pilotlight keys create NAME --scopes infer --store {store}` creates one"
    if auth is None:
        return "No key is asked for, since only this machine can call; --auth keys asks as a deployed stack does."
    if auth == "open":
        said = f"Anybody who reaches {host} may call models; all other routes ask for a key: {create}."
        return said if is_loopback(host) else f"WARNING: {said}"
    return f"Every route asks for a key; {create}." if auth == "keys" else "Every route asks for a token."


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
