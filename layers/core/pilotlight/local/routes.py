"""Match a request's path to a route as API Gateway does: static segments precede `{name}`, which precedes `{name+}`.

It accepts `/v2/...` and, below the stage, `/prod/v2/...`; a trailing slash is ignored. A resource is found first and
its method second, so a resource without the method is "no such route", as on AWS. This module knows no HTTP.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import unquote

from pilotlight.errors import InvalidInputError
from pilotlight.local.template import ApiRoute


class RouteMatch(NamedTuple):
    """A route, the still encoded path without the stage, and the decoded parameters."""

    route: ApiRoute
    path: str
    parameters: dict[str, str]


@dataclass(slots=True)
class _Node:
    """One segment of the known resources."""

    static: dict[str, "_Node"] = field(default_factory=dict)
    parameter: "_Node | None" = None
    methods: dict[str, ApiRoute] = field(default_factory=dict)  # of the resource that ends here
    proxy: dict[str, ApiRoute] = field(default_factory=dict)  # of the resource that takes all segments after this one


ResourceMatch = tuple[dict[str, ApiRoute], list[str]]  # the methods of a resource, and the values of its parameters


class RouteTable:
    """The routes of one API, and its stage."""

    def __init__(self, routes: Collection[ApiRoute], stage: str) -> None:
        self._root = _Node()
        self._names = {route: _list_parameter_names(route.resource) for route in routes}
        self._stage = "/" + stage
        for route in routes:
            self._add_route(route)

    def match(self, method: str, raw_path: str) -> RouteMatch | None:
        """Find the route of a request, or None; `raw_path` is percent-encoded as the client sent it."""
        match = self._match_path(method, raw_path)
        if match is None and (raw_path + "/").startswith(self._stage + "/"):
            match = self._match_path(method, raw_path.removeprefix(self._stage) or "/")
        return match

    def _match_path(self, method: str, path: str) -> RouteMatch | None:
        found = _find_resource(self._root, _split_path(path), 0, [])
        if found is None:
            return None
        methods, values = found
        route = methods.get(method) or methods.get("ANY")
        if route is None:
            return None
        return RouteMatch(route, path, dict(zip(self._names[route], values, strict=True)))

    def _add_route(self, route: ApiRoute) -> None:
        node = self._root
        for segment in route.resource.strip("/").split("/"):
            if segment.startswith("{") and segment.endswith("+}"):
                return _claim_method(node.proxy, route)
            if segment.startswith("{"):
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.static.setdefault(segment, _Node())
        return _claim_method(node.methods, route)


def _claim_method(methods: dict[str, ApiRoute], route: ApiRoute) -> None:
    other = methods.setdefault(route.method, route)
    if other is not route:
        raise InvalidInputError(
            f"{route.method} {route.resource} of {route.function} is taken by {other.resource} of {other.function} "
            "in the template; remove one of the two events."
        )


def _list_parameter_names(resource: str) -> list[str]:
    return [segment.strip("{+}") for segment in resource.split("/") if segment.startswith("{")]


def _split_path(path: str) -> list[str]:
    """Split a path, then decode its segments, so that an encoded slash stays inside its segment."""
    segments = path.strip("/").split("/")
    return [unquote(segment) for segment in segments] if "%" in path else segments


def _find_resource(node: _Node, segments: list[str], index: int, values: list[str]) -> ResourceMatch | None:
    """Find the most specific resource below `node` for the segments from `index` on."""
    if index == len(segments):
        return (node.methods, values) if node.methods else None
    segment = segments[index]
    found = None
    if segment in node.static:
        found = _find_resource(node.static[segment], segments, index + 1, values)
    if found is None and node.parameter is not None and segment:
        found = _find_resource(node.parameter, segments, index + 1, [*values, segment])
    if found is None and node.proxy and segment:
        found = (node.proxy, [*values, "/".join(segments[index:])])
    return found
