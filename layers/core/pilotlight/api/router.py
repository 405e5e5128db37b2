"""Route an event to its endpoint, and map errors to HTTP statuses: the only module that knows them.

The gateway has already matched the path, so a route is spelled as in the template.
"""

import logging
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pilotlight.api.call_cost import CallCost, CostMeter
from pilotlight.api.http import Request, Response, StreamedResponse, count_sent_bytes, is_sendable
from pilotlight.api.request_context import GATEWAY_TIMEOUT_S, RequestContext
from pilotlight.api.usage_log import UsageLog
from pilotlight.errors import (
    ConflictError,
    DeadlineError,
    InvalidInputError,
    LimitExceededError,
    MethodNotAllowedError,
    NotFoundError,
    PilotlightError,
    PreconditionError,
    TooLargeError,
    UnavailableError,
    UnsupportedError,
    UnsupportedTypeError,
    shorten_message,
)
from pilotlight.observability import correlation

LOG = logging.getLogger("pilotlight.api")

Answer = Response | StreamedResponse
Endpoint = Callable[[Request], Answer]
ErrorFormatter = Callable[..., Response]  # a status, a message and headers as the body that the routes' clients show
MLFLOW_RESOURCES = frozenset({"/invocations", "/ping", "/health", "/version"})  # whose clients show `message`
Routes = Mapping[str, Mapping[str, Endpoint]]  # resource -> verb -> endpoint

SERVER_ERROR = 500
MLFLOW_CODES = {
    404: "RESOURCE_DOES_NOT_EXIST", 409: "RESOURCE_CONFLICT", 500: "INTERNAL_ERROR", 501: "NOT_IMPLEMENTED",
    503: "TEMPORARILY_UNAVAILABLE",
}  # fmt: skip
STATUS_CODES: Mapping[type[PilotlightError], int] = {
    InvalidInputError: 400,
    MethodNotAllowedError: 405,
    TooLargeError: 413,
    UnsupportedTypeError: 415,
    NotFoundError: 404,
    ConflictError: 409,
    PreconditionError: 412,
    UnsupportedError: 501,
    UnavailableError: 503,
    DeadlineError: 504,
    LimitExceededError: 429,
}


class Router:
    """A Lambda handler over a table of routes. It answers every error with a body that V2 clients show."""

    def __init__(
        self,
        routes: Routes,
        cost_meter: CostMeter | None = None,
        usage_log: UsageLog | None = None,
        error_formatter: ErrorFormatter | None = None,
        on_response: Callable[[], None] | None = None,
        gateway_timeout_s: float = GATEWAY_TIMEOUT_S,
        choose_error_formatter: Callable[[str], ErrorFormatter] | None = None,
    ) -> None:
        """Create a router; `on_response` is called before the runtime sends an answer, so it must not take long.

        For a streamed answer it is called behind the last chunk. `gateway_timeout_s` is how long the gateway waits.
        `choose_error_formatter` chooses the form of errors by the route, for a function with clients of several kinds.
        """
        self._routes = routes
        self._cost_meter = cost_meter
        self._usage_log = usage_log
        self._error_formatter = error_formatter or build_error_response
        self._choose_error_formatter = choose_error_formatter
        self._on_response = on_response
        self._gateway_timeout_s = gateway_timeout_s

    def __call__(self, event: Mapping[str, Any], context: object) -> dict[str, Any]:
        """Answer a REST proxy event; with a cost meter, add the call's duration and cost, and log them."""
        trace = RequestContext.from_event(event, context, self._gateway_timeout_s)
        answer = self.dispatch(event, trace)
        if isinstance(answer, StreamedResponse):
            return self._start_stream(event, trace, answer)
        response = self.replace_unsendable(event, answer).to_event()
        if trace.marks:
            trace.mark_stage("encode")
        cost = self._record_cost(event, trace, response["statusCode"])
        if cost is not None:
            response["headers"].update(cost.to_headers(trace))
        if self._on_response is not None:
            self._on_response()
        return response

    def _start_stream(
        self, event: Mapping[str, Any], trace: RequestContext, answer: StreamedResponse
    ) -> dict[str, Any]:
        """Return a streamed answer with the headers that are known before it; its cost is logged at its end."""

        def finish(failure: BaseException | None) -> None:
            if failure is not None:
                LOG.error(
                    "The handler failed on %s after it had begun to answer: %s\n%s",
                    event.get("resource"),
                    type(failure).__name__,
                    format_traceback(failure),
                )
            trace.mark_stage("infer")
            has_failed = failure is not None or trace.has_failed
            self._record_cost(event, trace, SERVER_ERROR if has_failed else answer.status)
            if self._on_response is not None:
                self._on_response()

        response = StreamedResponse(answer.status, ObservedChunks(answer.chunks, finish), answer.headers).to_event()
        if self._cost_meter is not None:
            response["headers"].update(self._cost_meter.start_headers(trace))
        return response

    def _record_cost(self, event: Mapping[str, Any], trace: RequestContext, status: int) -> CallCost | None:
        """Measure a call and log it; return its cost, or None without a cost meter."""
        if self._cost_meter is None:
            return None
        cost = self._cost_meter.measure_call(trace)
        if self._usage_log is not None:
            self._usage_log.record_http_call(event, trace, cost, status)
        return cost

    def dispatch(self, event: Mapping[str, Any], trace: RequestContext) -> Answer:
        """Call the endpoint, and turn an error into its status and one sentence."""
        correlation.set_correlation_id(trace.correlation)
        format_error = self._get_error_formatter(event)
        try:
            request = Request.from_event(event, trace)
            trace.tenant = request.tenant
            trace.correlation = correlation.set_correlation_id(
                correlation.get_correlation_id(request.headers, request.id)
            )
            return self.find_endpoint(request)(request)
        except PilotlightError as exc:
            return format_error(get_status_code(exc), shorten_message(str(exc)), **retry_headers(exc))
        except MemoryError:  # before the endpoint has taken the request, or behind it
            return format_error(413, "The request takes more memory than is free; send fewer items at once.")
        except Exception as exc:  # noqa: BLE001 - the last resort: a bug of ours must reach the log, not the caller
            # Without its text, which may quote the request.
            LOG.error(  # noqa: TRY400 - without its text
                "The handler failed on %s: %s\n%s", event.get("resource"), type(exc).__name__, format_traceback(exc)
            )
            return format_error(SERVER_ERROR, "The server failed on this request; its log says why.")

    def replace_unsendable(self, event: Mapping[str, Any], response: Response) -> Response:
        """Return the response, or an error if it is larger than Lambda sends: that would end the environment."""
        if is_sendable(response.body, binary=response.binary):
            return response
        size = count_sent_bytes(response.body, binary=response.binary)
        return self._get_error_formatter(event)(
            413, f"The answer would take {size:,} bytes, more than Lambda sends; ask for less at once."
        )

    def _get_error_formatter(self, event: Mapping[str, Any]) -> ErrorFormatter:
        """Return what builds the errors of a route, by the clients that it has."""
        if self._choose_error_formatter is not None:
            return self._choose_error_formatter(event.get("resource") or "")
        return build_mlflow_error if event.get("resource") in MLFLOW_RESOURCES else self._error_formatter

    def find_endpoint(self, request: Request) -> Endpoint:
        """Find the endpoint for the request's route and verb; HEAD is answered as GET."""
        verbs = self._routes.get(request.resource)
        if verbs is None:
            raise NotFoundError(f"There is no route {request.resource}; there are {', '.join(sorted(self._routes))}.")
        verb = "GET" if request.method == "HEAD" else request.method
        if verb not in verbs:
            what = f"{request.resource} does not take {request.method}; use {', '.join(verbs)}."
            raise MethodNotAllowedError(what, allowed=verbs)
        return verbs[verb]


class ObservedChunks:
    """The chunks of an answer, with a call of `on_end` behind the last one: an error, or None for a good end.

    It is called once, also if nobody has asked for a chunk before `close`, as a generator's `finally` would not be.
    """

    def __init__(self, chunks: Iterator[bytes], on_end: Callable[[BaseException | None], None]) -> None:
        self._chunks = chunks
        self._on_end: Callable[[BaseException | None], None] | None = on_end

    def __iter__(self) -> "ObservedChunks":
        return self

    def __next__(self) -> bytes:
        """Return the next chunk."""
        try:
            return next(self._chunks)
        except StopIteration:
            self._end(None)
            raise
        except BaseException as exc:
            self._end(exc)
            raise

    def close(self) -> None:
        """Tell what makes the chunks that nobody reads on."""
        close = getattr(self._chunks, "close", None)
        if close is not None:
            close()
        self._end(None)

    def _end(self, failure: BaseException | None) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(failure)


def format_traceback(exc: BaseException) -> str:
    """Format the lines of code in an error's traceback."""
    return "".join(traceback.format_tb(exc.__traceback__))


def get_status_code(error: PilotlightError) -> int:
    """Return the status of the nearest ancestor in the table; 500 for an error that is not in it."""
    return next((STATUS_CODES[kind] for kind in type(error).__mro__ if kind in STATUS_CODES), 500)


def retry_headers(error: PilotlightError) -> dict[str, str]:
    """Return the headers of an error: when to retry (RFC 9110, 10.2.3), or the allowed verbs (10.2.1)."""
    if isinstance(error, UnavailableError) and error.retry_after is not None:
        return {"retry-after": str(error.retry_after)}
    if isinstance(error, MethodNotAllowedError) and error.allowed:
        return {"allow": ", ".join((*error.allowed, *(["HEAD"] if "GET" in error.allowed else [])))}
    return {}


def build_error_response(status: int, message: str, **headers: str) -> Response:
    """Build the V2 error body."""
    return Response.json({"error": message}, status, **headers)


def build_mlflow_error(status: int, message: str, **headers: str) -> Response:
    """Build MLflow's error body: a code beside the message."""
    return Response.json({"error_code": MLFLOW_CODES.get(status, "BAD_REQUEST"), "message": message}, status, **headers)
