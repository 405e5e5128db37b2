"""Check that a server, local or deployed, runs this code: reachable, of this version, with these routes.

`doctor.inference` checks its models. No check changes anything: see the package.
"""

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any, Self
from urllib.parse import urlsplit

import msgspec

import pilotlight
from pilotlight.api.routes import SCOPES
from pilotlight.client.auth import Credentials
from pilotlight.client.client import Client, RawResponse
from pilotlight.contracts.api_key import KEY_PREFIX
from pilotlight.contracts.scopes import ALL_SCOPES
from pilotlight.doctor.finding import CheckFailedError, HealthCheck, NotCheckedError, join_names
from pilotlight.errors import InvalidInputError, UnavailableError
from pilotlight.local.origin_policy import is_loopback
from pilotlight.openapi.public_document import encode_openapi_document

UNKNOWN_MODEL = "pilotlight-doctor"  # a model that does not exist
STAGE = "/prod"  # of template.yaml
NO_CREDENTIALS = Credentials()
UNKNOWN_KEY = f"{KEY_PREFIX}{'a' * 12}_{'A' * 43}"  # of the right form
FORBIDDEN_STATUS = 403  # for credentials that are valid, and lack the scope
UNAUTHORIZED_STATUSES = (401, FORBIDDEN_STATUS)
UNKNOWN_ROUTE_MESSAGE = "Missing Authentication Token"  # of a REST API for an unknown route, with 403
MIN_CERTIFICATE_LIFE = timedelta(days=14)  # of a certificate; ACM renews 60 days before the end
MAX_CLOCK_SKEW_S = 300.0  # from there on AWS refuses signatures for their time
PATH_PLACEHOLDERS = {"model": UNKNOWN_MODEL, "version": "1", "alias": "champion", "promotion": UNKNOWN_MODEL}


class ServerChecks:
    """Checks of a server by its URL, with the credentials of its registry, if there are any; must be closed."""

    def __init__(self, url: str, credentials: Credentials = NO_CREDENTIALS) -> None:
        self.url = url.rstrip("/")
        self.credentials = credentials
        self.client = Client(self.url, headers=credentials.headers, auth=credentials.auth)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()

    @property
    def is_local(self) -> bool:
        """Whether the server runs on this machine, where no other machine reaches it."""
        return is_loopback(urlsplit(self.url).hostname or "")

    def get(self, path: str) -> RawResponse:
        """Call a route with GET."""
        return self.client.send_request("GET", path)

    def list_checks(self) -> tuple[HealthCheck, ...]:
        """List all checks but the first, `live`, on which all of these depend."""
        return (
            HealthCheck("ready", self.check_readiness),
            HealthCheck("version", self.check_version),
            HealthCheck("gateway's errors", self.check_gateway_errors),
            HealthCheck("handler's errors", self.check_handler_errors),
            HealthCheck("routes", self.check_routes),
            HealthCheck("openapi", self.check_openapi),
            HealthCheck("clock", self.check_clock),
            HealthCheck("keys", self.check_open_routes),
            HealthCheck("registry", self.check_registry),
        )

    def check_tls(self, now: datetime | None = None) -> str:
        """Check that the connection is encrypted, with a certificate that is trusted here and does not expire soon."""
        if urlsplit(self.url).scheme != "https":
            if self.is_local:
                raise NotCheckedError("This machine is asked over http, which nobody else hears.")
            raise CheckFailedError(f"{self.url} is not encrypted, and requests hold keys and data; use https.")
        tls = self.get("/v2/health/live").tls
        if tls is None:
            raise NotCheckedError("A proxy stands between, which hides the server's certificate.")
        expires_at = parsedate_to_datetime(re.sub(r"^(\w+) +(\d+) (\S+) (\d+) GMT$", r"\2 \1 \4 \3 +0000", tls.expires))
        left = expires_at - (now or datetime.now(UTC))
        if left < MIN_CERTIFICATE_LIFE:
            raise CheckFailedError(
                f"{tls.version}, but the certificate ends in {left.days} days, {expires_at:%Y-%m-%d}; renew it."
            )
        return f"{tls.version}, with a certificate that is trusted here and ends on {expires_at:%Y-%m-%d}."

    def check_stage(self) -> str:
        """Check that the URL ends where the routes begin."""
        below = urlsplit(self.url).path
        if is_live(self.get("/v2/health/live")):
            return f"The routes lie below {below}." if below else "The routes lie at the top of the host."
        with ServerChecks(
            self.url.removesuffix(STAGE) if below == STAGE else self.url + STAGE, self.credentials
        ) as other:
            if is_live(other.get("/v2/health/live")):
                raise CheckFailedError(f"The routes lie below {other.url}; give that as --url.")
        raise NotCheckedError("Nothing lives here; see the next check.")

    def check_liveness(self) -> str:
        """Check that a Pilotlight answers."""
        reply = self.get("/v2/health/live")
        if is_live(reply):
            return f"It answers, the first time after {reply.seconds * 1000:.0f} ms."
        advice = (
            "see that the URL has its stage, and PILOTLIGHT_KEY a key with the scope infer if the stack asks for one"
        )
        if reply.status in (*UNAUTHORIZED_STATUSES, 404):
            advice += "; with Auth=iam set PILOTLIGHT_AUTH=iam, with Auth=jwt PILOTLIGHT_TOKEN"
        raise CheckFailedError(f"/v2/health/live answers {format_reply(reply)}; {advice}.")

    def check_readiness(self) -> str:
        """Check that the server reaches its store."""
        reply = self.get("/v2/health/ready")
        if reply.status != 200:
            raise CheckFailedError(
                f"/v2/health/ready answers {format_reply(reply)}; see the predict function's role and variables."
            )
        return "It reaches its store."

    def check_version(self) -> str:
        """Check that the server runs this version."""
        metadata = parse_json_object(self.get("/v2"))
        if metadata.get("name") != "pilotlight":
            raise CheckFailedError(
                f"It calls itself {metadata.get('name')!r}, not 'pilotlight'; is this the right URL?"
            )
        if metadata.get("version") != pilotlight.__version__:
            raise CheckFailedError(
                f"It runs {metadata.get('version')}, and this is {pilotlight.__version__}; deploy again, or use its "
                "client."
            )
        return f"It runs {pilotlight.__version__}, as this does."

    def check_gateway_errors(self) -> str:
        """Check that the gateway's own errors have the template's body, which every client shows."""
        reply = self.get(f"/v2/{UNKNOWN_MODEL}/none/such/route")
        body = parse_json_object(reply)
        if reply.status != 404 or not isinstance(body.get("message"), str) or "error" in body:
            raise CheckFailedError(
                f"A route that there is not is answered with {format_reply(reply)}, not with 404 and a message; "
                "GatewayResponses of template.yaml are not in force, deploy again."
            )
        return "What the gateway refuses has a message."

    def check_handler_errors(self) -> str:
        """Check that errors of the functions arrive with their status and sentence."""
        for path, status in ((f"/v2/models/{UNKNOWN_MODEL}", 404), (f"/v2/models/{UNKNOWN_MODEL}/infer", 405)):
            reply = self.get(path)
            body = parse_json_object(reply)
            if reply.status != status or not isinstance(body.get("error"), str):
                raise CheckFailedError(
                    f"{path} answers {format_reply(reply)}, not {status} with an error; see the function's log."
                )
        return "What the functions refuse has its status and a sentence."

    def check_routes(self) -> str:
        """Check that every route exists: each answers GET, if only that it takes another verb."""
        replies = {fill_path(path): reply for path, reply in self._route_replies.items()}
        wrong = [f"{path} ({format_reply(reply)})" for path, reply in replies.items() if is_route_missing(reply)]
        if wrong:
            raise CheckFailedError(
                f"{len(wrong)} of {len(replies)} routes are not as they should be: {join_names(wrong)}."
            )
        hidden = sum(map(is_refused, replies.values()))
        more = f"; {hidden} of them want a key, or another scope" if hidden else ""
        return f"All {len(replies)} routes answer{more}."

    def check_openapi(self) -> str:
        """Check that the server's OpenAPI document is that of this code."""
        theirs, ours = (
            parse_json_object(self.get("/openapi.json")),
            msgspec.json.decode(encode_openapi_document()),
        )
        if theirs == ours:
            return f"/openapi.json is this code's, {len(ours['paths'])} paths."
        differing = sorted(find_openapi_differences(theirs.get("paths", {}), ours["paths"])) or ["its forms"]
        raise CheckFailedError(f"/openapi.json is another than this code's: {join_names(differing)}; deploy again.")

    def check_clock(self) -> str:
        """Check the server's clock, to half a second, since its date has whole seconds."""
        before = time.time()
        date = self.get("/v2/health/live").headers.get("date")
        if date is None:
            raise NotCheckedError("It tells no Date.")
        try:
            theirs = parsedate_to_datetime(date).timestamp() + 0.5
        except ValueError as exc:
            raise CheckFailedError(f"Its Date is {date!r}, which is no time; what stands before it?") from exc
        apart = theirs - (before + time.time()) / 2
        if abs(apart) > MAX_CLOCK_SKEW_S:
            raise CheckFailedError(
                f"Its clock is {apart:+.0f} s from this machine's; AWS refuses what is signed so; set it."
            )
        return f"Its clock is {abs(apart):.0f} s from this machine's."

    def check_open_routes(self) -> str:
        """Check which routes answer to anybody: those of inference may, with Auth=open, and no others."""
        open_routes = [path for path, reply in self._ask_as_nobody().items() if not is_refused(reply)]
        open_scopes = {SCOPES[path] for path in open_routes}
        if self.is_local and open_scopes == set(ALL_SCOPES):
            raise NotCheckedError("The gateway on this machine asks nobody for a key.")
        if beyond := sorted(open_scopes - {"infer"}):
            paths = [path for path in open_routes if SCOPES[path] != "infer"]
            named = f"{len(paths)} routes of {', '.join(beyond)}: {join_names(paths)}"
            raise CheckFailedError(f"Anybody may call {named}; deploy with Auth=keys.")
        self._check_wrong_key(closed=[path for path in SCOPES if path not in open_routes])
        if open_scopes:
            others = len(SCOPES) - len(open_routes)
            return (
                f"Inference is open (Auth=open): anybody may call its {len(open_routes)} routes, at your cost; the "
                f"other {others} ask for a key."
            )
        return f"All {len(SCOPES)} routes ask for a key, and a wrong one opens none."

    @cached_property
    def _route_replies(self) -> dict[str, RawResponse]:
        """What each route answers to GET."""
        return ask_routes(self.client)

    def _ask_as_nobody(self) -> dict[str, RawResponse]:
        if not self.credentials:
            return self._route_replies
        with Client(self.url) as nobody:
            return ask_routes(nobody)

    def _check_wrong_key(self, closed: list[str]) -> None:
        """Raise `CheckFailedError` if a route of any scope takes a key that nobody has created."""
        by_scope = {SCOPES[path]: path for path in closed}
        for header, value in (("authorization", f"Bearer {UNKNOWN_KEY}"), ("x-api-key", UNKNOWN_KEY)):
            with Client(self.url, headers={header: value}) as wrong:
                for path in by_scope.values():
                    if not is_refused(reply := wrong.send_request("GET", fill_path(path))):
                        status = reply.status
                        raise CheckFailedError(f"{path} answers {status} to a wrong {header}; see the authorizer.")

    def check_registry(self) -> str:
        """Check that the registry can be read with the key, and lists the models that are served."""
        status = self.get("/registry/models").status
        if not self.credentials and status in UNAUTHORIZED_STATUSES:
            raise NotCheckedError("It asks for a key; give it as PILOTLIGHT_KEY, or what opens it otherwise.")
        if status == FORBIDDEN_STATUS:  # no fault of the server: these credentials open other routes
            raise NotCheckedError("It asks for the scope admin, which this key, token or signature has not.")
        rows, served = self.client.registry.list_models(), self.client.list_models()
        named = [row.name for row in rows]
        if sorted(named) != sorted(served):
            differing = sorted(set(named) ^ set(served))
            raise CheckFailedError(
                f"Registry and predictions see different stores: {join_names(differing)}; deploy again."
            )
        return f"It shows {len(rows)} models, {sum(len(row.versions) for row in rows)} versions."


def ask_routes(client: Client) -> dict[str, RawResponse]:
    """Call each route with GET, which changes nothing; a gateway asks for the same credentials for every verb."""
    return {path: client.send_request("GET", fill_path(path)) for path in SCOPES}


def fill_path(path: str) -> str:
    """Fill a route's parameters with names that nothing has."""
    return re.sub(r"{(\w+)}", lambda name: PATH_PLACEHOLDERS.get(name[1], UNKNOWN_MODEL), path)


def is_refused(reply: RawResponse) -> bool:
    """Return whether the gateway asks for credentials; a route that asks for a signature is a 404 with that header."""
    return reply.status in UNAUTHORIZED_STATUSES or "www-authenticate" in reply.headers


def is_live(reply: RawResponse) -> bool:
    """Return whether this is the protocol's answer to a health check."""
    return reply.status == 200 and parse_json_object(reply).get("live") is True


def is_route_missing(reply: RawResponse) -> bool:
    """Return whether the gateway lacks the route, or its function fails; only the gateway sends `message`."""
    if "www-authenticate" in reply.headers:
        return False
    message = parse_json_object(reply).get("message")
    if reply.status == 404 or message == UNKNOWN_ROUTE_MESSAGE:
        return message is not None
    return reply.status in (500, 502, 504)


def parse_json_object(reply: RawResponse) -> dict[str, Any]:
    """Parse a body that is a JSON object; return an empty one for any other body."""
    try:
        return msgspec.json.decode(reply.content, type=dict[str, Any])
    except msgspec.MsgspecError:
        return {}


def format_reply(reply: RawResponse) -> str:
    """Format a status and what the body says, or the start of a body that is no error, for a sentence."""
    body = parse_json_object(reply)
    error = body.get("error")
    texts = (error, error.get("message") if isinstance(error, dict) else None, body.get("message"))
    said = next((text for text in texts if isinstance(text, str)), "")
    return f"{reply.status}: {said or reply.content[:120].decode(errors='replace')}".strip().rstrip(":.")


def find_openapi_differences(theirs: dict[str, Any], ours: dict[str, Any]) -> Iterator[str]:
    """Yield the paths that only one of two documents has, or that differ."""
    for path in theirs.keys() | ours.keys():
        if path not in theirs:
            yield f"{path} is missing"
        elif theirs[path] != ours.get(path):
            yield f"{path} is {'another' if path in ours else 'of another version'}"


def check_url(server: ServerChecks) -> None:
    """Raise `InvalidInputError` for an invalid URL, before any check; one without an answer is left to the checks."""
    try:
        server.get("/v2/health/live")
    except InvalidInputError:
        raise
    except UnavailableError:
        return
