"""How the code must behave about privacy and about paths: each rule asks it, and says what is wrong.

`MUTATIONS` breaks a guard of the code on purpose, and names the rule that must notice. A mutation rewrites the source
of one function, so it fails by itself when the guard is written in other words.
"""

import inspect
import logging
import re
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from functions.authorize import api_keys, bearer, issuer, jwks, policy
from functions.authorize.caller import Caller as AuthorizedCaller
from functions.authorize.errors import RefusedError
from functions.authorize.handler import Authorizer, UnauthorizedError
from functions.batch_api.batches import BatchEndpoints
from functions.batch_api.file_store import FileStore
from functions.batch_api.files import FileEndpoints
from functions.batch_api.idempotency import IdempotencyKeys
from functions.batch_api.uploads import UploadEndpoints
from functions.batch_worker import handler, inbox_file, message_handler
from functions.batch_worker.file_handler import FileHandler
from functions.batch_worker.outbound_messages import Dispatcher
from pilotlight.api.large_tensors import StoredOutputs
from pilotlight.api.router import Router
from pilotlight.api_keys import key_store
from pilotlight.contracts import api_key, manifest, names, version_files
from pilotlight.errors import BrokenDocumentError, InvalidInputError, PilotlightError
from pilotlight.local import authorizer, routes
from pilotlight.local.template import ApiRoute
from pilotlight.registry.registry import Registry
from pilotlight.storage import object_store
from tests.functions.batch_api.conftest import (
    BY_ID,
    CALLERS,
    FORM,
    Caller,
    Place,
    announce,
    calls,
    form,
    order,
)
from tests.issuer import AUDIENCE, NAME, FakeIssuer, claims, rsa_key

Rule = Callable[[], Iterator[str]]
SECRET = "5012-secret-of-a-caller"  # what somebody sends, and nobody may write down
STORE = "s3://bucket/prefix"
HOSTILE = ("..", "../x", "a/b", "a/../b", "/etc/passwd", "%2e%2e", "a%2Fb", "a\\b", "a\x00", "a\nb", ".hidden", "", " ")
HOSTILE_FILES = (*(word for word in HOSTILE if word != "a/b"), "a/", "a//b", "./a", "a/./b", "~/a")


# --- privacy ----------------------------------------------------------------------------------------------------------


@dataclass
class Log(logging.Handler):
    """Everything that is logged from INFO on, with what it says of exceptions."""

    text: str = ""
    level: int = logging.INFO
    filters: list[Any] = field(default_factory=list)
    lock: Any = None
    formatter: logging.Formatter | None = None

    def emit(self, record: logging.LogRecord) -> None:
        self.text += logging.Formatter().format(record) + "\n"

    def handle(self, record: logging.LogRecord) -> bool:
        self.emit(record)
        return True


@contextmanager
def logged() -> Iterator[Log]:
    log, root = Log(), logging.getLogger()
    before = root.level
    root.addHandler(log)
    root.setLevel(logging.INFO)
    try:
        yield log
    finally:
        root.removeHandler(log)
        root.setLevel(before)


def raises(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:  # noqa: ANN401 - stands for anything
        raise error

    return fail


def requests_are_not_logged() -> Iterator[str]:
    """Neither what was sent, nor an error that quotes it."""
    for error in (ValueError(f"no number: {SECRET}"), InvalidInputError(f"{SECRET!r} is wrong"), KeyError(SECRET)):
        router = Router({"/x": {"POST": raises(error)}})
        event = {"resource": "/x", "path": f"/x/{SECRET}", "httpMethod": "POST", "body": SECRET}
        with logged() as log:
            answer = router(event, None)
        if SECRET in log.text:
            yield f"a request that ends in {type(error).__name__} is logged"
        if not isinstance(error, PilotlightError) and SECRET in answer["body"]:
            yield f"the words of a {type(error).__name__} reach the caller"


def messages_are_not_logged() -> Iterator[str]:
    """Nor what Lambda and Powertools are told."""
    record = {"messageId": "1", "body": SECRET, "messageAttributes": {}, "attributes": {}, "eventSourceARN": "q"}
    event = {"detail-type": "Pilotlight Inference", "detail": {"text": SECRET}, "id": "1"}
    for error in (InvalidInputError(f"{SECRET!r} is no JSON"), ValueError(SECRET)):
        batch = handler.BatchWorker(cast("Any", Fails(error)), cast("Any", None), Dispatcher())
        with logged() as log:
            batch({"Records": [record]}, None)
        if SECRET in log.text:
            yield f"a message that ends in {type(error).__name__} is logged"
        if isinstance(error, InvalidInputError):
            with pytest.raises(InvalidInputError) as raised:
                batch(event, None)
            if SECRET in str(raised.value) or not is_alone(raised.value):
                yield "Lambda logs an event that was refused"


def is_alone(error: BaseException) -> bool:
    """Whether nobody who prints it prints where it came from."""
    return error.__cause__ is None and error.__suppress_context__


class Fails:
    """Messages that all end in an error."""

    def __init__(self, error: Exception) -> None:
        self.handle = raises(error)


def tokens_are_not_logged() -> Iterator[str]:
    token = FORGED.token()
    known = jwks.JwksCache(RIGHT.jwks)
    check = Authorizer(lambda event: bearer.authenticate_caller(event["authorizationToken"], TRUSTED, known))
    with logged() as log, pytest.raises(UnauthorizedError) as raised:
        check({"authorizationToken": f"Bearer {token}", "methodArn": ARN}, None)
    if any(part in log.text or part in str(raised.value) for part in token.split(".")):
        yield "a token that is refused is logged"
    if not is_alone(raised.value):
        yield "Lambda logs why a token was refused, with the token"


# --- who is believed --------------------------------------------------------------------------------------------------

RIGHT, FORGED = FakeIssuer({"one": ec.generate_private_key(ec.SECP256R1())}), FakeIssuer({"one": rsa_key()})
TRUSTED = issuer.Issuer(NAME, frozenset({AUDIENCE}), NAME)
ARN = "arn:aws:execute-api:us-east-1:123456789012:abcdefghij/prod/GET/v2"


def tokens() -> Iterator[tuple[str, str]]:
    """Tokens that must be refused, each with what is wrong with it."""
    now = int(time.time())
    wrong: dict[str, dict[str, Any]] = {
        "has expired": {"exp": now - 3600},
        "never expires": {"exp": None},
        "is not yet valid": {"nbf": now + 3600},
        "is of another issuer": {"iss": "https://evil.example.com/"},
        "is for another service": {"aud": "other"},
        "is for nobody": {"aud": None},
        "names a tenant that breaks the access log": {"sub": 'a","status":"200'},
    }
    for why, changes in wrong.items():
        yield why, RIGHT.token(**changes)
    yield "is signed by a stranger", FORGED.token()
    yield "is not signed", jwt.encode(claims(), "", "none", headers={"kid": "one"})


def only_right_tokens_are_believed() -> Iterator[str]:
    known = jwks.JwksCache(RIGHT.jwks)
    for why, token in tokens():
        try:
            bearer.authenticate_caller(f"Bearer {token}", TRUSTED, known)
        except (RefusedError, ValueError, TypeError):
            continue
        yield f"a token that {why} is believed"
    for url in ("http://issuer.example.com/jwks.json", "file:///etc/passwd"):
        try:
            issuer._check_https_url(url)
        except InvalidInputError:
            continue
        yield f"keys are read from {url}"


def only_right_keys_are_believed() -> Iterator[str]:
    store = object_store.open_store("memory://")
    keys = key_store.KeyStore(store)
    names_of_keys = ("right", "other", "revoked", "copied")
    right, other, revoked, copied = (keys.create_key(name, ("infer",), actor="test") for name in names_of_keys)
    expired = keys.create_key("expired", ("infer",), actor="test", expires=datetime.now(UTC) - timedelta(seconds=1))
    keys.revoke_key(revoked.document.id)
    store.put(api_key.key_path(copied.document.id), store.get(api_key.key_path(right.document.id)).data)
    wrong = {
        "has expired": expired.key,
        "is revoked": revoked.key,
        "has the secret of another": right.key[:17] + revoked.key[17:],
        "meters and is none of ours": "0123456789abcdef" * 2,
    }
    cache = api_keys.KeyCache(store)
    if not is_believed(cache, {"x-api-key": right.key}):
        yield "a right key is not believed"
    for why, key in wrong.items():
        if is_believed(cache, {"x-api-key": key}) or is_believed(cache, {"Authorization": f"Bearer {key}"}):
            yield f"a key that {why} is believed"
    if is_believed(cache, {"x-api-key": right.key, "authorization": f"Bearer {other.key}"}):
        yield "one of two keys is believed"
    try:
        key_store.read_key(store, copied.document.id)
        yield "the document of another key is read"
    except BrokenDocumentError:
        return


def is_believed(cache: api_keys.KeyCache, headers: dict[str, str]) -> bool:
    try:
        api_keys.authenticate_key({"headers": headers}, cache, "")
    except RefusedError:
        return False
    return True


def tokens_open_the_routes_of_their_scopes() -> Iterator[str]:
    said = policy.build_policy(AuthorizedCaller("acme", "acme", frozenset({"infer"})), ARN)
    stage = ARN.removesuffix("/GET/v2")
    if not authorizer.is_call_allowed(said, f"{stage}/POST/v2/models/digits/infer"):
        yield "who may infer may not"
    for path in ("GET/registry/models/ping", "POST/v2/repository/models/digits/load", "DELETE/registry/models/docs"):
        if authorizer.is_call_allowed(said, f"{stage}/{path}"):
            yield f"who may infer may {path}"


# --- paths ------------------------------------------------------------------------------------------------------------


def accepted(read: Callable[[str], object], given: str) -> bool:
    try:
        read(given)
    except InvalidInputError:
        return False
    return True


def only_files_of_the_inbox_are_read() -> Iterator[str]:
    if not accepted(lambda uri: inbox_file.parse_inbox_uri(STORE, uri), f"{STORE}/inbox/digits/monday.jsonl"):
        yield "a file of the inbox is refused"
    for uri in (
        f"{STORE}/models/digits/aliases/champion.json", f"{STORE}/outbox/x.jsonl", f"{STORE}/inbox/../models/x",
        f"{STORE}/inbox/a/../../models/x", f"{STORE}/inbox/a//b", f"{STORE}/inbox/./a", f"{STORE}/inbox/",
        "s3://other/prefix/inbox/x", "s3://bucket/inbox/x", f"{STORE}x/inbox/y", "/etc/passwd", "file:///etc/passwd",
        "models/x", "http://169.254.169.254/latest/meta-data", f"{STORE}/inbox/a\nb", f"{STORE}/inbox/a\x00",
        f"{STORE}/inbox/messages/one.jsonl", f"{STORE}/inbox/batches/0/a.jsonl", f"{STORE}/%69nbox/x",
        f"{STORE}/inbox/long-names/a.csv", f"{STORE}/inbox/a\\..\\..\\models\\x", f"{STORE}/inbox/a\u2028b",
    ):  # fmt: skip
        if accepted(lambda each: inbox_file.parse_inbox_uri(STORE, each), uri):
            yield f"{uri!r} is read"


def results_lie_in_the_outbox() -> Iterator[str]:
    for name in ("digits/monday.jsonl", "x.csv", "a/b/c.png", "outbox/x.jsonl", "inbox/x.jsonl"):
        found = inbox_file.parse_inbox_uri(STORE, f"{STORE}/inbox/{name}")
        if not all(path.startswith("outbox/") and ".." not in path for path in (found.folder, found.result_path)):
            yield f"the results of {name} lie at {found.result_path}"


def answers_to_messages_have_names_of_their_own() -> Iterator[str]:
    for key in (*HOSTILE, "x" * 200, "one", "a.b-c_d"):
        found = message_handler.to_object_name(key)
        if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", found) is None:
            yield f"the answer to {key!r} lies at {found!r}"


def answers_go_to_allowed_queues_alone() -> Iterator[str]:
    ours = "arn:aws:sqs:us-east-1:123456789012:replies"
    sender = Dispatcher([ours])
    for queue in (ours + "x", ours.replace("1234", "9999"), "https://sqs.us-east-1.amazonaws.com/1/x", "", "*"):
        if accepted(sender.check_reply_queue, queue):
            yield f"answers go to {queue!r}"


def names_are_no_paths() -> Iterator[str]:
    for word in HOSTILE:
        for read in (
            lambda name: names.check_name(name, "name"),
            names.ModelReference.parse,
            names.check_alias,
        ):
            if accepted(cast("Callable[[str], object]", read), word):
                yield f"{word!r} is a name"


def files_of_a_version_stay_in_it() -> Iterator[str]:
    for path in HOSTILE_FILES:
        document = {"path": path, "bytes": 1, "sha256": "0" * 64}
        try:
            msgspec.convert(document, manifest.ManifestFile)
        except msgspec.ValidationError:
            pass
        else:
            yield f"a version may have the file {path!r}"
    for path in (*HOSTILE_FILES, "model.onnx\n", "x/claim.json", "verdict.json"):
        try:
            version_files.check_file_paths([path])
        except InvalidInputError:
            continue
        yield f"a publisher may upload the file {path!r}"


def stores_keep_to_their_folder() -> Iterator[str]:
    with TemporaryDirectory() as folder:
        store = object_store.open_store(f"{folder}/store")
        for path in ("../outside", "a/../../outside", "a/../b"):
            for act in (lambda each: store.put(each, b"x"), store.get, store.get_size, store.delete):
                try:
                    act(path)
                except InvalidInputError:
                    continue
                except Exception as exc:  # noqa: BLE001 - whatever else it is, it is wrong
                    yield f"{path!r} ends in {type(exc).__name__}"
                else:
                    yield f"{path!r} is taken"
        store.put("/etc/inside", b"x")
        if [path for path in Path(folder).rglob("*") if path.is_file() and not path.is_relative_to(f"{folder}/store")]:
            yield "something was written beside the store"


def encoded_slashes_lead_nowhere() -> Iterator[str]:
    known = (ApiRoute("ANY", "/v2/models/{model}", "F"), ApiRoute("ANY", "/v2/models/{model}/versions/{version}", "F"))
    for path, resource in {
        "/v2/models/a%2Fversions%2F1": "/v2/models/{model}",
        "/v2/models/%2e%2e%2fregistry": "/v2/models/{model}",
        "/v2/models/a/versions/1": "/v2/models/{model}/versions/{version}",
    }.items():
        match = routes.RouteTable(known, "prod").match("GET", path)
        if match is None or match.route.resource != resource:
            yield f"{path} leads to {match and match.route.resource}"
        elif "%2" in path and accepted(lambda name: names.check_name(name, "model"), match.parameters["model"]):
            yield f"{path} names a model"


def tenants_see_their_own_alone() -> Iterator[str]:
    """By every route, with the ids of all the others."""
    place = Place(object_store.open_store("memory://"))
    try:
        made = {tenant: make_one_of_each(place, tenant) for tenant in CALLERS}
    except (AssertionError, PilotlightError) as exc:
        yield f"a tenant is disturbed by what another one has: {exc}"
        return
    for tenant in CALLERS:
        caller = Caller(place, tenant)
        listed = [caller.ask("GET", path)[1] for path in ("/v1/files", "/v1/batches")]
        seen = {owner for owner, ids in made.items() if any(each in "".join(listed) for each in ids)}
        if seen != {tenant}:
            yield f"{tenant!r} is told of what belongs to {seen}"
        for owner in set(CALLERS) - {tenant}:
            for name in made[owner]:
                yield from reach_by_id(caller, owner, name)
    for tenant, ids in made.items():
        if any(Caller(place, tenant).ask("GET", f"/v1/files/{each}")[0] != 200 for each in ids[2:]):
            yield f"{tenant!r} has lost something"
        if Caller(place, tenant).ask("POST", f"/v1/uploads/{ids[0]}/cancel", b"{}")[0] != 200:
            yield f"{tenant!r} has lost an upload"


def make_one_of_each(place: Place, tenant: str) -> list[str]:
    """The ids of an upload, a batch, its output, a file, and an answer that was too large."""
    caller = Caller(place, tenant)
    file = caller.make("/v1/files", form(calls(1)), headers=FORM | {"idempotency-key": "monday"})["id"]
    batch = caller.make("/v1/batches", order(file), headers={"idempotency-key": "monday"})["id"]
    place.work()
    stored = StoredOutputs(Registry(place.store), enabled=True).for_tenant(tenant)
    answer = stored.store_outputs({"y": b"bytes"}, 9_000_000)["y"]["file_id"]
    upload = caller.make("/v1/uploads", announce("a.jsonl", 3))["id"]
    return [upload, batch, f"file-{batch[6:]}-output", file, answer]


def reach_by_id(caller: Caller, owner: str, name: str) -> Iterator[str]:
    for method, path in BY_ID:
        if "after" not in path:
            body = order(name) if path == "/v1/batches" else b"{}" if method == "POST" else None
            more = {"headers": FORM} if path.endswith("parts") else {}
            body = form(b"abc", "data") if path.endswith("parts") else body
            status, _ = caller.ask(method, path.format(name), body, **more)
            if status != 404:
                yield f"{caller.tenant!r} is answered {status} to {method} {path} with an id of {owner!r}"


def a_batch_is_its_tenants() -> Iterator[str]:
    """A document that lies in the folder of another one is believed by nobody."""
    place = Place(object_store.open_store("memory://"))
    _, batch, _, file, _ = make_one_of_each(place, "acme")
    for path in (f"batches/tenant=acme/{batch[6:]}/order.json", f"uploads/tenant=acme/{file[5:]}/file.json"):
        place.store.put(path.replace("acme", "beta"), place.store.get(path).data)
    for name, path in ((batch, "/v1/batches/{}"), (file, "/v1/files/{}")):
        if Caller(place, "beta").ask("GET", path.format(name))[0] != 404:
            yield f"{name} of acme is beta's"
    try:
        place.batch({"detail-type": "Pilotlight Inference", "detail": {"batch": f"tenant=beta/{batch}"}}, None)
    except InvalidInputError:
        return
    yield "a batch of acme is answered for beta"


def two_files_share_no_results() -> Iterator[str]:
    for one, other in (
        ("a.csv", "a.csv.jsonl"), ("a", "a.jsonl"), ("a/.jsonl", "a.jsonl"), ("a.exe", "a.exe.jsonl"),
        ("a.csv.jsonl.results.jsonl", "a.csv.jsonl"), ("a.jsonl.jsonl", "a.jsonl"),
    ):  # fmt: skip
        found = [inbox_file.InboxFile(f"inbox/{name}") for name in (one, other)]
        if found[0].folder.rstrip("/") == found[1].folder.rstrip("/"):
            yield f"{one} and {other} share {found[0].folder}"
    for inner in (f"a/parts/{0:015d}-{9:015d}.jsonl", f"a.parquet/rows-{0:016x}.jsonl"):
        if inbox_file.InboxFile(f"inbox/{inner}").result_path == f"outbox/{inner}":
            yield f"{inner} overwrites what is in the results of another file"


RULES: tuple[Rule, ...] = (
    requests_are_not_logged, messages_are_not_logged, tokens_are_not_logged, only_right_tokens_are_believed,
    only_right_keys_are_believed, tokens_open_the_routes_of_their_scopes, only_files_of_the_inbox_are_read,
    results_lie_in_the_outbox, answers_to_messages_have_names_of_their_own, answers_go_to_allowed_queues_alone,
    names_are_no_paths,
    files_of_a_version_stay_in_it, stores_keep_to_their_folder, encoded_slashes_lead_nowhere,
    tenants_see_their_own_alone, a_batch_is_its_tenants, two_files_share_no_results,
)  # fmt: skip


# --- and each guard, broken on purpose --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mutation:
    """A change of the source of `owner.name`, which `rule` must notice."""

    rule: Rule
    owner: Any  # a module or a class
    name: str
    old: str
    new: str

    def __str__(self) -> str:
        where = getattr(self.owner, "__qualname__", self.owner.__name__)
        return f"{where}.{self.name}: {self.old or '(empty)'} -> {self.new or '(nothing)'}"

    @contextmanager
    def made(self) -> Iterator[None]:
        """The code with the change in it."""
        target = inspect.getattr_static(self.owner, self.name)
        source = textwrap.dedent(inspect.getsource(getattr(target, "__wrapped__", target)))
        assert source.count(self.old) >= 1, f"{self} is out of date"
        names: dict[str, Any] = dict(vars(sys.modules[getattr(target, "__wrapped__", target).__module__]))
        exec(source.replace(self.old, self.new), names)  # noqa: S102 - our own source
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.owner, self.name, names[self.name])
            yield


MUTATIONS: tuple[Mutation, ...] = (
    Mutation(
        requests_are_not_logged, Router, "dispatch",
        "type(exc).__name__, format_traceback(exc)", "exc, format_traceback(exc)",
    ),
    Mutation(requests_are_not_logged, Router, "dispatch", 'event.get("resource")', "event"),
    Mutation(requests_are_not_logged, Router, "dispatch", "LOG.error(", "LOG.exception("),
    Mutation(
        requests_are_not_logged, Router, "dispatch",
        '"The server failed on this request; its log says why."', "str(exc)",
    ),
    Mutation(
        messages_are_not_logged, handler.BatchWorker, "_handle_record",
        "type(exc).__name__ if isinstance(exc, InvalidInputError) else str(exc)", "str(exc)",
    ),
    Mutation(
        messages_are_not_logged, handler.BatchWorker, "_handle_record",
        "type(exc).__name__, format_traceback", "exc, format_traceback",
    ),
    Mutation(messages_are_not_logged, handler.BatchWorker, "_handle_bus_message", "{type(exc).__name__}", "{exc}"),
    Mutation(messages_are_not_logged, handler.BatchWorker, "_handle_bus_message", "from None", "from exc"),
    Mutation(tokens_are_not_logged, Authorizer, "__call__", 'refused: %s", exc', 'refused: %s", event'),
    Mutation(tokens_are_not_logged, Authorizer, "__call__", "from None", "from exc"),
    Mutation(
        only_right_tokens_are_believed, bearer, "_verify_claims",
        "audience=issuer.audience", 'audience=["other", "pilotlight"]',
    ),
    Mutation(only_right_tokens_are_believed, bearer, "_verify_claims", "issuer=issuer.name, ", ""),
    Mutation(only_right_tokens_are_believed, bearer, "_verify_claims", "leeway=LEEWAY_S", "leeway=10**6"),
    Mutation(only_right_tokens_are_believed, bearer, "_verify_claims", "ALGORITHMS, JWT_OPTIONS,", "ALGORITHMS, {},"),
    Mutation(
        only_right_tokens_are_believed, bearer, "_verify_claims",
        "ALGORITHMS, JWT_OPTIONS,", 'ALGORITHMS, {**JWT_OPTIONS, "verify_signature": False},',
    ),
    Mutation(only_right_tokens_are_believed, bearer, "_read_tenant", "TENANT.fullmatch(tenant) is None", "False"),
    Mutation(only_right_tokens_are_believed, issuer, "_check_https_url", 'parts.scheme != "https" or ', ""),
    Mutation(only_right_keys_are_believed, api_keys, "authenticate_key", "not document.matches(key)", "False"),
    Mutation(only_right_keys_are_believed, api_keys, "authenticate_key", '!= "valid"', '== "unknown"'),
    Mutation(only_right_keys_are_believed, api_keys, "find_key", "len(found) > 1", "False"),
    Mutation(only_right_keys_are_believed, key_store, "open_key_document", ", id=key_id", ""),
    Mutation(only_right_keys_are_believed, api_key, "hash_key", "key.encode()", "key[:17].encode()"),
    Mutation(only_right_keys_are_believed, api_key.ApiKey, "get_state", "self.revoked is not None", "False"),
    Mutation(only_right_keys_are_believed, api_key.ApiKey, "get_state", "self.expires <= now", "False"),
    Mutation(tokens_open_the_routes_of_their_scopes, policy, "list_resources", "{verb}{path}", "*{path}"),
    Mutation(
        tokens_open_the_routes_of_their_scopes, policy, "list_resources",
        "in sorted(scopes)", 'in ("infer", "admin")',
    ),
    Mutation(only_files_of_the_inbox_are_read, inbox_file, "parse_inbox_uri", "not uri.startswith(inbox)", "False"),
    Mutation(
        only_files_of_the_inbox_are_read, inbox_file, "parse_inbox_uri", 'f"{store_url}/inbox/"', 'f"{store_url}"'
    ),
    Mutation(only_files_of_the_inbox_are_read, inbox_file, "parse_inbox_uri", '("", ".", "..")', '("", ".")'),
    Mutation(only_files_of_the_inbox_are_read, inbox_file, "parse_inbox_uri", '("", ".", "..")', '(".", "..")'),
    Mutation(
        only_files_of_the_inbox_are_read, inbox_file, "parse_inbox_uri",
        "refused is not None", "False",
    ),
    Mutation(
        only_files_of_the_inbox_are_read, inbox_file, "parse_inbox_uri",
        "(MESSAGES_FOLDER, RESULTS_FOLDER,", "(RESULTS_FOLDER,",
    ),
    Mutation(
        only_files_of_the_inbox_are_read, inbox_file, "parse_inbox_uri",
        "RESULTS_FOLDER, LONG_NAMES_FOLDER)", "LONG_NAMES_FOLDER)",
    ),
    Mutation(
        only_files_of_the_inbox_are_read, inbox_file, "parse_inbox_uri",
        "RESULTS_FOLDER, LONG_NAMES_FOLDER)", "RESULTS_FOLDER)",
    ),
    Mutation(only_files_of_the_inbox_are_read, inbox_file, "parse_inbox_uri", 're.split(r"[/', 're.split(r"[|'),
    Mutation(results_lie_in_the_outbox, inbox_file, "InboxFile", 'return f"outbox/{inner}"', "return inner"),
    Mutation(
        answers_to_messages_have_names_of_their_own, message_handler, "to_object_name",
        "[A-Za-z0-9._-]{0,127}", ".{0,127}",
    ),
    Mutation(answers_to_messages_have_names_of_their_own, message_handler, "to_object_name", "{0,127}", "*"),
    Mutation(
        answers_go_to_allowed_queues_alone, Dispatcher, "check_reply_queue",
        "queue not in self._allowed", "not queue",
    ),
    Mutation(names_are_no_paths, names, "check_name", "re.fullmatch(NAME_PATTERN, name) is None or ", ""),
    Mutation(
        names_are_no_paths, names, "check_name",
        "re.fullmatch(NAME_PATTERN, name)", 're.match(r"[A-Za-z0-9]", name)',
    ),
    Mutation(
        files_of_a_version_stay_in_it, manifest, "ManifestFile",
        "FILE_PATH_PATTERN", 'FILE_PATH_PATTERN.replace("(/[A-Za-z0-9_]", "(/[A-Za-z0-9._]")',
    ),
    Mutation(
        files_of_a_version_stay_in_it, manifest, "ManifestFile",
        "FILE_PATH_PATTERN", 'FILE_PATH_PATTERN.replace("^[A-Za-z0-9_][", "^[")',
    ),
    Mutation(files_of_a_version_stay_in_it, version_files, "check_file_path", "re.fullmatch", "re.match"),
    Mutation(
        files_of_a_version_stay_in_it, version_files, "check_file_path", 'path.rsplit("/", 1)[-1]', "path",
    ),
    Mutation(
        stores_keep_to_their_folder,
        object_store,
        "translate_errors",
        "except ValueError as exc",
        "except LookupError as exc",
    ),
    Mutation(tenants_see_their_own_alone, FileEndpoints, "_open_files", ", request.tenant", ""),
    Mutation(tenants_see_their_own_alone, BatchEndpoints, "create", "self._store, request.tenant", "self._store"),
    Mutation(tenants_see_their_own_alone, BatchEndpoints, "list", "self._store, request.tenant", "self._store"),
    Mutation(tenants_see_their_own_alone, BatchEndpoints, "show", "self._store, request.tenant", "self._store"),
    Mutation(tenants_see_their_own_alone, BatchEndpoints, "cancel", "self._store, request.tenant", "self._store"),
    Mutation(tenants_see_their_own_alone, UploadEndpoints, "_read_upload", "upload_id, request.tenant", "upload_id"),
    Mutation(tenants_see_their_own_alone, IdempotencyKeys, "reserve_id", '"idempotency", request.tenant', '"x", ""'),
    Mutation(tenants_see_their_own_alone, FileStore, "_list_ids", "folder, self.tenant", 'folder, ""'),
    Mutation(tenants_see_their_own_alone, FileStore, "read_manifest", "batch_id, self.tenant", "batch_id"),
    Mutation(tenants_see_their_own_alone, FileStore, "_find_stored_output", "place, self.tenant", "place"),
    Mutation(tenants_see_their_own_alone, StoredOutputs, "for_tenant", "if tenant else self", "if False else self"),
    Mutation(a_batch_is_its_tenants, FileStore, "has_own", "document.tenant == self.tenant", "True"),
    Mutation(a_batch_is_its_tenants, FileHandler, "_find_file", "batch_request.target != target", "False"),
    Mutation(two_files_share_no_results, inbox_file, "name_results", '("/", *SUFFIXES, OWN', '("/", OWN'),
    Mutation(two_files_share_no_results, inbox_file, "name_results", '("/", *SUFFIXES, OWN', "(*SUFFIXES, OWN"),
    Mutation(two_files_share_no_results, inbox_file, "name_results", "*SUFFIXES, OWN_FOLDER_SUFFIX", "*SUFFIXES"),
    Mutation(two_files_share_no_results, inbox_file, "name_results", "or INNER_OBJECT.fullmatch(stem)", ""),
    Mutation(two_files_share_no_results, inbox_file, "name_results", "if suffix in SUFFIXES else", "if True else"),
    Mutation(encoded_slashes_lead_nowhere, routes, "_split_path", "segments = path.", "segments = unquote(path)."),
)  # fmt: skip
