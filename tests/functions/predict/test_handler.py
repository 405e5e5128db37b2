"""The predict function as Lambda calls it: events in, proxy answers out."""

import base64
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pilotlight
from functions.predict.handler import build_predict_handler
from functions.predict.v2_endpoints import V2Endpoints
from pilotlight.api import v2_metadata
from pilotlight.api.model_statistics import ModelStatistics
from pilotlight.api.router import Router
from pilotlight.contracts.manifest import TensorSpec
from pilotlight.inference import InferenceService
from pilotlight.registry.registry import Registry
from pilotlight.runtime.inference_deadline import DeadlineRunner
from pilotlight.runtime.model_cache import SESSION_OVERHEAD_BYTES, ModelCache
from pilotlight.runtime.model_manager import ModelManager
from pilotlight.settings import Settings
from pilotlight.storage.object_store import open_store
from tests import fakes

ROOT = Path(__file__).parents[3]
ROW = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}


class Function:
    """The handler over a store, and what a caller sees of it."""

    def __init__(self, store_url: str, model: str = "") -> None:
        self.handle = build_predict_handler(Settings(store=store_url, model=model))

    def event(self, method: str, path: str, body: bytes | None = None, **more: Any) -> dict[str, Any]:  # noqa: ANN401
        return fakes.event(self.handle._routes, method, path, body, **more)

    def __call__(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        answer = self.handle(self.event(method, path, raw), None)
        return answer["statusCode"], json.loads(answer["body"])


def event(method: str, path: str, body: bytes | None) -> dict[str, Any]:
    """The recorded event with another call in it, routed as the gateway routes."""
    return fakes.event(build_predict_handler(Settings(store="memory://"))._routes, method, path, body)


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    return str(tmp_path / "store")


@pytest.fixture
def registry(store_url: str) -> Registry:
    registry = Registry(open_store(store_url))
    fakes.publish(registry, of="double")
    fakes.publish(registry, of="square")
    return registry


@pytest.fixture
def call(registry: Registry, store_url: str) -> Function:
    return Function(store_url)


def infer(*inputs: object, **more: object) -> dict[str, object]:
    return {"inputs": list(inputs), **more}


def test_health(call: Function) -> None:
    assert call("GET", "/v2/health/live") == (200, {"live": True})
    assert call("GET", "/v2/health/ready") == (200, {"live": True, "ready": True})


def test_server_metadata(call: Function) -> None:
    status, body = call("GET", "/v2")
    assert (status, body["name"], body["extensions"]) == (200, "pilotlight", list(v2_metadata.EXTENSIONS))
    assert re.fullmatch(r"\d+\.\d+\.\d+", body["version"])


def test_model_metadata(call: Function) -> None:
    status, body = call("GET", "/v2/models/double")
    assert status == 200
    assert body == {
        "name": "double",
        "versions": ["1", "2"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}],
    }
    assert call("GET", "/v2/models/double/versions/2") == (200, body)
    assert call("GET", "/v2/models") == (200, {"models": ["double"]})


def test_model_ready(call: Function) -> None:
    for path in ("/v2/models/double/ready", "/v2/models/double/versions/candidate/ready"):
        assert call("GET", path) == (200, {"name": "double", "ready": True})


@pytest.mark.parametrize(
    ("path", "version", "data"),
    [
        ("/v2/models/double/infer", "1", [2, 4, 6]),
        ("/v2/models/double/versions/1/infer", "1", [2, 4, 6]),
        ("/v2/models/double/versions/champion/infer", "1", [2, 4, 6]),
        ("/v2/models/double/versions/2/infer", "2", [1, 4, 9]),
        ("/v2/models/double/versions/candidate/infer", "2", [1, 4, 9]),
    ],
)
def test_infer_names_the_version_that_answered(call: Function, path: str, version: str, data: list[float]) -> None:
    assert call("POST", path, infer(ROW, id="a")) == (
        200,
        {
            "model_name": "double",
            "model_version": version,
            "id": "a",
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 3], "data": data}],
        },
    )


def test_nested_data_means_the_same(call: Function) -> None:
    nested = infer(ROW | {"data": [[1, 2, 3]]})
    assert call("POST", "/v2/models/double/infer", nested) == call("POST", "/v2/models/double/infer", infer(ROW))


def test_one_batch_answers_as_many_singles(call: Function) -> None:
    rows = [[1.5, -2, 0], [4, 5, 6], [0, 0, 0.25]]
    _, batch = call("POST", "/v2/models/double/infer", infer(ROW | {"shape": [3, 3], "data": rows}))
    singles = [call("POST", "/v2/models/double/infer", infer(ROW | {"data": row}))[1] for row in rows]
    assert batch["outputs"][0]["data"] == [value for single in singles for value in single["outputs"][0]["data"]]


def test_outputs_come_in_the_order_asked_for(call: Function, registry: Registry) -> None:
    halves = [TensorSpec(name, "FP32", ("batch", 2)) for name in ("left", "right", "total", "same")]
    draft = fakes.draft("pair", tuple(halves[:2]), tuple(halves[2:]))
    registry.publish_version(draft, {"model.onnx": fakes.graph("pair")})
    sides = [{"name": name, "shape": [1, 2], "datatype": "FP32", "data": [1, 2]} for name in ("right", "left")]
    _, body = call("POST", "/v2/models/pair/infer", infer(*sides, outputs=[{"name": "same"}, {"name": "total"}]))
    assert [(output["name"], output["data"]) for output in body["outputs"]] == [("same", [1, 2]), ("total", [2, 4])]
    _, body = call("POST", "/v2/models/pair/infer", infer(*sides))
    assert [output["name"] for output in body["outputs"]] == ["total", "same"]


def test_nan_and_infinities_are_null(call: Function, registry: Registry) -> None:
    registry.publish_version(fakes.draft("logarithm"), {"model.onnx": fakes.graph("logarithm")})
    _, body = call("POST", "/v2/models/logarithm/infer", infer(ROW | {"data": [1, 0, -1]}))
    assert body["outputs"][0]["data"] == [0, None, None]


@pytest.mark.parametrize(
    ("method", "path", "status", "hint"),
    [
        ("GET", "/v2/models/nothing", 404, "There is no model 'nothing'"),
        ("GET", "/v2/models/double/versions/9", 404, "has no version 9; it has 1, 2, candidate, champion"),
        ("GET", "/v2/models/double/versions/staging", 404, "no version or alias 'staging'"),
        ("GET", "/v2/models/double/versions/0", 400, "neither a version"),
        ("GET", "/v2/models/a%20b", 400, "is not a model name"),
        ("GET", "/v2/models/nothing/ready", 404, "There is no model"),
        ("GET", "/v2/nowhere", 404, "There is no route"),
        ("POST", "/v2/models/double", 405, "does not take POST; use GET"),
        ("GET", "/v2/models/double/infer", 405, "does not take GET; use POST"),
        ("DELETE", "/v2/health/live", 405, "use GET"),
        ("POST", "/v2/models/nothing/infer", 404, "There is no model"),
        ("POST", "/v2/models/double/versions/9/infer", 404, "has no version 9"),
    ],
)
def test_what_is_not_there(call: Function, method: str, path: str, status: int, hint: str) -> None:
    found, body = call(method, path, infer(ROW))
    assert found == status
    assert set(body) == {"error"}
    assert hint in body["error"]


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        (b"", "not JSON"),
        (b"x=1", "not JSON"),
        ([], "Expected `object`"),
        ({}, "`inputs`"),
        (infer(), "'x' is missing"),
        (infer(ROW, ROW | {"name": "z"}), "'z' is not an input"),
        (infer(ROW | {"name": "image"}), "'image' is not an input of double; its inputs are ['x']"),
        (infer(ROW | {"datatype": "INT64"}), "'INT64', expected FP32"),
        (infer(ROW | {"shape": [3]}), "has shape [3], expected [batch, 3]"),
        (infer(ROW | {"shape": [1, 2]}), "has 3 values"),
        (infer(ROW | {"data": [[1, 2, 3], [4]]}), "ragged"),
        (infer(ROW | {"data": [1, None, 3]}), "`null`"),
        (infer(ROW | {"data": [1, float("inf"), 3]}), "no Infinity"),
        (infer(ROW | {"shape": [0, 3], "data": []}), "is empty; send at least one"),
    ],
)
def test_bad_input_is_told_what_was_expected(call: Function, body: object, hint: str) -> None:
    status, answer = call("POST", "/v2/models/double/infer", body)
    assert status == 400
    assert hint in answer["error"]


def test_binary_tensors_both_ways(call: Function) -> None:
    text = json.dumps(
        {
            "inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": 12}}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    request = call.event("POST", "/v2/models/double/infer", text + np.array([1, 2, 3], "<f4").tobytes())
    request["headers"] = request["headers"] | {"Inference-Header-Content-Length": str(len(text))}
    answer = call.handle(request, None)
    assert (answer["statusCode"], answer["isBase64Encoded"]) == (200, True)
    assert answer["headers"]["content-type"] == "application/octet-stream"
    body, length = base64.b64decode(answer["body"]), int(answer["headers"]["inference-header-content-length"])
    assert json.loads(body[:length])["outputs"] == [
        {"name": "y", "datatype": "FP32", "shape": [1, 3], "parameters": {"binary_data_size": 12}}
    ]
    assert np.frombuffer(body[length:], "<f4").tolist() == [2, 4, 6]


def test_a_corrupt_version_is_refused_while_the_old_one_serves(call: Function, registry: Registry) -> None:
    registry.store.put("models/double/versions/2/model.onnx", fakes.graph("square")[:-1])
    registry.move_alias("double", "champion", 2, actor="test", reason="test")
    status, body = call("POST", "/v2/models/double/infer", infer(ROW))
    assert (status, body["model_version"], body["outputs"][0]["data"]) == (200, "1", [2, 4, 6])
    status, body = call("POST", "/v2/models/double/versions/2/infer", infer(ROW))
    assert (status, "double:2 is refused" in body["error"]) == (503, True)
    assert call("GET", "/v2/models/double/versions/2/ready")[0] == 503


def answered(call: Function, path: str, **headers: str) -> dict[str, str]:
    """The headers of an inference's answer."""
    asked = event("POST", path, json.dumps(infer(ROW)).encode())
    answer = call.handle(asked | {"headers": asked["headers"] | headers}, None)
    assert answer["statusCode"] == 200
    return dict(answer["headers"])


@pytest.mark.parametrize(
    ("path", "pin", "version"),
    [
        ("/v2/models/double/infer", {}, "1"),
        ("/v2/models/double/infer", {"X-Pilotlight-Version": "2"}, "2"),
        ("/v2/models/double/infer", {"x-pilotlight-version": "candidate"}, "2"),
        ("/v2/models/double/versions/2/infer", {"x-pilotlight-version": "1"}, "1"),
        ("/v2/models/double/versions/2/infer", {"x-pilotlight-version": ""}, "2"),
    ],
)
def test_a_header_pins_the_version_over_the_path(call: Function, path: str, pin: dict[str, str], version: str) -> None:
    assert answered(call, path, **pin)["x-pilotlight-version"] == version


def test_a_wrong_pin_is_told(call: Function) -> None:
    asked = event("POST", "/v2/models/double/infer", json.dumps(infer(ROW)).encode())
    answer = call.handle(asked | {"headers": {"x-pilotlight-version": "007"}}, None)
    assert (answer["statusCode"], "neither a version" in answer["body"]) == (400, True)


def test_each_answer_tells_its_time_and_its_cost(call: Function) -> None:
    first, second = (answered(call, "/v2/models/double/infer") for _ in range(2))
    assert re.findall(r"(\w+);dur=", second["server-timing"]) == ["load", "decode", "infer", "encode", "total"]
    assert (first["x-pilotlight-cold"], second["x-pilotlight-cold"]) == ("true", "false")
    cold = answered(call, "/v2/models/double/versions/2/infer")
    assert cold["x-pilotlight-cold"] == "true"
    milliseconds = int(second["x-pilotlight-billed-ms"])
    assert float(second["x-pilotlight-gb-seconds"]) == pytest.approx(1769 / 1024 * milliseconds / 1000, abs=1e-6)
    assert float(second["x-pilotlight-usd"]) > 2e-7
    failed = call.handle(event("GET", "/v2/nowhere", None), None)["headers"]
    assert {"server-timing", "x-pilotlight-usd"} <= set(failed)


def test_an_empty_store_is_a_fine_place_to_start(tmp_path: Path) -> None:
    call = Function(str(tmp_path / "nothing yet"))
    assert call("GET", "/v2/health/ready")[0] == 200
    assert call("GET", "/v2/models") == (200, {"models": []})


def test_a_store_that_is_away_is_503(registry: Registry) -> None:
    store = fakes.FaultyStore()
    fakes.publish(Registry(store))
    catalog = ModelManager(Registry(store), ModelCache(1000), memory_mb=1769, alias_seconds=10)
    store.fail("models/")
    routes = V2Endpoints(InferenceService(catalog, ModelStatistics(), DeadlineRunner())).routes()
    answer = Router(routes)(fakes.event(routes, "POST", "/v2/models/double/infer", b"{}"), None)
    assert (answer["statusCode"], "connection refused" in answer["body"]) == (503, True)


def test_config(call: Function) -> None:
    status, body = call("GET", "/v2/models/double/config")
    assert (status, body["name"], body["platform"], body["max_batch_size"]) == (200, "double", v2_metadata.PLATFORM, 0)
    assert body["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1, 3]}]
    assert body["output"] == [{"name": "y", "data_type": "TYPE_FP32", "dims": [-1, 3]}]
    assert call("GET", "/v2/models/double/versions/candidate/config")[0] == 200
    assert call("GET", "/v2/models/nothing/config")[0] == 404


def test_statistics(call: Function) -> None:
    assert call("GET", "/v2/models/stats") == (200, {"model_stats": []})
    rows = infer(ROW | {"shape": [2, 3], "data": [1, 2, 3, 4, 5, 6]})
    for path, body in (("", rows), ("/versions/2", infer(ROW)), ("", infer(ROW | {"data": [1]}))):
        call("POST", f"/v2/models/double{path}/infer", body)
    first, second = call("GET", "/v2/models/double/stats")[1]["model_stats"]
    assert (first["version"], first["inference_count"], first["execution_count"]) == ("1", 2, 1)
    assert (first["inference_stats"]["fail"]["count"], second["inference_stats"]["fail"]["count"]) == (1, 0)
    assert second["version"] == "2"
    assert second["memory_usage"][0]["byte_size"] >= len(fakes.graph("square")) + SESSION_OVERHEAD_BYTES
    assert first["inference_stats"]["compute_infer"]["ns"] > 0
    assert [one["version"] for one in call("GET", "/v2/models/double/versions/2/stats")[1]["model_stats"]] == ["2"]
    assert len(call("GET", "/v2/models/stats")[1]["model_stats"]) == 2


def test_statistics_of_what_is_not_there(call: Function) -> None:
    assert call("GET", "/v2/models/nothing/stats")[0] == 404
    assert call("GET", "/v2/models/double/versions/9/stats")[0] == 404


def test_a_suspended_champion_answers_nobody(registry: Registry, store_url: str) -> None:
    registry.suspend_alias("double", "champion", actor="ann", reason="drifts")
    call = Function(store_url)
    for method, path in (("GET", "ready"), ("POST", "infer")):
        status, body = call(method, f"/v2/models/double/{path}", infer(ROW) if method == "POST" else None)
        assert status == 503
        assert re.fullmatch(
            r"double@champion is unloaded since .*Z: drifts\. POST /v2/.*/load resumes it; .*", body["error"]
        )
        assert call(method, f"/v2/models/double/versions/1/{path}", infer(ROW) if method == "POST" else None)[0] == 200
    assert call("GET", "/v2/models/double")[0] == 200
    registry.resume_alias("double", "champion", actor="ann", reason="mended")
    assert Function(store_url)("POST", "/v2/models/double/infer", infer(ROW))[0] == 200


def score(call: Function, body: object, **more: Any) -> tuple[int, Any]:  # noqa: ANN401 - of a request
    answer = call.handle(call.event("POST", "/invocations", json.dumps(body).encode(), **more), None)
    return answer["statusCode"], json.loads(answer["body"])


def test_mlflow_scores_the_only_model(call: Function) -> None:
    assert score(call, {"inputs": [[1, 2, 3]]}) == (200, {"predictions": [[2, 4, 6]]})
    answer = call.handle(call.event("POST", "/invocations", b'{"inputs": [[1, 2, 3]]}'), None)
    assert answer["headers"]["x-pilotlight-model"] == "double:1"


def test_mlflow_counts_as_v2_does(call: Function) -> None:
    score(call, {"inputs": [[1, 2, 3]] * 5})
    assert call("GET", "/v2/models/double/stats")[1]["model_stats"][0]["inference_count"] == 5


@pytest.mark.parametrize(
    ("more", "setting", "predictions"),
    [
        ({"headers": {"X-Pilotlight-Model": "double:2"}}, "", [[1, 4, 9]]),
        ({"query": {"model": "double@candidate"}}, "", [[1, 4, 9]]),
        ({}, "double:2", [[1, 4, 9]]),
        ({"query": {"model": "double"}}, "double:2", [[2, 4, 6]]),
        ({"query": {"model": "double:2"}, "headers": {"x-pilotlight-model": "double"}}, "", [[2, 4, 6]]),
    ],
)
def test_mlflow_scores_the_model_that_is_named(
    registry: Registry, store_url: str, more: dict[str, Any], setting: str, predictions: list[list[float]]
) -> None:
    fakes.publish(registry, "other")
    call = Function(store_url, setting)
    assert score(call, {"inputs": [[1, 2, 3]]}, **more) == (200, {"predictions": predictions})


def test_mlflow_asks_which_of_several_models(call: Function, registry: Registry) -> None:
    fakes.publish(registry, "other")
    status, body = score(call, {"inputs": [[1, 2, 3]]})
    assert (status, body["error_code"]) == (400, "BAD_REQUEST")
    assert "The store has 2; name one of double, other by the header X-Pilotlight-Model" in body["message"]


def test_mlflow_errors_are_in_its_words(call: Function) -> None:
    assert score(call, {"inputs": [[1, 2]]})[1]["error_code"] == "BAD_REQUEST"
    status, body = score(call, {"inputs": [[1, 2, 3]]}, query={"model": "nothing"})
    assert (status, body["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
    status, body = score(call, {"inputs": [[1, 2, 3]]}, headers={"content-type": "text/plain"})
    assert (status, body["error_code"]) == (415, "BAD_REQUEST")


def test_mlflow_health_and_version(call: Function) -> None:
    for path, body in (("/ping", "\n"), ("/health", "\n"), ("/version", pilotlight.__version__)):
        answer = call.handle(call.event("GET", path), None)
        assert (answer["statusCode"], answer["body"]) == (200, body)


def test_the_hot_path_imports_neither_boto3_nor_pydantic_nor_training() -> None:
    heavy = (
        "csv", "pilotlight.api.mlflow", "boto3", "botocore", "pydantic", "aws_lambda_powertools", "torch", "onnx",
        "sklearn", "requests", "yaml", "PIL", "tokenizers",
    )  # fmt: skip
    code = f"import sys, functions.predict.handler; print([m for m in {heavy} if m in sys.modules])"
    environment = {"PYTHONPATH": f"{ROOT / 'layers/core'}:{ROOT}", "PILOTLIGHT_STORE": "memory://"}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
