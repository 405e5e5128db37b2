"""A release over HTTP on the local gateway, start to end: publish, promote through the gate, serve, roll back."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx2
import pytest
from botocore.exceptions import ClientError

from pilotlight.api.schemas.registry import CanaryBody
from pilotlight.cli import app
from pilotlight.client.client import Client
from pilotlight.errors import ConflictError, NotFoundError, PreconditionError
from pilotlight.local.gateway import Gateway
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store
from tests import fakes

ROOT = Path(__file__).parents[2]
CHAMPION = "/registry/models/double/aliases/champion"

SECRET = "the-secret-of-these-tests"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway of its own, since what happens here would move the champions of the others."""
    store = str(tmp_path_factory.mktemp("registry") / "store")
    registry = Registry(open_store(store))
    for graph in ("double", "double"):
        fakes.publish(registry, of=graph)
    variables = {"PILOTLIGHT_STORE": store, "PILOTLIGHT_ALIAS_SECONDS": "0.2"}
    with Gateway(
        ROOT / "template.yaml", port=0, workers=1, environment=variables, secret=SECRET
    ).serve_in_background() as url:
        yield url


def call(url: str, method: str, path: str, body: object = None) -> httpx2.Response:
    return httpx2.request(method, url + path, json=body, timeout=60)


def eventually(url: str, path: str, wanted: tuple[str, object]) -> dict[str, Any]:
    """What a route answers once a field of it is as wanted."""
    for _ in range(600):
        answer: dict[str, Any] = call(url, "GET", path).json()
        if answer.get(wanted[0]) == wanted[1]:
            return answer
        time.sleep(0.1)
    raise AssertionError(f"{path} never had {wanted}: {answer}")


def version(url: str) -> str:
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}
    answer = call(url, "POST", "/v2/models/double/infer", body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["model_version"])


def test_a_release_from_the_gate_to_the_rollback(server: str) -> None:
    assert version(server) == "1"
    asked = call(server, "POST", f"{CHAMPION}/promote", {"version": "2"})
    assert asked.status_code == 202, asked.text
    where = httpx2.URL(f"{server}{CHAMPION}/promote").join(asked.headers["location"]).path
    done = eventually(server, where, ("state", "promoted"))
    assert done["said"].endswith("checks passed; not checked: golden.")
    moved = call(server, "GET", CHAMPION)
    assert (moved.json()["version"], moved.headers["etag"]) == (2, '"2"')
    until = time.monotonic() + 30
    while version(server) != "2":
        assert time.monotonic() < until
        time.sleep(0.1)
    back = httpx2.post(f"{server}{CHAMPION}/rollback", json={"why": "test"}, headers={"if-match": '"2"'})
    assert back.json()["version"] == 1
    history = call(server, "GET", f"{CHAMPION}/history").json()
    assert [(one["version"], one["by"]) for one in history][1:] == [(2, "127.0.0.1"), (1, "127.0.0.1")]


def test_the_description_is_served(server: str) -> None:
    assert call(server, "GET", "/openapi.json").json()["openapi"] == "3.1.0"
    page = call(server, "GET", "/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "/registry/models/{model}" in page.text


def lambda_at(url: str) -> Any:  # noqa: ANN401 - boto3 ships no types
    """boto3's client, unmodified."""
    return boto3.client(
        "lambda",
        endpoint_url=f"{url}/{SECRET}",
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
    )


@pytest.mark.parametrize("name", ["ModelsFunction", "arn:aws:lambda:us-east-1:123456789012:function:ModelsFunction"])
def test_boto3_invokes_a_function_and_waits(server: str, name: str) -> None:
    event = json.dumps(fakes.event(["/v2/repository/index"], "POST", "/v2/repository/index"))
    answer = lambda_at(server).invoke(FunctionName=name, Payload=event)
    assert answer["StatusCode"] == 200
    assert json.load(answer["Payload"])["statusCode"] == 200


def test_boto3_is_told_what_is_wrong(server: str) -> None:
    with pytest.raises(ClientError, match="Function not found: Nobody") as caught:
        lambda_at(server).invoke(FunctionName="Nobody")
    assert caught.value.response["Error"]["Code"] == "ResourceNotFoundException"
    answer = lambda_at(server).invoke(FunctionName="PromoteFunction", Payload=b'{"detail-type": "nothing"}')
    assert answer["FunctionError"] == "Unhandled"
    assert "'nothing' is none of" in json.load(answer["Payload"])["errorMessage"]
    assert lambda_at(server).invoke(FunctionName="PromoteFunction", InvocationType="DryRun")["StatusCode"] == 204


@pytest.mark.parametrize("prefix", ["", "/" + "0" * 16, f"/{SECRET.upper()}", f"/{SECRET}%20", f"/x/{SECRET}"])
def test_who_does_not_know_the_secret_starts_nothing(server: str, prefix: str) -> None:
    path = f"{prefix}/2015-03-31/functions/PromoteFunction/invocations"
    signed = {"Authorization": "AWS4-HMAC-SHA256 x", "X-Amz-Invocation-Type": "Event"}
    answer = httpx2.post(server + path, headers=signed, json={})
    assert answer.status_code in {403, 404}


def test_the_client_releases_too(server: str) -> None:
    with Client(server) as client:
        registry = client.registry
        assert [(row.name, row.versions) for row in registry.list_models()] == [("double", ["1", "2"])]
        assert [version.version for version in registry.get_model("double").versions] == ["2", "1"]
        number = registry.get_alias("double").number
        assert registry.set_canary("double", CanaryBody(2, percent=5), expected_number=number).shares[0].weight == 500
        with pytest.raises(PreconditionError, match="read it again and decide anew"):
            registry.rollback("double", reason="late", expected_number=number)
        assert registry.rollback("double", reason="enough").shares == ()
        assert [getattr(row, "reason", "") for row in registry.get_alias_history("double")][-2:] == ["trial", "enough"]
        with pytest.raises(ConflictError, match="the alias 'champion' points to it"):
            client._call("DELETE", "/registry/models/double/versions/1")
        with pytest.raises(NotFoundError, match="has no version 9"):
            registry.promote("double", 9)


def test_the_command_releases_too(
    server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["pilotlight", *words, "--url", server])
        with pytest.raises(SystemExit) as ended:
            app()
        return int(ended.value.code or 0), capsys.readouterr().out

    code, out = run("promote", "double:2", "--alias", "stable", "--json")
    assert (code, json.loads(out)["state"]) == (0, "promoted")
    assert run("canary", "double:1", "--alias", "stable", "--percent", "10")[0] == 0
    assert run("rollback", "double", "--alias", "stable") == (0, "double@stable is version 2.\n")
    code, out = run("history", "double", "--alias", "stable", "--json")
    assert [document["number"] for document in json.loads(out)] == [1, 2, 3]
    assert run("promote", "double:2", "--check")[0] == 2
