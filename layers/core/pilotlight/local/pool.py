"""The environments of one function, and the queue of invocations that wait for one.

As on Lambda: the most recently used free environment comes first, a new one starts if none is free and fewer than
`workers` exist, and one that is free for too long is ended. Where Lambda would throttle, a request waits here, up to a
number of them. The pool starts no process itself: its caller passes a way to make an environment. It knows neither
processes nor HTTP.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from typing import Protocol

from pilotlight.local.gateway_errors import CLIENT_GONE, FAILED, STOPPING, THROTTLED, TIMED_OUT, GatewayError
from pilotlight.local.runtime_api import Invocation
from pilotlight.local.streamed_answers import StreamedAnswer
from pilotlight.local.template import GatewayLimits

QUEUE_LENGTH = 1000  # invocations of one function that wait; as many as Lambda runs at once in a new account

Answer = bytes | StreamedAnswer  # the handler's JSON, or an answer that it streams

log = logging.getLogger("pilotlight.local")


class PooledEnvironment(Protocol):
    """The interface of an environment, as the pool uses it."""

    initialised: bool
    free_since: float | None  # s, monotonic; None while it starts or works

    async def run(self) -> str:
        """Run until the environment ends, and return why it ended."""

    def take(self, invocation: Invocation) -> None:
        """Handle this invocation; only for a free environment."""

    def get_unfinished(self) -> tuple[Invocation | None, bool]:
        """Return the invocation that it left unfinished when it ended, and whether its handler has received it."""

    def check_limits(self, now: float) -> None:
        """End the environment if it exceeds its limits."""

    def end(self, reason: str) -> None:
        """Make `run` return soon."""


OnFree = Callable[[PooledEnvironment], None]


class EnvironmentPool:
    """Up to `workers` environments; `idle_s` is how long one may be free, `queue_length` how many may wait for one."""

    def __init__(
        self,
        make_environment: Callable[[OnFree], PooledEnvironment],
        workers: int,
        idle_s: float,
        limits: GatewayLimits,
        queue_length: int = QUEUE_LENGTH,
    ) -> None:
        self._make_environment = make_environment
        self._workers = workers
        self._idle_s = idle_s
        self._limits = limits
        self._queue_length = queue_length
        self._running: dict[PooledEnvironment, asyncio.Task[None]] = {}
        self._free: list[PooledEnvironment] = []  # the most recently used last
        self._queue: dict[str, Invocation] = {}  # by request id, oldest first
        self._watch_task: asyncio.Task[None] | None = None
        self._stopping = False

    def start(self) -> None:
        """Start to watch the environments; needs a running loop."""
        self._watch_task = asyncio.get_running_loop().create_task(self._watch_environments())

    @property
    def environments(self) -> Collection[PooledEnvironment]:
        """The environments that have started and not ended."""
        return self._running.keys()

    @property
    def in_flight(self) -> int:
        """How many invocations wait or are worked on."""
        return len(self._queue) + sum(each.initialised and each.free_since is None for each in self._running)

    async def stop(self) -> None:
        """End every environment, and wait until all of them have ended."""
        self._stopping = True
        for invocation in list(self._queue.values()):
            invocation.fail(_build_stopping_error())
        for environment in self._running:
            environment.end("was ended because the gateway is stopping")
        await asyncio.gather(*self._running.values())
        if self._watch_task is not None:
            self._watch_task.cancel()

    async def invoke_within_limit(self, invocation: Invocation, limit_s: float | None = None) -> Answer:
        """Return the handler's answer; `GatewayError` after the integration limit, although the handler continues.

        A streamed answer is returned once it has begun. `limit_s` replaces the limit of answers in one piece.
        """
        limit_s = self._limits.integration_s if limit_s is None else limit_s
        timer = asyncio.get_running_loop().call_later(limit_s, self._expire_invocation, invocation, limit_s)
        try:
            return await self.invoke(invocation)
        finally:
            timer.cancel()

    async def invoke(self, invocation: Invocation) -> Answer:
        """Invoke without that limit, if no HTTP request waits for the answer; the function's own Timeout ends it."""
        if self._stopping:
            raise _build_stopping_error()
        self._submit(invocation)
        try:
            return await invocation.outcome
        finally:
            self._queue.pop(invocation.request_id, None)

    def _submit(self, invocation: Invocation) -> None:
        """Pass the invocation to a free environment, or queue it."""
        if self._free:
            self._free.pop().take(invocation)
        elif len(self._queue) >= self._queue_length:
            raise GatewayError(THROTTLED, f"Too Many Requests: {len(self._queue)} wait for this function already.")
        else:
            self._queue[invocation.request_id] = invocation
            self._start_environments()

    def _expire_invocation(self, invocation: Invocation, limit_s: float) -> None:
        text = f"Endpoint request timed out: no answer within {limit_s:g} s."
        invocation.fail(GatewayError(TIMED_OUT, text))

    def _start_environments(self) -> None:
        """Start environments for queued invocations that have none starting."""
        starting = sum(not environment.initialised for environment in self._running)
        missing = min(len(self._queue) - starting, self._workers - len(self._running))
        for _ in range(missing):
            environment = self._make_environment(self._on_free)
            self._running[environment] = asyncio.get_running_loop().create_task(self._run_environment(environment))

    def _on_free(self, environment: PooledEnvironment) -> None:
        while self._queue:
            invocation = self._queue.pop(next(iter(self._queue)))
            if not invocation.is_abandoned():
                return environment.take(invocation)
            invocation.fail(GatewayError(CLIENT_GONE, "The client went away before its turn."))
        return self._free.append(environment)

    async def _run_environment(self, environment: PooledEnvironment) -> None:
        """Run an environment to its end, and handle what it leaves unfinished."""
        reason = await environment.run()
        del self._running[environment]
        if environment in self._free:
            self._free.remove(environment)
        self._handle_end(environment, reason)
        if not self._stopping:
            self._start_environments()

    def _handle_end(self, environment: PooledEnvironment, reason: str) -> None:
        """Fail the invocation that ended with the environment; put one that it had not received first in the queue."""
        error = _build_stopping_error() if self._stopping else GatewayError(FAILED, f"Internal server error: {reason}.")
        invocation, delivered = environment.get_unfinished()
        if not environment.initialised and self._queue:
            self._queue.pop(next(iter(self._queue))).fail(error)  # the one that it was started for
        elif invocation is not None and (delivered or self._stopping):
            invocation.fail(error)
        else:
            log.log(logging.DEBUG if self._stopping else logging.INFO, "%s.", reason)  # this is the only report of it
        if invocation is not None and not invocation.outcome.done():
            self._queue = {invocation.request_id: invocation, **self._queue}

    async def _watch_environments(self) -> None:
        while True:
            await asyncio.sleep(self._limits.watch_s)
            now = time.monotonic()
            for environment in self._running:
                environment.check_limits(now)
            for environment in [free for free in self._free if now - (free.free_since or now) > self._idle_s]:
                self._free.remove(environment)  # at once, so that it gets no work while it ends
                environment.end(f"was idle for {self._idle_s:g} s")


def _build_stopping_error() -> GatewayError:
    return GatewayError(STOPPING, "Service unavailable: the gateway is stopping.")
