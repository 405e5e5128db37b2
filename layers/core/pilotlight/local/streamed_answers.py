"""An answer that a function streams: its prelude, then chunks on their way from the Runtime API to a client.

As on Lambda, the answer begins with status and headers in JSON and 8 NUL bytes. What feeds it is paused while its
reader is slow. A reader that leaves cancels it, which closes the connection of the Runtime API that it comes from. What
Lambda does then is not documented: AWS says that the function may go on after its client has gone, so a write that
fails is the best that a function can hope for, and here it does. This module knows neither processes nor HTTP.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from pilotlight.local.gateway_errors import FAILED, GatewayError

PRELUDE_END = b"\x00" * 8
PRELUDE_BYTES = 16 * 1024  # of status and headers, of which a REST API takes 10,240 bytes
HELD_BYTES = 256 * 1024  # that may wait for a slow reader before the function has to wait too
HTTP_STREAM = b"application/vnd.awslambda.http-integration-response"


class StreamSource(Protocol):
    """The connection that chunks come from."""

    def pause_reading(self) -> None:
        """Take no more of it for now."""

    def resume_reading(self) -> None:
        """Take more of it."""

    def abort(self) -> None:
        """Close it."""


class StreamCutError(Exception):
    """The answer ended before it was complete; the text says why."""


class StreamedAnswer:
    """One answer on its way; `limit` is how many bytes its body may have."""

    def __init__(self, source: StreamSource, limit: int, on_prelude: Callable[["StreamedAnswer"], None]) -> None:
        """Create an answer; `on_prelude` is called once its status and headers are there."""
        self._source = source
        self._limit = limit
        self._on_prelude: Callable[[StreamedAnswer], None] | None = on_prelude
        self._chunks: deque[bytes] = deque()
        self._held = 0
        self._size = 0
        self._is_paused = False
        self.is_complete = False
        self._failure = ""
        self._change = asyncio.Event()
        self.is_cancelled = False
        self.prelude = b""  # JSON with statusCode and headers, once it is complete

    @property
    def is_over(self) -> bool:
        """Whether no more chunks can come."""
        return self.is_complete or bool(self._failure)

    def add_bytes(self, data: bytes) -> None:
        """Take the next bytes; raise `GatewayError` if the answer is malformed or too large."""
        if self.is_over:
            return
        if self._on_prelude is not None:
            data = self._feed_prelude(data)
        if data:
            self._size += len(data)
            if self._size > self._limit:
                text = f"the streamed answer is larger than the {self._limit} bytes that Lambda takes"
                self.fail(text)
                raise GatewayError(FAILED, text)
            self._add(data)

    def finish(self) -> None:
        """Take the end of the answer; raise `GatewayError` if there was no prelude."""
        if self._on_prelude is not None:
            text = "malformed Lambda proxy response: it ended before the 8 NUL bytes behind its status and headers"
            self.fail(text)
            raise GatewayError(FAILED, f"Internal server error: {text}.")
        self.is_complete = True
        self._change.set()

    def fail(self, reason: str) -> None:
        """End the answer before it is complete."""
        if not self.is_over:
            self._failure = reason
            self._change.set()

    def cancel(self) -> None:
        """Take no more of the answer, since nobody reads it; the connection that it comes from is closed."""
        if not self.is_over:
            self.is_cancelled = True
            self.fail("nobody reads it any more")
            self._source.abort()

    async def iterate(self) -> AsyncIterator[bytes]:
        """Yield the chunks as they come; raise `StreamCutError` behind the last one if the answer is not complete."""
        while True:
            while self._chunks:
                chunk = self._chunks.popleft()
                self._held -= len(chunk)
                if self._is_paused and self._held <= HELD_BYTES:
                    self._is_paused = False
                    self._source.resume_reading()
                yield chunk
            if self._failure:
                raise StreamCutError(self._failure)
            if self.is_complete:
                return
            self._change.clear()
            await self._change.wait()

    def _feed_prelude(self, data: bytes) -> bytes:
        """Take bytes of the prelude; return those of the body behind it."""
        self.prelude += data
        head, mark, body = self.prelude.partition(PRELUDE_END)
        if len(head) > PRELUDE_BYTES:
            text = f"malformed Lambda proxy response: no 8 NUL bytes within its first {PRELUDE_BYTES} bytes"
            self.fail(text)
            raise GatewayError(FAILED, f"Internal server error: {text}.")
        if not mark:
            return b""
        self.prelude = head
        on_prelude, self._on_prelude = self._on_prelude, None
        if on_prelude is not None:
            on_prelude(self)
        return body

    def _add(self, data: bytes) -> None:
        self._chunks.append(data)
        self._held += len(data)
        if self._held > HELD_BYTES and not self._is_paused:
            self._is_paused = True
            self._source.pause_reading()
        self._change.set()


async def collect_answer(answer: StreamedAnswer) -> bytes:
    """Wait for all of an answer, and return it as Lambda gives it to who invokes the function without streaming."""
    try:
        body = b"".join([chunk async for chunk in answer.iterate()])
    except StreamCutError as exc:
        raise GatewayError(FAILED, str(exc)) from exc
    return answer.prelude + PRELUDE_END + body
