from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight.errors import InvalidInputError
from pilotlight.local.routes import RouteTable
from pilotlight.local.template import ApiRoute


def table(*routes: str) -> RouteTable:
    pairs = [route.split() for route in routes]
    return RouteTable([ApiRoute(method, resource, "F") for method, resource in pairs], "prod")


ROUTES = table(
    "ANY /v2",
    "GET /v2/models",
    "POST /v2/models",
    "ANY /v2/models/{model}",
    "ANY /v2/models/stats",
    "GET /v2/models/{model}/versions/{version}",
    "ANY /v2/models/digits/infer",
    "GET /v2/{rest+}",
    "ANY /prod/inner",
    "GET /",
)


@pytest.mark.parametrize(
    ("method", "path", "resource", "parameters"),
    [
        ("GET", "/", "/", {}),
        ("GET", "/prod", "/", {}),
        ("PUT", "/v2", "/v2", {}),
        ("PUT", "/v2/", "/v2", {}),
        ("PUT", "/prod/v2/", "/v2", {}),
        ("GET", "/v2/models", "/v2/models", {}),
        ("GET", "/v2/models/digits", "/v2/models/{model}", {"model": "digits"}),
        ("GET", "/v2/models/stats", "/v2/models/stats", {}),
        ("GET", "/prod/v2/models/a%20b%2Fc/", "/v2/models/{model}", {"model": "a b/c"}),
        ("GET", "/v2/m%6Fdels", "/v2/models", {}),
        (
            "GET",
            "/v2/models/digits/versions/3",  # the static `digits` leads nowhere here
            "/v2/models/{model}/versions/{version}",
            {"model": "digits", "version": "3"},
        ),
        ("GET", "/v2/other/thing", "/v2/{rest+}", {"rest": "other/thing"}),
        ("GET", "/v2/models/a/b/c", "/v2/{rest+}", {"rest": "models/a/b/c"}),
        ("GET", "/prod/inner", "/prod/inner", {}),
        ("GET", "/prod/prod/inner", "/prod/inner", {}),
    ],
)
def test_most_specific_resource(method: str, path: str, resource: str, parameters: dict[str, str]) -> None:
    match = ROUTES.match(method, path)
    assert match is not None
    assert (match.route.resource, match.parameters) == (resource, parameters)


def test_path_comes_without_the_stage_and_as_it_was_sent() -> None:
    match = ROUTES.match("GET", "/prod/v2/models/a%20b/")
    assert match is not None
    assert match.path == "/v2/models/a%20b/"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v3"),
        ("GET", "/production/v2"),
        ("GET", "/v2x"),
        ("DELETE", "/v2/models"),  # the resource is there, its method is not
        ("POST", "/v2/models/digits/versions/3"),
        ("POST", "/v2/other"),
        ("GET", ""),
    ],
)
def test_no_such_route(method: str, path: str) -> None:
    assert ROUTES.match(method, path) is None or path == ""


def test_verb_beats_any() -> None:
    routes = table("ANY /x", "GET /x")
    verbs = ("GET", "PUT")
    assert [match.route.method for verb in verbs if (match := routes.match(verb, "/x"))] == ["GET", "ANY"]


def test_two_events_for_one_route_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"GET /x/\{b\} of F is taken by /x/\{a\} of F"):
        table("GET /x/{a}", "GET /x/{b}")


segment = st.sampled_from(["a", "b", "c", "{p}"])
resources = st.lists(st.tuples(st.lists(segment, max_size=3), st.booleans()), min_size=1, max_size=6)


def written(resource: tuple[list[str], bool]) -> str:
    segments, is_greedy = resource
    return "/" + "/".join([*segments, "{rest+}"] if is_greedy else segments)


def fits(resource: str, segments: list[str]) -> list[int] | None:
    """How specific each segment is (2 static, 1 parameter, 0 greedy), or None when the resource does not fit."""
    names = resource.strip("/").split("/")
    if names[-1] == "{rest+}":
        if len(segments) < len(names):
            return None
        names += ["{rest+}"] * (len(segments) - len(names))
    if len(names) != len(segments):
        return None
    ranks = []
    for name, value in zip(names, segments, strict=True):
        if name != value and not (name.startswith("{") and value):
            return None
        ranks.append(2 if name == value else 0 if name == "{rest+}" else 1)
    return ranks


@given(resources, st.lists(st.sampled_from(["a", "b", "z"]), max_size=4))
def test_agrees_with_trying_every_resource(declared: list[tuple[list[str], bool]], segments: list[str]) -> None:
    paths = sorted({written(resource) for resource in declared})
    segments = segments or [""]
    ranked = [(ranks, path) for path in paths if (ranks := fits(path, segments)) is not None]
    match = table(*(f"GET {path}" for path in paths)).match("GET", "/" + "/".join(segments))
    assert (match.route.resource if match else None) == (max(ranked)[1] if ranked else None)


@given(st.text(min_size=1).filter(lambda text: text.isprintable()))
def test_parameters_arrive_as_they_were_meant(text: str) -> None:
    match = table("GET /x/{p}").match("GET", "/x/" + quote(text, safe=""))
    assert match is not None
    assert match.parameters == {"p": text}
