"""One event for a handler, with the context that AWS's clients give it."""

import http.client
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

HTTP_KEYS = ({"httpMethod", "requestContext"}, {"rawPath", "requestContext"})  # REST API; HTTP API and function URL


@dataclass(frozen=True)
class LambdaContext:
    """The context that a handler gets with its invocation; the names are AWS's."""

    aws_request_id: str
    invoked_function_arn: str
    function_name: str
    function_version: str
    memory_limit_in_mb: str
    log_group_name: str
    log_stream_name: str
    deadline_ms: int  # since the epoch
    client_context: None = None
    identity: None = None

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds until the function's Timeout."""
        return max(self.deadline_ms - int(time.time() * 1000), 0)

    @classmethod
    def from_headers(cls, headers: http.client.HTTPMessage, environ: Mapping[str, str]) -> "LambdaContext":
        """Create the context from an invocation's headers and the environment's variables."""
        return cls(
            aws_request_id=headers["Lambda-Runtime-Aws-Request-Id"],
            invoked_function_arn=headers["Lambda-Runtime-Invoked-Function-Arn"],
            deadline_ms=int(headers["Lambda-Runtime-Deadline-Ms"]),
            function_name=environ["AWS_LAMBDA_FUNCTION_NAME"],
            function_version=environ["AWS_LAMBDA_FUNCTION_VERSION"],
            memory_limit_in_mb=environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"],
            log_group_name=environ["AWS_LAMBDA_LOG_GROUP_NAME"],
            log_stream_name=environ["AWS_LAMBDA_LOG_STREAM_NAME"],
        )


def is_http_event(event: Any) -> bool:  # noqa: ANN401 - whatever an event is
    """Return whether an event is a request of a gateway, whose answer may be streamed."""
    return isinstance(event, dict) and any(keys <= event.keys() for keys in HTTP_KEYS)
