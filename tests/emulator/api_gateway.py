"""API Gateway: extensions of OpenAPI that its import passes over, meters that an authorizer names, paths as they are
sent, and the limit of what Lambda takes.
"""

import json
from contextvars import ContextVar
from typing import Any
from urllib.parse import unquote

from ministack import app
from ministack.services import apigateway_v1 as gateway

ANY_METHOD = "x-amazon-apigateway-any-method"
MAX_EVENT_BYTES = 6_291_456  # of an event that Lambda takes
EXTENSIONS = {"binaryMediaTypes": "binary-media-types", "policy": "policy"}  # by what ministack calls them
_meter: ContextVar[str] = ContextVar("meter", default="")
_raw_path: ContextVar[str] = ContextVar("raw_path", default="")


def extend() -> None:
    """Add all of this to the running ministack."""
    methods = gateway._OPENAPI_HTTP_METHODS
    gateway._OPENAPI_HTTP_METHODS = (
        {**methods, ANY_METHOD: ANY_METHOD} if isinstance(methods, dict) else {*methods, ANY_METHOD}
    )
    gateway._import_operation = _import_operation_with(gateway._import_operation)
    gateway._import_rest_api = _import_api_with(gateway._import_rest_api)
    gateway._media_type_matches = _match_with(gateway._media_type_matches)
    gateway._invoke_authorizer_lambda = _authorize_with(gateway._invoke_authorizer_lambda)
    gateway._authorize_request_v1 = _ask_policy_before(_forget_meter_before(gateway._authorize_request_v1))
    gateway._api_key_from_request = _read_key_with(gateway._api_key_from_request)
    app._handle_execute_api_request = _keep_path_before(app._handle_execute_api_request)
    gateway.handle_execute = _execute_with(gateway.handle_execute)
    gateway._match_resource_tree = _match_resource_with(gateway._match_resource_tree)
    gateway._call_lambda_raw = _call_with(gateway._call_lambda_raw)
    gateway._invoke_lambda_proxy_v1 = _invoke_with(gateway._invoke_lambda_proxy_v1)


def _import_operation_with(import_operation: Any) -> Any:  # noqa: ANN401 - ministack has no types
    """Import the operation that stands for all methods as ANY."""

    def operation(api_id: str, resource_id: str, method: str, *more: Any, **options: Any) -> Any:  # noqa: ANN401
        named = "ANY" if method == ANY_METHOD.upper() else method
        return import_operation(api_id, resource_id, named, *more, **options)

    return operation


def _import_api_with(import_api: Any) -> Any:  # noqa: ANN401 - ministack has no types
    """Import binary media types, the resource policy and gateway responses too."""

    def api(spec: dict[str, Any], base_data: dict[str, Any] | None = None) -> Any:  # noqa: ANN401 - ministack's own
        found = {name: spec.get(f"x-amazon-apigateway-{key}") for name, key in EXTENSIONS.items()}
        data = {**(base_data or {}), **{name: value for name, value in found.items() if value}}
        endpoint = data.get("endpointConfiguration", {"types": ["REGIONAL"]})  # with CloudFormation's capitals
        data["endpointConfiguration"] = {name[0].lower() + name[1:]: value for name, value in endpoint.items()}
        made = import_api(spec, data)
        for kind, answer in (spec.get("x-amazon-apigateway-gateway-responses") or {}).items():
            gateway._put_gateway_response(made, kind, answer)
        return made

    return api


def _match_with(matches: Any) -> Any:  # noqa: ANN401 - ministack has no types
    """Take what says no type for application/json, as API Gateway does, which */* matches."""
    return lambda media_type, types: matches(media_type or "application/json", types)


# AWS takes the key that meters a request from the authorizer's `usageIdentifierKey`, since the API says
# `ApiKeySourceType: AUTHORIZER`; ministack takes `x-api-key` from the caller in any case.


def _forget_meter_before(authorize: Any) -> Any:  # noqa: ANN401 - ministack has no types
    async def authorize_request(*given: Any) -> Any:  # noqa: ANN401 - ministack has no types
        _meter.set("")
        return await authorize(*given)

    return authorize_request


def _ask_policy_before(authorize: Any) -> Any:  # noqa: ANN401 - ministack has no types
    """Refuse what the API's policy refuses before an authorizer is asked; ministack looks at it where there is none."""

    async def authorize_request(api: str, stage: str, asked: Any, method: str, path: str, *more: Any) -> Any:  # noqa: ANN401
        if asked.get("authorizationType") == "CUSTOM":
            refused = gateway._anonymous_policy_error(api, stage, method, path, *more[-2:])  # account and region
            if refused is not None:
                return refused, None
        return await authorize(api, stage, asked, method, path, *more)

    return authorize_request


def _authorize_with(invoke: Any) -> Any:  # noqa: ANN401 - ministack has no types
    async def invoke_authorizer(*given: Any) -> Any:  # noqa: ANN401 - ministack has no types
        result = await invoke(*given)
        said = (result or {}).get("body")
        answer = json.loads(said) if isinstance(said, str | bytes) and said else said
        if isinstance(answer, dict):
            _meter.set(answer.get("usageIdentifierKey") or "")
        return result

    return invoke_authorizer


def _read_key_with(read: Any) -> Any:  # noqa: ANN401 - ministack has no types
    return lambda headers: _meter.get() or read(headers)


# AWS splits a path while it is encoded, so that `%2F` stays in its segment, and a function gets it like that, with its
# parameters decoded; ministack decodes the whole path first.


def _keep_path_before(handle: Any) -> Any:  # noqa: ANN401 - ministack has no types
    async def handle_request(host: str, path: str, *more: Any, raw_path: str | None = None, **options: Any) -> Any:  # noqa: ANN401
        parsed = app._parse_execute_api_url(host, raw_path or path)
        _raw_path.set(parsed[2] if parsed else "")
        return await handle(host, path, *more, raw_path=raw_path, **options)

    return handle_request


def _execute_with(execute: Any) -> Any:  # noqa: ANN401 - ministack has no types
    async def execute_raw(api: str, stage: str, method: str, path: str, *more: Any) -> Any:  # noqa: ANN401 - likewise
        return await execute(api, stage, method, _raw_path.get() or path, *more)

    return execute_raw


def _match_resource_with(match: Any) -> Any:  # noqa: ANN401 - ministack has no types
    return lambda api, segments: match(api, [unquote(segment) for segment in segments])


class _EventTooLargeError(Exception):
    """Lambda takes no event as large as this."""


def _call_with(call: Any) -> Any:  # noqa: ANN401 - ministack has no types
    """Refuse what Lambda does not take; its own emulator in the container cuts it, and fails."""

    async def call_lambda(function: str, event: Any, **more: Any) -> Any:  # noqa: ANN401 - ministack has no types
        if len(json.dumps(event)) > MAX_EVENT_BYTES:
            raise _EventTooLargeError
        return await call(function, event, **more)

    return call_lambda


def _invoke_with(invoke: Any) -> Any:  # noqa: ANN401 - ministack has no types
    """Answer 413 for that, as a REST API does."""

    async def invoke_proxy(*given: Any, **more: Any) -> Any:  # noqa: ANN401 - ministack has no types
        try:
            return await invoke(*given, **more)
        except _EventTooLargeError:
            return gateway._gw_error("REQUEST_TOO_LARGE", "Request Too Long")

    return invoke_proxy
