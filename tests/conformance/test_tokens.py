"""Tokens end to end: a real issuer over https, real tokens, the real authorizer behind HTTP and the real routes."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import pytest
import tritonclient.http as triton
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.utils import InferenceServerException

from pilotlight.api.routes import SCOPES
from pilotlight.cli.console import open_client
from pilotlight.cli.doctor import check_server
from pilotlight.errors import UnavailableError
from pilotlight.local.gateway import Gateway
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.conformance.conftest import ROOT
from tests.issuer import AUDIENCE, NAME, FakeIssuer, rsa_key

FAKE = FakeIssuer()
ADMIN = "/registry/models"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The gateway over the real template with Auth=jwt; its functions trust the issuer's certificate."""
    folder = tmp_path_factory.mktemp("tokens")
    store = str(folder / "store")
    fakes.publish_digits(Registry(open_store(store)))
    with FAKE.served(folder) as (keys, certificate):
        gateway = Gateway(
            ROOT / "template.yaml",
            port=0,
            workers=1,
            environment={"PILOTLIGHT_STORE": store, "SSL_CERT_FILE": str(certificate)},
            parameters={"Auth": "jwt", "JwtIssuer": NAME, "JwtAudience": AUDIENCE, "JwtKeys": keys},
        )
        with gateway.serve_in_background() as address:
            yield address


@pytest.fixture(scope="module")
def client(guarded: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=guarded, timeout=60) as connected:
        yield connected


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("kid", ["one", "two"])
def test_a_token_opens_the_routes_of_its_scopes_and_no_others(kid: str, client: httpx2.Client) -> None:
    infer, admin = (bearer(FAKE.token(kid, scope=scope)) for scope in ("infer", "admin"))
    assert client.get("/v2/models/digits", headers=infer).status_code == 200
    assert client.get(ADMIN, headers=infer).status_code == 403
    assert client.get(ADMIN, headers=admin).status_code == 200
    assert client.get("/v2/models/digits", headers=admin).status_code == 403
    both = bearer(FAKE.token(kid, scope="openid infer admin"))
    assert [client.get(path, headers=both).status_code for path in ("/v2/models/digits", ADMIN)] == [200, 200]


@pytest.mark.parametrize("route", sorted(SCOPES))
def test_no_route_is_open(route: str, client: httpx2.Client) -> None:
    path = route.replace("{", "").replace("}", "")
    answer = client.post(path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json().keys() == {"message"}
    assert "Authorization: Bearer" in answer.json()["message"]
    other = "admin" if SCOPES[route] == "infer" else "infer"
    assert client.post(path, headers=bearer(FAKE.token(scope=other))).status_code == 403
    assert client.post(path, headers=bearer(FAKE.token(scope=SCOPES[route]))).status_code not in (401, 403)


def test_forgeries_are_401(client: httpx2.Client) -> None:
    stranger = FakeIssuer({"one": rsa_key()})
    past = int(time.time()) - 100
    for token in (stranger.token(), FAKE.token(exp=past), FAKE.token(aud="x"), FAKE.token(iss="https://x"), "a.b.c"):
        assert client.get("/v2", headers=bearer(token)).status_code == 401
    key = {"x-api-key": "whatever", "Authorization": "Basic dXNlcjpwYXNz"}
    assert client.get("/v2", headers=key).status_code == 401


def test_a_new_key_is_taken_when_it_is_first_seen(client: httpx2.Client) -> None:
    assert client.get("/v2", headers=bearer(FAKE.token())).status_code == 200
    before = FAKE.fetches
    assert client.get("/v2", headers=bearer(FAKE.token("two"))).status_code == 200
    assert FAKE.fetches == before  # both keys are of one JWKS, which is fetched once


def test_tritonclient_sends_the_token_that_it_is_given(guarded: str) -> None:
    tensor = triton.InferInput("image", [1, 1, 8, 8], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 1, 8, 8), np.float32))
    with triton.InferenceServerClient(guarded.removeprefix("http://")) as client:
        answer = client.infer("digits", [tensor], headers=bearer(FAKE.token()))
        assert answer.as_numpy("logits").shape == (1, 10)
        with pytest.raises(InferenceServerException, match="Send a key or token") as raised:
            client.infer("digits", [tensor])
        assert raised.value.status() == "401"


def test_the_history_names_the_tenant(client: httpx2.Client) -> None:
    moved = client.post(
        f"{ADMIN}/digits/aliases/champion/split",
        content=json.dumps({"shares": []}),
        headers=bearer(FAKE.token(scope="admin", sub="ops@example.com")),
    )
    assert moved.status_code == 200, moved.text
    assert moved.json()["by"] == "ops@example.com"


def test_the_command_sends_the_token_of_the_environment(guarded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PILOTLIGHT_TOKEN", FAKE.token(scope="admin"))
    with open_client(guarded) as asked:
        assert "champion" in asked.registry.get_model("digits").aliases
    monkeypatch.setenv("PILOTLIGHT_TOKEN", FAKE.token(scope="infer"))
    with open_client(guarded) as asked:
        assert asked.is_ready()
        with pytest.raises(UnavailableError, match="has not the scope of this route"):
            asked.registry.get_model("digits")


def test_the_doctor_does_too(guarded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def states() -> dict[str, str]:
        return {found.check: found.state for found in check_server(guarded, None, deep=False)}

    monkeypatch.delenv("PILOTLIGHT_TOKEN", raising=False)
    assert states()["live"] == "fails"
    monkeypatch.setenv("PILOTLIGHT_TOKEN", FAKE.token(scope="infer admin batch train") + "\n")
    told = states()
    assert (told["live"], told["registry"], told["keys"]) == ("passes", "passes", "passes")
    assert "fails" not in told.values()


SEGMENTS = st.lists(st.text("ABCabc012-_=.", max_size=20) | st.binary(max_size=20).map(bytes.hex), max_size=4)
HEADERS = SEGMENTS.map(lambda parts: "Bearer " + ".".join(parts)) | st.text(
    st.characters(min_codepoint=32, max_codepoint=126), max_size=60
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(HEADERS)
def test_whatever_is_sent_as_a_token_it_is_401(client: httpx2.Client, header: str) -> None:
    assert client.get("/v2", headers={"Authorization": header.strip()}).status_code == 401


def test_without_the_issuers_keys_it_is_503(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        keys = f"https://127.0.0.1:{free.getsockname()[1]}/jwks.json"
    gateway = Gateway(
        ROOT / "template.yaml",
        port=0,
        workers=1,
        environment={"PILOTLIGHT_STORE": str(tmp_path)},
        parameters={"Auth": "jwt", "JwtIssuer": NAME, "JwtAudience": AUDIENCE, "JwtKeys": keys},
    )
    with gateway.serve_in_background() as url:
        answer = httpx2.get(f"{url}/v2", headers=bearer(FAKE.token()), timeout=60)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "the issuer does not answer" in answer.json()["message"]
