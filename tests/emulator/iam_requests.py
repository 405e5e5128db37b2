"""IAM: what of a request our policies name and ministack passes over: a log's stream, and a write that may not replace.

Source: Service Authorization Reference, CloudWatch Logs and S3.
"""

import json
from collections.abc import Mapping
from typing import Any

from ministack.core import iam_actions

STREAM_ACTIONS = ("GetLogEvents", "PutLogEvents")  # rights to a stream, not to its group
NO_CREATION = ("uploads", "partNumber")  # in the query of requests for parts, of which none creates the object


def extend() -> None:
    """Add all of this to the running ministack."""
    iam_actions.extract_resource_arn = _extract_with(iam_actions.extract_resource_arn)
    iam_actions.s3_service_context = _describe_with(iam_actions.s3_service_context)


def _extract_with(extract: Any) -> Any:  # noqa: ANN401 - ministack has no types
    def extract_resource_arn(service: str, method: str, path: str, *more: Any) -> Any:  # noqa: ANN401 - as above
        found, headers, body = extract(service, method, path, *more), more[0], more[1]
        if service == "logs" and headers.get("x-amz-target", "").rpartition(".")[2] in STREAM_ACTIONS:
            return f"{found}:log-stream:{json.loads(body).get('logStreamName', '')}"
        return found

    return extract_resource_arn


def _describe_with(describe: Any) -> Any:  # noqa: ANN401 - ministack has no types
    def describe_request(action: str, query: Mapping[str, Any] | None, *more: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
        context: dict[str, Any] = describe(action, query, *more)
        headers = more[1] if len(more) > 1 else {}
        return context | (describe_write(query or {}, headers or {}) if action == "s3:PutObject" else {})

    return describe_request


def describe_write(query: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, str]:
    """Say whether a write creates an object, and what it says of one that is there."""
    creates = {"s3:ObjectCreationOperation": str(not any(name in query for name in NO_CREATION)).lower()}
    condition = headers.get("if-none-match")
    return creates | ({"s3:if-none-match": condition} if condition else {})
