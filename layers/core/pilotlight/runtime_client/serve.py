"""The loop of an environment: load the handler, then answer one event after the other until the process ends.

A streamed answer is begun with its first chunk, so that an error before it is still an ordinary error. From then on an
error cuts the caller's connection. If nobody takes the answer any more, what makes it is told so at once, and the
environment goes on with the next event.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pilotlight.runtime_client import answers
from pilotlight.runtime_client.error_reports import (
    AFTER_RESTORE_ERROR,
    BEFORE_SNAPSHOT_ERROR,
    load_handler,
    report_error,
    report_init_error,
)
from pilotlight.runtime_client.invocation import LambdaContext, is_http_event
from pilotlight.runtime_client.log_records import RequestIdFilter, set_up_logging
from pilotlight.runtime_client.runtime_connection import ReaderGoneError, ResponseStream, RuntimeConnection

Handler = Callable[[Any, LambdaContext], Any]
SNAP_START = "snap-start"
EXIT_INIT, EXIT_BEFORE_SNAPSHOT, EXIT_AFTER_RESTORE = 1, 64, 65  # as AWS's client exits
TRACE_VARIABLE = "_X_AMZN_TRACE_ID"
# With this, or under the SAM CLI, answers are sent in one piece: where nothing between takes them as a stream.
MODE_VARIABLE, BUFFERED, SAM_VARIABLE = "PILOTLIGHT_RESPONSE_MODE", "buffered", "AWS_SAM_LOCAL"


def serve(handler_name: str, environ: Mapping[str, str], *, streams: bool) -> None:
    """Load the handler and serve it until the process ends; `streams` says whether answers may be streamed."""
    api = RuntimeConnection(environ["AWS_LAMBDA_RUNTIME_API"])
    request_ids = set_up_logging(environ)
    try:
        handler: Handler = load_handler(handler_name)
    except Exception as exc:  # noqa: BLE001  # whatever its import raises is reported
        api.post_error("init/error", report_init_error(exc, handler_name))
        sys.exit(EXIT_INIT)
    if environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == SNAP_START:
        wait_for_restore(api)
    is_buffered = environ.get(MODE_VARIABLE) == BUFFERED or SAM_VARIABLE in environ
    loop = EventLoop(api, handler, environ, request_ids, streams=streams and not is_buffered)
    while True:
        loop.handle_next_event()


def wait_for_restore(api: RuntimeConnection) -> None:
    """Run the hooks before a snapshot and after its restore, which AWS's library has collected."""
    from snapshot_restore_py import get_after_restore, get_before_snapshot  # part of Lambda's python

    try:
        for hook, arguments, keywords in reversed(get_before_snapshot()):
            hook(*arguments, **keywords)
        api.wait_for_restore()
    except Exception as exc:  # noqa: BLE001  # whatever a hook raises is reported
        report = report_error(exc, type(exc).__name__, str(exc))
        api.post_error("init/error", report, BEFORE_SNAPSHOT_ERROR)
        sys.exit(EXIT_BEFORE_SNAPSHOT)
    try:
        for hook, arguments, keywords in get_after_restore():
            hook(*arguments, **keywords)
    except Exception as exc:  # noqa: BLE001  # whatever a hook raises is reported
        report = report_error(exc, type(exc).__name__, str(exc))
        api.post_error("restore/error", report, AFTER_RESTORE_ERROR)
        sys.exit(EXIT_AFTER_RESTORE)


class EventLoop:
    """Takes events and answers them with one handler."""

    def __init__(
        self,
        api: RuntimeConnection,
        handler: Handler,
        environ: Mapping[str, str],
        request_ids: RequestIdFilter,
        *,
        streams: bool,
    ) -> None:
        self._api = api
        self._handler = handler
        self._environ = environ
        self._request_ids = request_ids
        self._streams = streams

    def handle_next_event(self) -> None:
        """Take one event and post the handler's result; SystemExit and the like end the environment."""
        data, headers = self._api.next_event()
        context = LambdaContext.from_headers(headers, self._environ)
        self._request_ids.request_id = context.aws_request_id
        os.environ[TRACE_VARIABLE] = headers["Lambda-Runtime-Trace-Id"] or ""
        try:
            event = json.loads(data)
            result = self._handler(event, context)
        except Exception as exc:  # noqa: BLE001  # whatever the handler raises goes to the caller
            return self._post_error(exc, context)
        if self._streams and is_http_event(event) and answers.is_reply(result):
            return self._stream(result, context)
        return self._post_result(result, context)

    def _post_result(self, result: Any, context: LambdaContext) -> None:  # noqa: ANN401  # JSON may hold anything
        """Post a result in one piece."""
        try:
            whole = answers.join_body(result) if answers.is_stream(result) else result
        except Exception as exc:  # noqa: BLE001  # whatever makes the chunks raises goes to the caller
            return self._post_error(exc, context)
        try:
            body = json.dumps(whole, ensure_ascii=False).encode()  # as AWS's client from python 3.12 on
        except (TypeError, ValueError) as exc:  # half a surrogate pair, too, is a ValueError
            return self._post_error(exc, context, "Runtime.MarshalError", f"Unable to marshal response: {exc}")
        return self._api.post(f"invocation/{context.aws_request_id}/response", body)

    def _post_error(self, exc: Exception, context: LambdaContext, error_type: str = "", message: str = "") -> None:
        request_id = context.aws_request_id
        report = report_error(exc, error_type or type(exc).__name__, message or str(exc), request_id)
        self._api.post_error(f"invocation/{request_id}/error", report)

    def _stream(self, reply: Mapping[str, Any], context: LambdaContext) -> None:
        """Send a reply as a stream, and close what makes its chunks, whatever happens."""
        try:
            chunks = answers.iterate_body(reply)
            prelude, first = answers.build_prelude(reply), next(chunks, b"")
        except Exception as exc:  # noqa: BLE001  # the answer has not begun, so this is an ordinary error
            answers.close_body(reply.get("body"))
            return self._post_error(exc, context)
        stream = self._api.open_stream(context.aws_request_id, answers.HTTP_STREAM)
        try:
            stream.write(prelude + first)
            self._send_rest(stream, chunks, context)
        except ReaderGoneError as exc:
            print(json.dumps({"level": "INFO", "message": str(exc)}), flush=True)  # noqa: T201  # stdout is the log
        finally:
            answers.close_body(chunks)
        return None

    def _send_rest(self, stream: ResponseStream, chunks: Iterator[bytes], context: LambdaContext) -> None:
        """Send chunks as they are made; an error of what makes them cuts the answer."""
        while True:
            try:
                chunk = next(chunks, None)
            except Exception as exc:  # noqa: BLE001  # whatever makes the chunks raises goes to the log
                report = report_error(exc, type(exc).__name__, str(exc), context.aws_request_id)
                return stream.finish(report)
            if chunk is None:
                return stream.finish()
            stream.write(chunk)
