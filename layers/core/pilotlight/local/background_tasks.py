"""Run functions in the background: each runs to its end, and its result is logged.

The module knows neither what starts them nor processes; its caller passes a way to invoke a function.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from pilotlight.local.gateway_errors import THROTTLED, GatewayError

Invoke = Callable[[str, bytes], Awaitable[bytes]]  # a function's logical id and an event, to the handler's JSON
RETRY_WAIT_S = 1.0  # before the second attempt; Lambda waits a minute
MAX_TASKS = 1000  # at once; a task of an invocation holds its event

log = logging.getLogger("pilotlight.local")


class BackgroundTasks:
    """Tasks that are running; asyncio itself keeps no strong reference to them."""

    def __init__(self, invoke: Invoke, attempts: int = 1, max_tasks: int = MAX_TASKS) -> None:
        self._invoke, self._attempts, self._max_tasks = invoke, attempts, max_tasks
        self._running: set[asyncio.Task[None]] = set()

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Start the coroutine as a task; needs a running loop. `GatewayError` if too many are running."""
        if len(self._running) >= self._max_tasks:
            coroutine.close()
            raise GatewayError(THROTTLED, f"Rate Exceeded: {self._max_tasks} invocations wait in the background.")
        task = asyncio.ensure_future(coroutine)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def invoke_function(self, function: str, event: bytes) -> None:
        """Invoke a function; retry while it fails and attempts are left."""
        for attempt in range(1, self._attempts + 1):
            try:
                answer = await self._invoke(function, event)
            except GatewayError as exc:
                which = f", attempt {attempt} of {self._attempts}" if self._attempts > 1 else ""
                log.warning("%s%s: %s", function, which, exc)
            else:
                log.info("%s: %s", function, answer.decode(errors="replace"))
                return
            if attempt < self._attempts:
                await asyncio.sleep(RETRY_WAIT_S * attempt)

    async def stop(self) -> None:
        """Cancel all running tasks."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
