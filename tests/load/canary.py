"""A canary through the real gateway: its share of the requests, and what callers see when it starts to fail."""

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
import onnx
from onnx import TensorProto, helper, numpy_helper

from pilotlight.contracts.alias import Canary
from pilotlight.contracts.manifest import ManifestDraft, TensorSpec, Variant
from pilotlight.local.gateway import Gateway
from pilotlight.registry import alias_updates
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store
from tests import fakes

ROOT = Path(__file__).parents[2]
CONNECTIONS = 2
SHARE = 0.10
LIMIT = 10.83  # of chi-square with one degree of freedom; exceeded by chance once in a thousand times
EASY, HARD = 1, 7  # inputs; the canary's table ends before the second
WAIT_S = 30.0


def table(rows: int) -> bytes:
    """A graph y = table[x], (batch,) to (batch,), whose table has so many rows: an index beyond it is an error."""
    x = helper.make_tensor_value_info("x", TensorProto.INT64, ["batch"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch"])
    values = numpy_helper.from_array(np.arange(rows, dtype=np.float32), "table")
    graph = helper.make_graph([helper.make_node("Gather", ["table", "x"], ["y"])], "table", [x], [y], [values])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def publish(registry: Registry, rows: int) -> None:
    """The next version of `table`."""
    inputs, outputs = (TensorSpec("x", "INT64", ("batch",)),), (TensorSpec("y", "FP32", ("batch",)),)
    draft = ManifestDraft(
        name="table", inputs=inputs, outputs=outputs, variants={"fp32": Variant("model.onnx")}, serve="fp32"
    )
    registry.publish_version(draft, {"model.onnx": table(rows)})


class Callers:
    """Connections that share a number of requests."""

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url)
        self._lock = threading.Lock()
        self._next = 0
        self.versions: Counter[str] = Counter()
        self.errors: list[str] = []

    def send(self, count: int, value: int) -> None:
        """Send so many more requests with that input, and wait for all."""
        end = self._next + count
        threads = [threading.Thread(target=self._work, args=(end, value)) for _ in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _work(self, end: int, value: int) -> None:
        connection = HTTPConnection(self._address.hostname or "", self._address.port, timeout=60)
        body = json.dumps({"inputs": [{"name": "x", "shape": [1], "datatype": "INT64", "data": [value]}]}).encode()
        while self._take(end):
            connection.request("POST", "/v2/models/table/infer", body)
            answer = connection.getresponse()
            self._judge(answer.status, answer.read(), value)
        connection.close()

    def _take(self, end: int) -> bool:
        with self._lock:
            if self._next >= end:
                return False
            self._next += 1
            return True

    def _judge(self, status: int, content: bytes, value: int) -> None:
        said = json.loads(content)
        with self._lock:
            if status == 200 and said["outputs"][0]["data"] == [value]:
                self.versions[said["model_version"]] += 1
            else:
                self.errors.append(f"{status} {content[:300].decode(errors='replace')}")


def run(count: int) -> dict[str, Any]:
    """A tenth of `count` requests meets the canary; then it fails, from request 5,000 of as many more."""
    with TemporaryDirectory() as store:
        registry = Registry(open_store(store))
        publish(registry, 10)
        publish(registry, 5)
        canary = Canary(2, alias_updates.compute_bake_end("1h"))
        registry.update_alias(
            "table", "champion", lambda old: alias_updates.start_canary(old, canary, int(SHARE * 1e4), "load", "trial")
        )
        environment = {"PILOTLIGHT_STORE": store, "PILOTLIGHT_ALIAS_SECONDS": "1", **fakes.QUIET}
        gateway = Gateway(ROOT / "template.yaml", port=0, workers=CONNECTIONS, environment=environment)
        with gateway.serve_in_background() as url:
            return watch(registry, Callers(url), count)


def watch(registry: Registry, callers: Callers, count: int) -> dict[str, Any]:
    """Send, and say what came of it."""
    callers.send(200, EASY)  # so that every environment has opened the canary
    time.sleep(1)
    callers.versions.clear()
    callers.send(count, EASY)
    met = dict(callers.versions)
    callers.versions.clear()
    callers.send(min(5000, count // 4), EASY)
    began = time.monotonic()
    callers.send(count - min(5000, count // 4), HARD)
    while registry.load_alias("table", "champion").shares and time.monotonic() < began + WAIT_S:
        time.sleep(0.1)
    last = registry.load_alias("table", "champion")
    return {
        "requests": count,
        "met": met,
        "chi_square": round(chi_square(met), 3),
        "chi_square_limit": LIMIT,
        "second_run": dict(callers.versions),
        "errors_that_callers_saw": len(callers.errors),
        "failures": callers.errors[:3],
        "rolled_back": not last.shares,
        "by": last.by,
        "reason": last.reason,
    }


def chi_square(met: dict[str, int]) -> float:
    """How far the share is from what was asked for."""
    total = sum(met.values())
    expected = {"1": total * (1 - SHARE), "2": total * SHARE}
    return sum((met.get(version, 0) - wanted) ** 2 / wanted for version, wanted in expected.items())
