"""Whether a server, local or deployed, is what this code deploys: reachable, of this version, with these routes.

`doctor.answers` puts models to the test. Nothing here asks for a change: see the package.
"""

import ipaddress
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Self
from urllib.parse import urlsplit

import msgspec

import pilotlight
from pilotlight import openapi
from pilotlight.api.routes import SCOPES
from pilotlight.client.auth import Credentials
from pilotlight.client.client import Client, Reply
from pilotlight.doctor.finding import Check, FaultError, NotCheckedError, listed
from pilotlight.errors import InvalidInputError, UnavailableError

NOBODY = "pilotlight-doctor"  # a model that there is not
STAGE = "/prod"  # of template.yaml
NOTHING = Credentials()
KEYLESS = (401, 403)
UNKNOWN = "Missing Authentication Token"  # what a REST API says of a route that it lacks, by itself with 403
NEAR_END = timedelta(days=14)  # of a certificate; ACM renews 60 days before the end
SKEW_S = 300.0  # from there on AWS refuses signatures for their time
STANDINS = {"model": NOBODY, "version": "1", "alias": "champion", "promotion": NOBODY}


class Server:
    """A server by its URL, and what opens its registry, if that is known; to be closed."""

    def __init__(self, url: str, given: Credentials = NOTHING) -> None:
        self.url = url.rstrip("/")
        self.given = given
        self.client = Client(self.url, headers=given.headers, auth=given.signature)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()

    @property
    def is_near(self) -> bool:
        """Whether it is on this machine, where nobody else reaches it."""
        host = urlsplit(self.url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    def get(self, path: str) -> Reply:
        """What a route answers to GET."""
        return self.client.exchange("GET", path)

    def checks(self) -> tuple[Check, ...]:
        """All but the first of them, `live`, without which none of these means anything."""
        return (
            Check("ready", self.ready),
            Check("version", self.version),
            Check("gateway's errors", self.gateway_errors),
            Check("handler's errors", self.handler_errors),
            Check("routes", self.routes),
            Check("openapi", self.openapi),
            Check("clock", self.clock),
            Check("keys", self.keys),
            Check("registry", self.registry),
        )

    def tls(self, now: datetime | None = None) -> str:
        """Whether the connection is encrypted, with a certificate that is trusted here and will be for a while."""
        if urlsplit(self.url).scheme != "https":
            if self.is_near:
                raise NotCheckedError("This machine is asked over http, which nobody else hears.")
            raise FaultError(f"{self.url} is not encrypted, and requests hold keys and data; use https.")
        tls = self.get("/v2/health/live").tls
        if tls is None:
            raise NotCheckedError("A proxy stands between, which hides the server's certificate.")
        ends = parsedate_to_datetime(re.sub(r"^(\w+) +(\d+) (\S+) (\d+) GMT$", r"\2 \1 \4 \3 +0000", tls.expires))
        left = ends - (now or datetime.now(UTC))
        if left < NEAR_END:
            raise FaultError(f"{tls.version}, but the certificate ends in {left.days} days, {ends:%Y-%m-%d}; renew it.")
        return f"{tls.version}, with a certificate that is trusted here and ends on {ends:%Y-%m-%d}."

    def stage(self) -> str:
        """Whether the URL ends where the routes begin."""
        below = urlsplit(self.url).path
        if is_live(self.get("/v2/health/live")):
            return f"The routes lie below {below}." if below else "The routes lie at the top of the host."
        with Server(self.url.removesuffix(STAGE) if below == STAGE else self.url + STAGE, self.given) as other:
            if is_live(other.get("/v2/health/live")):
                raise FaultError(f"The routes lie below {other.url}; give that as --url.")
        raise NotCheckedError("Nothing lives here; see the next check.")

    def live(self) -> str:
        """Whether a Pilotlight answers."""
        reply = self.get("/v2/health/live")
        if is_live(reply):
            return f"It answers, the first time after {reply.seconds * 1000:.0f} ms."
        advice = "see that the URL has its stage, and PILOTLIGHT_API_KEY the key if the stack asks for it everywhere"
        if reply.status in (*KEYLESS, 404):
            advice += "; with Auth=iam set PILOTLIGHT_AUTH=iam, with Auth=jwt PILOTLIGHT_TOKEN"
        raise FaultError(f"/v2/health/live answers {told(reply)}; {advice}.")

    def ready(self) -> str:
        """Whether it reaches its store."""
        reply = self.get("/v2/health/ready")
        if reply.status != 200:
            raise FaultError(f"/v2/health/ready answers {told(reply)}; see the predict function's role and variables.")
        return "It reaches its store."

    def version(self) -> str:
        """Whether it runs this code."""
        said = document(self.get("/v2"))
        if said.get("name") != "pilotlight":
            raise FaultError(f"It calls itself {said.get('name')!r}, not 'pilotlight'; is this the right URL?")
        if said.get("version") != pilotlight.__version__:
            raise FaultError(
                f"It runs {said.get('version')}, and this is {pilotlight.__version__}; deploy again, or use its client."
            )
        return f"It runs {pilotlight.__version__}, as this does."

    def gateway_errors(self) -> str:
        """Whether what the gateway refuses itself has the template's body, which every client shows."""
        reply = self.get(f"/v2/{NOBODY}/none/such/route")
        said = document(reply)
        if reply.status != 404 or not said.get("error") or said.get("error") != said.get("message"):
            raise FaultError(
                f"A route that there is not is answered with {told(reply)}, not with 404, error and message; "
                "GatewayResponses of template.yaml are not in force, deploy again."
            )
        return "What the gateway refuses has error and message."

    def handler_errors(self) -> str:
        """Whether what the functions refuse comes through with their status and sentence."""
        for path, status in ((f"/v2/models/{NOBODY}", 404), (f"/v2/models/{NOBODY}/infer", 405)):
            reply = self.get(path)
            said = document(reply)
            if reply.status != status or not isinstance(said.get("error"), str):
                raise FaultError(f"{path} answers {told(reply)}, not {status} with an error; see the function's log.")
        return "What the functions refuse has its status and a sentence."

    def routes(self) -> str:
        """Whether every route is there: each answers GET, if only that it takes another verb."""
        paths = [re.sub(r"{(\w+)}", lambda name: STANDINS.get(name[1], NOBODY), path) for path in SCOPES]
        replies = {path: self.get(path) for path in paths}
        wrong = [f"{path} ({told(reply)})" for path, reply in replies.items() if is_missing(reply)]
        if wrong:
            raise FaultError(f"{len(wrong)} of {len(paths)} routes are not as they should be: {listed(wrong)}.")
        hidden = sum(reply.status in KEYLESS for reply in replies.values())
        more = f"; {hidden} of them want a key" if hidden else ""
        return f"All {len(paths)} routes answer{more}."

    def openapi(self) -> str:
        """Whether it describes itself as this code does."""
        theirs, ours = document(self.get("/openapi.json")), msgspec.json.decode(openapi.encoded())
        if theirs == ours:
            return f"/openapi.json is this code's, {len(ours['paths'])} paths."
        differing = sorted(differences(theirs.get("paths", {}), ours["paths"])) or ["its forms"]
        raise FaultError(f"/openapi.json is another than this code's: {listed(differing)}; deploy again.")

    def clock(self) -> str:
        """How far its clock is from ours; a date has whole seconds, so half a second is the least that can be told."""
        before = time.time()
        said = self.get("/v2/health/live").headers.get("date")
        if said is None:
            raise NotCheckedError("It tells no Date.")
        try:
            theirs = parsedate_to_datetime(said).timestamp() + 0.5
        except ValueError as exc:
            raise FaultError(f"Its Date is {said!r}, which is no time; what stands before it?") from exc
        apart = theirs - (before + time.time()) / 2
        if abs(apart) > SKEW_S:
            raise FaultError(f"Its clock is {apart:+.0f} s from this machine's; AWS refuses what is signed so; set it.")
        return f"Its clock is {abs(apart):.0f} s from this machine's."

    def keys(self) -> str:
        """Whether the registry, which decides what answers, is closed to whoever has no key or a wrong one."""
        with self._client() as nobody, self._client("not-a-key") as wrong:
            bare, predicts = nobody.exchange("GET", "/registry/models"), nobody.exchange("GET", "/v2")
            guessed = wrong.exchange("GET", "/registry/models")
        if bare.status == 200 and self.is_near:
            raise NotCheckedError("The gateway on this machine asks nobody for a key.")
        if bare.status not in KEYLESS:
            raise FaultError(
                f"/registry/models answers {bare.status} without a key, and whoever reaches it may move aliases; "
                "deploy with Auth=admin-key or more."
            )
        if guessed.status not in KEYLESS:
            raise FaultError(f"/registry/models answers {guessed.status} to a wrong key, not 403; see its usage plan.")
        also = "predictions too" if predicts.status in KEYLESS else "predictions ask for none"
        return f"The registry asks for a key, and a wrong one gets {guessed.status}; {also}."

    def registry(self) -> str:
        """Whether the registry can be read with the key, and shows the models that are served."""
        if not self.given and self.get("/registry/models").status in KEYLESS:
            raise NotCheckedError("It asks for a key; give it as PILOTLIGHT_API_KEY, or what opens it otherwise.")
        rows, served = self.client.registry.models(), self.client.models()
        named = [row.name for row in rows]
        if sorted(named) != sorted(served):
            differing = sorted(set(named) ^ set(served))
            raise FaultError(f"Registry and predictions see different stores: {listed(differing)}; deploy again.")
        return f"It shows {len(rows)} models, {sum(len(row.versions) for row in rows)} versions."

    def _client(self, key: str | None = None) -> Client:
        """A client that shows a key and nothing else."""
        return Client(self.url, headers={"x-api-key": key} if key else None)


def is_live(reply: Reply) -> bool:
    """Whether this is what the protocol answers to a look at its health."""
    return reply.status == 200 and document(reply).get("live") is True


def is_missing(reply: Reply) -> bool:
    """Whether the gateway does not know the route, or the function behind it fails; only the gateway says `message`."""
    message = document(reply).get("message")
    if reply.status == 404 or message == UNKNOWN:
        return message is not None
    return reply.status in (500, 502, 504)


def document(reply: Reply) -> dict[str, Any]:
    """A body that is a JSON object; an empty one for any other."""
    try:
        return msgspec.json.decode(reply.content, type=dict[str, Any])
    except msgspec.MsgspecError:
        return {}


def told(reply: Reply) -> str:
    """A status and the start of its body, for a sentence."""
    return f"{reply.status}: {reply.content[:120].decode(errors='replace')}".strip().rstrip(":.")


def differences(theirs: dict[str, Any], ours: dict[str, Any]) -> Iterator[str]:
    """The paths that only one of two documents has, or that differ."""
    for path in theirs.keys() | ours.keys():
        if path not in theirs:
            yield f"{path} is missing"
        elif theirs[path] != ours.get(path):
            yield f"{path} is {'another' if path in ours else 'of another version'}"


def reachable(server: Server) -> None:
    """`InvalidInputError` for what is no URL, before anything is checked; one that nobody answers at is a finding."""
    try:
        server.get("/v2/health/live")
    except InvalidInputError:
        raise
    except UnavailableError:
        return
