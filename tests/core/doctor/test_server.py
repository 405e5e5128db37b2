"""Every check of a server passes where it is healthy, and fails by itself where one thing is wrong."""

import hashlib
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pilotlight.api.routes import SCOPES
from pilotlight.cli.doctor import check_server
from pilotlight.doctor import inference
from pilotlight.doctor.finding import CheckResult
from pilotlight.doctor.server import UNKNOWN_KEY, ServerChecks, fill_path
from pilotlight.errors import InvalidInputError
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.core.doctor.broken_servers import Asked, Bend, Next, Told, running, straight

Served = tuple[str, str]
KEY = "the-key"
FAR_PAST = "Wed, 25 Nov 2020 15:00:00 GMT"


def examined(url: str, store: str | None = None) -> dict[str, CheckResult]:
    return {found.check: found for found in check_server(url, store, deep=False)}


def failing(found: dict[str, CheckResult]) -> set[str]:
    return {name for name, one in found.items() if one.state == "fails"}


def at(path: str, change: Callable[[Told], Told]) -> Bend:
    """Change what is answered on a path."""
    return lambda asked, onward: change(onward(asked)) if asked.path.removeprefix("/prod") == path else onward(asked)


def on_infer(change: Callable[[Told], Told]) -> Bend:
    """Change every answer of a model."""
    return lambda asked, onward: change(onward(asked)) if asked.path.endswith("/infer") else onward(asked)


def asking(change: Callable[[Asked], Asked]) -> Bend:
    """Change every request on its way."""
    return lambda asked, onward: onward(change(asked))


def without(asked: Asked, name: str) -> Asked:
    return asked._replace(headers={key: value for key, value in asked.headers.items() if key != name})


def as_text(asked: Asked) -> Asked:
    """What API Gateway makes of bodies without BinaryMediaTypes."""
    return asked._replace(body=asked.body.decode(errors="replace").encode())


def broken_tensors(told: Told) -> Told:
    """The same for answers, whose length stays here, so that only the values tell."""
    head = int(told.headers.get("inference-header-content-length", len(told.body)))
    return told._replace(body=told.body[:head] + bytes(min(byte, 0x7F) for byte in told.body[head:]))


def other_numbers(told: Told) -> Told:
    """Answers of another model, in JSON alone."""
    if told.status != 200 or "outputs" not in told.body.decode(errors="replace") or not told.body.startswith(b"{"):
        return told
    if "inference-header-content-length" in told.headers or "content-encoding" in told.headers:
        return told
    document = told.json
    for output in document["outputs"]:
        output["data"] = [value + 100 for value in output["data"]]
    return told.saying(document)


def only_below_the_stage(asked: Asked, onward: Next) -> Told:
    if asked.path.startswith("/prod/"):
        return onward(asked)
    return Told(403, {"content-type": "application/json"}, b'{"message":"Forbidden"}')


def guarded(
    asked: Asked, onward: Next, *, keys: tuple[str, ...] = (f"Bearer {KEY}",), open_scopes: tuple[str, ...] = ("infer",)
) -> Told:
    """A stack that asks for a key."""
    path = asked.path.removeprefix("/prod").partition("?")[0]
    scope = next((scope for route, scope in SCOPES.items() if fill_path(route) == path), "infer")
    sent = {asked.headers.get("authorization"), asked.headers.get("x-api-key")}
    if scope not in open_scopes and not sent & set(keys):
        return Told(401, {"www-authenticate": "Bearer"}, b'{"error": "Send a key.", "message": "Send a key."}')
    return onward(asked)


def cut(told: Told) -> Told:
    return (
        told._replace(body=told.body[: len(told.body) // 2]) if told.headers.get("content-encoding") == "gzip" else told
    )


def renamed(told: Told) -> Told:
    document = told.json
    del document["paths"]["/v2"]
    document["paths"]["/v9"] = {}
    return told.saying(document)


GONE = Told(404, {}, b'{"message": "There is no such route."}')
FAULTS: dict[str, tuple[Bend, str, str]] = {
    "ready": (at("/v2/health/ready", lambda told: told.saying({"error": "away"}, 503)), "ready", "503"),
    "another version": (at("/v2", lambda told: told.saying({**told.json, "version": "9.9"})), "version", "runs 9.9"),
    "another server": (at("/v2", lambda told: told.saying({"name": "triton"})), "version", "'triton'"),
    "gateway responses": (
        at("/v2/pilotlight-doctor/none/such/route", lambda told: told.saying({"message": "Missing token"}, 403)),
        "gateway's errors",
        "GatewayResponses",
    ),
    "gateway responses of a former version": (
        at("/v2/pilotlight-doctor/none/such/route", lambda told: told.saying({"error": "None.", "message": "None."})),
        "gateway's errors",
        "GatewayResponses",
    ),
    "handler's status": (
        at("/v2/models/pilotlight-doctor", lambda told: told.saying(told.json, 400)),
        "handler's errors",
        "400",
    ),
    "a route is missing": (
        at("/registry/models/pilotlight-doctor/aliases", lambda _: GONE),
        "routes",
        "/registry/models/pilotlight-doctor/aliases (404",
    ),
    "a route is missing, in AWS's words": (
        at("/docs", lambda told: told.saying({"message": "Missing Authentication Token"}, 403)),
        "routes",
        "/docs (403",
    ),
    "a function fails": (at("/docs", lambda told: told.saying({"message": "boom"}, 502)), "routes", "/docs (502"),
    "openapi": (at("/openapi.json", renamed), "openapi", "/v2 is missing, /v9 is of another version"),
    "clock": (
        at("/v2/health/live", lambda told: told._replace(headers={**told.headers, "date": FAR_PAST})),
        "clock",
        "from this machine's",
    ),
    "no clock": (
        at("/v2/health/live", lambda told: told._replace(headers={**told.headers, "date": "noon"})),
        "clock",
        "'noon'",
    ),
    "registry": (
        at("/registry/models", lambda told: told.saying({"models": told.json["models"][:1]})),
        "registry",
        "different stores: double",
    ),
    "requests as text": (asking(as_text), "binary tensors", "answers an infer request with 400"),
    "answers as text": (on_infer(broken_tensors), "binary tensors", "BinaryMediaTypes"),
    "gzip is not told": (asking(lambda asked: without(asked, "content-encoding")), "gzip to it", "with 415"),
    "gzip is not asked": (asking(lambda asked: without(asked, "accept-encoding")), "gzip from it", "not compressed"),
    "gzip is cut": (on_infer(cut), "gzip from it", "is not what it is without"),
    "version is not told": (
        on_infer(lambda told: told.without("x-pilotlight-version")),
        "aliases over HTTP",
        "says None, the body 1",
    ),
    "version is not asked": (
        asking(lambda asked: without(asked, "x-pilotlight-version")),
        "aliases over HTTP",
        "no-such-alias",
    ),
    "cost": (on_infer(lambda told: told.without("x-pilotlight-usd")), "cost", "x-pilotlight-usd: ''"),
    "golden": (on_infer(other_numbers), "golden requests", "11 of 11 golden requests fail: digits:1: Golden request 1"),
}
ALSO = {  # what the same fault breaks besides
    "requests as text": {"gzip to it"},
    "golden": {"binary tensors", "gzip from it"},
}


def test_a_healthy_server_passes(served: Served) -> None:
    found = examined(*served)
    assert failing(found) == set()
    assert {name for name, one in found.items() if one.state == "not checked"} == {"TLS", "keys", "golden prompts"}
    assert found["golden requests"].said == "11 requests of 1 champions are answered as recorded."
    assert found["stage"].said == "The routes lie at the top of the host."
    assert examined(served[0] + "/prod", served[1])["stage"].said == "The routes lie below /prod."


def test_without_the_store_numbers_are_made_up(served: Served) -> None:
    found = examined(served[0])
    assert failing(found) == set()
    assert found["golden requests"].state == "not checked"
    assert "champions" not in found


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_fails_its_check(served: Served, name: str) -> None:
    bend, check, words = FAULTS[name]
    with running(served[0], bend) as (url, _):
        found = examined(url, served[1])
    assert failing(found) == {check} | ALSO.get(name, set()), found
    assert words in found[check].said


def test_a_server_is_only_read(served: Served) -> None:
    def lie() -> str:
        files = sorted(path for path in Path(served[1]).rglob("*") if path.is_file())
        return hashlib.sha256(b"".join(str(path).encode() + path.read_bytes() for path in files)).hexdigest()

    before = lie()
    with running(served[0], straight) as (url, proxy):
        examined(url, served[1])
    others = {asked.path for asked in proxy.asked if asked.method != "GET"}
    assert others
    assert all(path.endswith("/infer") for path in others)
    assert lie() == before


def test_nothing_live_leaves_the_rest_unchecked(served: Served) -> None:
    with running(served[0], at("/v2/health/live", lambda told: told.saying({"message": "Forbidden"}, 403))) as (url, _):
        found = examined(url)
    assert "Auth=iam" in found["live"].said
    assert failing(found) == {"live"}
    assert found["golden requests"].said == "Nothing is live."
    found = examined("http://127.0.0.1:9")
    assert failing(found) == {"stage", "live"}
    assert "Nothing answers at http://127.0.0.1:9" in found["live"].said


def test_a_url_without_its_stage_is_told_it(served: Served) -> None:
    with running(served[0], only_below_the_stage) as (url, _):
        found = examined(url)
        assert failing(found) == {"stage", "live"}
        assert found["stage"].said == f"The routes lie below {url}/prod; give that as --url."
        assert failing(examined(f"{url}/prod")) == set()


def test_what_answers_to_anybody_is_told(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    inference = sum(scope == "infer" for scope in SCOPES.values())
    with running(served[0], guarded) as (url, _):
        found = examined(url)
        assert failing(found) == set()
        assert found["keys"].said == (
            f"Inference is open (Auth=open): anybody may call its {inference} routes, at your cost; the other "
            f"{len(SCOPES) - inference} ask for a key."
        )
        assert found["registry"].state == "not checked"
        monkeypatch.setenv("PILOTLIGHT_KEY", KEY)
        assert examined(url)["registry"].state == "passes"
        monkeypatch.setenv("PILOTLIGHT_KEY", "another")
        assert "Send a key" in examined(url)["registry"].said


def test_a_key_without_the_scope_of_the_registry_is_no_fault_of_the_server(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PILOTLIGHT_KEY", KEY)
    forbidden = Told(403, {"content-type": "application/json"}, b'{"message": "no scope"}')
    with running(served[0], at("/registry/models", lambda _: forbidden)) as (url, _):
        found = examined(url)["registry"]
    assert (found.state, "scope admin" in found.said) == ("not checked", True)


def test_a_refusal_is_quoted_by_its_sentence(served: Served) -> None:
    body = b'{"error": "Send a key.", "message": "Send a key."}'
    with running(served[0], at("/v2/health/live", lambda _: Told(401, {}, body))) as (url, _):
        assert "answers 401: Send a key; see that" in examined(url)["live"].said


def test_answers_with_few_numbers_per_row_are_compressed_too(served: Served) -> None:
    """Most of a short answer is not repeated with its rows."""
    with running(served[0], at("/v2/models", lambda told: told.saying({"models": ["double"]}))) as (url, _):
        assert examined(url)["gzip from it"].state == "passes"


def test_keys_everywhere(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PILOTLIGHT_KEY", KEY)
    with running(served[0], lambda asked, onward: guarded(asked, onward, open_scopes=())) as (url, _):
        found = examined(url)
    assert failing(found) == set()
    assert found["keys"].said == f"All {len(SCOPES)} routes ask for a key, and a wrong one opens none."


@pytest.mark.parametrize(
    ("scopes", "named"), [(("batch",), "batch: /v1/files"), (("admin", "train"), "admin, train: ")]
)
def test_routes_that_change_something_and_are_open_are_a_fault(
    served: Served, scopes: tuple[str, ...], named: str
) -> None:
    with running(served[0], lambda asked, onward: guarded(asked, onward, open_scopes=("infer", *scopes))) as (url, _):
        found = examined(url)
    assert failing(found) == {"keys"}
    count = sum(scope in scopes for scope in SCOPES.values())
    assert found["keys"].said.startswith(f"Anybody may call {count} routes of {named}")


@pytest.mark.parametrize("known", [UNKNOWN_KEY, f"Bearer {UNKNOWN_KEY}"])
def test_a_wrong_key_that_is_let_in(served: Served, known: str) -> None:
    with running(served[0], lambda asked, onward: guarded(asked, onward, keys=(known,))) as (url, _):
        assert "to a wrong " in examined(url)["keys"].said


def test_a_stack_that_asks_for_signatures_is_closed(served: Served) -> None:
    """API Gateway answers an unsigned request as one for a route that it has not."""
    missing = Told(404, {"www-authenticate": "AWS4-HMAC-SHA256"}, b'{"message": "There is no such route, or ..."}')
    with running(served[0], lambda asked, onward: missing) as (url, _), ServerChecks(url) as checks:
        assert checks.check_open_routes() == f"All {len(SCOPES)} routes ask for a key, and a wrong one opens none."


def test_a_far_server_must_ask_for_a_key_and_encrypt(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ServerChecks, "is_local", False)
    found = examined(served[0])
    assert failing(found) == {"TLS", "keys"}
    assert "deploy with Auth=keys" in found["keys"].said
    assert "use https" in found["TLS"].said


def test_slowness_is_a_fault(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "MAX_WARM_MS", 0.0)
    found = examined(served[0])
    assert failing(found) == {"latency"}
    assert "ModelMemory" in found["latency"].said


def test_a_server_of_another_store(served: Served, tmp_path: Path) -> None:
    registry = Registry(open_store(str(tmp_path)))
    for _ in range(2):
        fakes.publish_digits(registry)
    registry.move_alias("digits", "champion", 2, actor="test", reason="test")
    found = examined(served[0], str(tmp_path))
    assert failing(found) == {"aliases over HTTP", "golden requests"}
    assert "does the server read another store?" in found["aliases over HTTP"].said


def test_what_is_no_url() -> None:
    with pytest.raises(InvalidInputError, match="'somewhere' is not a URL"):
        list(check_server("somewhere", None, deep=False))


def certified(folder: Path, days: float) -> ssl.SSLContext:
    """A server's side of TLS with a certificate of its own, which ends in so many days."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "doctor")])
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    built = built.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=days))
    built = built.add_extension(address, critical=False)
    built = built.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    built = built.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    pem = built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    (folder / "certificate.pem").write_bytes(pem)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return context


@pytest.mark.parametrize(
    ("days", "trusted", "state", "words"),
    [
        (90.5, True, "passes", "TLSv1.3, with a certificate that is trusted here"),
        (3.5, True, "fails", "the certificate ends in 3 days"),
        (90.5, False, "fails", "CERTIFICATE_VERIFY_FAILED"),
    ],
)
def test_tls(
    served: Served,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    days: float,
    trusted: bool,
    state: str,
    words: str,
) -> None:
    context = certified(tmp_path, days)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    with running(served[0], straight, context) as (url, _):
        found = examined(url)["TLS"]
    assert (found.state, words in found.said) == (state, True), found
