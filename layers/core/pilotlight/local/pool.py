"""The environments of one function, and the line of invocations that wait for one.

As Lambda does: the most recently used free environment first, a new one when none is free and fewer than `workers`
exist, and one that is free for too long is ended. Where Lambda would throttle, this lets a request wait. The pool
starts nothing itself: it is given a way to make an environment, and knows neither processes nor HTTP.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from typing import Protocol

from pilotlight.local.gateway_errors import CLIENT_GONE, FAILED, STOPPING, TIMED_OUT, GatewayError
from pilotlight.local.limits import Limits
from pilotlight.local.runtime_api import Invocation

log = logging.getLogger("pilotlight.local")


class Worker(Protocol):
    """An environment, as far as the pool knows it."""

    initialised: bool
    free_since: float | None  # s, monotonic; None while it starts or works

    async def run(self) -> str:
        """Last as long as it does, and say why it ended."""

    def take(self, invocation: Invocation) -> None:
        """Work on this; only for one that is free."""

    def unfinished(self) -> tuple[Invocation | None, bool]:
        """What it left undone when it ended, and whether its handler has seen it."""

    def check(self, now: float) -> None:
        """End it when it uses more than it may."""

    def end(self, reason: str) -> None:
        """Make `run` return soon."""


OnFree = Callable[[Worker], None]


class Pool:
    """Up to `workers` environments; `idle_s` is how long one may be free."""

    def __init__(self, make: Callable[[OnFree], Worker], workers: int, idle_s: float, limits: Limits) -> None:
        self._make = make
        self._workers = workers
        self._idle_s = idle_s
        self._limits = limits
        self._running: dict[Worker, asyncio.Task[None]] = {}
        self._free: list[Worker] = []  # the most recently used last
        self._line: dict[str, Invocation] = {}  # by request id, the first to come first
        self._watching: asyncio.Task[None] | None = None
        self._stopping = False

    def start(self) -> None:
        """Begin to watch the environments; wants a running loop."""
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    @property
    def environments(self) -> Collection[Worker]:
        """Those that have been started and have not ended."""
        return self._running.keys()

    async def stop(self) -> None:
        """End every environment, and wait until all of them are gone."""
        self._stopping = True
        for invocation in list(self._line.values()):
            invocation.fail(_stopping())
        for environment in self._running:
            environment.end("was ended because the gateway is stopping")
        await asyncio.gather(*self._running.values())
        if self._watching is not None:
            self._watching.cancel()

    async def answer(self, invocation: Invocation) -> bytes:
        """The handler's JSON; `GatewayError` after the integration limit, though the handler goes on."""
        timer = asyncio.get_running_loop().call_later(self._limits.integration_s, self._expire, invocation)
        try:
            return await self.outcome(invocation)
        finally:
            timer.cancel()

    async def outcome(self, invocation: Invocation) -> bytes:
        """The same without that limit, for what no HTTP request waits for; the function's own Timeout ends it."""
        if self._stopping:
            raise _stopping()
        self._submit(invocation)
        try:
            return await invocation.outcome
        finally:
            self._line.pop(invocation.request_id, None)

    def _submit(self, invocation: Invocation) -> None:
        """Hand over to a free environment, or put in line."""
        if self._free:
            self._free.pop().take(invocation)
        else:
            self._line[invocation.request_id] = invocation
            self._grow()

    def _expire(self, invocation: Invocation) -> None:
        text = f"Endpoint request timed out: no answer within {self._limits.integration_s:g} s."
        invocation.fail(GatewayError(TIMED_OUT, text))

    def _grow(self) -> None:
        """Start an environment for each in line that none is starting for."""
        starting = sum(not environment.initialised for environment in self._running)
        missing = min(len(self._line) - starting, self._workers - len(self._running))
        for _ in range(missing):
            environment = self._make(self._on_free)
            self._running[environment] = asyncio.get_running_loop().create_task(self._keep(environment))

    def _on_free(self, environment: Worker) -> None:
        while self._line:
            invocation = self._line.pop(next(iter(self._line)))
            if not invocation.is_abandoned():
                return environment.take(invocation)
            invocation.fail(GatewayError(CLIENT_GONE, "The client went away before its turn."))
        return self._free.append(environment)

    async def _keep(self, environment: Worker) -> None:
        """Run an environment to its end, and see to what it leaves behind."""
        reason = await environment.run()
        del self._running[environment]
        if environment in self._free:
            self._free.remove(environment)
        self._bury(environment, reason)
        if not self._stopping:
            self._grow()

    def _bury(self, environment: Worker, reason: str) -> None:
        """Fail the invocation that died with it; one that it had not been shown goes to the head of the line."""
        error = _stopping() if self._stopping else GatewayError(FAILED, f"Internal server error: {reason}.")
        invocation, delivered = environment.unfinished()
        if not environment.initialised and self._line:
            self._line.pop(next(iter(self._line))).fail(error)  # the one that it was started for
        elif invocation is not None and (delivered or self._stopping):
            invocation.fail(error)
        else:
            log.log(logging.DEBUG if self._stopping else logging.INFO, "%s.", reason)  # nobody else is told
        if invocation is not None and not invocation.outcome.done():
            self._line = {invocation.request_id: invocation, **self._line}

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._limits.watch_s)
            now = time.monotonic()
            for environment in self._running:
                environment.check(now)
            for environment in [free for free in self._free if now - (free.free_since or now) > self._idle_s]:
                self._free.remove(environment)  # at once, lest it be given work while it dies
                environment.end(f"was idle for {self._idle_s:g} s")


def _stopping() -> GatewayError:
    return GatewayError(STOPPING, "Service unavailable: the gateway is stopping.")
