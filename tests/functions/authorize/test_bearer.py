"""Which tokens are believed, and what is read in them. Whatever is sent, it is a caller or a refusal."""

import base64
import json
import re
import time
from dataclasses import replace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from functions.authorize.bearer import LEEWAY_S, authenticate_caller, read_scopes
from functions.authorize.caller import Caller
from functions.authorize.errors import IssuerError, RefusedError
from functions.authorize.issuer import Issuer
from functions.authorize.jwks import JwksCache
from pilotlight.errors import InvalidInputError
from tests.functions.authorize.test_jwks import JSON
from tests.issuer import AUDIENCE, NAME, FakeIssuer, claims, rsa_key


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forged(head: dict[str, Any], payload: dict[str, Any], signature: bytes = b"") -> str:
    return ".".join((b64(json.dumps(head).encode()), b64(json.dumps(payload).encode()), b64(signature) or "AA"))


@pytest.mark.parametrize("kid", ["one", "two"])
def test_a_right_token_is_believed(kid: str, fake: FakeIssuer, issuer: Issuer, keys: JwksCache) -> None:
    token = fake.token(kid, scope="infer admin openid", sub="acme")
    assert authenticate_caller(f"Bearer {token}", issuer, keys) == Caller("acme", "acme", frozenset({"infer", "admin"}))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"exp": int(time.time()) - LEEWAY_S - 1}, "ExpiredSignatureError"),
        ({"exp": None}, "MissingRequiredClaimError"),
        ({"exp": "never"}, "DecodeError"),
        ({"exp": 1e400}, "OverflowError|DecodeError"),
        ({"nbf": int(time.time()) + 86400}, "ImmatureSignatureError"),
        ({"iat": int(time.time()) + 86400}, "ImmatureSignatureError"),
        ({"iss": "https://elsewhere.example.com/"}, "InvalidIssuerError"),
        ({"iss": NAME.rstrip("/")}, "InvalidIssuerError"),
        ({"iss": None}, "MissingRequiredClaimError"),
        ({"aud": "another service"}, "InvalidAudienceError"),
        ({"aud": None}, "MissingRequiredClaimError"),
        ({"aud": []}, "InvalidAudienceError|MissingRequiredClaimError"),
        ({"sub": None}, "The claim sub is no name"),
        ({"sub": 7}, "InvalidSubjectError"),
        ({"sub": 'a", "admin": "yes'}, "The claim sub is no name"),
        ({"sub": "x" * 129}, "The claim sub is no name"),
    ],
)
def test_a_wrong_claim_is_refused(
    changes: dict[str, Any], why: str, fake: FakeIssuer, issuer: Issuer, keys: JwksCache
) -> None:
    with pytest.raises(RefusedError, match=why):
        authenticate_caller(f"Bearer {fake.token(**changes)}", issuer, keys)


def test_clocks_may_be_a_little_apart(fake: FakeIssuer, issuer: Issuer, keys: JwksCache) -> None:
    now = int(time.time())
    token = fake.token(exp=now - LEEWAY_S + 10, nbf=now + LEEWAY_S - 10, iat=now + LEEWAY_S - 10)
    assert authenticate_caller(f"Bearer {token}", issuer, keys).tenant == "acme"


def test_one_of_several_audiences_is_enough(fake: FakeIssuer, issuer: Issuer, keys: JwksCache) -> None:
    token = fake.token(aud=["accounts", AUDIENCE])
    assert (
        authenticate_caller(f"bearer {token}", replace(issuer, audience=frozenset({"x", AUDIENCE})), keys).tenant
        == "acme"
    )


# --- forgeries --------------------------------------------------------------------------------------------------------


def test_no_algorithm_is_none(issuer: Issuer, keys: JwksCache) -> None:
    for algorithm in ("none", "None", "NONE", "", None, 0, ["RS256"]):
        token = forged({"alg": algorithm, "kid": "one", "typ": "JWT"}, claims())
        with pytest.raises(RefusedError):
            authenticate_caller(f"Bearer {token}", issuer, keys)


def test_a_public_key_is_no_secret(fake: FakeIssuer, issuer: Issuer, keys: JwksCache) -> None:
    """The confusion of algorithms: a token signed by HMAC with the public key as its secret."""
    import hashlib
    import hmac

    public = (
        fake.keys["one"]
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    for algorithm in ("HS256", "RS256"):
        unsigned = forged({"alg": algorithm, "kid": "one"}, claims()).rpartition(".")[0]
        token = f"{unsigned}.{b64(hmac.new(public, unsigned.encode(), hashlib.sha256).digest())}"
        with pytest.raises(RefusedError):
            authenticate_caller(f"Bearer {token}", issuer, keys)


def test_the_algorithm_is_the_keys(fake: FakeIssuer, issuer: Issuer, keys: JwksCache) -> None:
    token = jwt.encode(claims(), fake.keys["one"], "RS512", headers={"kid": "one"})
    with pytest.raises(RefusedError, match="not that of a token signed by RS256 or ES256"):
        authenticate_caller(f"Bearer {token}", issuer, keys)
    crossed = jwt.encode(claims(), fake.keys["two"], "ES256", headers={"kid": "one"})
    with pytest.raises(RefusedError, match="InvalidAlgorithmError"):
        authenticate_caller(f"Bearer {crossed}", issuer, keys)


def test_somebody_elses_key_is_refused(fake: FakeIssuer, issuer: Issuer, keys: JwksCache) -> None:
    stranger = rsa_key()
    with pytest.raises(RefusedError, match="InvalidSignatureError"):
        authenticate_caller(f"Bearer {jwt.encode(claims(), stranger, 'RS256', headers={'kid': 'one'})}", issuer, keys)
    with pytest.raises(RefusedError, match="no key of that kid"):
        authenticate_caller(f"Bearer {jwt.encode(claims(), stranger, 'RS256', headers={'kid': 'mine'})}", issuer, keys)
    with pytest.raises(RefusedError, match="with a kid"):
        authenticate_caller(f"Bearer {jwt.encode(claims(), fake.keys['one'], 'RS256')}", issuer, keys)


def test_a_key_in_the_token_is_not_looked_at(fake: FakeIssuer, issuer: Issuer, keys: JwksCache) -> None:
    from tests.issuer import jwk

    stranger = rsa_key()
    head = {"kid": "one", "jwk": jwk("one", stranger), "jku": "https://evil.example.com/jwks.json", "x5u": "https://x"}
    before = fake.fetches
    with pytest.raises(RefusedError, match="InvalidSignatureError"):
        authenticate_caller(f"Bearer {jwt.encode(claims(), stranger, 'RS256', headers=head)}", issuer, keys)
    assert fake.fetches == before


def test_critical_heads_are_not_understood(fake: FakeIssuer, issuer: Issuer, keys: JwksCache) -> None:
    token = fake.token(head={"crit": ["exp"], "exp": 1})
    with pytest.raises(RefusedError):
        authenticate_caller(f"Bearer {token}", issuer, keys)


def test_a_changed_token_is_refused(fake: FakeIssuer, issuer: Issuer, keys: JwksCache) -> None:
    head, payload, signature = fake.token().split(".")
    richer = b64(json.dumps(claims(scope="admin")).encode())
    with pytest.raises(RefusedError, match="InvalidSignatureError"):
        authenticate_caller(f"Bearer {head}.{richer}.{signature}", issuer, keys)
    assert payload != richer


# --- what is read -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"scope": "infer admin"}, {"infer", "admin"}),
        ({"scp": ["infer", "train"]}, {"infer", "train"}),
        ({"scp": "train"}, {"train"}),
        ({"roles": ["admin", 7, None]}, {"admin"}),
        ({"scope": "infer", "roles": ["admin"]}, {"infer", "admin"}),
        ({"scope": "Infer inference pilotlight/infer"}, set()),
        ({"scope": {"infer": True}, "permissions": ["admin"]}, set()),
        ({}, set()),
    ],
)
def test_scopes_are_looked_for_where_issuers_put_them(said: dict[str, Any], found: set[str], issuer: Issuer) -> None:
    assert read_scopes(said, issuer) == found


def test_scopes_may_have_a_prefix(issuer: Issuer) -> None:
    prefixed = replace(issuer, scope_prefix="https://models.example.com/", scope_claims=("scope",))
    assert read_scopes({"scope": "https://models.example.com/infer admin"}, prefixed) == {"infer"}
    assert read_scopes({"roles": ["https://models.example.com/infer"]}, prefixed) == set()


def test_the_tenant_and_his_key_are_claims_of_ones_choice(fake: FakeIssuer, issuer: Issuer, keys: JwksCache) -> None:
    named = replace(issuer, tenant_claim="org", key_claim="plan")
    token = fake.token(org="acme-7", plan="k" * 20)
    assert authenticate_caller(f"Bearer {token}", named, keys) == Caller(
        "acme-7", "acme-7", frozenset({"infer"}), usage_key="k" * 20
    )
    with pytest.raises(RefusedError, match="The claim plan holds no API key"):
        authenticate_caller(f"Bearer {fake.token(org='acme')}", named, keys)


# --- the settings -----------------------------------------------------------------------------------------------------

SET = {"PILOTLIGHT_ISSUER": "https://me.eu.auth.example.com/", "PILOTLIGHT_AUDIENCE": "a b", "PILOTLIGHT_KEY_CLAIM": ""}


def test_settings_come_from_the_environment() -> None:
    found = Issuer.from_environment(SET)
    assert found == Issuer(
        "https://me.eu.auth.example.com/",
        frozenset({"a", "b"}),
        "https://me.eu.auth.example.com/.well-known/jwks.json",
    )
    assert Issuer.from_environment({**SET, "PILOTLIGHT_ISSUER_KEYS": "https://x/keys"}).keys_url == "https://x/keys"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"PILOTLIGHT_ISSUER": ""}, "PILOTLIGHT_ISSUER is not set"),
        ({"PILOTLIGHT_AUDIENCE": ""}, "PILOTLIGHT_AUDIENCE is not set"),
        ({"PILOTLIGHT_ISSUER": "http://me.example.com"}, "https://host/path alone"),
        ({"PILOTLIGHT_ISSUER_KEYS": "http://127.0.0.1/jwks.json"}, "https://host/path alone"),
        ({"PILOTLIGHT_ISSUER_KEYS": "file:///etc/passwd"}, "https://host/path alone"),
        ({"PILOTLIGHT_ISSUER_KEYS": "https://me@evil.example.com/"}, "https://host/path alone"),
    ],
)
def test_a_wrong_setting_is_named(changes: dict[str, str], why: str) -> None:
    with pytest.raises(InvalidInputError, match=why):
        Issuer.from_environment({**SET, **changes})


# --- whatever is sent -------------------------------------------------------------------------------------------------

SOME = FakeIssuer()
TRUSTED, SOMES = Issuer(NAME, frozenset({AUDIENCE}), NAME), JwksCache(SOME.jwks)
SEGMENT = (
    st.binary(max_size=40).map(b64)
    | st.text("ABCab_-019", max_size=12)
    | JSON.map(lambda x: b64(json.dumps(x).encode()))
)
NAMES = st.sampled_from(["iss", "aud", "exp", "nbf", "iat", "sub", "jti", "scope", "scp", "roles", "cnf"])
ODD = JSON | st.sampled_from([float("nan"), float("inf"), 10**400, -1, "\x00", "é" * 50])


def refused_or_believed(header: str) -> Caller | None:
    """What comes of a header; a refusal speaks in our own words, whatever was sent."""
    try:
        return authenticate_caller(header, TRUSTED, SOMES)
    except RefusedError as exc:
        said = str(exc)
    assert re.fullmatch(
        r"[A-Za-z]+Error\.|There is no bearer.*|The head is not.*|The issuer has.*|The claim sub.*", said
    )
    return None


@given(st.text() | st.lists(SEGMENT, min_size=1, max_size=5).map(lambda parts: "Bearer " + ".".join(parts)))
def test_no_text_does_harm(header: str) -> None:
    assert refused_or_believed(header) is None


@given(st.dictionaries(NAMES, ODD, max_size=5))
def test_no_claims_do_harm(changes: dict[str, Any]) -> None:
    """Claims of every kind, in a token that the issuer did sign."""
    believed = refused_or_believed(f"Bearer {SOME.token('two', **changes)}" if _is_json(changes) else "Bearer x.y.z")
    if believed is not None:
        assert changes.get("iss", NAME) == NAME
        assert believed.scopes <= {"infer", "admin", "train"}


def _is_json(changes: dict[str, Any]) -> bool:
    """Whether the maker of tokens itself takes them; it looks at `iss` alone."""
    return isinstance(changes.get("iss", ""), str)


@given(st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "jku", "x5c", "cty"]), ODD))
def test_no_head_does_harm(head: dict[str, Any]) -> None:
    token = forged({"alg": "ES256", "kid": "two", **head}, claims(), b"\x01" * 64)
    assert refused_or_believed(f"Bearer {token}") is None


@given(st.data())
def test_no_change_of_a_byte_is_believed(data: st.DataObject) -> None:
    token = SOME.token("two")
    at = data.draw(st.integers(0, len(token) - 1))
    letter = data.draw(st.sampled_from("ABCxyz019-_."))
    changed = token[:at] + letter + token[at + 1 :]
    assert (refused_or_believed(f"Bearer {changed}") is not None) == (changed == token)


def test_without_keys_nobody_is_called_a_liar(fake: FakeIssuer, issuer: Issuer) -> None:
    def away() -> dict[str, Any]:
        raise IssuerError("away")

    with pytest.raises(IssuerError):
        authenticate_caller(f"Bearer {fake.token()}", issuer, JwksCache(away))
