"""API Gateway: routes whose integration streams, which ministack does not know, answered in one piece.

Their address names another call of Lambda, InvokeWithResponseStream. AWS's Runtime Interface Emulator takes a streamed
answer and gives it whole: a prelude with status and headers, 8 NUL bytes, the body. So the format is that of AWS, and
the timing is not: a client gets all chunks at once, and an error in the middle does not cut its connection.
"""

import json
from contextvars import ContextVar
from typing import Any

from ministack.services import apigateway_v1 as gateway

STREAM_ADDRESS = "/response-streaming-invocations"
PRELUDE_END = "\x00" * 8
_is_streamed: ContextVar[bool] = ContextVar("is_streamed", default=False)


def extend() -> None:
    """Add all of this to the running ministack."""
    gateway._extract_lambda_ref_from_integration_uri = _find_function_with(
        gateway._extract_lambda_ref_from_integration_uri
    )
    gateway._call_lambda_raw = _call_with(gateway._call_lambda_raw)
    gateway._invoke_lambda_proxy_v1 = _invoke_with(gateway._invoke_lambda_proxy_v1)


def _find_function_with(find: Any) -> Any:  # noqa: ANN401 - ministack has no types
    return lambda uri: find(uri).removesuffix(STREAM_ADDRESS)


def _invoke_with(invoke: Any) -> Any:  # noqa: ANN401 - ministack has no types
    async def invoke_proxy(integration: dict[str, Any], *given: Any, **more: Any) -> Any:  # noqa: ANN401
        _is_streamed.set(integration.get("uri", "").endswith(STREAM_ADDRESS))
        return await invoke(integration, *given, **more)

    return invoke_proxy


def _call_with(call: Any) -> Any:  # noqa: ANN401 - ministack has no types
    async def call_lambda(*given: Any, **more: Any) -> Any:  # noqa: ANN401 - ministack has no types
        result, error = await call(*given, **more)
        return (unwrap_stream(result) if result and _is_streamed.get() else result), error

    return call_lambda


def unwrap_stream(result: dict[str, Any]) -> dict[str, Any]:
    """Turn a streamed answer into the reply of a proxy integration; one without a prelude is an error, as on AWS."""
    body = result.get("body")
    if result.get("error") or result.get("throttle"):
        return result
    if not isinstance(body, str) or PRELUDE_END not in body:
        return {**result, "error": True, "body": {"errorMessage": "the answer has no prelude", "errorType": "Gateway"}}
    prelude, _, text = body.partition(PRELUDE_END)
    return {**result, "body": {**json.loads(prelude), "body": text, "isBase64Encoded": False}}
