"""Every route of the table, with its key and without, asked from outside on each server.

tests/e2e/front_door/differences.py lists where a server answers otherwise.
"""

import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from jsonschema import Draft202012Validator

from pilotlight.api.routes import BINARY, EVENT_STREAM, HTML, ROUTES, TEXT, Route
from pilotlight.openapi.__main__ import OPENAPI_FILE
from tests.e2e.conftest import ROOT
from tests.e2e.front_door.differences import expect_difference
from tests.e2e.front_door.route_calls import Call, Subjects, build_call, build_refused_call, name_route
from tests.e2e.front_door.server import Server

DOCUMENT = json.loads((ROOT / OPENAPI_FILE).read_bytes())
JSON = "application/json"
REFUSALS = {400, 404, 405, 409, 415}
every_route = pytest.mark.parametrize("route", ROUTES, ids=name_route)


@pytest.fixture(scope="module")
def subjects(server: Server) -> Subjects:
    return Subjects(server)


@pytest.fixture(autouse=True)
def difference(request: pytest.FixtureRequest, server: Server) -> None:
    expect_difference(request, server.kind)


def send(server: Server, call: Call, **more: Any) -> httpx2.Response:  # noqa: ANN401 - httpx's options
    return server.ask(call.verb, call.path, **call.body, **more)


def check_body(answer: httpx2.Response, route: Route, status: str) -> None:
    """Check that a body is of the type and form that openapi.json promises for the status."""
    promised = DOCUMENT["paths"][route.path][route.verb.lower()]["responses"][status]["content"]
    media_type = answer.headers["content-type"].partition(";")[0]
    assert media_type in promised
    assert media_type == next(iter(promised)), "the second one, of a stream, was not asked for"
    if media_type == JSON:
        schema = {**promised[media_type]["schema"], "components": DOCUMENT["components"]}
        Draft202012Validator(schema).validate(answer.json())
    else:
        assert media_type in (TEXT, HTML, BINARY, EVENT_STREAM)


@every_route
def test_a_route_answers(server: Server, subjects: Subjects, route: Route) -> None:
    """With the status and the body that openapi.json has for it."""
    answer = send(server, build_call(route, subjects))
    assert str(answer.status_code) in (route.status, *route.other_statuses), answer.text
    check_body(answer, route, str(answer.status_code))


@every_route
def test_a_route_says_what_is_wrong(server: Server, route: Route) -> None:
    """In the form of its protocol, which is the same for every refusal of a function."""
    answer = send(server, build_refused_call(route))
    assert answer.status_code in REFUSALS, answer.text
    check_body(answer, route, "404")


@every_route
def test_a_route_wants_a_key_with_its_scope(server: Server, route: Route) -> None:
    """Otherwise the gateway itself answers, with a body that every client shows."""
    call = build_refused_call(route)
    refused = send(server, call, key="")
    assert (refused.status_code, list(refused.json())) == (401, ["message"])
    assert refused.headers["www-authenticate"] == "Bearer"
    if route.scope != "infer":
        refused = send(server, call, key=server.infer_key)
        assert (refused.status_code, list(refused.json())) == (403, ["message"])


PATHS: dict[str, Callable[[httpx2.Response], bool]] = {
    "/v2/": lambda answer: answer.json()["name"] == "pilotlight",
    "/v2/models/dig%69ts": lambda answer: answer.json()["name"] == "digits",
    "/v2/models/digits/": lambda answer: answer.json()["name"] == "digits",
}


@pytest.mark.parametrize("path", PATHS)
def test_a_path_may_be_written_otherwise(server: Server, path: str) -> None:
    answer = server.ask("GET", path)
    assert answer.status_code == 200, answer.text
    assert PATHS[path](answer)


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/v2/models/digits%2Fready", "'digits/ready'"),
        ("/v2/models/a%20b%3F", "'a b?'"),
        ("/v2/models/%C5%BElu%C5%A5", "'žluť'"),
    ],
)
def test_an_odd_name_stays_one_name(server: Server, path: str, named: str) -> None:
    """An encoded slash too: the path is split before it is decoded."""
    answer = server.ask("GET", path)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"].startswith(f"{named} is not a model name")


def test_a_value_of_the_query_is_decoded(server: Server) -> None:
    answer = server.ask("GET", "/v1/batches?limit=%2B1")
    assert "limit='+1'" in answer.json()["error"]["message"]


def test_head_is_get_without_its_body(server: Server) -> None:
    answer = server.ask("HEAD", "/v2/models/digits")
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, b"", JSON)


@pytest.mark.parametrize("path", ["/nowhere", "/v2/nowhere", "/v1/files/a/b/c"])
def test_what_is_no_route_is_said_by_the_gateway(server: Server, path: str) -> None:
    answer = server.ask("GET", path)
    assert answer.status_code == 404
    assert answer.json()["message"].startswith("There is no such route; GET /docs lists those")


@pytest.mark.parametrize("size", [4_800_000, 7_000_000, 11_000_000])
def test_what_is_too_large_is_said_by_the_gateway(server: Server, size: int) -> None:
    """From what Lambda does not take as an event, a third longer in base64, to what the gateway does not take."""
    answer = server.ask("POST", "/v2/models/echo-uint8/infer", content=b"\xff" * size)
    assert answer.status_code == 413, answer.text
    assert answer.json()["message"].startswith("The request is too large: the gateway takes 10,485,760 bytes")


def test_what_still_fits_is_answered(server: Server) -> None:
    """The length of its JSON in a header, and no type: one tensor of so many bytes as they are."""
    data = bytes(range(256)) * 16_000  # 4.1 MB
    head = {"name": "x", "shape": [1, len(data)], "datatype": "UINT8", "parameters": {"binary_data_size": len(data)}}
    wanted = {"name": "y", "parameters": {"binary_data": True}}
    described = json.dumps({"inputs": [head], "outputs": [wanted]}).encode()
    headers = {"inference-header-content-length": str(len(described))}
    answer = server.ask("POST", "/v2/models/echo-uint8/infer", content=described + data, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.content[int(answer.headers["inference-header-content-length"]) :] == data


def test_a_correlation_id_comes_back(server: Server) -> None:
    answer = server.ask("GET", "/v2", headers={"X-Correlation-ID": "front-door"})
    assert answer.headers["x-correlation-id"] == "front-door"
    assert answer.headers["x-request-id"]
