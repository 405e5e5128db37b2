"""Keys are fetched rarely, over https alone, and only those that may sign are taken."""

import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from functions.authorize.errors import IssuerError
from functions.authorize.jwks import FIRST_RETRY_S, FRESH_S, REFETCH_S, STALE_S, JwksCache, fetch_jwks, parse_jwks
from tests.issuer import FakeIssuer, jwk, rsa_key

KEY = rsa_key()
CURVE = ec.generate_private_key(ec.SECP256R1())


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Source:
    """A JWKS that counts its readers, and may be away."""

    def __init__(self) -> None:
        self.keys = [jwk("one", KEY)]
        self.reads = 0
        self.away = False

    def __call__(self) -> dict[str, Any]:
        self.reads += 1
        if self.away:
            raise IssuerError("away")
        return {"keys": self.keys}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def source() -> Source:
    return Source()


def test_keys_are_fetched_once_and_again_when_they_are_old(clock: Clock, source: Source) -> None:
    keys = JwksCache(source, clock)
    assert all(keys.get_key("one") is not None for _ in range(5))
    assert source.reads == 1
    clock.now += FRESH_S
    assert keys.get_key("one") is not None
    assert source.reads == 2


def test_a_new_key_is_found_and_unknown_ones_cost_little(clock: Clock, source: Source) -> None:
    keys = JwksCache(source, clock)
    assert keys.get_key("one") is not None
    clock.now += REFETCH_S
    source.keys.append(jwk("two", CURVE))
    assert keys.get_key("two") is not None
    reads = source.reads
    assert [keys.get_key(f"kid-{number}") for number in range(100)] == [None] * 100
    assert source.reads == reads
    clock.now += REFETCH_S
    assert keys.get_key("nobody's") is None
    assert source.reads == reads + 1


def test_a_key_that_was_taken_back_is_forgotten(clock: Clock, source: Source) -> None:
    keys = JwksCache(source, clock)
    assert keys.get_key("one") is not None
    source.keys = [jwk("two", CURVE)]
    clock.now += FRESH_S
    assert keys.get_key("one") is None


def test_old_keys_go_on_for_an_hour_while_the_issuer_is_away(clock: Clock, source: Source) -> None:
    keys = JwksCache(source, clock)
    assert keys.get_key("one") is not None
    source.away = True
    clock.now += STALE_S - 1
    assert keys.get_key("one") is not None
    clock.now += 1
    with pytest.raises(IssuerError, match="none from the last hour"):
        keys.get_key("one")
    source.away = False
    clock.now += REFETCH_S
    assert keys.get_key("one") is not None


def test_without_any_key_it_is_tried_again_soon(clock: Clock, source: Source) -> None:
    source.away = True
    keys = JwksCache(source, clock)
    for _ in range(3):
        with pytest.raises(IssuerError):
            keys.get_key("one")
    assert source.reads == 1
    source.away = False
    clock.now += FIRST_RETRY_S
    assert keys.get_key("one") is not None


@pytest.mark.parametrize(
    "refused",
    [
        jwk("x", rsa_key(1024)),
        jwk("x", KEY, use="enc"),
        jwk("x", KEY, alg="PS256"),
        jwk("x", KEY, alg="HS256"),
        jwk("x", CURVE, alg="RS256"),
        jwk("x", ec.generate_private_key(ec.SECP384R1())),
        {"kty": "oct", "k": "c2VjcmV0", "kid": "x", "alg": "HS256"},
        {"kty": "RSA", "kid": "x", "n": "AQAB"},
        {"kty": "EC", "crv": "P-256", "x": "AQ", "y": "AQ", "kid": "x"},
        {"kty": ["RSA"], "kid": "x"},
        {key: value for key, value in jwk("x", KEY).items() if key != "kid"},
    ],
)
def test_what_may_not_sign_is_no_key(refused: dict[str, Any]) -> None:
    assert list(parse_jwks({"keys": [refused, jwk("right", KEY)]})) == ["right"]


def test_each_key_has_one_algorithm() -> None:
    found = parse_jwks({"keys": [jwk("one", KEY), jwk("two", CURVE), jwk("one", rsa_key())]})
    assert {kid: key.algorithm_name for kid, key in found.items()} == {"one": "RS256", "two": "ES256"}
    assert found["one"].key.public_numbers() == KEY.public_key().public_numbers()  # the first of that name


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
MEMBERS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("kty", "crv", "kid", "n", "e", "x", "y", "alg", "use"), JSON)
)


@given(st.dictionaries(st.just("keys"), st.lists(MEMBERS | JSON, max_size=4) | JSON))
def test_no_jwks_does_harm(document: dict[str, Any]) -> None:
    try:
        found = parse_jwks(document)
    except IssuerError:
        return
    assert {key.algorithm_name for key in found.values()} <= {"RS256", "ES256"}


def test_a_jwks_is_fetched_over_https(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeIssuer().served(tmp_path) as (url, certificate):
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert set(parse_jwks(fetch_jwks(url))) == {"one", "two"}


@pytest.mark.parametrize("path", ["/moved", "/html", "/list", "/away", "/large", "/deep"])
def test_what_is_no_jwks_is_told_without_its_bytes(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeIssuer().served(tmp_path) as (url, certificate):
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with pytest.raises(IssuerError, match="did not give keys") as raised:
            fetch_jwks(url.replace("/jwks.json", path))
    assert "html>" not in str(raised.value)


def test_a_certificate_that_nobody_trusts_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", ssl.get_default_verify_paths().openssl_cafile)
    with FakeIssuer().served(tmp_path) as (url, _), pytest.raises(IssuerError, match="SSLCertVerificationError"):
        fetch_jwks(url)


def test_an_issuer_that_is_not_there(unused_port: int) -> None:
    with pytest.raises(IssuerError, match="ConnectionRefusedError"):
        fetch_jwks(f"https://127.0.0.1:{unused_port}/jwks.json")
