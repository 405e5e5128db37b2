"""The hooks around SnapStart's snapshot, called by Lambda's own runtime client in the image of its runtime.

The emulator takes no snapshots. Here the client is told that it starts for one, by the variable with which Lambda says
so; what Lambda's side of the Runtime API answers is `SnapshotRuntime`. The process itself stands for its snapshot.
"""

import http.server
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pilotlight.registry.registry import Registry, version_path
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.e2e.deploy.conftest import BUILT
from tests.e2e.deploy.emulator_process import IMAGE, find_obstacle
from tests.threaded_server import serve_in_thread

API = "/2018-06-01/runtime"
CALL_S = 60  # for which a call may take on a busy machine
X = json.dumps({"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 0, 1]}]}).encode()


class SnapshotRuntime:
    """Lambda's side: it answers the restore when a test says so, then hands out calls, and keeps what was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.restored, self.ended = threading.Event(), threading.Event()
        self._calls: list[dict[str, Any]] = []
        self._answers: dict[str, dict[str, Any]] = {}

    def invoke(self, event: dict[str, Any]) -> dict[str, Any]:
        """Hand out a call, and wait for its answer."""
        self._calls.append(event)
        name = str(len(self._calls))
        fakes.eventually(lambda: name in self._answers, CALL_S)
        return self._answers[name]

    @contextmanager
    def served(self) -> Iterator[int]:
        """The port at which it is asked."""
        server = http.server.ThreadingHTTPServer(("0.0.0.0", 0), self._handler())  # noqa: S104 - a container asks
        server.daemon_threads = True
        with serve_in_thread(server):
            yield server.server_port
            self.restored.set()
            self.ended.set()

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        runtime = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                runtime.asked.append(self.path)
                headers, body = runtime.answer(self.path)
                self.send_response(200)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                runtime.asked.append(self.path)
                body = self.rfile.read(int(self.headers["Content-Length"]))
                runtime.note(self.path, body)
                self.send_response(202)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler

    def answer(self, path: str) -> tuple[dict[str, str], bytes]:
        """Answer the restore, or hand out the next call, once there is one."""
        if path == f"{API}/restore/next":
            self.restored.wait()
            return {}, b""
        number = self.asked.count(path)
        while len(self._calls) < number and not self.ended.wait(0.02):
            continue
        event = self._calls[number - 1] if number <= len(self._calls) else {}
        arn = "arn:aws:lambda:us-east-1:000000000000:function:predict:1"
        deadline_ms = str(int((time.time() + CALL_S) * 1000))
        deadline = {"Lambda-Runtime-Deadline-Ms": deadline_ms, "Lambda-Runtime-Invoked-Function-Arn": arn}
        known = {"Lambda-Runtime-Aws-Request-Id": str(number), "Content-Type": "application/json"}
        return {**known, **deadline}, json.dumps(event).encode()

    def note(self, path: str, body: bytes) -> None:
        """Keep the answer to a call."""
        if path.endswith("/response"):
            self._answers[path.split("/")[-2]] = json.loads(body)


@pytest.fixture
def runtime() -> Iterator[SnapshotRuntime]:
    runtime = SnapshotRuntime()
    yield runtime
    runtime.ended.set()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store of one model, with a golden request, which is sent before the snapshot."""
    fakes.publish(Registry(open_store(str(tmp_path))), golden=fakes.golden([1, 0, 1], [2, 0, 2]))
    return tmp_path


@pytest.fixture
def start(folder: Path, runtime: SnapshotRuntime) -> Iterator[Callable[[], str]]:
    """Start the predict function's package as Lambda starts it for a snapshot; gives what to read its log by."""
    if obstacle := find_obstacle() or ("" if BUILT.exists() else "`make package` has not run"):
        pytest.skip(obstacle)
    names: list[str] = []

    def start_container(port: int) -> str:
        build = BUILT.parent
        mounted = {build / "PredictFunction": "/var/task", build / "DepsLayer": "/opt", build / "CoreLayer": "/core"}
        environment = {
            "AWS_LAMBDA_RUNTIME_API": f"host.docker.internal:{port}",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start",
            "AWS_LAMBDA_FUNCTION_NAME": "predict",
            "AWS_REGION": "us-east-1",
            "PYTHONPATH": "/core/python",
            "PILOTLIGHT_STORE": "file:///store",
            "PILOTLIGHT_PRELOAD": "double",
            "PILOTLIGHT_ALIAS_SECONDS": "100000",  # so that only the restore makes it read the alias anew
        }
        command = ["docker", "run", "--detach", "--add-host", "host.docker.internal:host-gateway"]
        command += [
            "--user",
            str(os.getuid()),
            "--volume",
            f"{folder}:/store",
            "--entrypoint",
            "/var/runtime/bootstrap",
        ]
        command += [word for place, target in mounted.items() for word in ("--volume", f"{place}:{target}:ro")]
        command += [word for name, value in environment.items() for word in ("--env", f"{name}={value}")]
        run = subprocess.run(
            [*command, IMAGE, "functions.predict.handler.handle"], capture_output=True, text=True, check=True
        )
        names.append(run.stdout.strip())
        return names[-1]

    with runtime.served() as port:
        yield lambda: start_container(port)
    for name in names:
        subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=True)


def infer(version: str = "") -> dict[str, Any]:
    """The gateway's event for a request to the champion, or to a version."""
    resource = "/v2/models/{model}/versions/{version}/infer" if version else "/v2/models/{model}/infer"
    path = resource.replace("{model}", "double").replace("{version}", version)
    return fakes.event([resource], "POST", path, X, {"content-type": "application/json"})


def test_a_snapshot_has_its_models_open_and_its_restore_knows_todays_alias(
    start: Callable[[], str], runtime: SnapshotRuntime, folder: Path
) -> None:
    container = start()
    fakes.eventually(lambda: f"{API}/restore/next" in runtime.asked, CALL_S)
    assert runtime.asked == [f"{API}/restore/next"]  # no call has been handed out
    # Days go by, in which the files of the first version go, and another one is champion.
    (folder / version_path("double", 1, "model.onnx")).unlink()
    registry = Registry(open_store(str(folder)))
    fakes.publish(registry, of="double")
    registry.move_alias("double", "champion", 2, actor="tests", reason="a later version")
    runtime.restored.set()
    former, now = json.loads(runtime.invoke(infer("1"))["body"]), json.loads(runtime.invoke(infer())["body"])
    log = subprocess.run(["docker", "logs", container], capture_output=True, text=True, check=True)
    assert "outputs" in former, (former, log.stdout, log.stderr)
    assert (former["model_version"], former["outputs"][0]["data"]) == ("1", [2, 0, 2])  # from memory
    assert (now["model_version"], now["outputs"][0]["data"]) == ("2", [2, 0, 2])
    assert f"{API}/restore/error" not in runtime.asked
