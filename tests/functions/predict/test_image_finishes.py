"""A photograph in; objects, masks and texts out, under each protocol and in each form."""

import base64
import gzip
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import pytest
from PIL import Image

from functions.predict.handler import build_predict_handler, build_router
from pilotlight.api.v2_binary import add_length_prefix
from pilotlight.capture.record import CaptureRecord
from pilotlight.contracts.alias import Canary, TrafficShare
from pilotlight.contracts.capture_policy import CapturePolicy
from pilotlight.contracts.manifest import TensorSpec
from pilotlight.contracts.processing import (
    CtcPostprocessing,
    DetectionPostprocessing,
    ImagePreprocessing,
    SegmentationPostprocessing,
)
from pilotlight.registry import alias_updates
from pilotlight.registry.registry import Registry
from pilotlight.runtime.model_manager import ModelManager
from pilotlight.settings import Settings
from pilotlight.storage.object_store import open_store
from tests import fakes

PIXELS = TensorSpec("pixels", "FP32", ("batch", 3, 16, 16))
HEAD = TensorSpec("head", "FP32", ("batch", 7, 2))
FREE = TensorSpec("pixels", "FP32", ("batch", 3, "height", "width"))
SCORES, SAME = TensorSpec("scores", "FP32", ("batch", 3)), TensorSpec("same", "FP32", FREE.shape)
COLOURS = ("red", "green", "blue")
JPEG = {"content-type": "image/jpeg"}


def photo(width: int, height: int, left: tuple[int, int, int], right: tuple[int, int, int] | None = None) -> bytes:
    """A photograph of one colour, or of two halves."""
    picture = Image.new("RGB", (width, height), left)
    if right is not None:
        picture.paste(right, (width // 2, 0, width, height))
    target = io.BytesIO()
    picture.save(target, "JPEG", quality=95, subsampling=0)
    return target.getvalue()


RED, BLUE = (255, 0, 0), (0, 0, 255)
WIDE = photo(64, 32, RED)


class Function:
    """The predict function over a store with a detector, a model of masks, and a reader of colours as characters."""

    def __init__(self, url: str) -> None:
        registry = Registry(open_store(url))
        spots = msgspec.structs.replace(
            fakes.draft("spots", (PIXELS,), (HEAD,)),
            task="image",
            preprocess=ImagePreprocessing(input="pixels", letterbox=(16, 16)),
            postprocess=DetectionPostprocessing(output="head"),
            labels=COLOURS,
        )
        registry.publish_version(spots, {"model.onnx": fakes.graph("spots")})
        masks = msgspec.structs.replace(
            fakes.draft("masks", (FREE,), (SCORES, SAME)),
            task="image",
            preprocess=ImagePreprocessing(input="pixels", letterbox=(16, 16), pad_position="centre"),
            postprocess=SegmentationPostprocessing(output="same"),
            labels=COLOURS,
        )
        registry.publish_version(masks, {"model.onnx": fakes.graph("colours")})
        scores = TensorSpec("y", "FP32", ("rows", "columns"))
        reader = msgspec.structs.replace(
            fakes.draft("reader", (TensorSpec("x", "FP32", scores.shape),), (scores,)),
            postprocess=CtcPostprocessing(output="y"),
            labels=("a", "b"),
        )
        registry.publish_version(reader, {"model.onnx": fakes.graph("echo-fp32")})
        self.handle = build_predict_handler(Settings(store=url))

    def __call__(self, path: str, body: bytes, headers: Mapping[str, str] | None = None, **query: str) -> Any:  # noqa: ANN401 - JSON
        answer = self.handle(fakes.event(self.handle._routes, "POST", path, body, headers, query), None)
        assert answer["statusCode"] == 200, answer["body"]
        return json.loads(answer["body"])

    def outputs(self, path: str, body: bytes, headers: Mapping[str, str] | None = None, **query: str) -> dict[str, Any]:
        """V2's outputs by name: shape and data."""
        found = self(path, body, headers, **query)["outputs"]
        return {output["name"]: (output["shape"], output["data"]) for output in found}


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Function:
    return Function(str(tmp_path_factory.mktemp("store")))


def test_a_photo_goes_in_and_its_objects_come_out(call: Function) -> None:
    found = call.outputs("/v2/models/spots/infer", WIDE, JPEG)
    assert found["label"] == ([1, 2], ["red", "red"])
    assert found["box"] == ([1, 2, 4], [8, 8, 24, 24, 32, 0, 56, 16])  # the graph sees it at a quarter of its size
    assert found["count"] == ([1], [2])
    assert list(found) == ["label", "score", "box", "count"]


def test_boxes_are_those_of_the_photo(call: Function) -> None:
    square = photo(16, 16, RED)
    found = call.outputs("/v2/models/spots/infer", square, JPEG)
    assert found["label"] == ([1, 2], ["red", "red"])
    assert found["box"] == ([1, 2, 4], [2, 2, 6, 6, 8, 0, 14, 4])
    larger = call.outputs("/v2/models/spots/infer", photo(32, 32, RED), JPEG)
    assert larger["box"][1] == [4, 4, 12, 12, 16, 0, 28, 8]


def test_mlflow_lists_the_objects_of_each_image(call: Function) -> None:
    (objects,) = call("/invocations", photo(32, 32, BLUE), JPEG, model="spots")["predictions"]
    assert [(one["label"], one["box"]) for one in objects] == [("blue", [4, 4, 12, 12]), ("blue", [16, 0, 28, 8])]
    assert objects[0]["score"] == pytest.approx(1, abs=0.02)
    assert call("/invocations", photo(32, 32, (0, 0, 0)), JPEG, model="spots") == {"predictions": [[]]}


def test_images_of_a_request_have_each_their_number(call: Function) -> None:
    files = [base64.b64encode(file).decode() for file in (photo(16, 16, (0, 0, 0)), photo(16, 16, RED))]
    image = {"name": "image", "shape": [2], "datatype": "BYTES", "data": files}
    found = call.outputs("/v2/models/spots/infer", msgspec.json.encode({"inputs": [image]}))
    assert found["count"] == ([2], [0, 2])
    assert found["label"] == ([2, 2], ["", "", "red", "red"])
    adjusted = {"inputs": [image], "parameters": {"max_detections": 1}, "outputs": [{"name": "class"}]}
    assert call.outputs("/v2/models/spots/infer", msgspec.json.encode(adjusted)) == {"class": ([2, 1], [-1, 0])}
    predicted = call("/invocations", msgspec.json.encode({"instances": files}), {}, model="spots")["predictions"]
    assert [[one["label"] for one in objects] for objects in predicted] == [[], ["red", "red"]]


def test_binary_answers_have_the_same_objects(call: Function) -> None:
    file = photo(16, 16, RED)
    size = len(file) + 4
    given = {"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": size}}
    outputs = [{"name": name, "parameters": {"binary_data": name == "box"}} for name in ("label", "box")]
    head = msgspec.json.encode({"inputs": [given], "outputs": outputs})
    length = {"inference-header-content-length": str(len(head))}
    event = fakes.event(call.handle._routes, "POST", "/v2/models/spots/infer", head + add_length_prefix(file), length)
    answer = call.handle(event, None)
    assert answer["isBase64Encoded"]
    raw = base64.b64decode(answer["body"])
    start = int(answer["headers"]["inference-header-content-length"])
    assert json.loads(raw[:start])["outputs"][0]["data"] == ["red", "red"]
    assert np.frombuffer(raw[start:], "<f4").tolist() == [2, 2, 6, 6, 8, 0, 14, 4]


def test_a_query_adjusts_what_is_found(call: Function) -> None:
    grey = photo(16, 16, (100, 90, 80))
    assert call.outputs("/v2/models/spots/infer", grey, JPEG)["count"] == ([1], [2])
    assert call.outputs("/v2/models/spots/infer", grey, JPEG, threshold="0.5")["count"] == ([1], [0])
    assert call("/invocations", grey, JPEG, model="spots", threshold="0.5") == {"predictions": [[]]}
    event = fakes.event(call.handle._routes, "POST", "/v2/models/spots/infer", grey, JPEG, {"threshold": "high"})
    assert "The parameters {'threshold': 'high'} are not served" in call.handle(event, None)["body"]


def test_metadata_shows_what_comes_out(call: Function) -> None:
    answer = call.handle(fakes.event(call.handle._routes, "GET", "/v2/models/spots"), None)
    assert [(one["name"], one["datatype"], one["shape"]) for one in json.loads(answer["body"])["outputs"]] == [
        ("label", "BYTES", [-1, -1]),
        ("score", "FP32", [-1, -1]),
        ("box", "FP32", [-1, -1, 4]),
        ("count", "INT32", [-1]),
    ]


def test_a_mask_is_a_png_of_the_photos_size(call: Function) -> None:
    file = photo(64, 32, RED, BLUE)
    found = call.outputs("/v2/models/masks/infer", file, JPEG)
    mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(found["mask"][1][0]))))
    assert mask.shape == (32, 64)
    assert (mask[:, :30] == 0).all()
    assert (mask[:, 34:] == 2).all()
    assert found["label"][1] == ["red", "blue"]
    (one,) = call("/invocations", file, JPEG, model="masks")["predictions"]
    assert list(one) == ["mask", "classes"]
    assert [found["label"] for found in one["classes"]] == ["red", "blue"]
    assert sum(found["area"] for found in one["classes"]) == pytest.approx(1)


def test_scores_of_characters_are_read(call: Function) -> None:
    rows = [[0.1, 0.8, 0.1], [0.1, 0.8, 0.1], [0.9, 0, 0.1], [0, 0.1, 0.9]]
    given = {"name": "x", "shape": [4, 3], "datatype": "FP32", "data": rows}
    found = call.outputs("/v2/models/reader/infer", msgspec.json.encode({"inputs": [given]}))
    assert found["text"] == ([1], ["ab"])
    assert found["confidence"][1][0] == pytest.approx(0.85)


def publish_spots(registry: Registry, keep: Literal["whole", "summary"] = "summary") -> None:
    draft = msgspec.structs.replace(
        fakes.draft("spots", (PIXELS,), (HEAD,)),
        task="image",
        preprocess=ImagePreprocessing(input="pixels", letterbox=(16, 16)),
        postprocess=DetectionPostprocessing(output="head"),
        labels=COLOURS,
        capture=CapturePolicy(keep=keep),
    )
    registry.publish_version(draft, {"model.onnx": fakes.graph("spots")})


@pytest.mark.parametrize("keep", ["whole", "summary"])
def test_a_photo_is_captured_as_other_requests_are(tmp_path: Path, keep: Literal["whole", "summary"]) -> None:
    registry = Registry(open_store(str(tmp_path)))
    publish_spots(registry, keep)
    handle = build_predict_handler(Settings(store=str(tmp_path), capture_rate=1.0, capture_seconds=3600))
    event = fakes.event(handle._routes, "POST", "/v2/models/spots/infer", WIDE, JPEG)
    assert handle(event, None)["statusCode"] == 200
    recorder: Any = handle._on_response
    recorder.__self__.flush()
    (path,) = registry.store.list_paths("captures")
    rows = gzip.decompress(registry.store.get(path).data).splitlines()
    assert msgspec.json.decode(rows[0], type=CaptureRecord).features


def test_a_canary_and_a_shadow_answer_photos(tmp_path: Path) -> None:
    registry = Registry(open_store(str(tmp_path)))
    for _ in range(3):
        publish_spots(registry)
    far = "2100-01-01T00:00:00+00:00"
    registry.update_alias(
        "spots", "champion", lambda old: alias_updates.start_canary(old, Canary(2, far), 5000, "ann", "try")
    )
    registry.update_alias(
        "spots", "champion", lambda old: alias_updates.set_shadow(old, TrafficShare(3, 10_000), "ann", "try")
    )
    manager = ModelManager.from_settings(Settings(store=str(tmp_path), alias_seconds=0.0), registry.store)
    handle = build_router(Settings(store=str(tmp_path), alias_seconds=0.0), manager)
    versions = set()
    for _ in range(60):
        event = fakes.event(handle._routes, "POST", "/v2/models/spots/infer", WIDE, JPEG)
        answer = handle(event, None)
        assert answer["statusCode"] == 200
        versions.add(json.loads(answer["body"])["model_version"])
        manager.wait_for_background()
    assert versions == {"1", "2"}
    body = json.loads(handle(fakes.event(handle._routes, "GET", "/v2/models/stats"), None)["body"])
    assert {entry["version"] for entry in body["model_stats"]} == {"1", "2", "3"}
