"""Requests of all kinds through the real gateway while the champion moves: none fails, and memory stays flat."""

import json
import threading
import time
from collections import Counter
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil

from pilotlight.local.gateway import Gateway
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store
from tests import fakes

ROOT = Path(__file__).parents[2]
CONNECTIONS = 4
HANDLER = "functions.predict.handler"
RIGHT = {"1": [2, 4, 6], "2": [1, 4, 9]}  # of [1, 2, 3], by version
ROW = {"name": "x", "shape": [1, 3], "datatype": "FP32"}
AS_JSON = json.dumps({"inputs": [ROW | {"data": [1, 2, 3]}]}).encode()
HEAD = json.dumps({"inputs": [ROW | {"parameters": {"binary_data_size": 12}}]}).encode()
AS_BINARY = HEAD + np.array([1, 2, 3], "<f4").tobytes()
MIB = 1024 * 1024
INFER = "/v2/models/double/infer"
REQUESTS: tuple[tuple[str, str, bytes | None, dict[str, str], int], ...] = (
    ("POST", INFER, AS_JSON, {}, 200),
    ("POST", INFER, AS_JSON, {"Accept-Encoding": "gzip"}, 200),  # too small to be worth it
    ("POST", INFER, AS_BINARY, {"Inference-Header-Content-Length": str(len(HEAD))}, 200),
    ("POST", INFER, AS_JSON, {"X-Pilotlight-Version": "2"}, 200),
    ("GET", "/v2/models/double", None, {}, 200),
    ("GET", "/v2/health/ready", None, {}, 200),
    ("POST", INFER, b"{", {}, 400),
    ("GET", "/v2/models/nothing", None, {}, 404),
)


class Callers:
    """Connections that send the requests in turn until they are told to stop."""

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url)
        self.over = threading.Event()
        self.statuses: Counter[int] = Counter()
        self.versions: Counter[str] = Counter()
        self.failures: list[dict[str, Any]] = []
        self.threads = [threading.Thread(target=self._send, daemon=True) for _ in range(CONNECTIONS)]

    def _send(self) -> None:
        connection = HTTPConnection(self._address.hostname or "", self._address.port, timeout=60)
        while not self.over.is_set():
            for method, path, body, headers, expected in REQUESTS:
                connection.request(method, path, body, headers)
                answer = connection.getresponse()
                self._judge(path, expected, answer.status, answer.read(), body)

    def _judge(self, path: str, expected: int, status: int, content: bytes, body: bytes | None) -> None:
        self.statuses[status] += 1
        if status != expected:
            self.failures.append({"path": path, "status": status, "answer": content[:500].decode(errors="replace")})
        elif status == 200 and body is not None:
            said = json.loads(content)
            self.versions[said["model_version"]] += 1
            if said["outputs"][0]["data"] != RIGHT[said["model_version"]]:
                self.failures.append({"path": path, "status": status, "answer": said})


def run(minutes: float, swaps: int) -> dict[str, Any]:
    """Send for so long, and move the champion so many times; memory is that of the gateway's environments, in MB."""
    with TemporaryDirectory() as store:
        registry = Registry(open_store(store))
        fakes.publish(registry)
        fakes.publish(registry, of="square", golden=fakes.golden([1, 2, 3], [1, 4, 9]))
        environment = {"PILOTLIGHT_STORE": store, "PILOTLIGHT_ALIAS_SECONDS": "1", **fakes.QUIET}
        gateway = Gateway(ROOT / "template.yaml", port=0, workers=2, environment=environment)
        with gateway.serve_in_background() as url:
            return driven(url, registry, minutes * 60, swaps)


def driven(url: str, registry: Registry, seconds: float, swaps: int) -> dict[str, Any]:
    """The load itself."""
    callers, memory, began, moved = Callers(url), [], time.monotonic(), 0
    for thread in callers.threads:
        thread.start()
    for step in range(20):
        time.sleep(max(0.0, began + seconds * (step + 1) / 20 - time.monotonic()))
        memory.append(resident())
        while moved < swaps * (step + 1) // 20:
            moved += 1
            registry.move_alias("double", "champion", 1 + moved % 2, actor="load", reason=f"swap {moved}")
    callers.over.set()
    for thread in callers.threads:
        thread.join(60)
    return {
        "seconds": round(time.monotonic() - began, 1),
        "swaps": moved,
        "statuses": dict(sorted(callers.statuses.items())),
        "versions": dict(sorted(callers.versions.items())),
        "failures": callers.failures,
        "resident_mb": [round(each, 1) for each in memory],
    }


def resident() -> float:
    """The memory of the predict function's environments, in MB; the clock starts another function's after 5 minutes."""
    children = psutil.Process().children(recursive=True)
    return sum(child.memory_info().rss for child in children if HANDLER in " ".join(child.cmdline())) / MIB
