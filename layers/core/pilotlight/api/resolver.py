"""The router of the control plane: endpoints declare what they take, and Powertools validates it before they run.

A parameter of an endpoint is a part of the path by its name, a query or header value by its annotation, or the JSON
body where its type is a dataclass; a `Request` gives the whole request. pydantic, which validates them, and Powertools
take 0.1 s of CPU to import, which inference does not spend (infra/decisions/0061). Errors, costs and the usage log are
the router's.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from inspect import Signature, signature
from typing import Annotated, Any, get_type_hints
from urllib.parse import quote

import msgspec
import pybase64
from aws_lambda_powertools.event_handler import APIGatewayRestResolver
from aws_lambda_powertools.event_handler import Response as ResolverResponse
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError
from aws_lambda_powertools.event_handler.openapi.params import Query as Query
from pydantic import AfterValidator

from pilotlight.api.http import JSON, Request, Response
from pilotlight.api.request_context import CostMeter
from pilotlight.api.router import Endpoint, ErrorFormatter, Router
from pilotlight.api.usage_log import UsageLog
from pilotlight.contracts.names import check_alias, check_name
from pilotlight.errors import InvalidInputError, NotFoundError

TypedEndpoint = Callable[..., Response]
TypedRoutes = Mapping[str, Mapping[str, TypedEndpoint]]  # resource -> verb -> endpoint
MAX_SHOWN_VALUE = 60  # characters of a wrong value in an error
# What pydantic finds wrong with the whole of a body, whose value says nothing.
ABSENT = frozenset({"missing", "unexpected_keyword_argument"})

ModelName = Annotated[str, AfterValidator(lambda name: check_name(name, "model name"))]
AliasName = Annotated[str, AfterValidator(check_alias)]


class ResolverRouter(Router):
    """A Lambda handler over a table of routes whose endpoints declare typed parameters."""

    def __init__(
        self,
        routes: TypedRoutes,
        cost_meter: CostMeter | None = None,
        usage_log: UsageLog | None = None,
        error_formatter: ErrorFormatter | None = None,
    ) -> None:
        super().__init__(routes, cost_meter, usage_log, error_formatter)
        self._resolver = APIGatewayRestResolver(enable_validation=True, json_body_deserializer=parse_json)
        self._resolver.exception_handler(RequestValidationError)(raise_invalid_input)
        self._resolver.not_found(raise_not_found)
        self._resolver.exception_handler(Exception)(reraise)
        for resource, verbs in routes.items():
            for verb, endpoint in verbs.items():
                rule = resource.replace("{", "<").replace("}", ">")
                self._resolver.route(rule, verb)(self._adapt(endpoint))

    def find_endpoint(self, request: Request) -> Endpoint:
        """Check the route and the verb; give what validates the request and calls its endpoint."""
        super().find_endpoint(request)
        return self._resolve

    def _resolve(self, request: Request) -> Response:
        self._request = request  # Lambda gives an environment one request at a time
        no_context: Any = None  # Powertools hands it on, and nothing reads it
        return from_proxy_response(self._resolver.resolve(to_proxy_event(request), no_context))

    def _adapt(self, endpoint: TypedEndpoint) -> Callable[..., ResolverResponse[Any]]:
        """Give Powertools a function with the endpoint's parameters, less the request, and a response in its form."""
        hints = get_type_hints(endpoint, include_extras=True)
        parameters = [
            parameter.replace(annotation=hints[name]) for name, parameter in signature(endpoint).parameters.items()
        ]
        with_request = [parameter.name for parameter in parameters if parameter.annotation is Request]

        @wraps(endpoint)
        def call(**arguments: object) -> ResolverResponse[Any]:
            response = endpoint(**arguments, **dict.fromkeys(with_request, self._request))
            body = response.body if response.binary else response.body.decode()
            return ResolverResponse(response.status, None, body, dict(response.headers))

        call.__signature__ = Signature([each for each in parameters if each.name not in with_request])  # type: ignore[attr-defined]
        return call


def to_proxy_event(request: Request) -> dict[str, Any]:
    """Build the event that Powertools resolves.

    Its path is made of the route and its parameters, since the gateway's own begins with a base path where a domain has
    one. HEAD is GET, and the body is JSON whatever its type, as curl sends it.
    """
    values = {name: quote(value, safe="") for name, value in request.parameters.items()}
    return {
        "path": request.resource.format_map(values),
        "httpMethod": "GET" if request.method == "HEAD" else request.method,
        "headers": {**request.headers, "content-type": JSON},
        "queryStringParameters": dict(request.query),
        "body": request.body.decode(errors="surrogateescape") or "{}",
        "requestContext": {"stage": ""},
    }


def from_proxy_response(event: Mapping[str, Any]) -> Response:
    """Read the response that Powertools built for the gateway."""
    headers = {name: ", ".join(values) for name, values in event["multiValueHeaders"].items()}
    if event["isBase64Encoded"]:
        return Response(event["statusCode"], pybase64.b64decode(event["body"]), headers, binary=True)
    return Response(event["statusCode"], event["body"].encode(), headers)


def parse_json(text: str) -> Any:  # noqa: ANN401 - JSON is anything until it is validated
    """Decode a body; `InvalidInputError` says where it is no JSON."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as exc:
        raise InvalidInputError(f"The body is not JSON: {exc}.") from exc


def raise_invalid_input(error: RequestValidationError) -> None:
    """Raise `InvalidInputError` with a sentence for all that is wrong."""
    raise InvalidInputError(describe_errors(error.errors())) from None


def raise_not_found(error: Exception) -> None:
    """Raise `NotFoundError` for a path with an empty part; the router has found the route before."""
    raise NotFoundError("A part of the path is empty.") from error


def reraise(error: Exception) -> None:
    """Leave an error to the router; without a handler, Powertools would log it with its words."""
    raise error


def describe_errors(errors: Sequence[Mapping[str, Any]]) -> str:
    """Say what pydantic found wrong, where, and with which value."""
    found = dict.fromkeys(map(describe_error, errors))
    return f"The request is wrong: {'; '.join(found)}."


def describe_error(error: Mapping[str, Any]) -> str:
    """Say one thing: `body.percent: Input should be less than 100, not 120`."""
    place = ".".join(map(str, error["loc"]))
    value = "" if error["type"] in ABSENT else f", not {repr(error['input'])[:MAX_SHOWN_VALUE]}"
    return f"{place}: {error['msg']}{value}"
