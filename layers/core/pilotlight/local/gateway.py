"""The gateway: one listening socket, one event loop, one pool of environments per function.

Run it in the foreground with `serve`, or in a thread with `serve_in_background`. This module decides the order of
starting and stopping; only it and `connections` depend on uvicorn.
"""

import asyncio
import concurrent.futures
import contextlib
import logging
import math
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import uvicorn

from pilotlight.errors import InvalidInputError
from pilotlight.local import template
from pilotlight.local.authorizer import LocalAuthorizer, apply_auth
from pilotlight.local.connections import ConnectionLimits, ConnectionTable, HttpConnection, count_connections
from pilotlight.local.control_secret import ControlSecret
from pilotlight.local.environment import Environment, EnvironmentSpec, find_runtime_client
from pilotlight.local.eventbridge_api import EventsApi
from pilotlight.local.invoke_api import InvokeApi
from pilotlight.local.origin_policy import OriginPolicy
from pilotlight.local.pool import Answer, EnvironmentPool, OnFree
from pilotlight.local.rest_api import AwsService, RestApi
from pilotlight.local.runtime_api import Invocation
from pilotlight.local.signed_uploads import SignedUploads, UploadStore
from pilotlight.local.streamed_answers import collect_answer
from pilotlight.local.template import FunctionSpec, GatewayLimits, Stack
from pilotlight.local.triggers import Triggers

MAX_WORKERS = 1000  # environments of one function, as many as Lambda runs in a new account
DRAIN_CHECK_S = 0.02  # between two looks at what is unfinished
SHUTDOWN_S = 3  # how long a client may take to read the last answer

OnReady = Callable[[str], None]

log = logging.getLogger("pilotlight.local")


@dataclass(frozen=True)
class Gateway:
    """What to serve, where, and with how many environments per function.

    Port 0 takes any free port. `parameters` are the template's; unless Auth is among them, no key is asked for on
    loopback. `environment` overrides the template's variables. `idle_s` is
    how many seconds an environment may be without work. `client` is the runtime client's module: AWS's if it is
    installed, else ours. `allowed_hosts` are further names of this gateway, `allowed_origins` the origins of the other
    sites whose pages may call it. Whoever knows `secret` may invoke functions and put events. `uploads` is the store on
    disk into which files are uploaded by signed URLs, None where a bucket takes them or nobody does. Requests in
    flight have `drain_s` seconds to finish when the gateway stops.
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
    allowed_hosts: Sequence[str] = ()
    allowed_origins: Sequence[str] = ()
    connections: ConnectionLimits = field(default_factory=ConnectionLimits)
    secret: str = field(default_factory=partial(secrets.token_hex, 16), repr=False)
    drain_s: float = 10.0
    uploads: UploadStore | None = None

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
        if not 1 <= self.workers <= MAX_WORKERS:
            raise InvalidInputError(f"{self.workers} workers cannot serve anything; take 1 to {MAX_WORKERS}.")
        secret = ControlSecret(self.secret)
        policy = OriginPolicy(self.host, self.allowed_hosts, self.allowed_origins)
        stack = apply_auth(template.load_stack(self.template, self.parameters), self.host, self.parameters)
        pools: dict[str, EnvironmentPool] = {}
        invoke = partial(_invoke_function, pools)
        triggers = Triggers(stack.schedules, stack.subscriptions, invoke)
        upload_key = secrets.token_hex(32)  # of this gateway alone: its URLs end with it
        services: list[AwsService] = [
            InvokeApi(stack.functions, invoke, self.limits, secret),
            EventsApi(stack.rules, invoke, self.limits, secret),
        ]
        if self.uploads is not None:
            services.append(SignedUploads(self.uploads, upload_key))
        authorizer = LocalAuthorizer(stack.authorizer, stack.stage, invoke) if stack.authorizer else None
        api = RestApi(stack, pools, self.limits, services, authorizer, policy)
        listener = _open_listener(self.host, self.port)
        control_url = f"{_loopback_url(_listener_url(listener))}{secret.path}"
        pools |= {
            name: self._build_pool(stack, function, triggers, control_url, upload_key)
            for name, function in stack.functions.items()
        }
        count = count_connections(self.connections, self.workers * len(pools))
        table = ConnectionTable(self.connections, count)
        on_started = partial(_tell_url, on_ready, listener)
        return _Server(api, table, list(pools.values()), triggers, on_started, self.drain_s), listener

    def _build_pool(
        self, stack: Stack, function: FunctionSpec, triggers: Triggers, url: str, upload_key: str
    ) -> EnvironmentPool:
        upload_variables = {} if self.uploads is None else {"PILOTLIGHT_UPLOAD_KEY": upload_key}
        variables = {**self.environment, **upload_variables}
        spec = EnvironmentSpec(function, stack.root, self.template.name, self.client, variables, self.limits, url)
        name = function.logical_id
        is_heard = name in {subscription.source for subscription in stack.subscriptions}

        def make_environment(on_free: OnFree) -> Environment:
            return Environment(spec, on_free, partial(triggers.on_log_line, name) if is_heard else None)

        return EnvironmentPool(make_environment, self.workers, self.idle_s, self.limits)


class _Server(uvicorn.Server):
    """Uvicorn, with the pools started before it, and stopped once the requests in flight are answered."""

    def __init__(
        self,
        api: RestApi,
        table: ConnectionTable,
        pools: Sequence[EnvironmentPool],
        triggers: Triggers,
        on_started: Callable[[], None],
        drain_s: float,
    ) -> None:
        config = uvicorn.Config(
            api,
            http=cast("Any", partial(HttpConnection, table)),  # called as a class would be
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="error",  # a client that sends no HTTP is told so, and costs no line
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=math.ceil(table.limits.idle_s),
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
        super().__init__(config)
        self._table = table
        self._pools = pools
        self._triggers = triggers
        self._on_started = on_started
        self._drain_s = drain_s
        self._watch: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the pools, listen, then call `on_started`."""
        for pool in self._pools:
            pool.start()
        self._triggers.start()
        self._watch = asyncio.get_running_loop().create_task(self._table.watch())
        await super().startup(sockets)
        try:
            self._on_started()
        except BaseException:
            await self.shutdown(sockets)  # uvloop waits indefinitely to close a loop whose servers are open
            raise

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what is in flight, end the environments, which answers what is left, then the connections."""
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        self._table.start_draining()
        await self._triggers.stop_schedules()
        await self._drain()
        await self._triggers.stop()
        for pool in self._pools:
            await pool.stop()
        if self._watch is not None:
            self._watch.cancel()
        await super().shutdown(sockets)
        self._table.abort_all()

    async def _drain(self) -> None:
        """Wait until no function works and every request is answered, at most for the grace or a second signal."""
        count = sum(pool.in_flight for pool in self._pools)
        if count:
            log.info("Finishing %d invocations, for %g s at most; a second signal ends them.", count, self._drain_s)
        until = time.monotonic() + self._drain_s
        while self._has_unfinished() and not self.force_exit and time.monotonic() < until:
            await asyncio.sleep(DRAIN_CHECK_S)

    def _has_unfinished(self) -> bool:
        return bool(self.server_state.tasks) or any(pool.in_flight for pool in self._pools)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing: uvicorn would raise the signal again when it is done, and end the process too early."""
        yield


async def _invoke_function(pools: Mapping[str, EnvironmentPool], function: str, event: bytes) -> bytes:
    """Invoke a function without an HTTP request, so that no client can disconnect."""
    request_id = str(uuid4())
    outcome: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    invocation = Invocation(request_id, f"Root={request_id}", event, outcome, lambda: False)
    answer = await pools[function].invoke(invocation)
    return answer if isinstance(answer, bytes) else await collect_answer(answer)


@contextlib.contextmanager
def _stop_on_signals(server: uvicorn.Server) -> Iterator[None]:
    """Stop the server on SIGINT and SIGTERM within the context; a second signal ends it without waiting."""

    def stop(*_: object) -> None:
        server.force_exit = server.should_exit
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


def _tell_url(on_ready: OnReady, listener: socket.socket) -> None:
    on_ready(_listener_url(listener))


def _loopback_url(url: str) -> str:
    """Return the URL at which this machine reaches a listener that may be for all addresses."""
    return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")


def _listener_url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
