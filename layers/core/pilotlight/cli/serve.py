"""`pilotlight serve`: run the local gateway over template.yaml."""

import logging
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from pilotlight.cli.console import ERRORS, STORE, TEMPLATE_FILE, JsonOption, StoreOption, find_checkout, print_json
from pilotlight.contracts.home_folder import expand_home
from pilotlight.errors import InvalidInputError
from pilotlight.local import template
from pilotlight.local.gateway import Gateway
from pilotlight.local.origin_policy import is_loopback
from pilotlight.settings import Settings
from pilotlight.storage.object_store import DiskStore, open_store

AUTH_MODES = ("keys", "jwt", "open")
CONTROL_VARIABLE = "PILOTLIGHT_CONTROL_SECRET"
SHOWN_ROUTES = 4  # in the warning
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
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="A further name of this server; may be repeated."),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option("--allow-origin", metavar="URL", help="A site whose pages may call this; may be repeated."),
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
        if not is_loopback(host):
            ERRORS.print(format_exposure_warning(local_gateway, url), markup=False, soft_wrap=True)
        print_json({"url": url, "store": store}) if json else typer.echo(f"Serving {store} at {url}")

    log_calls = not ERRORS.is_terminal if calls is None else calls
    local_gateway = build_gateway(
        store,
        host=host,
        port=port,
        workers=workers,
        parameters=parameters,
        log_calls=log_calls,
        capture_share=capture,
        allowed_hosts=allow_host or (),
        allowed_origins=allow_origin or (),
    )
    local_gateway.serve(on_ready)


def format_exposure_warning(gateway: Gateway, url: str) -> str:
    """Format what others can reach of a gateway that listens beyond this machine."""
    stack = template.load_stack(gateway.template, gateway.parameters)
    guarded = stack.authorizer.resources if stack.authorizer else frozenset()
    answering = sorted({f"{route.method} {route.resource}" for route in stack.routes if route.resource not in guarded})
    writing = [route for route in answering if not route.startswith("GET")]
    shown = ", ".join(writing[:SHOWN_ROUTES]) + (", ..." if len(writing) > SHOWN_ROUTES else "")
    return (
        f"Warning: {url} is open to every machine that reaches this one, without TLS: what is sent can be read on "
        f"the way. {len(answering)} of {len({(each.method, each.resource) for each in stack.routes})} routes answer "
        f"to anybody{f', among them {shown}' if shown else ''}."
    )


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
    allowed_hosts: Sequence[str] = (),
    allowed_origins: Sequence[str] = (),
) -> Gateway:
    """Build the gateway over the template with these parameters; the functions read that store.

    With `log_calls` they log each call; they keep `capture_share` of the requests. Whoever sets
    PILOTLIGHT_CONTROL_SECRET can invoke functions by it.
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
        allowed_hosts=allowed_hosts,
        allowed_origins=allowed_origins,
        secret=os.environ.get(CONTROL_VARIABLE) or secrets.token_hex(16),
        uploads=open_upload_store(places["PILOTLIGHT_STORE"]),
    )


def open_upload_store(store: str) -> DiskStore | None:
    """Open the store into which the gateway takes uploads; None for a bucket, which takes them itself, and memory."""
    if store.startswith(("s3:", "memory:")):  # opening a bucket may take credentials, which it has a process for
        return None
    opened = open_store(store)
    return opened if isinstance(opened, DiskStore) else None


def resolve_store(store: str) -> str:
    """Make a store's URL valid for a process in another folder."""
    store = expand_home(store)
    return store if "://" in store else str(Path(store).absolute())
