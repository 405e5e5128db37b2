"""Read what the gateway needs from template.yaml: functions with their limits, routes, and the GatewayResponses.

Only functions with a path in the API's document, or an event of `Type: Api`, `Schedule`, `CloudWatchLogs` or
`EventBridgeRule`, are read, since nothing else starts them here: queues and buckets exist only on AWS. Nested templates
add functions, but no routes. The task root is the outer template's folder, so a Handler has the same name as in the
checkout. This module starts nothing and matches no paths.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotlight.errors import InvalidInputError, UnsupportedError
from pilotlight.local import intrinsics
from pilotlight.local.intrinsics import UnresolvedValue, format_scalar
from pilotlight.local.schedule_expression import parse_schedule_expression

DEFAULT_MEMORY_MB = 128  # Lambda's
DEFAULT_TIMEOUT_S = 3  # Lambda's
IMPLICIT_STAGE = "Prod"  # SAM's, for an API that the template does not declare
ANY_METHOD = "X-AMAZON-APIGATEWAY-ANY-METHOD"  # OpenAPI's extension for it, in capitals
INTEGRATION, AUTHORIZER = "x-amazon-apigateway-integration", "x-amazon-apigateway-authorizer"
GATEWAY_RESPONSES = "x-amazon-apigateway-gateway-responses"
BINARY_MEDIA_TYPES = "x-amazon-apigateway-binary-media-types"
# Streaming, in the words of an event of type Api and of the gateway's own document.
SAM_STREAM, GATEWAY_STREAM, STREAM_ADDRESS = "RESPONSE_STREAM", "STREAM", "/response-streaming-invocations"
HEADER_SOURCE = "method.request.header."  # what stands before a header's name in an identity source
HEADER_PARAMETER = "gatewayresponse.header."  # what OpenAPI's form of a gateway response puts before a header's name


@dataclass(frozen=True)
class GatewayLimits:
    """The limits of API Gateway and Lambda: sizes in bytes, times in seconds; the defaults are AWS's."""

    body_bytes: int = 10 * 1024 * 1024  # API Gateway: a request's body
    event_bytes: int = 6 * 1024 * 1024  # Lambda: the event of a synchronous invocation, with base64
    answer_bytes: int = 6 * 1024 * 1024 + 100  # Lambda: what a handler returns, as JSON; 100 are Lambda's own margin
    integration_s: float = 29.0  # API Gateway: from the request to its answer, including the time in a queue
    stream_bytes: int = 200 * 1024 * 1024  # Lambda: a streamed answer
    stream_s: float = 900.0  # API Gateway: from the request to the end of a streamed answer
    stream_idle_s: float = 300.0  # API Gateway, regional: between two chunks of it
    init_s: float = 10.0  # Lambda: the init phase, before it is repeated under the function's Timeout
    watch_s: float = 0.05  # ours: how often memory and time of a busy environment are checked


@dataclass(frozen=True)
class FunctionSpec:
    """A handler and its limits; `environment` contains the variables whose values are known before a deploy."""

    logical_id: str
    handler: str
    memory_mb: int
    timeout_s: int
    environment: Mapping[str, str]
    python_path: tuple[Path, ...]  # in place of /var/task and /opt/python


@dataclass(frozen=True)
class ApiRoute:
    """One route of the API: `method` in capitals or ANY, `resource` as written, `function` by logical id."""

    method: str
    resource: str
    function: str
    streams: bool = False  # whether the answer is passed on while the function makes it


@dataclass(frozen=True)
class AuthorizerSpec:
    """An authorizer of the API: `function` by logical id, called before the routes of `resources`.

    An answer is valid for `ttl_s` seconds for requests whose `identity_headers`, in lower case, are the same; with 0
    each request is asked about. `pattern` is what the header of a TOKEN authorizer must match; of a REQUEST one it is
    None.
    """

    function: str
    resources: frozenset[str]
    pattern: str | None
    ttl_s: float
    identity_headers: tuple[str, ...] = ("authorization",)


@dataclass(frozen=True)
class Schedule:
    """One event of `Type: Schedule`: `function`, by logical id, is invoked every `every_s` seconds.

    With `at_s`, the first time is that many seconds past midnight UTC.
    """

    function: str
    every_s: float
    at_s: float | None = None


@dataclass(frozen=True)
class LogSubscription:
    """One event of `Type: CloudWatchLogs`: `function` gets the JSON lines with `field` in the log of `source`."""

    function: str
    source: str
    field: str


@dataclass(frozen=True)
class EventRule:
    """One event of `Type: EventBridgeRule`: `function` gets the events of the default bus that the pattern matches."""

    function: str
    pattern: Mapping[str, Any]


@dataclass(frozen=True)
class GatewayResponse:
    """An API's response to one kind of error; None keeps the default. `headers` are in lower case."""

    status: int | None
    body: str | None
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Stack:
    """The part of a template that can be served."""

    functions: Mapping[str, FunctionSpec]
    routes: tuple[ApiRoute, ...]
    stage: str
    gateway_responses: Mapping[str, GatewayResponse]
    binary_media_types: frozenset[str]
    root: Path
    schedules: tuple[Schedule, ...] = ()
    subscriptions: tuple[LogSubscription, ...] = ()
    rules: tuple[EventRule, ...] = ()
    authorizer: AuthorizerSpec | None = None


def load_stack(path: Path, parameters: Mapping[str, str] | None = None) -> Stack:
    """Load a template with these parameters; `InvalidInputError` explains what is wrong, where, and what to do."""
    path = path.resolve()
    return _Template(path, intrinsics.read_template(path, parameters)).build_stack()


@dataclass(frozen=True)
class _FunctionEvent:
    """An event of a function that can happen here, and its place in the template."""

    kind: str
    function: str
    properties: Mapping[str, Any]
    where: str


class _Template:
    """A template that is being read, with its path for error messages."""

    def __init__(self, path: Path, document: Mapping[str, Any], root: Path | None = None) -> None:
        self._path = path
        self._root = root or path.parent
        self._resources = self._require_mapping(document.get("Resources"), "Resources")
        self._globals = self._require_mapping(document.get("Globals") or {}, "Globals")

    def build_stack(self) -> Stack:
        events = self._list_events()
        nested = list(self._load_nested())
        api = self._get_api_properties()
        document = self._require_mapping(api.get("DefinitionBody") or {}, "DefinitionBody")
        declared = (self._build_route(event) for event in events if event.kind == "Api")
        routes = tuple(dict.fromkeys([*declared, *self._iter_document_routes(document)]))
        if not routes:
            raise self._build_error("Resources", "no function has an event of Type: Api; add one")
        authorizer = self._build_authorizer(document)
        started = {event.function for event in events} | {route.function for route in routes}
        names = [name for name in self._list_resources(intrinsics.FUNCTION_TYPE) if name in started]
        names += [authorizer.function] if authorizer else []
        return Stack(
            functions={name: self._build_function(name) for name in names}
            | {name: found for each in nested for name, found in each.build_functions().items()},
            routes=routes,
            authorizer=authorizer,
            schedules=tuple(self._build_schedule(event) for event in events if event.kind == "Schedule"),
            subscriptions=tuple(self._build_subscription(event) for event in events if event.kind == "CloudWatchLogs"),
            rules=tuple(rule for each in (self, *nested) for rule in each.build_rules()),
            stage=format_scalar(self._require_value(api.get("StageName", IMPLICIT_STAGE), "StageName of the API")),
            gateway_responses=self._build_gateway_responses(api, document),
            binary_media_types=frozenset(
                str(kind).replace("~1", "/")
                for place, name in ((api, "BinaryMediaTypes"), (document, BINARY_MEDIA_TYPES))
                for kind in self._require_list(place.get(name), name)
            ),
            root=self._path.parent,
        )

    def build_functions(self) -> dict[str, FunctionSpec]:
        """Build the functions that an event here starts, by logical id."""
        return {event.function: self._build_function(event.function) for event in self._list_events()}

    def build_rules(self) -> tuple[EventRule, ...]:
        """Build the rules of the bus's events."""
        return tuple(self._build_rule(event) for event in self._list_events() if event.kind == "EventBridgeRule")

    def _list_events(self) -> list[_FunctionEvent]:
        return [event for name in self._list_resources(intrinsics.FUNCTION_TYPE) for event in self._iter_events(name)]

    def _load_nested(self) -> Iterator["_Template"]:
        """Load the nested templates on this disk, with the parameters that are known."""
        for name in self._list_resources("AWS::Serverless::Application"):
            location = self._get_properties(name).get("Location")
            if isinstance(location, str) and "://" not in location:
                path = self._path.parent / location
                parameters = self._require_mapping(
                    self._get_properties(name).get("Parameters") or {}, f"Parameters of {name}"
                )
                known = {key: value for key, value in parameters.items() if not isinstance(value, UnresolvedValue)}
                yield _Template(path, intrinsics.read_template(path, known), self._root)

    def _list_resources(self, kind: str) -> list[str]:
        return [
            name
            for name, resource in self._resources.items()
            if self._require_mapping(resource, name).get("Type") == kind
        ]

    def _get_properties(self, name: str) -> dict[str, Any]:
        return self._require_mapping(self._resources[name].get("Properties") or {}, f"Properties of {name}")

    def _get_api_properties(self) -> dict[str, Any]:
        """Return the properties of the only API, with those of Globals as defaults."""
        names = self._list_resources("AWS::Serverless::Api")
        if len(names) > 1:
            raise UnsupportedError(f"{self._path} has the APIs {', '.join(names)}; the local gateway serves one.")
        shared = self._require_mapping(self._globals.get("Api") or {}, "Globals.Api")
        return {**shared, **(self._get_properties(names[0]) if names else {})}

    def _build_authorizer(self, document: Mapping[str, Any]) -> AuthorizerSpec | None:
        """Build the authorizer from the security scheme that has one, with the paths that require it."""
        components = self._require_mapping(document.get("components") or {}, "components")
        schemes = self._require_mapping(components.get("securitySchemes") or {}, "securitySchemes")
        for name, scheme in schemes.items():
            if found := self._require_mapping(scheme, name).get(AUTHORIZER):
                found = self._require_mapping(found, name)
                paths = self._require_mapping(document.get("paths") or {}, "paths")
                return AuthorizerSpec(
                    self._find_function(found, "authorizerUri", name),
                    frozenset(path for path, item in paths.items() if self._requires_scheme(item, path, name)),
                    None if found.get("type") == "request" else str(found.get("identityValidationExpression", "")),
                    self._require_whole_number(found.get("authorizerResultTtlInSeconds", 300), f"TTL of {name}"),
                    self._list_identity_headers(found, name),
                )
        return None

    def _list_identity_headers(self, authorizer: Mapping[str, Any], name: str) -> tuple[str, ...]:
        """List the headers by which answers are cached; a TOKEN authorizer has the one of its security scheme."""
        if authorizer.get("type") != "request":
            return ("authorization",)
        sources = [source.strip() for source in str(authorizer.get("identitySource") or "").split(",") if source]
        if strange := [source for source in sources if not source.startswith(HEADER_SOURCE)]:
            raise UnsupportedError(f"{self._path}: {name}: the identity source {strange[0]!r} is no header.")
        return tuple(source.removeprefix(HEADER_SOURCE).lower() for source in sources)

    def _find_function(self, node: Mapping[str, Any], key: str, where: str) -> str:
        """Find the logical id of the function in an address of Lambda."""
        uri = node.get(key)
        function = re.search(r"functions/\$?\{?(\w+)", uri.text if isinstance(uri, UnresolvedValue) else str(uri))
        if function is None or function[1] not in self._resources:
            raise self._build_error(where, f"{key} is {uri!r}, which names no function of this template")
        return function[1]

    def _requires_scheme(self, item: object, path: str, scheme: str) -> bool:
        """Return whether a method of a path requires a security scheme."""
        methods = self._require_mapping(item, path).values()
        needs = [need for method in methods if isinstance(method, dict) for need in method.get("security") or ()]
        return any(scheme in need for need in needs)

    def _build_gateway_responses(
        self, api: Mapping[str, Any], document: Mapping[str, Any]
    ) -> dict[str, GatewayResponse]:
        """Build the GatewayResponses of the API's property and of its document."""
        written = self._require_mapping(document.get(GATEWAY_RESPONSES) or {}, GATEWAY_RESPONSES)
        responses = {kind: self._translate_gateway_response(kind, spec) for kind, spec in written.items()}
        responses |= self._require_mapping(api.get("GatewayResponses") or {}, "GatewayResponses")
        return {kind: self._build_gateway_response(kind, spec) for kind, spec in responses.items()}

    def _translate_gateway_response(self, kind: str, spec: object) -> dict[str, Any]:
        spec = self._require_mapping(spec, f"{GATEWAY_RESPONSES}.{kind}")
        parameters = self._require_mapping(spec.get("responseParameters") or {}, f"responseParameters of {kind}")
        return {
            "StatusCode": spec.get("statusCode"),
            "ResponseTemplates": spec.get("responseTemplates"),
            "ResponseParameters": {
                "Headers": {
                    name.removeprefix(HEADER_PARAMETER): value
                    for name, value in parameters.items()
                    if str(name).startswith(HEADER_PARAMETER)
                }
            },
        }

    def _build_gateway_response(self, kind: str, spec: object) -> GatewayResponse:
        spec = self._require_mapping(spec, f"GatewayResponses.{kind}")
        bodies = self._require_mapping(spec.get("ResponseTemplates") or {}, f"ResponseTemplates of {kind}")
        status, body = spec.get("StatusCode"), bodies.get("application/json")
        if not isinstance(body, str | None):
            raise self._build_error(
                f"ResponseTemplates of {kind}", f"application/json is {body!r}, not a text; quote it"
            )
        parameters = self._require_mapping(spec.get("ResponseParameters") or {}, f"ResponseParameters of {kind}")
        headers = self._require_mapping(parameters.get("Headers") or {}, f"Headers of {kind}")
        return GatewayResponse(
            None if status is None else self._require_whole_number(status, f"StatusCode of {kind}"),
            body,
            tuple((name.lower(), str(value).strip("'")) for name, value in headers.items()),
        )

    def _iter_events(self, name: str) -> Iterator[_FunctionEvent]:
        """Yield the events of a function that can happen here."""
        events = self._require_mapping(self._get_properties(name).get("Events") or {}, f"Events of {name}")
        for event_name, event in events.items():
            where = f"event {event_name} of {name}"
            event = self._require_mapping(event, where)
            if (kind := event.get("Type")) in ("Api", "Schedule", "CloudWatchLogs", "EventBridgeRule"):
                yield _FunctionEvent(kind, name, self._require_mapping(event.get("Properties"), where), where)

    def _build_route(self, event: _FunctionEvent) -> ApiRoute:
        resource = self._require_value(event.properties.get("Path"), f"Path of {event.where}")
        method = self._require_value(event.properties.get("Method"), f"Method of {event.where}")
        if not (isinstance(resource, str) and resource.startswith("/") and isinstance(method, str)):
            raise self._build_error(
                event.where, f"Path {resource!r} and Method {method!r} are no route; write /x and GET"
            )
        streams = event.properties.get("ResponseTransferMode") == SAM_STREAM
        return ApiRoute(method.upper().replace(ANY_METHOD, "ANY"), resource, event.function, streams)

    def _iter_document_routes(self, document: Mapping[str, Any]) -> Iterator[ApiRoute]:
        """Iterate over the methods of the API's document that a function answers."""
        for resource, item in self._require_mapping(document.get("paths") or {}, "paths").items():
            for verb, method in self._require_mapping(item, resource).items():
                integration = method.get(INTEGRATION) if isinstance(method, dict) else None
                if isinstance(integration, dict) and integration.get("type") == "aws_proxy":
                    function = self._find_function(integration, "uri", f"{verb} {resource}")
                    streams = self._is_streamed(integration, f"{verb} {resource}")
                    yield ApiRoute(str(verb).upper().replace(ANY_METHOD, "ANY"), resource, function, streams)

    def _is_streamed(self, integration: Mapping[str, Any], where: str) -> bool:
        """Return whether an integration streams: by its mode, to which the function's address must belong."""
        uri = integration.get("uri")
        has_uri = str(uri.text if isinstance(uri, UnresolvedValue) else uri).endswith(STREAM_ADDRESS)
        if has_uri != (integration.get("responseTransferMode") == GATEWAY_STREAM):
            raise self._build_error(where, f"responseTransferMode {GATEWAY_STREAM} and {STREAM_ADDRESS} go together")
        return has_uri

    def _build_schedule(self, event: _FunctionEvent) -> Schedule:
        words = str(self._require_value(event.properties.get("Schedule"), f"Schedule of {event.where}"))
        try:
            every_s, at_s = parse_schedule_expression(words)
        except UnsupportedError as exc:
            raise UnsupportedError(f"{self._path}: {event.where}: {exc}") from exc
        return Schedule(event.function, every_s, at_s)

    def _build_rule(self, event: _FunctionEvent) -> EventRule:
        """Build a rule without the resources that distinguish stacks on AWS: this gateway's bus has one stack."""
        pattern = self._require_mapping(event.properties.get("Pattern"), f"Pattern of {event.where}")
        resources = self._require_list(pattern.get("resources"), f"resources of {event.where}")
        if any(isinstance(resource, UnresolvedValue) for resource in resources):
            pattern = {key: value for key, value in pattern.items() if key != "resources"}
        return EventRule(event.function, pattern)

    def _build_subscription(self, event: _FunctionEvent) -> LogSubscription:
        """Build a subscription; the name of the log group contains the source function's name."""
        group = event.properties.get("LogGroupName")
        if isinstance(group, UnresolvedValue) and group.text.startswith("!Ref "):
            group = self._get_properties(group.text.removeprefix("!Ref ")).get("LogGroupName")
        source = re.search(
            r"/aws/lambda/(?:\$\{)?(\w+)\}?", group.text if isinstance(group, UnresolvedValue) else str(group)
        )
        pattern = re.fullmatch(r"\{ *\$\.(\w+) *= *\* *\}", str(event.properties.get("FilterPattern")))
        if source is None or pattern is None:
            raise UnsupportedError(
                f"{self._path}: {event.where}: what is understood here is the log group of a function of this "
                "template, /aws/lambda/${Name}, and a FilterPattern such as { $.Field = * }."
            )
        return LogSubscription(event.function, source[1], pattern[1])

    def _build_function(self, name: str) -> FunctionSpec:
        shared, own = self._get_function_globals(name), self._get_properties(name)
        merged = {**shared, **own}
        handler = self._require_value(merged.get("Handler"), f"Handler of {name}")
        if not isinstance(handler, str):
            raise self._build_error(name, f"Handler is {handler!r}; write Handler: folder.module.function")
        return FunctionSpec(
            logical_id=name,
            handler=handler,
            memory_mb=self._require_whole_number(merged.get("MemorySize", DEFAULT_MEMORY_MB), f"MemorySize of {name}"),
            timeout_s=self._require_whole_number(merged.get("Timeout", DEFAULT_TIMEOUT_S), f"Timeout of {name}"),
            environment=self._merge_variables(name, shared, own) | self._build_logging_variables(merged),
            python_path=(self._root, *self._find_layers(name, shared, own)),
        )

    def _get_function_globals(self, name: str) -> dict[str, Any]:
        """Return the properties that a function inherits from Globals."""
        shared = self._require_mapping(self._globals.get("Function") or {}, "Globals.Function")
        ignored = self._resources[name].get("IgnoreGlobals")
        if ignored == "*":
            return {}
        names = self._require_list(ignored, f"IgnoreGlobals of {name}")
        return {key: value for key, value in shared.items() if key not in names}

    def _merge_variables(self, name: str, *levels: Mapping[str, Any]) -> dict[str, str]:
        """Merge the variables of Globals and of the function, without those that depend on real resources."""
        merged: dict[str, Any] = {}
        for level in levels:
            where = f"Environment of {name}"
            merged |= self._require_mapping(
                self._require_mapping(level.get("Environment") or {}, where).get("Variables") or {}, where
            )
        return {key: format_scalar(value) for key, value in merged.items() if not isinstance(value, UnresolvedValue)}

    def _build_logging_variables(self, function: Mapping[str, Any]) -> dict[str, str]:
        """Build the variables by which Lambda passes `LoggingConfig` to its runtime client: JSON lines, not text."""
        config = self._require_mapping(function.get("LoggingConfig") or {}, "LoggingConfig")
        names = {"LogFormat": "AWS_LAMBDA_LOG_FORMAT", "ApplicationLogLevel": "AWS_LAMBDA_LOG_LEVEL"}
        return {names[key]: format_scalar(value) for key, value in config.items() if key in names}

    def _find_layers(self, function: str, *levels: Mapping[str, Any]) -> Iterator[Path]:
        """Yield the folders of the layers that this template builds; a layer by ARN does not exist here."""
        references = [
            item for level in levels for item in self._require_list(level.get("Layers"), f"Layers of {function}")
        ]
        known = {f"!Ref {name}": name for name in self._list_resources("AWS::Serverless::LayerVersion")}
        for reference in references:
            name = known.get(reference.text) if isinstance(reference, UnresolvedValue) else None
            if name is not None:
                content = self._require_value(self._get_properties(name).get("ContentUri"), f"ContentUri of {name}")
                yield self._path.parent / str(content)

    def _require_mapping(self, node: object, where: str) -> dict[str, Any]:
        if not isinstance(node, dict):
            raise self._build_error(where, f"a mapping belongs here, not {node!r}")
        return node

    def _require_list(self, node: object, where: str) -> list[Any]:
        if not isinstance(node, list | None):
            raise self._build_error(where, f"a list belongs here, not {node!r}")
        return node or []

    def _require_value(self, value: object, where: str) -> object:
        if isinstance(value, UnresolvedValue):
            raise self._build_error(
                where, f"{value.text} is known only on AWS; write a value, or a parameter with a Default"
            )
        if value is None:
            raise self._build_error(where, "it is missing")
        return value

    def _require_whole_number(self, value: object, where: str) -> int:
        try:
            return int(format_scalar(self._require_value(value, where)))
        except ValueError as exc:
            raise self._build_error(where, f"{value!r} is not a whole number") from exc

    def _build_error(self, where: str, problem: str) -> InvalidInputError:
        return InvalidInputError(f"{self._path}: {where}: {problem}.")
