"""One execution environment of a function: a process with a Lambda runtime client, watched and killed from outside.

It enforces the function's own limits (memory, Timeout, init) and reports why an environment ended. The pool decides
which environment gets which request.
"""

import asyncio
import contextlib
import importlib.util
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import psutil

from pilotlight.local.proxy_events import ACCOUNT_ID
from pilotlight.local.runtime_api import Invocation, RuntimeApi
from pilotlight.local.template import FunctionSpec, GatewayLimits

AWS_CLIENT = "awslambdaric"  # AWS's own runtime client; its wheels are for Linux
OWN_CLIENT = "pilotlight.runtime_client"
WRAPPER, TASK_ROOT = "AWS_LAMBDA_EXEC_WRAPPER", "/var/task/"
LOOPBACK = "127.0.0.1"
MIB = 1024 * 1024
# Of the gateway's own variables, a handler gets those for programs, homes, certificates, proxies and clouds.
INHERITED = frozenset({
    "PATH", "HOME", "USER", "LANG", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "SYSTEMROOT", "TEMP", "TMP",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
})  # fmt: skip
EXECUTION_ENV = "AWS_Lambda_python3.13"  # as in template.yaml; AWS's client encodes its answers by it
INHERITED_PREFIXES = ("AWS_", "LC_", "PILOTLIGHT_")
CREDENTIALS = (
    "AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)  # fmt: skip
# Set if the gateway itself runs on Lambda, or in an environment of another one; its operator's secret.
NOT_INHERITED_PREFIXES = ("AWS_LAMBDA_", "PILOTLIGHT_CONTROL_SECRET", "PILOTLIGHT_UPLOAD_KEY")

log = logging.getLogger("pilotlight.local")


def find_runtime_client() -> str:
    """Return the runtime client's module: AWS's if it is installed, else ours."""
    return AWS_CLIENT if importlib.util.find_spec(AWS_CLIENT) else OWN_CLIENT


@dataclass(frozen=True)
class EnvironmentSpec:
    """How the environments of one function are started."""

    function: FunctionSpec
    root: Path
    template: str  # file name, for messages
    client: str
    overrides: Mapping[str, str]
    limits: GatewayLimits
    gateway_url: str = ""  # URL of the gateway's Invoke API, with its secret; empty without one

    @property
    def region(self) -> str:
        """The region in the function's variables."""
        return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"

    @property
    def arn(self) -> str:
        """The function's ARN, with the account of AWS's examples."""
        return f"arn:aws:lambda:{self.region}:{ACCOUNT_ID}:function:{self.function.logical_id}"

    def build_command(self) -> list[str]:
        """Build the command of an environment's process; -P keeps this package's folder off its `sys.path`.

        As on Lambda, a function's wrapper is started in place of the runtime client, with the words that start that.
        """
        watchdog = [sys.executable, "-P", str(Path(__file__).with_name("parent_watchdog.py")), str(os.getpid())]
        if (wrapper := self.find_wrapper()) is None:
            return [*watchdog, self.client, self.function.handler]
        return [*watchdog, str(wrapper), sys.executable, "-m", self.client, self.function.handler]

    def find_wrapper(self) -> Path | None:
        """Find the script that starts the function's own runtime client; None if it has none."""
        named = self.function.environment.get(WRAPPER)
        return self.root / Path(named).relative_to(TASK_ROOT) if named and named.startswith(TASK_ROOT) else None

    def build_variables(self, runtime_api: str, tmp: str) -> dict[str, str]:
        """Build all variables in `os.environ` of an environment."""
        function = self.function
        inherited = {name: value for name, value in os.environ.items() if _is_inherited(name)}
        return {
            **inherited,
            **self._build_endpoint_variables(inherited),
            "AWS_LAMBDA_RUNTIME_API": runtime_api,
            "_HANDLER": function.handler,
            "LAMBDA_TASK_ROOT": str(self.root),
            "AWS_LAMBDA_FUNCTION_NAME": function.logical_id,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_mb),
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{function.logical_id}",
            "AWS_LAMBDA_LOG_STREAM_NAME": f"{time.strftime('%Y/%m/%d', time.gmtime())}/[$LATEST]{uuid4().hex}",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_EXECUTION_ENV": EXECUTION_ENV,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "TZ": ":UTC",
            "TMPDIR": tmp,
            "PYTHONUNBUFFERED": "1",  # so that output appears even if the handler is killed
            "PYTHONPATH": os.pathsep.join(map(str, self._build_python_path())),
            # As under the SAM CLI, the shell's variables override the template's.
            **{name: inherited.get(name, value) for name, value in function.environment.items()},
            **({} if (wrapper := self.find_wrapper()) is None else {WRAPPER: str(wrapper)}),
            **self.overrides,
        }

    def _build_endpoint_variables(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """Build the variables that send boto3's calls to the gateway, and credentials to sign with.

        The calls are those for other functions and the bus. Credentials are made up only if there are none: a profile
        or a store on S3 needs the real ones.
        """
        if not self.gateway_url:
            return {}
        variables = {**inherited, **self.overrides}
        has_some = any(name in variables for name in CREDENTIALS) or Path.home().joinpath(".aws").exists()
        needs_real = variables.get("PILOTLIGHT_STORE", "").startswith("s3://")
        made_up = {} if has_some or needs_real else {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
        return {
            "AWS_ENDPOINT_URL_LAMBDA": self.gateway_url,
            "AWS_ENDPOINT_URL_EVENTBRIDGE": self.gateway_url,
            **made_up,
        }

    def _build_python_path(self) -> tuple[Path, ...]:
        """Build the function's own path and, for our runtime client, the folder that contains it, last."""
        own = (Path(__file__).parents[2],) if self.client == OWN_CLIENT else ()
        return (*self.function.python_path, *own)


def _is_inherited(name: str) -> bool:
    return name in INHERITED or (name.startswith(INHERITED_PREFIXES) and not name.startswith(NOT_INHERITED_PREFIXES))


class Environment:
    """A process from its start to its end; `run` returns when it ends."""

    def __init__(
        self,
        spec: EnvironmentSpec,
        on_free: Callable[["Environment"], None],
        on_line: Callable[[bytes], None] | None = None,
    ) -> None:
        """Create an environment; `on_line` gets each line of standard output, where metrics are; stderr gets it too."""
        self._spec = spec
        self._on_line = on_line
        self._function = spec.function
        self._on_free = on_free
        self._process: asyncio.subprocess.Process | None = None
        self._api = RuntimeApi(
            spec.function.logical_id,
            spec.arn,
            spec.function.timeout_s,
            spec.limits.answer_bytes,
            self,
            is_own_connection=self._is_own_connection,
            stream_bytes=spec.limits.stream_bytes,
        )
        self._reason = ""  # why it ended, or is about to end
        self._busy_since = time.monotonic()
        self._init_ms: float | None = None  # of a finished init, until its first invocation reports it
        self.initialised = False
        self.free_since: float | None = None  # s, monotonic; None while it starts or works

    async def run(self) -> str:
        """Start the process, wait for its end, and return why it ended: a sentence without its full stop."""
        try:
            server = await asyncio.get_running_loop().create_server(self._api.create_connection, LOOPBACK, 0)
            with (
                contextlib.closing(server),
                TemporaryDirectory(prefix="pilotlight-", ignore_cleanup_errors=True) as tmp,
            ):
                code = await self._run_process(f"{LOOPBACK}:{server.sockets[0].getsockname()[1]}", tmp)
        except OSError as exc:
            return self._format_sentence(f"could not be started: {exc}")
        return self._format_sentence(self._reason or self._describe_exit(code))

    async def _run_process(self, runtime_api: str, tmp: str) -> int:
        """Run a process with its Runtime API at `runtime_api` and `tmp` as its /tmp, and return its exit code."""
        self._process = await asyncio.create_subprocess_exec(
            *self._spec.build_command(),
            cwd=self._spec.root,
            env=self._spec.build_variables(runtime_api, tmp),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE if self._on_line else sys.__stderr__,
            stderr=sys.__stderr__,
            start_new_session=True,  # Ctrl-C is for the gateway only, and a handler's children are killed with it
        )
        if self._reason:  # it was ended before it started
            self._kill()
        listening = asyncio.ensure_future(self._forward_output(self._process.stdout))
        code = await self._process.wait()
        self._kill()  # its child processes
        await listening
        return code

    async def _forward_output(self, output: asyncio.StreamReader | None) -> None:
        """Forward standard output line by line until its end; without a pipe there is none."""
        while output is not None and (line := await self._read_line(output)):
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, line)
            if self._on_line is not None:
                self._on_line(line)

    async def _read_line(self, output: asyncio.StreamReader) -> bytes:
        """Read the next line, or as much of one as the reader holds."""
        try:
            return await output.readuntil(b"\n")
        except asyncio.LimitOverrunError as exc:
            return await output.readexactly(exc.consumed)
        except asyncio.IncompleteReadError as exc:
            return exc.partial

    def take(self, invocation: Invocation) -> None:
        """Handle this invocation next; only for a free environment."""
        self.free_since = None
        self._busy_since = time.monotonic()
        invocation.cold_ms, self._init_ms = self._init_ms, None
        self._api.assign_invocation(invocation)

    def get_unfinished(self) -> tuple[Invocation | None, bool]:
        """Return the unfinished invocation of a dead environment, and whether its handler has received it."""
        return self._api.invocation, self._api.is_delivered

    def end(self, reason: str) -> None:
        """Kill the environment; `run` returns soon after."""
        self._reason = self._reason or reason
        self._kill()

    def check_limits(self, now: float) -> None:
        """End the environment if it is busy and exceeds its function's memory or time."""
        if self.free_since is not None or self._process is None:
            return
        function, init_s = self._function, self._spec.limits.init_s
        used_mb, busy_s = _resident_bytes(self._process.pid) / MIB, now - self._busy_since
        if used_mb > function.memory_mb:
            self.end(f"used {used_mb:.0f} MB of {function.memory_mb} MB ({self._format_setting('MemorySize')})")
        elif self.initialised and busy_s > function.timeout_s:
            self.end(f"timed out after {function.timeout_s} s ({self._format_setting('Timeout')})")
        elif busy_s > init_s + function.timeout_s:  # Lambda retries an init, under the Timeout
            self.end(
                f"was not initialised after {init_s:g} s and the {function.timeout_s} s of "
                f"{self._format_setting('Timeout')}"
            )

    def on_next(self) -> None:
        """Handle the runtime client's request for work."""
        if not self.initialised:
            self.initialised = True
            self._init_ms = (time.monotonic() - self._busy_since) * 1000
        if self._api.invocation is None and self.free_since is None:
            self.on_done()

    def on_done(self) -> None:
        """Mark the environment as free."""
        if not self._reason:  # else it is being killed, and a late answer must not bring it new work
            self.free_since = time.monotonic()
            self._on_free(self)

    def on_init_error(self, text: str) -> None:
        """Note why the handler could not be imported."""
        self._reason = self._reason or f"could not be initialised: {text}"

    def _is_own_connection(self, port: int) -> bool:
        """Return whether the process, or a child of it, holds the connection from this port of the machine.

        The Runtime API's address cannot carry a secret: AWS's client takes a host and a port, and nothing more. A
        process may connect before the loop has said that it started; then any process of the gateway is believed.
        """
        try:
            own = psutil.Process(self._process.pid if self._process else None)
            return any(_has_local_port(each, port) for each in (own, *own.children(recursive=True)))
        except psutil.Error:  # it has ended, and its connection with it
            return False

    def _kill(self) -> None:
        if self._process is None:
            return
        try:
            if sys.platform == "win32":
                self._process.kill()
            else:
                os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            log.debug("%s: the process %d is gone already", self._function.logical_id, self._process.pid)

    def _format_setting(self, field: str) -> str:
        return f"{field} of {self._function.logical_id} in {self._spec.template}"

    def _format_sentence(self, reason: str) -> str:
        return f"{self._function.logical_id} {reason}"

    def _describe_exit(self, code: int) -> str:
        how = f"was ended by {_signal_name(-code)}" if code < 0 else f"exited with code {code}"
        when = "while it was idle" if self.free_since else "during a request" if self.initialised else "during its init"
        return f"{how} {when}; its last words are on the gateway's stderr"


def _has_local_port(process: psutil.Process, port: int) -> bool:
    return any(each.laddr and each.laddr.port == port for each in process.net_connections("inet4"))


def _signal_name(number: int) -> str:
    return next((known.name for known in signal.Signals if known == number), f"signal {number}")


def _resident_bytes(pid: int) -> int:
    """Return the process's memory without its children's, since finding those takes a look at every process."""
    try:
        resident: int = psutil.Process(pid).memory_info().rss
    except psutil.Error:  # it is ending, which `run` is about to notice
        return 0
    return resident
