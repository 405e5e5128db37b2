"""What the predict function keeps of requests: through its door, whichever protocol, and not a byte in its log."""

import gzip
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from functions.predict.handler import build_predict_handler
from pilotlight.capture.record import CaptureRecord
from pilotlight.contracts.alias import TOTAL_WEIGHT, TrafficShare
from pilotlight.contracts.capture_policy import CapturePolicy
from pilotlight.contracts.processing import TableColumn, TablePreprocessing
from pilotlight.registry import alias_updates
from pilotlight.registry.registry import Registry
from pilotlight.settings import Settings
from pilotlight.storage.object_store import open_store
from tests import fakes

ROOT = Path(__file__).parents[3]
TABLE = TablePreprocessing(
    input="x", columns=(TableColumn(name="age"), TableColumn(name="income"), TableColumn(name="place"))
)
SECRET = 471147.25


class Function:
    """The predict function with a recorder in it, and what that has written."""

    def __init__(self, folder: Path, rate: float = 1.0) -> None:
        self.registry = Registry(open_store(str(folder)))
        self.handle = build_predict_handler(Settings(store=str(folder), capture_rate=rate, capture_seconds=3600))
        self.after: Any = self.handle._on_response  # the recorder's wake

    def post(self, path: str, body: object, tenant: str = "", **headers: str) -> Any:  # noqa: ANN401 - JSON
        event = fakes.event(self.handle._routes, "POST", path, json.dumps(body).encode())
        event["requestContext"] = {**event["requestContext"], "authorizer": {"tenant": tenant} if tenant else None}
        event["headers"] = {**event["headers"], **headers}
        answer = self.handle(event, None)
        return answer["statusCode"], json.loads(answer["body"])

    def kept(self) -> list[CaptureRecord]:
        self.after.__self__.flush()
        store = self.registry.store
        contents = [gzip.decompress(store.get(path).data) for path in sorted(store.list_paths("captures"))]
        return [msgspec.json.decode(row, type=CaptureRecord) for content in contents for row in content.splitlines()]


@pytest.fixture
def function(tmp_path: Path) -> Function:
    made = Function(tmp_path)
    draft = msgspec.structs.replace(fakes.draft("table"), task="tabular", preprocess=TABLE)
    made.registry.publish_version(draft, {"model.onnx": fakes.graph("double")})
    return made


def columns(income: float = 2.0) -> dict[str, Any]:
    values = {"age": 1.0, "income": income, "place": 3.0}
    return {
        "inputs": [{"name": name, "shape": [1], "datatype": "FP64", "data": [value]} for name, value in values.items()]
    }


def test_every_protocol_is_kept_alike(function: Function) -> None:
    rows = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}
    assert function.post("/v2/models/table/infer", columns())[0] == 200
    assert function.post("/v2/models/table/infer", rows)[0] == 200
    scoring = {"dataframe_split": {"columns": ["age", "income", "place"], "data": [[1.0, 2.0, 3.0]]}}
    assert function.post("/invocations", scoring, **{"X-Pilotlight-Model": "table"})[0] == 200
    features = [line.features for line in function.kept()]
    assert features == 3 * [{"age": [1.0], "income": [2.0], "place": [3.0]}]
    assert [line.answers["y[1]"] for line in function.kept()] == 3 * [[4.0]]


def test_a_tenants_requests_are_kept_apart(function: Function) -> None:
    scoring = {"dataframe_split": {"columns": ["age", "income", "place"], "data": [[1.0, 2.0, 3.0]]}}
    for tenant in ("acme", "", "Acme"):
        assert function.post("/v2/models/table/infer", columns(), tenant)[0] == 200
        assert function.post("/invocations", scoring, tenant, **{"X-Pilotlight-Model": "table"})[0] == 200
    assert len(function.kept()) == 6
    folders = {path.split("/1/")[0] for path in function.registry.store.list_paths("captures")}
    assert folders == {"captures/table", "captures/tenant=acme/table", "captures/tenant=_41cme/table"}


def test_a_caller_may_forbid_it(function: Function) -> None:
    assert function.post("/v2/models/table/infer", columns(), **{"X-Pilotlight-Capture": "off"})[0] == 200
    scoring = {"dataframe_split": {"columns": ["age", "income", "place"], "data": [[1.0, 2.0, 3.0]]}}
    off = {"X-Pilotlight-Model": "table", "X-Pilotlight-Capture": "off"}
    assert function.post("/invocations", scoring, **off)[0] == 200
    assert function.kept() == []


def test_what_was_refused_is_not_kept(function: Function) -> None:
    assert function.post("/v2/models/table/infer", {"inputs": columns()["inputs"][:1]})[0] == 400
    assert function.kept() == []


def test_a_shadows_answer_is_not_kept(function: Function) -> None:
    fakes.publish(function.registry, "table", of="double")
    function.registry.update_alias(
        "table", "champion", lambda old: alias_updates.set_shadow(old, TrafficShare(2, TOTAL_WEIGHT - 1), "test", "try")
    )
    for _ in range(4):
        assert function.post("/v2/models/table/infer", columns())[0] == 200
    assert len(function.kept()) == 4
    assert {path.split("/")[2] for path in function.registry.store.list_paths("captures")} == {"1"}


def test_the_policy_of_the_version_that_answered_holds(function: Function) -> None:
    masked = msgspec.structs.replace(
        fakes.draft("table"),
        task="tabular",
        preprocess=TABLE,
        capture=CapturePolicy(mask={"income": "drop"}, others="keep"),
    )
    function.registry.publish_version(masked, {"model.onnx": fakes.graph("double")})
    function.post("/v2/models/table/versions/2/infer", columns())
    (line,) = function.kept()
    assert set(line.features) == {"age", "place"}


def test_no_byte_of_a_request_is_logged(
    function: Function, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    whole = msgspec.structs.replace(fakes.draft("plain"), capture=CapturePolicy(keep="whole", mask={"y": "hash"}))
    function.registry.publish_version(whole, {"model.onnx": fakes.graph("double")})
    x = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, SECRET, 3]}
    for path, body in (
        ("/v2/models/table/infer", columns(SECRET)),
        ("/v2/models/plain/infer", {"inputs": [x]}),
        ("/v2/models/plain/infer", {"inputs": [{**x, "shape": [1, 2]}]}),
        ("/v2/models/plain/infer", {"inputs": [{**x, "data": ["secret-471147"]}]}),
        ("/v2/models/table/infer", {"inputs": [{**x, "name": "secret-471147"}]}),
    ):
        function.post(path, body)
    assert len(function.kept()) == 2
    said = capfd.readouterr()
    assert "471147" not in said.out + said.err + caplog.text


def test_nothing_of_it_is_imported_where_nothing_is_kept() -> None:
    code = (
        "import sys, functions.predict.handler\n"
        "print(sorted(name for name in sys.modules if name.startswith(('pilotlight.capture', 'pilotlight.drift'))))"
    )
    environment = {"PILOTLIGHT_STORE": "memory://", "PYTHONPATH": f"{ROOT}:{ROOT / 'layers/core'}"}
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "[]"


def test_a_whole_tensor_is_kept_as_it_came(function: Function) -> None:
    whole = msgspec.structs.replace(fakes.draft("plain"), capture=CapturePolicy(keep="whole"))
    function.registry.publish_version(whole, {"model.onnx": fakes.graph("double")})
    x = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
    function.post("/v2/models/plain/infer", {"inputs": [x]})
    (line,) = function.kept()
    assert (line.inputs["x"].datatype, line.inputs["x"].shape) == ("FP32", (1, 3))
    assert np.array_equal(line.inputs["x"].data, [1, 2, 3])
