"""Requests of all kinds through the real gateway while the champion moves: none fails, and memory stays flat.

With hostile callers: they come and go by windows of time, so that one run gives the good callers' times with and
without them, on a machine that is equally busy with other things.
"""

import json
import os
import threading
import time
from collections import Counter
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from itertools import count
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
from tests.load.hostile import publish as publish_stock_models
from tests.load.hostile_callers import HostileCallers

ROOT = Path(__file__).parents[2]
CONNECTIONS = 4
HANDLER = "functions.predict.handler"
SHOWN = 20  # failures
RIGHT = {"1": [2, 4, 6], "2": [1, 4, 9]}  # of [1, 2, 3], by version
ROW = {"name": "x", "shape": [1, 3], "datatype": "FP32"}
AS_JSON = json.dumps({"inputs": [ROW | {"data": [1, 2, 3]}]}).encode()
HEAD = json.dumps({"inputs": [ROW | {"parameters": {"binary_data_size": 12}}]}).encode()
AS_MLFLOW = json.dumps({"inputs": [[1, 2, 3]]}).encode()
AS_BINARY = HEAD + np.array([1, 2, 3], "<f4").tobytes()
MIB = 1024 * 1024
WINDOW_S = 60.0  # with hostile callers, then without them
SETTLE_S = 2.0  # after a change, of which no times are kept
INFER = "/v2/models/double/infer"
REQUESTS: tuple[tuple[str, str, bytes | None, dict[str, str], int], ...] = (
    ("POST", INFER, AS_JSON, {}, 200),
    ("POST", INFER, AS_JSON, {"Accept-Encoding": "gzip"}, 200),  # too small to be worth it
    ("POST", INFER, AS_BINARY, {"Inference-Header-Content-Length": str(len(HEAD))}, 200),
    ("POST", INFER, AS_JSON, {"X-Pilotlight-Version": "2"}, 200),
    ("POST", "/invocations?model=double", AS_MLFLOW, {"Content-Type": "application/json"}, 200),
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
        self.times: dict[str, list[float]] = {}  # ms, by window
        self.window = ""  # the name under which times are kept; none are without one
        self.threads = [threading.Thread(target=self._send, daemon=True) for _ in range(CONNECTIONS)]

    def _send(self) -> None:
        connection = HTTPConnection(self._address.hostname or "", self._address.port, timeout=60)
        while not self.over.is_set():
            for method, path, body, headers, expected in REQUESTS:
                began = time.perf_counter()
                try:
                    connection.request(method, path, body, headers)
                    answer = connection.getresponse()
                    content = answer.read()
                except (OSError, HTTPException) as exc:
                    self.failures.append({"path": path, "status": 0, "answer": repr(exc), "window": self.window})
                    connection.close()  # the next request opens another one
                    continue
                if self.window:
                    self.times.setdefault(self.window, []).append((time.perf_counter() - began) * 1000)
                self._judge(path, expected, answer.status, content)

    def _judge(self, path: str, expected: int, status: int, content: bytes) -> None:
        self.statuses[status] += 1
        if status != expected:
            text = content[:500].decode(errors="replace")
            self.failures.append({"path": path, "status": status, "answer": text, "window": self.window})
            return
        said = json.loads(content) if status == 200 and content else {}
        if "outputs" in said and "model_version" in said:
            self.versions[said["model_version"]] += 1
            if said["outputs"][0]["data"] != RIGHT[said["model_version"]]:
                self.failures.append({"path": path, "status": status, "answer": said})
        elif "predictions" in said and said["predictions"] not in [[value] for value in RIGHT.values()]:
            self.failures.append({"path": path, "status": status, "answer": said})


def run(minutes: float, swaps: int, *, hostile: bool = False) -> dict[str, Any]:
    """Send for so long, and move the champion so many times; memory is that of the gateway's environments, in MB."""
    with TemporaryDirectory() as store:
        if hostile:
            publish_stock_models(store)
        registry = Registry(open_store(store))
        fakes.publish(registry)
        fakes.publish(registry, of="square", golden=fakes.golden([1, 2, 3], [1, 4, 9]))
        environment = {"PILOTLIGHT_STORE": store, "PILOTLIGHT_ALIAS_SECONDS": "1", **fakes.QUIET}
        gateway = Gateway(ROOT / "template.yaml", port=0, workers=os.cpu_count() or 2, environment=environment)
        with gateway.serve_in_background() as url:
            crowd = HostileCallers(url) if hostile else None
            return drive(url, registry, minutes * 60, swaps, crowd)


def drive(url: str, registry: Registry, seconds: float, swaps: int, crowd: HostileCallers | None) -> dict[str, Any]:
    """Drive the load itself."""
    callers, memory, began, moved = Callers(url), [], time.monotonic(), 0
    for thread in callers.threads:
        thread.start()
    alternation = threading.Thread(target=alternate, args=(callers, crowd, seconds), daemon=True)
    alternation.start()
    for step in range(20):
        time.sleep(max(0.0, began + seconds * (step + 1) / 20 - time.monotonic()))
        memory.append(resident())
        while moved < swaps * (step + 1) // 20:
            moved += 1
            registry.move_alias("double", "champion", 1 + moved % 2, actor="load", reason=f"swap {moved}")
    callers.over.set()
    for thread in (*callers.threads, alternation):
        thread.join(120)
    return {
        "seconds": round(time.monotonic() - began, 1),
        "swaps": moved,
        "statuses": dict(sorted(callers.statuses.items())),
        "versions": dict(sorted(callers.versions.items())),
        "failures": callers.failures[:SHOWN],
        "failed": len(callers.failures),
        "ms": {window: describe_times(times) for window, times in callers.times.items()},
        **({} if crowd is None else {"hostile": crowd.describe()}),
        # Hostile bodies make an environment grow once, which is no leak; another one may take its place.
        ("resident_mb" if crowd is None else "memory_mb"): [round(each, 1) for each in memory],
    }


def alternate(callers: Callers, crowd: HostileCallers | None, seconds: float) -> None:
    """Let the hostile callers come and go, half of the time each, until the good ones are told to stop."""
    window_s = min(WINDOW_S, seconds / 2)
    for number in count():
        is_hostile = crowd is not None and number % 2 == 1
        if crowd is not None:
            (crowd.come if is_hostile else crowd.go)()
        callers.over.wait(min(SETTLE_S, window_s / 10))
        callers.window = "with hostile callers" if is_hostile else "alone"
        is_over = callers.over.wait(window_s)
        callers.window = ""
        if is_over:
            break
    if crowd is not None:
        crowd.leave()


def describe_times(times: list[float]) -> dict[str, float]:
    """Describe times by their number and percentiles, in ms."""
    p50, p99 = np.percentile(times, [50, 99])
    return {
        "requests": len(times),
        "p50": round(float(p50), 2),
        "p99": round(float(p99), 2),
        "max": round(max(times), 1),
    }


def resident() -> float:
    """The memory of the predict function's environments, in MB; the clock starts another function's after 5 minutes."""
    found = 0
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has ended since it was listed
            found += child.memory_info().rss if HANDLER in " ".join(child.cmdline()) else 0
    return found / MIB
