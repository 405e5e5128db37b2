"""Pass a streamed answer on to its client: chunk by chunk, within API Gateway's limits, and as far as the client reads.

An answer that breaks off, or takes too long, cuts the client's connection: a clean end would look like success.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from dataclasses import dataclass
from typing import Any

from pilotlight.local.connections import CUT
from pilotlight.local.streamed_answers import StreamCutError, StreamedAnswer
from pilotlight.local.template import GatewayLimits

Scope = MutableMapping[str, Any]
Receive = Callable[[], Coroutine[Any, Any, dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

log = logging.getLogger("pilotlight.local")


@dataclass(frozen=True)
class StreamRelay:
    """Sends the bodies of streamed answers within these limits."""

    limits: GatewayLimits

    async def send_stream(self, answer: StreamedAnswer, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a body whose head has been sent; the request has been read in full."""
        leaving = asyncio.ensure_future(self._cancel_when_gone(answer, receive))
        try:
            async with asyncio.timeout(self.limits.stream_s):
                await self._send_chunks(answer, send)
        except (StreamCutError, TimeoutError) as exc:
            level = logging.DEBUG if answer.is_cancelled else logging.WARNING
            log.log(level, "A streamed answer was cut: %s", str(exc) or "it took too long.")
            answer.cancel()
            scope["extensions"][CUT]["cut"]()
        finally:
            answer.cancel()
            leaving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await leaving

    async def _send_chunks(self, answer: StreamedAnswer, send: Send) -> None:
        chunks = answer.iterate()
        while True:
            async with asyncio.timeout(self.limits.stream_idle_s):
                chunk = await anext(chunks, None)
            if chunk is None:
                break
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _cancel_when_gone(self, answer: StreamedAnswer, receive: Receive) -> None:
        """Cancel the answer once its client has gone, which is the only message that can still come."""
        await receive()
        answer.cancel()
