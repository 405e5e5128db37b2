"""`pilotlight keys`: create, list, rotate and revoke the API keys of a store's callers."""

import getpass
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from pilotlight.api_keys.key_store import STACK_METER, BrokenKey, KeyStore, NewKey, UsageMeter
from pilotlight.aws.usage_plans import create_gateway_key, delete_gateway_key, get_gateway_key
from pilotlight.cli.console import ERRORS, STORE, JsonOption, StoreOption, print_json, print_table
from pilotlight.contracts.api_key import ApiKey
from pilotlight.contracts.durations import compute_end
from pilotlight.contracts.scopes import Scope, parse_scopes
from pilotlight.errors import InvalidInputError, NotFoundError
from pilotlight.storage.object_store import open_store

USE_TEXT = "Send it as `Authorization: Bearer KEY`; this command reads it from PILOTLIGHT_KEY."
CACHE_TEXT = "within a minute"  # the authorizer's cache

keys = typer.Typer(
    help="API keys of callers: create, list, rotate and revoke them.", add_completion=False, no_args_is_help=True
)
KeyArgument = Annotated[str, typer.Argument(metavar="NAME|ID", help="As `pilotlight keys list` shows it.")]
ExpiresOption = Annotated[
    str | None, typer.Option("--expires", metavar="TIME", help="After which it opens nothing: 12h, 90d; never.")
]


@keys.command("create")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who or what will hold it.")],
    scopes: Annotated[str, typer.Option("--scopes", help="What it opens: infer, batch, admin, train; with commas.")],
    tenant: Annotated[str, typer.Option("--tenant", help="Whose it is; empty for the stack's own callers.")] = "",
    expires: ExpiresOption = None,
    plan: Annotated[
        str | None, typer.Option("--plan", metavar="ID", help="A usage plan, in which the key is metered by itself.")
    ] = None,
    meter: Annotated[
        str | None,
        typer.Option("--meter", metavar="ID", help="An API Gateway key that meters it, such as a tenant's."),
    ] = None,
    store: StoreOption = STORE,
    json: JsonOption = False,
) -> None:
    """Create a key, and print it once on standard output; it cannot be shown again."""
    key_store, wanted = KeyStore(open_store(store)), parse_scopes(scopes)
    end = compute_end(expires) if expires is not None else None
    key_store.check_key(name, wanted, tenant)
    usage_meter = open_meter(name, plan, meter)
    print_new_key(create_metered_key(key_store, name, wanted, tenant, end, usage_meter), json=json)


@keys.command("list")
def list_all(store: StoreOption = STORE, json: JsonOption = False) -> None:
    """List the keys, without what opens anything."""
    found, broken = KeyStore(open_store(store)).list_keys()
    if json:
        print_json({
            "keys": [describe_key(one) for one in found],
            "broken": [{"id": one.id, "problem": one.problem} for one in broken],
        })  # fmt: skip
    else:
        print_table(build_key_table(found, broken))


@keys.command("revoke")
def revoke(key: KeyArgument, store: StoreOption = STORE, json: JsonOption = False) -> None:
    """Revoke a key, which then opens nothing within a minute."""
    key_store = KeyStore(open_store(store))
    key_id = key_store.find_id(key)
    revoked = revoke_metered_key(key_store, key_id)
    if json:
        print_json({"id": key_id, "name": revoked.name if revoked else "", "revoked": True})
    elif revoked is None:
        typer.echo(f"The document of {key_id} could not be read, and is removed; it opened nothing.")
    else:
        typer.echo(f"{revoked.name} ({key_id}) is revoked, and opens nothing {CACHE_TEXT}.")


@keys.command("rotate")
def rotate(
    key: KeyArgument, expires: ExpiresOption = None, store: StoreOption = STORE, json: JsonOption = False
) -> None:
    """Create a key like another one, then revoke that; print the new one once."""
    key_store = KeyStore(open_store(store))
    old = find_valid_key(key_store, key)
    end = compute_end(expires) if expires is not None else old.expires
    print_new_key(key_store.rotate_key(old, actor=getpass.getuser(), expires=end), json=json)


def find_valid_key(key_store: KeyStore, key: str) -> ApiKey:
    """Find a key that opens something; raise `NotFoundError` for any other."""
    key_id = key_store.find_id(key)
    for one in key_store.list_keys()[0]:
        if one.id == key_id and one.get_state(datetime.now(UTC)) == "valid":
            return one
    raise NotFoundError(f"The key {key!r} is no longer valid; create another.")


def open_meter(name: str, plan: str | None, meter: str | None) -> UsageMeter:
    """Create or find the API Gateway key that meters a key; without either option the stack's own does."""
    if plan is not None and meter is not None:
        raise InvalidInputError("--plan makes a meter, and --meter names one; give one of them.")
    if plan is not None:
        made = create_gateway_key(open_gateway(), name, plan)
        return UsageMeter(made.value, made.id)
    if meter is not None:
        return UsageMeter(get_gateway_key(open_gateway(), meter).value)
    return STACK_METER


def create_metered_key(
    key_store: KeyStore, name: str, scopes: Sequence[Scope], tenant: str, expires: datetime | None, meter: UsageMeter
) -> NewKey:
    """Create a key; if that fails, delete the meter that was made for it."""
    try:
        return key_store.create_key(name, scopes, actor=getpass.getuser(), tenant=tenant, expires=expires, meter=meter)
    except Exception:  # raised again: whatever it is, no meter stays without its key
        if meter.id:
            delete_gateway_key(open_gateway(), meter.id)
        raise


def revoke_metered_key(key_store: KeyStore, key_id: str) -> ApiKey | None:
    """Revoke a key, then delete the meter that was made for it."""
    revoked = key_store.revoke_key(key_id)
    if revoked is not None and revoked.usage_key_id:
        delete_gateway_key(open_gateway(), revoked.usage_key_id)
    return revoked


def open_gateway() -> Any:  # noqa: ANN401 - boto3 ships no types
    """Open a client of API Gateway in the region of the environment."""
    import boto3
    from botocore.exceptions import BotoCoreError

    try:
        return boto3.client("apigateway")
    except BotoCoreError as exc:
        raise InvalidInputError(f"API Gateway cannot be asked: {exc}. Set AWS_REGION and AWS_PROFILE.") from exc


def print_new_key(created: NewKey, *, json: bool) -> None:
    """Print a key alone on standard output, so that it can be piped, and all else on standard error."""
    if json:
        print_json(describe_key(created.document) | {"key": created.key})
        return
    document = created.document
    until = f"until {format_time(document.expires)}" if document.expires else "until it is revoked"
    ERRORS.print(
        f"{document.name} ({document.id}) opens {', '.join(document.scopes)} {until}. This is shown once:",
        markup=False,
        soft_wrap=True,
    )
    typer.echo(created.key)
    ERRORS.print(
        "Send it as `Authorization: Bearer KEY`; this command reads it from PILOTLIGHT_KEY.",
        markup=False,
        soft_wrap=True,
    )


def describe_key(key: ApiKey) -> dict[str, object]:
    """Describe a key for scripts, without its hash."""
    return {
        "id": key.id,
        "name": key.name,
        "scopes": key.scopes,
        "tenant": key.tenant,
        "state": key.get_state(datetime.now(UTC)),
        "created": key.created,
        "expires": key.expires,
        "revoked": key.revoked,
        "by": key.by,
    }


def build_key_table(found: Sequence[ApiKey], broken: Sequence[BrokenKey]) -> Table:
    """Build the table of keys, the newest last; a broken one has its problem in place of what it opens."""
    table = Table("name", "id", "opens", "tenant", "state", "created", "expires", box=None, pad_edge=False)
    now = datetime.now(UTC)
    for one in found:
        table.add_row(
            one.name, one.id, ",".join(one.scopes), one.tenant or "-", one.get_state(now),
            format_time(one.created), format_time(one.expires),
        )  # fmt: skip
    for unreadable in broken:
        table.add_row("?", unreadable.id, "nothing", "-", "broken", "-", "-")
    return table


def format_time(at: datetime | None) -> str:
    """Format a time to the minute, in UTC."""
    return "-" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M}"
