"""Keys end to end: the real command's keys, the real authorizer behind HTTP, the real routes and real clients."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import httpx2
import numpy as np
import openai
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from functions.authorize.api_keys import FRESH_S, KeyCache, authenticate_key
from functions.authorize.handler import Authorizer, UnauthorizedError
from pilotlight.api.routes import SCOPES
from pilotlight.api_keys.key_store import KeyStore, NewKey
from pilotlight.cli.console import open_client
from pilotlight.cli.doctor import check_server
from pilotlight.client.client import Client
from pilotlight.contracts.api_key import generate_key
from pilotlight.contracts.scopes import ALL_SCOPES, Scope
from pilotlight.doctor.finding import CheckResult
from pilotlight.errors import UnavailableError
from pilotlight.local.authorizer import LocalAuthorizer
from pilotlight.local.gateway import Gateway
from pilotlight.local.gateway_errors import FAILED, GatewayError
from pilotlight.local.proxy_events import HttpRequest
from pilotlight.local.routes import RouteMatch
from pilotlight.local.template import ApiRoute, load_stack
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.conformance.conftest import ROOT

ADMIN, MODEL = "/registry/models", "/v2/models/digits"
METER = "0123456789abcdef" * 2  # the value of a key of API Gateway


class Guarded(NamedTuple):
    """A server that asks for keys, and where its keys are."""

    url: str
    keys: KeyStore
    by_scope: dict[Scope, NewKey]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a model, and a key for each scope."""
    store = tmp_path_factory.mktemp("keys") / "store"
    fakes.publish_digits(Registry(open_store(str(store))))
    for scope in ALL_SCOPES:
        KeyStore(open_store(str(store))).create_key(scope, (scope,), actor="test")
    return store


def serve(store: Path, **parameters: str) -> Gateway:
    return Gateway(
        ROOT / "template.yaml",
        port=0,
        workers=1,
        environment={"PILOTLIGHT_STORE": str(store), "PILOTLIGHT_METER": METER},
        parameters=parameters,
    )


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """The gateway over the real template with its default, Auth=keys."""
    store = tmp_path_factory.mktemp("keys") / "store"
    fakes.publish_digits(Registry(open_store(str(store))))
    keys = KeyStore(open_store(str(store)))
    by_scope = {scope: keys.create_key(scope, (scope,), actor="test", tenant="") for scope in ALL_SCOPES}
    with serve(store, Auth="keys").serve_in_background() as url:
        yield Guarded(url, keys, by_scope)


@pytest.fixture(scope="module")
def client(guarded: Guarded) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=guarded.url, timeout=60) as connected:
        yield connected


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize("route", sorted(SCOPES))
def test_every_route_opens_to_its_scope_alone(route: str, guarded: Guarded, client: httpx2.Client) -> None:
    """The matrix of scopes and routes; and nothing opens to nobody, to a stranger, or to a key that only meters."""
    path = route.replace("{", "").replace("}", "")
    for headers in ({}, {"x-api-key": METER}, bearer(METER), bearer(generate_key()[1])):
        answer = client.post(path, headers=headers)
        assert answer.status_code == 401, headers
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "pilotlight keys create" in answer.json()["message"]
    for scope, created in guarded.by_scope.items():
        status = client.post(path, headers=bearer(created.key)).status_code
        if scope == SCOPES[route]:
            assert status not in (401, 403), scope
            assert client.post(path, headers={"x-api-key": created.key}).status_code == status
        else:
            assert status == 403, scope


def test_a_key_of_several_scopes_opens_the_routes_of_all(guarded: Guarded, client: httpx2.Client) -> None:
    both = guarded.keys.create_key("both", ("infer", "admin"), actor="test").key
    eventually_known(client, both)
    assert [client.get(path, headers=bearer(both)).status_code for path in (MODEL, ADMIN, "/v1/files")] == [
        200, 200, 403,
    ]  # fmt: skip


def eventually_known(client: httpx2.Client, key: str) -> None:
    """Wait until the authorizer has listed a new key, which takes up to five seconds after unknown ones."""
    fakes.eventually(lambda: client.get("/ping", headers=bearer(key)).status_code == 200, within_s=30)


@pytest.mark.parametrize(("gateway_cache", "life_s"), [("off", FRESH_S), ("on", FRESH_S + 60)])
def test_a_revoked_key_is_dead_within_the_time_of_the_caches(tmp_path: Path, gateway_cache: str, life_s: float) -> None:
    """The template's authorizer before the function's own cache, both by one clock."""
    shutil.copytree(ROOT / "infra", tmp_path / "infra")
    text = (ROOT / "template.yaml").read_text().replace('&GatewayCache "off"', f'&GatewayCache "{gateway_cache}"')
    (tmp_path / "template.yaml").write_text(text)
    spec = load_stack(tmp_path / "template.yaml").authorizer
    assert spec is not None
    store, clock = open_store("memory://"), fakes.Clock()
    keys = KeyStore(store)
    created = keys.create_key("ci", ("infer",), actor="test")
    function = Authorizer(partial(authenticate_key, keys=KeyCache(store, clock), stack_meter=METER))

    async def invoke(name: str, event: bytes) -> bytes:
        try:
            return json.dumps(function(json.loads(event), None)).encode()
        except UnauthorizedError as exc:
            raise GatewayError(FAILED, "It failed.", str(exc)) from exc

    guard = LocalAuthorizer(spec, "prod", invoke, clock)
    headers = [(b"authorization", f"Bearer {created.key}".encode())]
    request = HttpRequest("GET", b"", headers, b"", "127.0.0.1", "HTTP/1.1", "id", "trace", 0.0)
    match = RouteMatch(ApiRoute("ANY", "/v2", "PredictFunction"), "/v2", {})
    for second in (0, 59):
        clock.now = second
        asyncio.run(guard.authorize_request(request, match))
    keys.revoke_key(created.document.id)
    clock.now = life_s
    with pytest.raises(GatewayError) as raised:
        asyncio.run(guard.authorize_request(request, match))
    assert raised.value.kind.status == 401


def test_openai_sends_the_key_by_itself(guarded: Guarded) -> None:
    key = guarded.by_scope["batch"].key
    with openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=key, max_retries=0) as connected:
        assert connected.files.list().data == []
        made = connected.files.create(file=("a.jsonl", b'{"custom_id":"1"}\n'), purpose="batch")
        assert connected.files.retrieve(made.id).filename == "a.jsonl"
    with (
        openai.OpenAI(base_url=f"{guarded.url}/v1", api_key="none", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.files.list()
    key = guarded.by_scope["infer"].key
    with (
        openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=key, max_retries=0) as caller,
        pytest.raises(openai.PermissionDeniedError),
    ):
        caller.files.list()


def test_tritonclient_sends_it_as_a_header(guarded: Guarded) -> None:
    tensor = triton.InferInput("image", [1, 1, 8, 8], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 1, 8, 8), np.float32))
    with triton.InferenceServerClient(guarded.url.removeprefix("http://")) as connected:
        for headers in (bearer(guarded.by_scope["infer"].key), {"x-api-key": guarded.by_scope["infer"].key}):
            answer = connected.infer("digits", [tensor], headers=headers)
            assert answer.as_numpy("logits").shape == (1, 10)
        with pytest.raises(InferenceServerException, match="Send a key") as raised:
            connected.infer("digits", [tensor])
        assert raised.value.status() == "401"


def test_the_client_and_the_command_send_it(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(guarded.url, key=guarded.by_scope["admin"].key) as asked:
        assert "champion" in asked.registry.get_model("digits").aliases
    monkeypatch.setenv("PILOTLIGHT_KEY", guarded.by_scope["infer"].key + "\n")
    with open_client(guarded.url) as asked:
        assert asked.is_ready()
        with pytest.raises(UnavailableError, match="has not the scope of this route"):
            asked.registry.get_model("digits")


def test_the_history_names_the_key(guarded: Guarded, client: httpx2.Client) -> None:
    path = f"{ADMIN}/digits/aliases/champion/split"
    moved = client.post(path, json={"shares": []}, headers=bearer(guarded.by_scope["admin"].key))
    assert moved.status_code == 200, moved.text
    assert moved.json()["by"] == "admin"


def test_a_page_of_another_site_is_told_that_it_is_one(guarded: Guarded, client: httpx2.Client) -> None:
    """And not that its key lacks a scope, which is what the template's ACCESS_DENIED says."""
    headers = {"Origin": "https://evil.example", "x-api-key": guarded.by_scope["infer"].key}
    answer = client.get(MODEL, headers=headers)
    assert answer.status_code == 403
    assert "--allow-origin URL" in answer.json()["message"]


def test_a_secret_with_another_id_is_refused(guarded: Guarded, client: httpx2.Client) -> None:
    infer, admin = guarded.by_scope["infer"].key, guarded.by_scope["admin"].key
    for forged in (
        admin[:17] + infer[17:],
        admin[:-1],
        admin + "A",
        admin.upper(),
    ):
        assert client.get(ADMIN, headers=bearer(forged)).status_code == 401
    assert client.get(ADMIN, headers={**bearer(infer), "x-api-key": admin}).status_code == 401


def test_open_opens_inference_and_nothing_else(published: Path) -> None:
    with serve(published, Auth="open").serve_in_background() as url, httpx2.Client(base_url=url, timeout=60) as nobody:
        for route, scope in SCOPES.items():
            status = nobody.get(route.replace("{", "").replace("}", "")).status_code
            assert (status == 401) == (scope != "infer"), route
        doctor = examine(url)
        assert doctor["keys"].state == "passes"
        assert doctor["keys"].said.startswith("Inference is open (Auth=open): anybody may call its ")


def test_the_doctor_lists_what_is_open(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    every = guarded.keys.create_key("every", ALL_SCOPES, actor="test").key
    with httpx2.Client(base_url=guarded.url, timeout=60) as connected:
        eventually_known(connected, every)
    monkeypatch.setenv("PILOTLIGHT_KEY", every)
    found = examine(guarded.url)
    assert found["keys"].said == f"All {len(SCOPES)} routes ask for a key, and a wrong one opens none."
    assert "fails" not in {one.state for one in found.values()}


def examine(url: str) -> dict[str, CheckResult]:
    return {found.check: found for found in check_server(url, None, deep=False)}


def test_a_store_that_is_away_is_503(tmp_path: Path) -> None:
    store = tmp_path / "store"
    created = KeyStore(open_store(str(store))).create_key("ci", ("infer",), actor="test")
    with serve(store, Auth="keys").serve_in_background() as url:
        shutil.rmtree(store)
        store.write_text("no folder any more")
        answer = httpx2.get(f"{url}/v2", headers=bearer(created.key), timeout=60)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


def test_beyond_loopback_keys_are_asked_for_by_default(published: Path) -> None:
    gateway = Gateway(
        ROOT / "template.yaml",
        host="0.0.0.0",  # noqa: S104 - what this is about
        port=0,
        workers=1,
        environment={"PILOTLIGHT_STORE": str(published)},
    )
    with gateway.serve_in_background() as url:
        here = url.replace("0.0.0.0", "127.0.0.1")  # noqa: S104
        for path in (ADMIN, MODEL, "/v1/files", "/v1/trainings"):
            assert httpx2.get(f"{here}{path}", timeout=60).status_code == 401
