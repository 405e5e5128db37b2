"""Cold starts of handlers as processes under AWS's runtime client, from exec to the posted answer."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from pilotlight.local.runtime_api import Invocation, RuntimeApi

if TYPE_CHECKING:
    from pilotlight.local.streamed_answers import StreamedAnswer

ROOT = Path(__file__).parents[2]
RUNTIME_PYTHON = ROOT / ".venv-runtime" / "bin" / "python"
MEMORY_MB = 3538  # two vCPUs, which the machine that measures has at least
LIMIT_S = 60
SETTLE_S = 1  # for what goes on in threads after an answer


def python() -> str:
    """Lambda's python where `make test-runtime` has made it, else the one that runs this."""
    named = os.environ.get("RUNTIME_PYTHON")
    return named or (str(RUNTIME_PYTHON) if RUNTIME_PYTHON.exists() else sys.executable)


def version() -> str:
    """Its version."""
    return subprocess.run([python(), "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]


@dataclass(frozen=True)
class Started:
    """A process that has answered: when, in seconds from its exec, what, and its peak of resident memory in bytes."""

    seconds: float
    answer: dict[str, Any]
    peak_bytes: int


class Watcher:
    """Takes note of nothing: the invocation's outcome tells all."""

    def on_next(self) -> None:
        """The client asks for work."""

    def on_done(self) -> None:
        """It has answered."""

    def on_init_error(self, text: str) -> None:
        """The handler could not be imported, which is a fault of the benchmark."""
        raise RuntimeError(text)


def start(handler: str, event: Mapping[str, Any], variables: Mapping[str, str], answers: int = 1) -> Started:
    """Start a process and measure its first answer; memory is measured after as many `answers` and a second."""
    return asyncio.run(_start(handler, json.dumps(event).encode(), variables, answers))


async def _start(handler: str, event: bytes, variables: Mapping[str, str], answers: int) -> Started:
    api = RuntimeApi("Measured", "arn:aws:lambda:us-east-1:1:function:Measured", LIMIT_S, 6 << 20, Watcher())
    first = _given(api, event)
    server = await asyncio.get_running_loop().create_server(api.create_connection, "127.0.0.1", 0)
    with tempfile.TemporaryDirectory() as tmp:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            python(),
            "-m",
            "awslambdaric",
            handler,
            cwd=ROOT,
            env={**_environment(address, tmp), **variables},
            stdout=asyncio.subprocess.DEVNULL,  # the handler's log
        )
        try:
            answer = await asyncio.wait_for(first, LIMIT_S)
            assert isinstance(answer, bytes)  # AWS's client streams none
            seconds = time.perf_counter() - began
            for _ in range(answers - 1):
                await asyncio.wait_for(_given(api, event), LIMIT_S)
            if answers > 1:
                await asyncio.sleep(SETTLE_S)
            peak = _peak_bytes(process.pid)
        finally:
            process.kill()
            await process.wait()
            server.close()
    return Started(seconds, json.loads(answer), peak)


def _given(api: RuntimeApi, event: bytes) -> "asyncio.Future[bytes | StreamedAnswer]":
    """The answer to come to an event that is given to the process."""
    outcome: asyncio.Future[bytes | StreamedAnswer] = asyncio.get_running_loop().create_future()
    api.assign_invocation(Invocation(str(uuid4()), "Root=1-0-0", event, outcome, lambda: False))
    return outcome


def _environment(address: str, tmp: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join((str(ROOT / "layers/core"), str(ROOT))),
        "TMPDIR": tmp,
        "AWS_LAMBDA_RUNTIME_API": address,
        "AWS_LAMBDA_FUNCTION_NAME": "Measured",
        "AWS_LAMBDA_FUNCTION_VERSION": "1",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(MEMORY_MB),
        "AWS_LAMBDA_LOG_GROUP_NAME": "none",
        "AWS_LAMBDA_LOG_STREAM_NAME": "none",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "ORT_DISABLE_TELEMETRY": "1",  # both sides: it would be the plain one's loss
        "POWERTOOLS_SERVICE_NAME": "plain",
    }


def _peak_bytes(pid: int) -> int:
    """The most that was ever resident, as the kernel counts it."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
