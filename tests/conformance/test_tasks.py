"""Photographs, digits, sentences and records through HTTP, against what other libraries make of them."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import numpy as np
import onnx
import pytest
import tritonclient.http as triton
from onnx import TensorProto, helper
from PIL import Image as Pillow
from sklearn.datasets import load_digits, load_iris, load_sample_images, load_wine
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tokenizers import Tokenizer

from pilotlight.client.client import Client, InferResponse, ModelMetadata
from pilotlight.contracts.manifest import ManifestDraft, TensorSpec
from pilotlight.contracts.processing import (
    ClassificationPostprocessing,
    EmbeddingPostprocessing,
    ImagePreprocessing,
    RegressionPostprocessing,
    TableColumn,
    TablePreprocessing,
    TextPreprocessing,
)
from pilotlight.errors import InvalidInputError
from pilotlight.local.gateway import Gateway
from pilotlight.registry.registry import Registry
from pilotlight.runtime.datatypes import Array
from pilotlight.storage.object_store import open_store
from tests import fakes

ROOT = Path(__file__).parents[2]
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
TOKENIZER = fakes.MODELS / "minilm" / "tokenizer.json"
SENTENCES = ["The cat sits outside.", "A pilot light is the small flame that is always on, so that the furnace starts."]
IRIS, WINE = load_iris(), load_wine()
PHOTOGRAPHS = dict(zip(("china", "flower"), load_sample_images().images, strict=True))


def publish(registry: Registry, draft: ManifestDraft, **files: bytes) -> None:
    registry.publish_version(draft, {name.replace("_", "."): content for name, content in files.items()})


def photographs(registry: Registry) -> None:
    """Mean colours as classes: shortest side 256, centre 224, ImageNet's constants."""
    pixels = TensorSpec("pixels", "FP32", ("batch", 3, "height", "width"))
    scores = TensorSpec("scores", "FP32", ("batch", 3))
    draft = msgspec.structs.replace(
        fakes.draft("photographs", (pixels,), (scores, msgspec.structs.replace(pixels, name="same"))),
        task="image",
        preprocess=ImagePreprocessing(input="pixels", shortest=256, crop=(224, 224), mean=MEAN, deviation=DEVIATION),
        postprocess=ClassificationPostprocessing(output="scores", top=2),
        labels=("red", "green", "blue"),
    )
    publish(registry, draft, model_onnx=fakes.graph("colours"))


def drawings(registry: Registry) -> None:
    """The digits model behind PNG files."""
    kept = msgspec.json.decode((fakes.MODELS / "digits/draft.json").read_bytes(), type=ManifestDraft)
    steps = ImagePreprocessing(input="image", colour="L", resize=(8, 8), scale=16 / 255)
    postprocess = ClassificationPostprocessing(output="logits")
    draft = msgspec.structs.replace(
        kept, name="drawings", task="image", preprocess=steps, postprocess=postprocess, golden=None
    )
    registry.publish_version(draft, {"model.int8.onnx": fakes.MODELS / "digits/model.int8.onnx"})


def sentences(registry: Registry) -> None:
    """Pooled ids of tokens: no meaning, but every id and every mask leaves its trace in it."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = tuple(TensorSpec(name, "INT64", ("batch", "tokens")) for name in names)
    state = TensorSpec("last_hidden_state", "FP32", ("batch", "tokens", 2))
    outputs = (state, TensorSpec("mask", "INT64", ("batch", "tokens")))
    steps, postprocess = (
        TextPreprocessing(max_length=16),
        EmbeddingPostprocessing(output="last_hidden_state", normalise=False),
    )
    draft = msgspec.structs.replace(
        fakes.draft("sentences", inputs, outputs), task="text", preprocess=steps, postprocess=postprocess
    )
    publish(registry, draft, model_onnx=fakes.graph("tokens"), tokenizer_json=TOKENIZER.read_bytes())


def linear(weights: Array, bias: Array) -> bytes:
    """y = x @ weights + bias as a graph."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", weights.shape[0]])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", weights.shape[1]])
    constants = [onnx.numpy_helper.from_array(a.astype(np.float32), n) for a, n in ((weights, "w"), (bias, "b"))]
    graph = helper.make_graph([helper.make_node("Gemm", ["x", "w", "b"], ["y"])], "linear", [x], [y], constants)
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])
    return bytes(model.SerializeToString())


def table(scaler: StandardScaler, names: list[str]) -> TablePreprocessing:
    constants = zip(names, scaler.mean_.tolist(), scaler.scale_.tolist(), strict=True)
    return TablePreprocessing(
        input="x", columns=tuple(TableColumn(name=n, mean=m, deviation=d, missing=m) for n, m, d in constants)
    )


def iris(registry: Registry) -> LogisticRegression:
    """Standardised by the manifest, since the graph does not hold the constants."""
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(IRIS.data, IRIS.target)
    scaler, classes = model[0], model[1]
    signature = (TensorSpec("x", "FP32", ("batch", 4)),), (TensorSpec("y", "FP32", ("batch", 3)),)
    draft = msgspec.structs.replace(
        fakes.draft("iris", *signature),
        task="tabular",
        preprocess=table(scaler, IRIS.feature_names),
        postprocess=ClassificationPostprocessing(output="y"),
        labels=tuple(IRIS.target_names.tolist()),
    )
    publish(registry, draft, model_onnx=linear(classes.coef_.T, classes.intercept_))
    return model


def alcohol(registry: Registry) -> Ridge:
    """A wine's alcohol from the twelve other measures, learned as a standardised number."""
    mean, deviation = float(WINE.data[:, 0].mean()), float(WINE.data[:, 0].std())
    model = make_pipeline(StandardScaler(), Ridge()).fit(WINE.data[:, 1:], (WINE.data[:, 0] - mean) / deviation)
    signature = (TensorSpec("x", "FP32", ("batch", 12)),), (TensorSpec("y", "FP32", ("batch", 1)),)
    draft = msgspec.structs.replace(
        fakes.draft("alcohol", *signature),
        task="tabular",
        preprocess=table(model[0], WINE.feature_names[1:]),
        postprocess=RegressionPostprocessing(output="y", mean=(mean,), deviation=(deviation,)),
    )
    publish(registry, draft, model_onnx=linear(model[1].coef_[:, None], np.atleast_1d(model[1].intercept_)))
    return model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, LogisticRegression | Ridge]]:
    store = str(tmp_path_factory.mktemp("tasks") / "store")
    registry = Registry(open_store(store))
    photographs(registry)
    drawings(registry)
    sentences(registry)
    return store, {"iris": iris(registry), "alcohol": alcohol(registry)}


@pytest.fixture(scope="module")
def url(models: tuple[str, dict[str, object]]) -> Iterator[str]:
    gateway = Gateway(ROOT / "template.yaml", port=0, workers=1, environment={"PILOTLIGHT_STORE": models[0]})
    with gateway.serve_in_background() as address:
        yield address


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[Client]:
    with Client(url) as connected:
        yield connected


def file(pixels: Array, kind: str) -> bytes:
    target = io.BytesIO()
    Pillow.fromarray(pixels).save(target, kind)
    return target.getvalue()


def reference(raw: bytes) -> Array:
    """torchvision's Resize(256), CenterCrop(224), ToTensor, Normalize, written with Pillow and numpy."""
    picture = Pillow.open(io.BytesIO(raw)).convert("RGB")
    width, height = picture.size
    new = (256, int(256 * height / width)) if width < height else (int(256 * width / height), 256)
    picture = picture.resize(new, Pillow.Resampling.BILINEAR)
    left, top = round((picture.width - 224) / 2), round((picture.height - 224) / 2)
    cut = np.asarray(picture.crop((left, top, left + 224, top + 224))) / 255
    return ((cut - MEAN) / DEVIATION).transpose(2, 0, 1).astype(np.float32)


def shapes(found: ModelMetadata) -> tuple[dict[str, tuple[str, list[int]]], dict[str, tuple[str, list[int]]]]:
    inputs, outputs = ({s.name: (s.datatype, s.shape) for s in specs} for specs in (found.inputs, found.outputs))
    return inputs, outputs


def test_metadata_tells_what_callers_send_and_get(client: Client) -> None:
    assert shapes(client.get_metadata("photographs")) == (
        {"image": ("BYTES", [-1])},
        {"label": ("BYTES", [-1, 2]), "probability": ("FP32", [-1, 2])},
    )
    assert shapes(client.get_metadata("sentences")) == ({"text": ("BYTES", [-1])}, {"embedding": ("FP32", [-1, 2])})
    inputs, outputs = shapes(client.get_metadata("alcohol"))
    assert list(inputs) == WINE.feature_names[1:]
    assert set(map(str, inputs.values())) == {"('FP64', [-1])"}
    assert outputs == {"prediction": ("FP32", [-1])}


@pytest.mark.parametrize("name", PHOTOGRAPHS)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_photographs_in_binary_form(url: str, name: str, kind: str) -> None:
    raw = file(PHOTOGRAPHS[name], kind)
    tensor = triton.InferInput("image", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([raw], object))
    wanted = [triton.InferRequestedOutput(output) for output in ("same", "label", "probability", "scores")]
    with triton.InferenceServerClient(url.removeprefix("http://")) as connected:
        answer = connected.infer("photographs", [tensor], outputs=wanted)
    np.testing.assert_allclose(answer.as_numpy("same")[0], reference(raw), atol=2e-6)
    scores = answer.as_numpy("scores")[0]
    assert [label.decode() for label in answer.as_numpy("label")[0]] == [
        ("red", "green", "blue")[place] for place in np.argsort(-scores)[:2]
    ]
    np.testing.assert_allclose(
        answer.as_numpy("probability")[0], np.sort(np.exp(scores) / np.exp(scores).sum())[:0:-1], rtol=1e-5
    )


def test_photographs_in_json_and_as_the_bare_body(client: Client, url: str) -> None:
    raw = {name: file(pixels, "JPEG") for name, pixels in PHOTOGRAPHS.items()}
    both = client.predict("photographs", list(raw.values()))
    assert both.get_output("label").shape == [2, 2]
    headers = {"inference-header-content-length": "0"}
    for place, content in enumerate(raw.values()):
        alone = httpx2.post(f"{url}/v2/models/photographs/infer", content=content, headers=headers)
        length = int(alone.headers["inference-header-content-length"])
        shown = json.loads(alone.content[:length])["outputs"]
        assert [output["name"] for output in shown] == ["label", "probability"]
        values = np.frombuffer(alone.content[-8:], np.float32)
        np.testing.assert_allclose(values, both.get_output("probability").data[2 * place : 2 * place + 2], rtol=1e-6)


def test_digits_drawn_as_png(client: Client) -> None:
    scans, labels = load_digits().images[:200], load_digits().target[:200]
    files = [file(np.rint(scan * 255 / 16).astype(np.uint8), "PNG") for scan in scans]
    answer = client.predict("drawings", files)
    right = np.mean([int(found) == label for found, label in zip(answer.get_output("label").data, labels, strict=True)])
    assert right >= 0.97
    assert min(answer.get_output("probability").data) > 0.1


def test_the_graphs_own_tensors_are_always_taken(client: Client, url: str) -> None:
    images, labels = fakes.digits()
    tensor = triton.InferInput("image", [50, 1, 8, 8], "FP32")
    tensor.set_data_from_numpy(images[:50])
    with triton.InferenceServerClient(url.removeprefix("http://")) as connected:
        answer = connected.infer("drawings", [tensor])
        assert [output["name"] for output in answer.get_response()["outputs"]] == ["logits"]
        assert (answer.as_numpy("logits").argmax(axis=1) == labels[:50]).mean() >= 0.97
        named = connected.infer("drawings", [tensor], outputs=[triton.InferRequestedOutput("label")])
    assert (named.as_numpy("label").astype(int) == labels[:50]).mean() >= 0.97


def test_classification_by_the_protocol_names_the_labels(client: Client) -> None:
    scan = file(np.rint(load_digits().images[3] * 255 / 16).astype(np.uint8), "PNG")
    request = {
        "inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(scan).decode()]}],
        "outputs": [{"name": "probabilities", "parameters": {"classification": 2}}],
    }
    answer = msgspec.json.decode(client.infer_json("drawings", json.dumps(request).encode()), type=InferResponse)
    value, index, label = answer.outputs[0].data[0].split(":")
    assert (index, label) == ("3", "3")
    assert float(value) > 0.5


def test_sentences_by_a_real_tokenizer(client: Client) -> None:
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    tokenizer.no_padding()
    tokenizer.enable_truncation(16)
    wanted = [np.mean(tokenizer.encode(sentence).ids) for sentence in SENTENCES]
    answer = client.predict("sentences", SENTENCES)
    found = np.reshape(answer.get_output("embedding").data, answer.get_output("embedding").shape)
    np.testing.assert_allclose(found[:, 0], wanted, rtol=1e-6)
    mask = client.predict("sentences", SENTENCES, outputs=["mask"]).get_output("mask")
    lengths = [len(tokenizer.encode(sentence).ids) for sentence in SENTENCES]
    assert np.reshape(mask.data, mask.shape).sum(axis=1).tolist() == lengths
    assert lengths[1] == 16


def test_irises_by_columns_and_at_once(client: Client, models: tuple[str, dict[str, LogisticRegression]]) -> None:
    model = models[1]["iris"]
    answer = client.predict("iris", dict(zip(IRIS.feature_names, IRIS.data.T.tolist(), strict=True)))
    assert answer.get_output("label").data == IRIS.target_names[model.predict(IRIS.data)].tolist()
    best = model.predict_proba(IRIS.data).max(axis=1)
    np.testing.assert_allclose(answer.get_output("probability").data, best, atol=1e-5)
    body = {
        "inputs": [{"name": "table", "shape": [150, 4], "datatype": "FP64", "data": IRIS.data.tolist()}],
        "outputs": [{"name": "probabilities"}],
    }
    at_once = msgspec.json.decode(client.infer_json("iris", json.dumps(body).encode()), type=InferResponse)
    found = np.reshape(at_once.outputs[0].data, (150, 3))
    np.testing.assert_allclose(found, model.predict_proba(IRIS.data), atol=1e-5)


def test_missing_measures_are_the_mean(client: Client, models: tuple[str, dict[str, LogisticRegression]]) -> None:
    gap: dict[str, list[float | None]] = dict(zip(IRIS.feature_names, IRIS.data[:1].T.tolist(), strict=True))
    gap[IRIS.feature_names[2]] = [None]
    filled = IRIS.data[:1].copy()
    filled[0, 2] = IRIS.data[:, 2].mean()
    best = models[1]["iris"].predict_proba(filled).max()
    np.testing.assert_allclose(client.predict("iris", gap).get_output("probability").data, [best], atol=1e-5)


def test_numbers_come_back_in_their_own_unit(client: Client, models: tuple[str, dict[str, Ridge]]) -> None:
    columns = dict(zip(WINE.feature_names[1:], WINE.data[:, 1:].T.tolist(), strict=True))
    found = client.predict("alcohol", columns).get_output("prediction")
    wanted = models[1]["alcohol"].predict(WINE.data[:, 1:]) * WINE.data[:, 0].std() + WINE.data[:, 0].mean()
    np.testing.assert_allclose(found.data, wanted, rtol=1e-5)


def scored(url: str, model: str, **body: object) -> Any:  # noqa: ANN401 - predictions
    """What MLflow's route answers."""
    answer = httpx2.post(f"{url}/invocations?model={model}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["predictions"]


def test_mlflows_route_takes_what_the_task_takes(url: str, client: Client, models: tuple[str, dict[str, Any]]) -> None:
    rows = IRIS.data[:5]
    split = {"columns": IRIS.feature_names, "data": rows.tolist()}
    wanted = [IRIS.target_names[label] for label in models[1]["iris"].predict(rows)]
    assert scored(url, "iris", dataframe_split=split)["label"] == wanted
    assert scored(url, "iris", instances=rows.tolist())["label"] == wanted
    embedding = client.predict("sentences", SENTENCES).get_output("embedding")
    np.testing.assert_allclose(scored(url, "sentences", inputs=SENTENCES), np.reshape(embedding.data, embedding.shape))
    picture = base64.b64encode(file(PHOTOGRAPHS["china"], "PNG")).decode()
    assert scored(url, "photographs", instances=[picture])["label"] == [["blue", "green"]]


@pytest.mark.parametrize(
    ("model", "content", "hint"),
    [
        ("photographs", b"no image", "Image 0 is neither PNG nor JPEG"),
        ("photographs", {"picture": ["x"]}, r"'picture' is not an input of photographs; its inputs are \['image'\] or"),
        ("sentences", " ", "Text 0 is empty"),
        ("iris", {"petal": [1.0]}, "'petal' is not an input of iris"),
        ("iris", b"no image", "iris takes neither files nor texts, but sepal length"),
    ],
)
def test_what_is_wrong_is_one_sentence(client: Client, model: str, content: bytes | str, hint: str) -> None:
    with pytest.raises(InvalidInputError, match=hint):
        client.predict(model, content)


def test_bytes_that_are_no_text_are_refused(url: str) -> None:
    tensor = triton.InferInput("text", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([b"\xff\xfe"], object))
    with (
        triton.InferenceServerClient(url.removeprefix("http://")) as connected,
        pytest.raises(triton.InferenceServerException, match="'text': element 0 is not UTF-8"),
    ):
        connected.infer("sentences", [tensor])
