"""From an event to the endpoint that answers it, and from an error to an HTTP status: the one place that knows them.

The gateway has matched the path already, so a route is the template's spelling of it.
"""

import logging
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from pilotlight.api.http import Request, Response
from pilotlight.api.request_context import Bill, Trace
from pilotlight.api.usage_log import Ledger
from pilotlight.errors import (
    ConflictError,
    DeadlineError,
    InvalidInputError,
    MethodNotAllowedError,
    NotFoundError,
    PilotlightError,
    PreconditionError,
    TooLargeError,
    UnavailableError,
    UnsupportedError,
    UnsupportedTypeError,
)
from pilotlight.observability import correlation

LOG = logging.getLogger("pilotlight.api")

Endpoint = Callable[[Request], Response]
Worded = Callable[..., Response]  # a status, a sentence and headers as the body that the routes' clients show
Routes = Mapping[str, Mapping[str, Endpoint]]  # resource -> verb -> endpoint

STATUSES: Mapping[type[PilotlightError], int] = {
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
}


class Router:
    """A Lambda handler over a table of routes. Whatever goes wrong, it answers, in a body that V2 clients show."""

    def __init__(
        self,
        routes: Routes,
        bill: Bill | None = None,
        ledger: Ledger | None = None,
        worded: Worded | None = None,
        after: Callable[[], None] | None = None,
    ) -> None:
        """`after` is called when an answer is ready, before the runtime sends it: it must not take long."""
        self._routes = routes
        self._bill = bill
        self._ledger = ledger
        self._worded = worded or failure
        self._after = after

    def __call__(self, event: Mapping[str, Any], context: object) -> dict[str, Any]:
        """Answer a REST proxy event, with what the call took and cost where there is a bill, noted in the ledger."""
        trace = Trace.of(event, context)
        answer = self.answer(event, trace).to_event()
        if self._bill is not None:
            if trace.marks:
                trace.mark("encode")
            charge = self._bill.charge(trace)
            answer["headers"].update(charge.headers(trace))
            if self._ledger is not None:
                self._ledger.call(event, trace, charge, answer["statusCode"])
        if self._after is not None:
            self._after()
        return answer

    def answer(self, event: Mapping[str, Any], trace: Trace) -> Response:
        """Dispatch, and turn what is raised into its status and one sentence."""
        correlation.begin(trace.correlation)
        try:
            request = Request.from_event(event, trace)
            trace.correlation = correlation.begin(correlation.of(request.headers, request.id))
            return self.endpoint(request)(request)
        except PilotlightError as exc:
            return self._worded(status_of(exc), str(exc), **beside(exc))
        except Exception as exc:  # noqa: BLE001 - the last resort: a bug of ours must reach the log, not the caller
            # Without its words, which may quote what was sent.
            LOG.error("The handler failed on %s: %s\n%s", event.get("resource"), type(exc).__name__, where(exc))  # noqa: TRY400
            return self._worded(500, "The server failed on this request; its log says why.")

    def endpoint(self, request: Request) -> Endpoint:
        """The endpoint for the request's route and verb; HEAD is answered as GET."""
        verbs = self._routes.get(request.resource)
        if verbs is None:
            raise NotFoundError(f"There is no route {request.resource}; there are {', '.join(sorted(self._routes))}.")
        verb = "GET" if request.method == "HEAD" else request.method
        if verb not in verbs:
            what = f"{request.resource} does not take {request.method}; use {', '.join(verbs)}."
            raise MethodNotAllowedError(what, allowed=verbs)
        return verbs[verb]


def where(exc: BaseException) -> str:
    """The lines of code that an error came through."""
    return "".join(traceback.format_tb(exc.__traceback__))


def status_of(error: PilotlightError) -> int:
    """The status of the nearest ancestor in the table; 500 for an error that nobody put there."""
    return next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), 500)


def beside(error: PilotlightError) -> dict[str, str]:
    """The headers that an error's status asks for: when to come again (RFC 9110, 10.2.3), or by which verb (10.2.1)."""
    if isinstance(error, UnavailableError) and error.retry_after is not None:
        return {"retry-after": str(error.retry_after)}
    if isinstance(error, MethodNotAllowedError) and error.allowed:
        return {"allow": ", ".join((*error.allowed, *(["HEAD"] if "GET" in error.allowed else [])))}
    return {}


def failure(status: int, message: str, **headers: str) -> Response:
    """The V2 error body."""
    return Response.json({"error": message}, status, **headers)
