"""The router of the control plane: endpoints declare what they take, and Powertools validates it before they run.

A parameter of an endpoint is a part of the path by its name, a query or header value by its annotation, or the JSON
body where its type is a dataclass; a `Request` gives the whole request. pydantic, which validates them, and Powertools
take 0.1 s of CPU to import, which inference does not spend (infra/decisions/0061). Errors, costs and the usage log are
the router's.

What a caller sends is bounded before it is looked at: the bytes of a body, its nesting, the items of each list in it.
An integer in the query has one spelling, so that what is compared with a limit is what was sent.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from pydantic import AfterValidator, BeforeValidator, TypeAdapter, ValidationError

from pilotlight.api.call_cost import CostMeter
from pilotlight.api.http import JSON, Request, Response
from pilotlight.api.router import Endpoint, ErrorFormatter, Router
from pilotlight.api.schemas.registry import parse_path_version
from pilotlight.api.schemas.request_body import Body
from pilotlight.api.text_encoding import convert_to_utf8
from pilotlight.api.usage_log import UsageLog
from pilotlight.contracts.names import check_alias, check_name
from pilotlight.errors import InvalidInputError, NotFoundError, TooLargeError

TypedEndpoint = Callable[..., Response]
TypedRoutes = Mapping[str, Mapping[str, TypedEndpoint]]  # resource -> verb -> endpoint
MAX_SHOWN_VALUE = 60  # characters of a wrong value in an error
MAX_SHOWN_ERRORS = 10  # in the error of a request that has more
MAX_JSON_BYTES = 1_000_000  # of a body; the longest that an endpoint needs is a list of 10,000 parts, 430 kB
MAX_JSON_DEPTH = 32  # objects and lists within each other
MAX_JSON_ITEMS = 20_000  # of a list, or keys of an object
PLAIN_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")
UNION_TAGS = frozenset({"str", "int", "float", "bool"})  # as pydantic names the alternatives of a field
FIELD_NAME = re.compile(r"[A-Za-z_]\w*")
# Instead of pydantic's messages where those contain a class name.
MESSAGES = {"dataclass_type": "Input should be an object"}
# Errors whose value is the whole object.
ABSENT = frozenset({"missing", "unexpected_keyword_argument"})

# Parts of paths, with what they should be for errors.
ModelName = Annotated[str, AfterValidator(lambda name: check_name(name, "model name"))]
RunName = Annotated[str, AfterValidator(lambda name: check_name(name, "run's name"))]
AliasName = Annotated[str, AfterValidator(check_alias)]
PathVersion = Annotated[int, BeforeValidator(parse_path_version)]


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
        self._resolver = APIGatewayRestResolver(enable_validation=True, json_body_deserializer=self._read_body)
        self._resolver.exception_handler(RequestValidationError)(self._raise_invalid_input)
        self._resolver.not_found(raise_not_found)
        self._resolver.exception_handler(Exception)(reraise)
        for resource, verbs in routes.items():
            for verb, endpoint in verbs.items():
                rule = resource.replace("{", "<").replace("}", ">")
                self._resolver.route(rule, verb)(self._adapt(endpoint))

    def find_endpoint(self, request: Request) -> Endpoint:
        """Check the route and the verb; return what validates the request and calls its endpoint."""
        super().find_endpoint(request)
        return self._resolve

    def _resolve(self, request: Request) -> Response:
        self._request = request  # Lambda gives an environment one request at a time
        check_integers(request.query, get_type_hints(super().find_endpoint(request)))
        no_context: Any = None  # Powertools passes it on, and nothing reads it
        return from_proxy_response(self._resolver.resolve(to_proxy_event(request), no_context))

    def _read_body(self, placeholder: str) -> dict[str, Any]:
        """Decode the request's body, which Powertools asks for only where an endpoint takes one."""
        return parse_json(self._request.body)

    def _raise_invalid_input(self, error: RequestValidationError) -> None:
        """Raise `InvalidInputError` with a sentence that describes every error."""
        body_type = get_type_hints(super().find_endpoint(self._request)).get("body")
        raise InvalidInputError(describe_errors(error.errors(), body_type)) from None

    def _adapt(self, endpoint: TypedEndpoint) -> Callable[..., ResolverResponse[Any]]:
        """Adapt an endpoint to Powertools: a function with its parameters but the request, and Powertools' response."""
        hints = get_type_hints(endpoint, include_extras=True)
        parameters = [
            parameter.replace(annotation=hints[name]) for name, parameter in signature(endpoint).parameters.items()
        ]
        with_request = [parameter.name for parameter in parameters if parameter.annotation is Request]
        declared = Signature([each for each in parameters if each.name not in with_request])

        @wraps(endpoint)
        def call(**arguments: object) -> ResolverResponse[Any]:
            response = endpoint(**arguments, **dict.fromkeys(with_request, self._request))
            body = response.body if response.binary else response.body.decode()
            return ResolverResponse(response.status, None, body, dict(response.headers))

        call.__signature__ = declared  # type: ignore[attr-defined]  # `inspect` reads it; typeshed does not have it
        return call


def to_proxy_event(request: Request) -> dict[str, Any]:
    """Build the event that Powertools resolves.

    Its path is built from the route and its parameters, since the gateway's own begins with a base path if the domain
    has one. HEAD becomes GET, and the body is JSON whatever its declared type, since curl declares a form; `_read_body`
    decodes the body itself, so that this one is a placeholder.
    """
    values = {name: quote(value, safe="") for name, value in request.parameters.items()}
    return {
        "path": request.resource.format_map(values),
        "httpMethod": "GET" if request.method == "HEAD" else request.method,
        "headers": {**request.headers, "content-type": JSON},
        "queryStringParameters": dict(request.query),
        "body": "{}",
        "requestContext": {"stage": ""},
    }


def from_proxy_response(event: Mapping[str, Any]) -> Response:
    """Read the response that Powertools built for the gateway."""
    headers = {name: ", ".join(values) for name, values in event["multiValueHeaders"].items()}
    if event["isBase64Encoded"]:
        return Response(event["statusCode"], pybase64.b64decode(event["body"]), headers, binary=True)
    return Response(event["statusCode"], event["body"].encode(), headers)


def check_integers(query: Mapping[str, str], hints: Mapping[str, object]) -> None:
    """Check the integers in a query: `limit` where an endpoint has a parameter `limit` of that type."""
    for name, value in query.items():
        if hints.get(name) is int:
            check_integer(name, value)


def check_integer(name: str, value: str) -> None:
    """Check that an integer is written as JSON writes it: pydantic takes 1_000, " 7", 1.0 and 0000001 too."""
    if PLAIN_INTEGER.fullmatch(value) is None:
        raise InvalidInputError(
            f"The request is wrong: {name}={value[:MAX_SHOWN_VALUE]!r}: Input should be a valid integer, of at most 18 "
            "digits, without leading zeros."
        )


def parse_json(body: bytes) -> dict[str, Any]:
    """Decode a body, an empty one as `{}`; raise `InvalidInputError` for one that is not a JSON object.

    One with more bytes, levels or items than any endpoint takes raises `TooLargeError`.
    """
    if len(body) > MAX_JSON_BYTES:
        raise TooLargeError(f"The body has {len(body):,} bytes; at most {MAX_JSON_BYTES:,} are taken.")
    try:
        content = msgspec.json.decode(convert_to_utf8(body, "") or b"{}")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidInputError(f"The body is not JSON: {exc}.") from exc
    if not isinstance(content, dict):  # Powertools would take the first element of an array
        raise InvalidInputError(f"The body is not a JSON object: {body[:MAX_SHOWN_VALUE].decode(errors='replace')}.")
    check_json_size(content)
    return content


def check_json_size(content: object) -> None:
    """Check how deep a body is nested, and how many items each list and each object in it has."""
    level: list[object] = [content]
    for _ in range(MAX_JSON_DEPTH):
        level = [child for value in level for child in iterate_children(value)]
        if not level:
            return
    raise TooLargeError(f"The body is nested more than {MAX_JSON_DEPTH} levels deep.")


def iterate_children(value: object) -> Iterable[object]:
    """Return the items of a list, or the values of an object; raise `TooLargeError` for too many."""
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if len(children) > MAX_JSON_ITEMS:
        raise TooLargeError(f"A list in the body has {len(children):,} items; at most {MAX_JSON_ITEMS:,} are taken.")
    return children


def raise_not_found(error: Exception) -> None:
    """Raise `NotFoundError` for a path with an empty part; other paths have a route."""
    raise NotFoundError("A part of the path is empty.") from error


def reraise(error: Exception) -> None:
    """Raise an error again for the router; without this handler, Powertools would log it with its text."""
    raise error


def validate_body(content: object, body_type: type[Body]) -> Body:
    """Validate a body that an endpoint has decoded itself; raise `InvalidInputError` for what is wrong with it."""
    try:
        return TypeAdapter(body_type).validate_python(content)
    except ValidationError as exc:
        errors = [{**error, "loc": ("body", *error["loc"])} for error in exc.errors()]
        raise InvalidInputError(describe_errors(errors, body_type)) from None


def describe_errors(errors: Sequence[Mapping[str, Any]], body_type: object) -> str:
    """Describe pydantic's errors with their places and values; if all are of the body, begin with its complaint."""
    found = "; ".join(dict.fromkeys(map(describe_error, errors[:MAX_SHOWN_ERRORS])))
    if len(errors) > MAX_SHOWN_ERRORS:
        found += f"; and {len(errors) - MAX_SHOWN_ERRORS:,} more"
    if all(error["loc"][0] == "body" for error in errors):
        return f"The body {getattr(body_type, 'complaint', 'is wrong')}: {found}."
    return f"The request is wrong: {found}."


def describe_error(error: Mapping[str, Any]) -> str:
    """Describe one error: `$.percent: Input should be less than 100, not 120`, or `newest=0: Input should be ...`."""
    source, *parts = error["loc"]
    value = "" if error["type"] in ABSENT else repr(error["input"])[:MAX_SHOWN_VALUE]
    message = MESSAGES.get(error["type"], error["msg"])
    if source != "body":
        return f"{'.'.join(map(str, parts))}={value}: {message}"
    names = [part for part in parts if isinstance(part, int) or (FIELD_NAME.fullmatch(part) and part not in UNION_TAGS)]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in names)
    return f"${place}: {message}{value and f', not {value}'}"
