import base64
import json
from typing import Annotated, Any

import msgspec
import pytest
from annotated_types import Ge, Lt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilotlight.api.http import Request, Response
from pilotlight.api.powertools_router import ModelName, Query, ResolverRouter, check_integer, parse_json
from pilotlight.api.schemas.request_body import STRICT, matches, request_body
from pilotlight.errors import ConflictError, InvalidInputError, TooLargeError
from tests import fakes

ROUTE = "/registry/models/{model}/canary"
SECRET = "secret words"
EVENT = json.loads((fakes.MODELS.parent / "events" / "models-list.json").read_text())


@request_body("is not a trial")
class Trial:
    version: Annotated[str, matches(r"^[0-9]+$")] | Annotated[int, Ge(1)]
    percent: Annotated[float, STRICT, Ge(0), Lt(100)] = 10.0
    force: Annotated[bool, STRICT] = False


class Endpoints:
    def create(self, request: Request, model: ModelName, body: Trial) -> Response:
        return Response.json([model, msgspec.to_builtins(body), request.caller], 202, etag='"1"')

    def show(self, model: ModelName, newest: Annotated[int, Query(ge=1)] = 50) -> Response:
        if model == "busy":
            raise ConflictError("Somebody else was faster.")
        if model == "broken":
            raise ZeroDivisionError(SECRET)
        return Response.json([model, newest])

    def echo(self, request: Request) -> Response:
        return Response(200, request.body, {"content-type": "application/octet-stream"}, binary=True)


@pytest.fixture
def router() -> ResolverRouter:
    endpoints = Endpoints()
    return ResolverRouter({ROUTE: {"POST": endpoints.create, "GET": endpoints.show}, "/raw": {"POST": endpoints.echo}})


def call(router: ResolverRouter, body: str | None, method: str = "POST", **changes: object) -> tuple[int, Any]:
    event = {**EVENT, "resource": ROUTE, "pathParameters": {"model": "digits"}, "httpMethod": method, "body": body}
    answer = router({**event, **changes}, None)
    return answer["statusCode"], answer["body"] if answer["isBase64Encoded"] else json.loads(answer["body"])


def test_gives_endpoints_what_they_declare(router: ResolverRouter) -> None:
    assert call(router, '{"version": 3}') == (
        202,
        ["digits", {"version": 3, "percent": 10.0, "force": False}, "192.0.2.44"],
    )
    assert call(router, '{"version": "4", "percent": 1}')[1][1] == {"version": "4", "percent": 1.0, "force": False}
    assert call(router, None, "GET") == (200, ["digits", 50])
    assert call(router, None, "GET", queryStringParameters={"newest": "7"}) == (200, ["digits", 7])


def test_headers_of_an_answer_come_through(router: ResolverRouter) -> None:
    event = {
        **EVENT,
        "resource": ROUTE,
        "pathParameters": {"model": "digits"},
        "httpMethod": "POST",
        "body": '{"version": 1}',
    }
    headers = router(event, None)["headers"]
    assert headers["etag"] == '"1"'
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            '{"version": 3, "percent": 120}',
            "The body is not a trial: $.percent: Input should be less than 100, not 120.",
        ),
        ('{"version": 3, "percent": "5"}', "$.percent: Input should be a valid number, not '5'"),
        ('{"version": 3, "force": "yes"}', "$.force: Input should be a valid boolean, not 'yes'"),
        ('{"version": 0}', "greater than or equal to 1, not 0"),
        ('{"version": "v3"}', "should match pattern '^[0-9]+$', not 'v3'"),
        ("{}", "$.version: Field required"),
        (None, "$.version: Field required"),
        ("[1]", "The body is not a JSON object: [1]."),
        ('{"version": 3', "The body is not JSON"),
        ('{"version": NaN}', "The body is not JSON"),
        ("[" * 100_000, "The body is not JSON"),
    ],
)
def test_says_what_is_wrong_with_a_body(router: ResolverRouter, body: str | None, said: str) -> None:
    status, answer = call(router, body)
    assert (status, list(answer)) == (400, ["error"])
    assert said in answer["error"]


def test_a_long_value_is_cut(router: ResolverRouter) -> None:
    _, answer = call(router, json.dumps({"version": 3, "percent": "9" * 10_000}))
    assert len(answer["error"]) < 200


def test_a_body_that_is_no_text_is_refused(router: ResolverRouter) -> None:
    status, answer = call(router, "/w==", isBase64Encoded=True)
    assert (status, answer["error"][:20]) == (400, "The body is not JSON")


def test_says_what_is_wrong_with_a_query(router: ResolverRouter) -> None:
    status, answer = call(router, None, "GET", queryStringParameters={"newest": "0"})
    assert (status, answer["error"]) == (
        400,
        "The request is wrong: newest='0': Input should be greater than or equal to 1.",
    )


@pytest.mark.parametrize(
    "value",
    ["0000000019999999", "007", "00", "-0", "1" * 40, "9" * 5000, "1_000", " 7", "7 ", "+7", "7.0", "1e3", "0x10",
     "\u0667", "\uff17", "", "NaN", "7\n", "-"],
)  # fmt: skip
def test_an_integer_in_a_query_has_one_spelling(router: ResolverRouter, value: str) -> None:
    status, answer = call(router, None, "GET", queryStringParameters={"newest": value})
    assert (status, answer["error"][:29]) == (400, "The request is wrong: newest=")
    assert len(answer["error"]) < 220


@given(st.integers(-(10**18) + 1, 10**18 - 1) | st.text(max_size=20))
def test_what_is_taken_for_an_integer_is_its_only_spelling(value: int | str) -> None:
    try:
        check_integer("limit", str(value))
    except InvalidInputError:
        assert isinstance(value, str)
    else:
        assert str(int(value)) == str(value)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"a": "' + b"x" * 1_000_000 + b'"}', "at most 1,000,000 are taken"),
        (b'{"a": ' + b"[" * 33 + b"]" * 33 + b"}", "nested more than 32 levels"),
        (b'{"a": ' * 40 + b"1" + b"}" * 40, "nested more than 32 levels"),
        (json.dumps({"a": [0] * 20_001}).encode(), "has 20,001 items"),
        (json.dumps({"a": {"b": [[1], [0] * 20_001]}}).encode(), "has 20,001 items"),
        (json.dumps({"a": dict.fromkeys(map(str, range(20_001)))}).encode(), "has 20,001 items"),
    ],
    ids=["bytes", "lists", "objects", "items", "inner items", "keys"],
)
def test_a_body_is_bounded_before_it_is_looked_at(body: bytes, said: str) -> None:
    with pytest.raises(TooLargeError, match=said):
        parse_json(body)
    assert parse_json(b'{"a": ' + b"[" * 30 + b"]" * 30 + b"}")


def test_an_error_names_the_first_of_many(router: ResolverRouter) -> None:
    status, answer = call(router, json.dumps({"version": 3, **{f"x{number}": 1 for number in range(5000)}}))
    assert (status, "; and 4,990 more." in answer["error"]) == (400, True)
    assert len(answer["error"]) < 1000


@pytest.mark.parametrize("name", ["a/b", "..", "", "%2F", "stats", "a b", "é"])
def test_a_path_s_names_are_checked(router: ResolverRouter, name: str) -> None:
    status, answer = call(router, None, "GET", pathParameters={"model": name})
    assert status in (400, 404)
    assert answer.keys() == {"error"}


def test_errors_are_the_router_s(router: ResolverRouter, caplog: pytest.LogCaptureFixture) -> None:
    assert call(router, None, "GET", pathParameters={"model": "busy"}) == (409, {"error": "Somebody else was faster."})
    status, answer = call(router, None, "GET", pathParameters={"model": "broken"})
    assert (status, SECRET in str(answer)) == (500, False)
    assert "ZeroDivisionError" in caplog.text
    assert SECRET not in caplog.text


def test_a_verb_that_a_route_does_not_take_is_told(router: ResolverRouter) -> None:
    event = {**EVENT, "resource": ROUTE, "pathParameters": {"model": "digits"}, "httpMethod": "DELETE"}
    answer = router(event, None)
    assert (answer["statusCode"], answer["headers"]["allow"]) == (405, "POST, GET, HEAD")


def test_head_is_answered_as_get(router: ResolverRouter) -> None:
    assert call(router, None, "HEAD")[0] == 200


def test_bytes_pass_unread(router: ResolverRouter) -> None:
    assert call(router, "/wD+", resource="/raw", pathParameters=None, isBase64Encoded=True) == (200, "/wD+")


@given(body=st.binary(max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_body_is_taken_or_refused_in_a_sentence(router: ResolverRouter, body: bytes) -> None:
    status, answer = call(router, base64.b64encode(body).decode(), isBase64Encoded=True)
    assert (status, list(answer)) == (400, ["error"])


@given(version=st.integers(1, 2**31), percent=st.floats(0, 99.9), force=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_body_is_read_as_its_type(router: ResolverRouter, version: int, percent: float, force: bool) -> None:
    trial = Trial(version, percent, force)
    assert call(router, msgspec.json.encode(trial).decode()) == (
        202,
        ["digits", msgspec.to_builtins(trial), "192.0.2.44"],
    )
