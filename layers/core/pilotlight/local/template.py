"""What the gateway needs of template.yaml: functions with their limits, routes, and how the API words its errors.

Only functions with an event of `Type: Api`, `Schedule`, `CloudWatchLogs` or `EventBridgeRule` are read, since nothing
else starts them here: queues and buckets are AWS's. Templates that this one nests give functions, but no routes. The
task root is the outer template's folder, so a Handler is named as it is in the checkout. This module starts nothing and
matches no paths.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotlight.errors import InvalidInputError, UnsupportedError
from pilotlight.local import intrinsics
from pilotlight.local.intrinsics import Unknown, scalar

DEFAULT_MEMORY_MB = 128  # Lambda's
DEFAULT_TIMEOUT_S = 3  # Lambda's
UNITS_S = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
IMPLICIT_STAGE = "Prod"  # SAM's, for an API that the template does not declare


@dataclass(frozen=True)
class Function:
    """A handler and its limits; `environment` holds the variables whose values are known before a deploy."""

    logical_id: str
    handler: str
    memory_mb: int
    timeout_s: int
    environment: Mapping[str, str]
    python_path: tuple[Path, ...]  # what stands for /var/task and /opt/python


@dataclass(frozen=True)
class Route:
    """One event of `Type: Api`: `method` in capitals or ANY, `resource` as written, `function` by logical id."""

    method: str
    resource: str
    function: str


@dataclass(frozen=True)
class Authorizer:
    """A TOKEN authorizer of the API: `function` by logical id, asked before the routes whose resources are listed.

    `pattern` is what the Authorization header must look like, and an answer holds for `ttl_s` seconds.
    """

    function: str
    resources: frozenset[str]
    pattern: str
    ttl_s: float


@dataclass(frozen=True)
class Schedule:
    """One event of `Type: Schedule`: `function`, by logical id, is invoked every so many seconds.

    With `at_s`, for the first time at so many seconds past midnight UTC.
    """

    function: str
    every_s: float
    at_s: float | None = None


@dataclass(frozen=True)
class Subscription:
    """One event of `Type: CloudWatchLogs`: `function` gets the JSON lines with `field` in the log of `source`."""

    function: str
    source: str
    field: str


@dataclass(frozen=True)
class Rule:
    """One event of `Type: EventBridgeRule`: `function` gets the events of the default bus that the pattern matches."""

    function: str
    pattern: Mapping[str, Any]


@dataclass(frozen=True)
class GatewayResponse:
    """How an API words one kind of error; None leaves the default. `headers` are in lower case."""

    status: int | None
    body: str | None
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Stack:
    """The part of a template that can be served."""

    functions: Mapping[str, Function]
    routes: tuple[Route, ...]
    stage: str
    gateway_responses: Mapping[str, GatewayResponse]
    binary_media_types: frozenset[str]
    root: Path
    schedules: tuple[Schedule, ...] = ()
    subscriptions: tuple[Subscription, ...] = ()
    rules: tuple[Rule, ...] = ()
    authorizer: Authorizer | None = None


def load(path: Path, parameters: Mapping[str, str] | None = None) -> Stack:
    """Read a template with these parameters; `InvalidInputError` says what is wrong with it, where, and what to do."""
    path = path.resolve()
    return _Template(path, intrinsics.read(path, parameters)).stack()


@dataclass(frozen=True)
class _Event:
    """An event of a function that can happen here, and where it stands in the template."""

    kind: str
    function: str
    properties: Mapping[str, Any]
    where: str


class _Template:
    """A template that is being read; it keeps the path for its error messages."""

    def __init__(self, path: Path, document: Mapping[str, Any], root: Path | None = None) -> None:
        self._path = path
        self._root = root or path.parent
        self._resources = self._mapping(document.get("Resources"), "Resources")
        self._globals = self._mapping(document.get("Globals") or {}, "Globals")

    def stack(self) -> Stack:
        events = self._all_events()
        nested = list(self._nested())
        routes = tuple(self._route(event) for event in events if event.kind == "Api")
        if not routes:
            raise self._wrong("Resources", "no function has an event of Type: Api; add one")
        api = self._api()
        authorizer = self._authorizer(self._mapping(api.get("DefinitionBody") or {}, "DefinitionBody"))
        names = [event.function for event in events] + ([authorizer.function] if authorizer else [])
        return Stack(
            functions={name: self._function(name) for name in names}
            | {name: found for each in nested for name, found in each.functions().items()},
            routes=routes,
            authorizer=authorizer,
            schedules=tuple(self._schedule(event) for event in events if event.kind == "Schedule"),
            subscriptions=tuple(self._subscription(event) for event in events if event.kind == "CloudWatchLogs"),
            rules=tuple(rule for each in (self, *nested) for rule in each.rules()),
            stage=scalar(self._known(api.get("StageName", IMPLICIT_STAGE), "StageName of the API")),
            gateway_responses=self._gateway_responses(api),
            binary_media_types=frozenset(
                str(kind).replace("~1", "/") for kind in self._list(api.get("BinaryMediaTypes"), "BinaryMediaTypes")
            ),
            root=self._path.parent,
        )

    def functions(self) -> dict[str, Function]:
        """The functions that something here starts, by logical id."""
        return {event.function: self._function(event.function) for event in self._all_events()}

    def rules(self) -> tuple[Rule, ...]:
        """Who is told of which events of the bus."""
        return tuple(self._rule(event) for event in self._all_events() if event.kind == "EventBridgeRule")

    def _all_events(self) -> list[_Event]:
        return [event for name in self._of_type("AWS::Serverless::Function") for event in self._events(name)]

    def _nested(self) -> Iterator["_Template"]:
        """The templates that lie on this disk, with the parameters that they are given."""
        for name in self._of_type("AWS::Serverless::Application"):
            location = self._properties(name).get("Location")
            if isinstance(location, str) and "://" not in location:
                path = self._path.parent / location
                given = self._mapping(self._properties(name).get("Parameters") or {}, f"Parameters of {name}")
                known = {key: value for key, value in given.items() if not isinstance(value, Unknown)}
                yield _Template(path, intrinsics.read(path, known), self._root)

    def _of_type(self, kind: str) -> list[str]:
        return [name for name, resource in self._resources.items() if self._mapping(resource, name).get("Type") == kind]

    def _properties(self, name: str) -> dict[str, Any]:
        return self._mapping(self._resources[name].get("Properties") or {}, f"Properties of {name}")

    def _api(self) -> dict[str, Any]:
        """The properties of the one API, those of Globals below them."""
        names = self._of_type("AWS::Serverless::Api")
        if len(names) > 1:
            raise UnsupportedError(f"{self._path} has the APIs {', '.join(names)}; the local gateway serves one.")
        shared = self._mapping(self._globals.get("Api") or {}, "Globals.Api")
        return {**shared, **(self._properties(names[0]) if names else {})}

    def _authorizer(self, document: Mapping[str, Any]) -> Authorizer | None:
        """The one of the security schemes that has an authorizer, and the paths that ask for it."""
        components = self._mapping(document.get("components") or {}, "components")
        schemes = self._mapping(components.get("securitySchemes") or {}, "securitySchemes")
        for name, scheme in schemes.items():
            if found := self._mapping(scheme, name).get("x-amazon-apigateway-authorizer"):
                uri = self._mapping(found, name).get("authorizerUri")
                function = re.search(r"functions/\$?\{?(\w+)", uri.text if isinstance(uri, Unknown) else str(uri))
                if function is None or function[1] not in self._resources:
                    raise self._wrong(name, f"authorizerUri is {uri!r}, which names no function of this template")
                paths = self._mapping(document.get("paths") or {}, "paths")
                asked = frozenset(path for path, item in paths.items() if self._asks(item, path, name))
                ttl_s = self._whole(found.get("authorizerResultTtlInSeconds", 300), f"TTL of {name}")
                return Authorizer(function[1], asked, str(found.get("identityValidationExpression", "")), ttl_s)
        return None

    def _asks(self, item: object, path: str, scheme: str) -> bool:
        """Whether a method of a path asks for a security scheme."""
        methods = self._mapping(item, path).values()
        needs = [need for method in methods if isinstance(method, dict) for need in method.get("security") or ()]
        return any(scheme in need for need in needs)

    def _gateway_responses(self, api: Mapping[str, Any]) -> dict[str, GatewayResponse]:
        responses = self._mapping(api.get("GatewayResponses") or {}, "GatewayResponses")
        return {kind: self._gateway_response(kind, spec) for kind, spec in responses.items()}

    def _gateway_response(self, kind: str, spec: object) -> GatewayResponse:
        spec = self._mapping(spec, f"GatewayResponses.{kind}")
        bodies = self._mapping(spec.get("ResponseTemplates") or {}, f"ResponseTemplates of {kind}")
        status, body = spec.get("StatusCode"), bodies.get("application/json")
        if not isinstance(body, str | None):
            raise self._wrong(f"ResponseTemplates of {kind}", f"application/json is {body!r}, not a text; quote it")
        parameters = self._mapping(spec.get("ResponseParameters") or {}, f"ResponseParameters of {kind}")
        headers = self._mapping(parameters.get("Headers") or {}, f"Headers of {kind}")
        return GatewayResponse(
            None if status is None else self._whole(status, f"StatusCode of {kind}"),
            body,
            tuple((name.lower(), str(value).strip("'")) for name, value in headers.items()),
        )

    def _events(self, name: str) -> Iterator[_Event]:
        """The events of a function that can happen here."""
        events = self._mapping(self._properties(name).get("Events") or {}, f"Events of {name}")
        for event_name, event in events.items():
            where = f"event {event_name} of {name}"
            event = self._mapping(event, where)
            if (kind := event.get("Type")) in ("Api", "Schedule", "CloudWatchLogs", "EventBridgeRule"):
                yield _Event(kind, name, self._mapping(event.get("Properties"), where), where)

    def _route(self, event: _Event) -> Route:
        resource = self._known(event.properties.get("Path"), f"Path of {event.where}")
        method = self._known(event.properties.get("Method"), f"Method of {event.where}")
        if not (isinstance(resource, str) and resource.startswith("/") and isinstance(method, str)):
            raise self._wrong(event.where, f"Path {resource!r} and Method {method!r} are no route; write /x and GET")
        return Route(method.upper().replace("X-AMAZON-APIGATEWAY-ANY-METHOD", "ANY"), resource, event.function)

    def _schedule(self, event: _Event) -> Schedule:
        words = str(self._known(event.properties.get("Schedule"), f"Schedule of {event.where}"))
        daily = re.fullmatch(r"cron\((\d+) (\d+) \* \* \? \*\)", words)
        if daily is not None:
            return Schedule(event.function, UNITS_S["day"], 60 * int(daily[1]) + 3600 * int(daily[2]))
        found = re.fullmatch(r"rate\((\d+) (second|minute|hour|day)s?\)", words)
        if found is None:
            raise UnsupportedError(
                f"{self._path}: {event.where}: {words!r} is not run here; rate(5 minutes) is, and cron(15 2 * * ? *), "
                "every day at 02:15."
            )
        return Schedule(event.function, int(found[1]) * UNITS_S[found[2]])

    def _rule(self, event: _Event) -> Rule:
        return Rule(event.function, self._mapping(event.properties.get("Pattern"), f"Pattern of {event.where}"))

    def _subscription(self, event: _Event) -> Subscription:
        """The function whose log it is stands in the name of the log group."""
        group = event.properties.get("LogGroupName")
        if isinstance(group, Unknown) and group.text.startswith("!Ref "):
            group = self._properties(group.text.removeprefix("!Ref ")).get("LogGroupName")
        source = re.search(r"/aws/lambda/(?:\$\{)?(\w+)\}?", group.text if isinstance(group, Unknown) else str(group))
        pattern = re.fullmatch(r"\{ *\$\.(\w+) *= *\* *\}", str(event.properties.get("FilterPattern")))
        if source is None or pattern is None:
            raise UnsupportedError(
                f"{self._path}: {event.where}: what is understood here is the log group of a function of this "
                "template, /aws/lambda/${Name}, and a FilterPattern such as { $.Field = * }."
            )
        return Subscription(event.function, source[1], pattern[1])

    def _function(self, name: str) -> Function:
        shared = self._mapping(self._globals.get("Function") or {}, "Globals.Function")
        own = self._properties(name)
        merged = {**shared, **own}
        handler = self._known(merged.get("Handler"), f"Handler of {name}")
        if not isinstance(handler, str):
            raise self._wrong(name, f"Handler is {handler!r}; write Handler: folder.module.function")
        return Function(
            logical_id=name,
            handler=handler,
            memory_mb=self._whole(merged.get("MemorySize", DEFAULT_MEMORY_MB), f"MemorySize of {name}"),
            timeout_s=self._whole(merged.get("Timeout", DEFAULT_TIMEOUT_S), f"Timeout of {name}"),
            environment=self._variables(name, shared, own) | self._logging(merged),
            python_path=(self._root, *self._layers(name, shared, own)),
        )

    def _variables(self, name: str, *levels: Mapping[str, Any]) -> dict[str, str]:
        """The variables of Globals and of the function, without those that depend on real resources."""
        merged: dict[str, Any] = {}
        for level in levels:
            where = f"Environment of {name}"
            merged |= self._mapping(self._mapping(level.get("Environment") or {}, where).get("Variables") or {}, where)
        return {key: scalar(value) for key, value in merged.items() if not isinstance(value, Unknown)}

    def _logging(self, function: Mapping[str, Any]) -> dict[str, str]:
        """What Lambda tells its runtime client about `LoggingConfig`: JSON lines instead of text."""
        config = self._mapping(function.get("LoggingConfig") or {}, "LoggingConfig")
        names = {"LogFormat": "AWS_LAMBDA_LOG_FORMAT", "ApplicationLogLevel": "AWS_LAMBDA_LOG_LEVEL"}
        return {names[key]: scalar(value) for key, value in config.items() if key in names}

    def _layers(self, function: str, *levels: Mapping[str, Any]) -> Iterator[Path]:
        """Folders of the layers that this template builds; a layer by ARN is not here, and left out."""
        references = [item for level in levels for item in self._list(level.get("Layers"), f"Layers of {function}")]
        known = {f"!Ref {name}": name for name in self._of_type("AWS::Serverless::LayerVersion")}
        for reference in references:
            name = known.get(reference.text) if isinstance(reference, Unknown) else None
            if name is not None:
                content = self._known(self._properties(name).get("ContentUri"), f"ContentUri of {name}")
                yield self._path.parent / str(content)

    def _mapping(self, node: object, where: str) -> dict[str, Any]:
        if not isinstance(node, dict):
            raise self._wrong(where, f"a mapping belongs here, not {node!r}")
        return node

    def _list(self, node: object, where: str) -> list[Any]:
        if not isinstance(node, list | None):
            raise self._wrong(where, f"a list belongs here, not {node!r}")
        return node or []

    def _known(self, value: object, where: str) -> object:
        if isinstance(value, Unknown):
            raise self._wrong(where, f"{value.text} is known only on AWS; write a value, or a parameter with a Default")
        if value is None:
            raise self._wrong(where, "it is missing")
        return value

    def _whole(self, value: object, where: str) -> int:
        try:
            return int(scalar(self._known(value, where)))
        except ValueError as exc:
            raise self._wrong(where, f"{value!r} is not a whole number") from exc

    def _wrong(self, where: str, what: str) -> InvalidInputError:
        return InvalidInputError(f"{self._path}: {where}: {what}.")
