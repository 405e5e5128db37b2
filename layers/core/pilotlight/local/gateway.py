"""The gateway: one listening socket, one event loop, one pool of environments per function.

Run it in the foreground with `serve`, or in a thread with `serve_in_background`. This module decides the order of
starting and stopping; it is the only one that depends on uvicorn.
"""

import asyncio
import concurrent.futures
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import uvicorn

from pilotlight.errors import InvalidInputError
from pilotlight.local import template
from pilotlight.local.authorizer import LocalAuthorizer, apply_auth
from pilotlight.local.environment import Environment, EnvironmentSpec, find_runtime_client
from pilotlight.local.eventbridge_api import EventsApi
from pilotlight.local.invoke_api import InvokeApi
from pilotlight.local.pool import EnvironmentPool, OnFree
from pilotlight.local.rest_api import RestApi
from pilotlight.local.runtime_api import Invocation
from pilotlight.local.template import FunctionSpec, GatewayLimits, Stack
from pilotlight.local.triggers import Triggers

KEEP_ALIVE_S = 600  # how long an idle connection stays open: long, since closing one races with its next request
SHUTDOWN_S = 3  # how long a client may take to read the last answer

OnReady = Callable[[str], None]


@dataclass(frozen=True)
class Gateway:
    """What to serve, where, and with how many environments per function.

    Port 0 takes any free port. `parameters` are the template's, and `environment` overrides its variables. Unless Auth
    is among the parameters, no key is asked for on loopback. `idle_s` is how many seconds an environment may be without
    work. `client` is the runtime client's module: AWS's if it is installed, else ours.
    """

    template: Path
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    environment: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    idle_s: float = 300.0
    limits: GatewayLimits = field(default_factory=GatewayLimits)
    client: str = field(default_factory=find_runtime_client)

    def serve(self, on_ready: OnReady) -> None:
        """Serve until SIGINT or SIGTERM; `on_ready` gets the URL. For the main thread.

        Raises `InvalidInputError` if the template is wrong or the port is taken.
        """
        server, listener = self._build_server(on_ready)
        with _stop_on_signals(server):
            server.run(sockets=[listener])

    @contextlib.contextmanager
    def serve_in_background(self) -> Iterator[str]:
        """Serve from a thread within the context, and yield the URL; errors are those of `serve`."""
        ready: concurrent.futures.Future[str] = concurrent.futures.Future()
        server, listener = self._build_server(ready.set_result)
        running: concurrent.futures.Future[Any]
        with concurrent.futures.ThreadPoolExecutor(1, "pilotlight-gateway") as thread:
            running = thread.submit(server.run, sockets=[listener])
            concurrent.futures.wait((ready, running), return_when=concurrent.futures.FIRST_COMPLETED)
            try:
                yield ready.result() if ready.done() else running.result()  # raises: it ended before it was ready
            finally:
                server.should_exit = True

    def _build_server(self, on_ready: OnReady) -> "tuple[_Server, socket.socket]":
        if self.workers < 1:
            raise InvalidInputError(f"{self.workers} workers cannot serve anything; take 1 or more.")
        stack = apply_auth(template.load_stack(self.template, self.parameters), self.host, self.parameters)
        pools: dict[str, EnvironmentPool] = {}
        invoke = partial(_invoke_function, pools)
        triggers = Triggers(stack.schedules, stack.subscriptions, invoke)
        services = (InvokeApi(stack.functions, invoke, self.limits), EventsApi(stack.rules, invoke, self.limits))
        authorizer = LocalAuthorizer(stack.authorizer, stack.stage, invoke) if stack.authorizer else None
        api = RestApi(stack, pools, self.limits, services, authorizer)
        listener = _open_listener(self.host, self.port)
        loopback_url = _loopback_url(_listener_url(listener))
        pools |= {
            name: self._build_pool(stack, function, triggers, loopback_url)
            for name, function in stack.functions.items()
        }
        return _Server(api, list(pools.values()), triggers, lambda: on_ready(_listener_url(listener))), listener

    def _build_pool(self, stack: Stack, function: FunctionSpec, triggers: Triggers, url: str) -> EnvironmentPool:
        spec = EnvironmentSpec(
            function, stack.root, self.template.name, self.client, self.environment, self.limits, url
        )
        name = function.logical_id
        is_heard = name in {subscription.source for subscription in stack.subscriptions}

        def make_environment(on_free: OnFree) -> Environment:
            return Environment(spec, on_free, partial(triggers.on_log_line, name) if is_heard else None)

        return EnvironmentPool(make_environment, self.workers, self.idle_s, self.limits)


class _Server(uvicorn.Server):
    """Uvicorn, with the pools started before it and stopped before it waits for requests in flight."""

    def __init__(
        self, api: RestApi, pools: Sequence[EnvironmentPool], triggers: Triggers, on_started: Callable[[], None]
    ) -> None:
        config = uvicorn.Config(
            api,
            http="httptools",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
        super().__init__(config)
        self._pools = pools
        self._triggers = triggers
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the pools, listen, then call `on_started`."""
        for pool in self._pools:
            pool.start()
        self._triggers.start()
        await super().startup(sockets)
        try:
            self._on_started()
        except BaseException:
            await self.shutdown(sockets)  # uvloop waits indefinitely to close a loop whose servers are open
            raise

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the environments, which answers every request in flight, then the connections."""
        await self._triggers.stop()
        for pool in self._pools:
            await pool.stop()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing: uvicorn would raise the signal again when it is done, and end the process too early."""
        yield


async def _invoke_function(pools: Mapping[str, EnvironmentPool], function: str, event: bytes) -> bytes:
    """Invoke a function without an HTTP request, so that no client can disconnect."""
    request_id = str(uuid4())
    outcome: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    return await pools[function].invoke(Invocation(request_id, f"Root={request_id}", event, outcome, lambda: False))


@contextlib.contextmanager
def _stop_on_signals(server: uvicorn.Server) -> Iterator[None]:
    """Stop the server on SIGINT and SIGTERM, and do nothing else, within the context."""

    def stop(*_: object) -> None:
        server.should_exit = True

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _open_listener(host: str, port: int) -> socket.socket:
    """Open a listening socket; `InvalidInputError` explains why there is none."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as exc:
        why = (getattr(exc, "strerror", None) or str(exc)).partition(" (while")[0]  # without repeating the address
        what = f"Cannot listen on port {port} of {host}: {why}."
        raise InvalidInputError(f"{what} Stop what uses it, or choose another port; 0 takes any free one.") from exc


def _loopback_url(url: str) -> str:
    """Return the URL at which this machine reaches a listener that may be for all addresses."""
    return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")


def _listener_url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
