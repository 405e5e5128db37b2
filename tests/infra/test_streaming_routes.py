"""Routes whose answers are passed on while they are made, in the template as CloudFormation gets it from SAM.

SAM takes a wrong word for the mode without a sound, and the route is buffered: so what is looked at is its result.
"""

from typing import Any

from pilotlight.api.routes import ROUTES
from tests.infra.cloud import translated

RESOURCES = translated("api", {})["Resources"]
PATHS: dict[str, Any] = RESOURCES["Api"]["Properties"]["Body"]["paths"]


def find_integration(path: str) -> dict[str, Any]:
    integration: dict[str, Any] = PATHS[path]["x-amazon-apigateway-any-method"]["x-amazon-apigateway-integration"]
    return integration


def test_streamed_routes_stream_behind_the_transform() -> None:
    streamed = {route.path for route in ROUTES if route.streams}
    assert streamed
    for path in streamed:
        integration = find_integration(path)
        uri = integration["uri"]["Fn::Sub"]
        assert "/2021-11-15/functions/" in uri
        assert uri.endswith("/response-streaming-invocations")
        assert integration["responseTransferMode"] == "STREAM"
        assert integration["timeoutInMillis"] == 900_000


def test_other_routes_do_not() -> None:
    for path in {route.path for route in ROUTES if not route.streams}:
        integration = find_integration(path)
        assert "/2015-03-31/functions/" in integration["uri"]["Fn::Sub"]
        assert integration["uri"]["Fn::Sub"].endswith("/invocations")
        assert not {"responseTransferMode", "timeoutInMillis"} & integration.keys()


def test_a_path_is_of_one_kind() -> None:
    """The gateway has one integration for all verbs of a path, and a function that streams cannot answer the other."""
    streamed, others = ({route.path for route in ROUTES if route.streams is kind} for kind in (True, False))
    assert streamed & others == set()


def test_the_function_is_started_by_its_wrapper() -> None:
    variables = RESOURCES["GenerateFunction"]["Properties"]["Environment"]["Variables"]
    assert variables["AWS_LAMBDA_EXEC_WRAPPER"] == "/var/task/functions/generate/runtime_wrapper"
    wrapped = {
        name
        for name, resource in RESOURCES.items()
        if "AWS_LAMBDA_EXEC_WRAPPER" in resource.get("Properties", {}).get("Environment", {}).get("Variables", {})
    }
    assert wrapped == {route.function for route in ROUTES if route.streams}
