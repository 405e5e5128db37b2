"""T2: requests/s of the local gateway, LitServe and MLServer over the same ONNX files, at 1, 8 and 32 connections.

All three have as many processes as there are CPUs, with one thread of onnxruntime in each, take the same V2 body and
are asked in turn by the same callers (tests/benchmarks/load.py). Rivals run in `.venv-rivals`; without it, ours is
measured alone. The gateway does for each request what API Gateway and Lambda do, events and runtime API included.
"""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from http.client import HTTPConnection
from io import StringIO
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from rich.table import Table

from pilotlight.cli.publish import publish
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.benchmarks.cold import event
from tests.benchmarks.encoder import Encoder
from tests.benchmarks.load import Load, drive, request
from tests.benchmarks.starts import ROOT

RIVALS = ROOT / ".venv-rivals" / "bin"
SERVERS = Path(__file__).parent / "rivals"
CONNECTIONS = (1, 8, 32)
ROUNDS = 3
SECONDS = 1.5  # of each server in each round
WARM_S = 1.0
START_S = 90.0  # for a server to answer
WORKERS = os.cpu_count() or 1
LAYERS = 2  # of the larger model, 38 MB


@dataclass(frozen=True)
class Row:
    """What one server gave at so many connections."""

    model: str
    server: str
    connections: int
    per_second: float  # median of the rounds
    p50_ms: float
    p99_ms: float

    def as_dict(self) -> dict[str, Any]:
        """The row for the JSON result."""
        return asdict(self)


def table(rows: list[Row]) -> Table:
    """The rows as a table."""
    shown = Table(title=f"Throughput, {WORKERS} processes each", title_justify="left")
    for column in ("model", "connections", "server", "requests/s", "p50 ms", "p99 ms"):
        shown.add_column(column)
    for row in rows:
        numbers = f"{row.per_second:.0f}", f"{row.p50_ms:.2f}", f"{row.p99_ms:.2f}"
        shown.add_row(row.model, str(row.connections), row.server, *numbers)
    return shown


@dataclass(frozen=True)
class Served:
    """A model: its file, its name in a store, and a V2 body for it."""

    name: str
    file: Path
    body: bytes


@dataclass(frozen=True)
class Server:
    """A server that answers."""

    port: int
    path: str
    group: int  # of its processes

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Run in this context alone: LitServe's workers take CPU while they are idle, from whoever is measured."""
        os.killpg(self.group, signal.SIGCONT)
        try:
            yield
        finally:
            os.killpg(self.group, signal.SIGSTOP)


def measure() -> list[Row]:
    """All servers that there are, model by model."""
    with TemporaryDirectory() as folder:
        return [row for model in models(Path(folder)) for row in compared(model, Path(folder))]


def models(folder: Path) -> list[Served]:
    """The digits model, 20 kB, and an encoder of two layers; both published to the store in `folder`."""
    fakes.publish_digits(Registry(open_store(str(folder / "store"))))
    file = folder / "encoder.onnx"
    onnx.save(Encoder(seed=0, layers=LAYERS).model(), file)
    with redirect_stdout(StringIO()):  # it prints the reference
        publish(file, "encoder", precision="int8", store=str(folder / "store"), json=False)
    return [
        Served("digits", fakes.MODELS / "digits" / "model.int8.onnx", base64.b64decode(fakes.EVENT["body"])),
        Served("encoder", file, base64.b64decode(str(event()["body"]))),
    ]


def compared(model: Served, folder: Path) -> Iterator[Row]:
    """The servers in turn, at each number of connections."""
    with ExitStack() as stack:
        servers = {name: stack.enter_context(start(model, folder)) for name, start in sides().items()}
        for server in servers.values():
            with server.awake():
                drive(server.port, request(server.port, server.path, model.body), max(CONNECTIONS), WARM_S)
        for connections in CONNECTIONS:
            loads: dict[str, list[Load]] = {name: [] for name in servers}
            for _ in range(ROUNDS):
                for name, server in servers.items():
                    sent = request(server.port, server.path, model.body)
                    with server.awake():
                        loads[name].append(drive(server.port, sent, connections, SECONDS))
            yield from (row(model, name, connections, found) for name, found in loads.items())


def row(model: Served, server: str, connections: int, loads: list[Load]) -> Row:
    """The rounds in one line."""
    times = quantiles([seconds for load in loads for seconds in load.times], n=100)
    rate = median(len(load.times) / load.seconds for load in loads)
    return Row(model.name, server, connections, rate, times[49] * 1e3, times[98] * 1e3)


Start = Callable[[Served, Path], Any]  # a context manager of the server


def sides() -> Mapping[str, Start]:
    """Who is measured."""
    if not (RIVALS.parent / "ready").is_file():
        return {"pilotlight": ours}
    return {"pilotlight": ours, "LitServe": litserve, "MLServer": mlserver}


@contextmanager
def ours(model: Served, folder: Path) -> Iterator[Server]:
    """`pilotlight serve`."""
    command = [sys.executable, "-c", "from pilotlight.cli import app; app()", "serve", "--json", "--port", "0"]
    options = ["--store", str(folder / "store"), "--workers", str(WORKERS)]
    with running([*command, *options], {}, subprocess.PIPE) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        yield answering(model, process, int(url.rpartition(":")[2]), f"/v2/models/{model.name}/infer")


@contextmanager
def litserve(model: Served, folder: Path) -> Iterator[Server]:
    """LitServe with the file."""
    port = free_port()
    with running(
        [str(RIVALS / "python"), str(SERVERS / "lit.py"), str(model.file), str(port), str(WORKERS)], {}
    ) as process:
        yield answering(model, process, port, "/predict")


@contextmanager
def mlserver(model: Served, folder: Path) -> Iterator[Server]:
    """MLServer with the file, by settings as its documentation has them."""
    port = free_port()
    settings = {"host": "127.0.0.1", "http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
    place = folder / f"mlserver-{model.name}"
    place.mkdir()
    (place / "settings.json").write_text(json.dumps(settings | {"debug": False, "parallel_workers": WORKERS}))
    named = {"name": model.name, "implementation": "served_onnx.Onnx", "parameters": {"uri": str(model.file)}}
    (place / "model-settings.json").write_text(json.dumps(named))
    with running([str(RIVALS / "mlserver"), "start", str(place)], {"PYTHONPATH": str(SERVERS)}, place=place) as process:
        yield answering(model, process, port, f"/v2/models/{model.name}/infer")


@contextmanager
def running(
    command: list[str], variables: Mapping[str, str], output: int = subprocess.DEVNULL, place: Path = ROOT
) -> Iterator["subprocess.Popen[str]"]:
    """A server and its processes, until the context ends."""
    process = subprocess.Popen(
        command,
        cwd=place,
        env={**os.environ, "ORT_DISABLE_TELEMETRY": "1", **variables},
        stdout=output,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def answering(model: Served, process: "subprocess.Popen[str]", port: int, path: str) -> Server:
    """The server, asleep once it has given the right answer; `RuntimeError` when it does not come to that."""
    sent, ends = request(port, path, model.body), time.monotonic() + START_S
    while time.monotonic() < ends:
        try:
            drive(port, sent, 1, 0)
        except (OSError, RuntimeError):
            time.sleep(0.2)
        else:
            check(model, port, path)
            os.killpg(process.pid, signal.SIGSTOP)
            return Server(port, path, process.pid)
    raise RuntimeError(f"The server of {path} did not answer within {START_S:g} s.")


def check(model: Served, port: int, path: str) -> None:
    """A server that is fast because it answers something else is not compared."""
    connection = HTTPConnection("127.0.0.1", port, timeout=START_S)
    connection.request("POST", path, model.body, {"Content-Type": "application/json"})
    found = json.loads(connection.getresponse().read())["outputs"][0]["data"]
    connection.close()
    (given,) = json.loads(model.body)["inputs"]
    dtype = {"FP32": np.float32, "INT64": np.int64}[given["datatype"]]
    feeds = {given["name"]: np.array(given["data"], dtype).reshape(given["shape"])}
    session = ort.InferenceSession(model.file, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(found, session.run(None, feeds)[0].ravel(), atol=0.02)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found: int = listener.getsockname()[1]
        return found
