"""The limits of API Gateway and Lambda; tests lower them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GatewayLimits:
    """Sizes in bytes, times in seconds; the defaults are AWS's own."""

    body_bytes: int = 10 * 1024 * 1024  # API Gateway: a request's body
    event_bytes: int = 6 * 1024 * 1024  # Lambda: the event of a synchronous invocation, base64 and all
    answer_bytes: int = 6 * 1024 * 1024 + 100  # Lambda: what a handler returns, as JSON; the extra 100 are Lambda's own
    integration_s: float = 29.0  # API Gateway: from the request to its answer, time in the queue included
    init_s: float = 10.0  # Lambda: the init phase, before it is retried under the function's Timeout
    watch_s: float = 0.05  # ours: how often memory and time of a busy environment are checked
