"""ONNX files of classifiers as skl2onnx and others write them: maps, sequences, odd names, texts and locales."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tritonclient.http as triton
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

from pilotlight.contracts.processing import ClassificationPostprocessing
from pilotlight.runtime import onnx_editing
from pilotlight.runtime.datatypes import Array
from tests.functions.predict.test_handler import Function
from tests.functions.train.convert.conftest import Publish

ROWS = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
SIDE = (ROWS[:, 0] > 0).astype(int)
SPELT: list[list[Any]] = [["no", "yes"], [0, 1], [7, -3]]
Ask = Callable[..., Any]
Save = Callable[..., Path]


def texts(values: Array) -> list[str]:
    return [each.decode() if isinstance(each, bytes) else str(each) for each in values]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def run(estimator: object, types: list[tuple[str, object]] | None = None, **options: object) -> Path:
        given: dict[str, Any] = {"initial_types": types or [("x", FloatTensorType([None, 3]))], "target_opset": 15}
        file = tmp_path / "model.onnx"
        onnx.save(to_onnx(estimator, **given, **options), file)
        return file

    return run


@pytest.fixture
def ask(client: triton.InferenceServerClient) -> Ask:
    """The answer of a published model to its inputs, in JSON or binary form."""

    def run(model: str, inputs: dict[str, Array], *outputs: str, binary: bool = False) -> Any:  # noqa: ANN401
        tensors = []
        for name, values in inputs.items():
            kind = "BYTES" if values.dtype == object else triton.np_to_triton_dtype(values.dtype)
            tensors.append(triton.InferInput(name, list(values.shape), kind))
            tensors[-1].set_data_from_numpy(values, binary_data=binary)
        wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in outputs] or None
        answer = client.infer(model, tensors, outputs=wanted)
        return [answer.as_numpy(each["name"]) for each in answer.get_response()["outputs"]]

    return run


@pytest.mark.parametrize("classes", SPELT, ids=str)
def test_a_map_becomes_labels_and_probabilities(publish: Publish, save: Save, ask: Ask, classes: list[Any]) -> None:
    estimator = LogisticRegression().fit(ROWS, np.array(classes)[SIDE])
    model = f"mapped{SPELT.index(classes)}"
    manifest = publish(save(estimator), name=model)
    assert manifest.labels == tuple(map(str, estimator.classes_))
    assert manifest.postprocess == ClassificationPostprocessing(output="output_probability", activation="none")
    assert [(each.name, each.datatype, each.v2_shape) for each in manifest.outputs][1:] == [
        ("output_probability", "FP32", [-1, 2])
    ]
    assert manifest.golden == "golden.json"
    label, probability = ask(model, {"x": ROWS})
    assert texts(label) == list(map(str, estimator.predict(ROWS)))
    assert probability == pytest.approx(estimator.predict_proba(ROWS).max(axis=1), abs=1e-5)
    (scores,) = ask(model, {"x": ROWS}, "output_probability", binary=True)
    assert scores == pytest.approx(estimator.predict_proba(ROWS), abs=1e-5)


def test_names_of_the_graph_stay_and_those_of_the_step_give_way(
    command: Callable[..., tuple[int, str, str]], publish: Publish, save: Save, ask: Ask, tmp_path: Path
) -> None:
    estimator = RandomForestClassifier(3, random_state=0).fit(ROWS, np.array(["a", "b"])[SIDE])
    file = save(estimator, options={"zipmap": False})
    assert [each.name for each in onnx.load(file).graph.output] == ["label", "probabilities"]
    names = ("predicted_label", "predicted_probability", "predicted_probabilities")
    assert publish(file, name="named").postprocess.output_names == names  # type: ignore[union-attr]  # it has a finish
    steps = tmp_path / "steps.yaml"
    steps.write_text(
        "prepare: {kind: tabular, columns: [{name: a}, {name: b}, {name: c}]}\nfinish: {kind: classification}\n"
    )
    manifest = publish(file, "--task", "tabular", "--processing", steps, name="table")
    assert isinstance(manifest.postprocess, ClassificationPostprocessing)
    assert (manifest.postprocess.output, manifest.postprocess.activation) == ("probabilities", "none")
    assert manifest.labels == ("a", "b")
    label, probability = ask("table", {name: ROWS[:, place] for place, name in enumerate("abc")})
    assert texts(label) == estimator.predict(ROWS).tolist()
    assert probability == pytest.approx(estimator.predict_proba(ROWS).max(axis=1), abs=1e-5)
    err = command(file, "--name", "n", "--store", tmp_path / "s")[2]
    assert "'label' is 'predicted_label', 'probability' is 'predicted_probability'" in " ".join(err.split())


def test_an_odd_input_of_the_map_and_one_behind_another_node(publish: Publish, ask: Ask, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Softmax", ["x"], ["scores/of:the model.1"]),
        helper.make_node(
            "ZipMap", ["scores/of:the model.1"], ["z"], domain="ai.onnx.ml", classlabels_strings=["é", "b"]
        ),
        helper.make_node("Identity", ["z"], ["maps"]),
    ]
    kind = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    )
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_value_info("maps", kind)],
    )  # fmt: skip
    versions = [helper.make_opsetid("", 15), helper.make_opsetid("ai.onnx.ml", 2)]
    onnx.save(helper.make_model(graph, opset_imports=versions, ir_version=8), tmp_path / "odd.onnx")
    manifest = publish(tmp_path / "odd.onnx", name="odd")
    assert manifest.labels == ("é", "b")
    assert texts(ask("odd", {"x": np.array([[2, 1], [0, 9]], np.float32)})[0]) == ["é", "b"]


def test_several_targets_stay_tensors(publish: Publish, save: Save, ask: Ask) -> None:
    targets = np.c_[SIDE, ROWS[:, 1] > 0, ROWS[:, 2] > 0.4].astype(int)
    estimator = MultiOutputClassifier(LogisticRegression()).fit(ROWS, targets)
    manifest = publish(save(estimator, options={"zipmap": False}), name="several")
    assert manifest.postprocess is None
    assert [each.name for each in manifest.outputs] == ["label", *(f"probabilities_{place}" for place in range(3))]
    label, *parts = ask("several", {"x": ROWS})
    assert (label == estimator.predict(ROWS)).all()
    for found, expected in zip(parts, estimator.predict_proba(ROWS), strict=True):
        assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    "estimator",
    [LinearSVC(), MLPClassifier((4,), max_iter=20, random_state=0)],
    ids=["scores that are no probabilities", "several labels at once"],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_no_probabilities_are_claimed_where_there_are_none(
    publish: Publish,
    save: Save,
    estimator: Any,  # noqa: ANN401
) -> None:
    single = isinstance(estimator, LinearSVC)
    estimator.fit(ROWS, SIDE if single else np.c_[SIDE, ROWS[:, 1] > 0].astype(int))
    assert publish(save(estimator), name="raw").postprocess is None


def test_task_tensor_keeps_the_graph_s_own_outputs(publish: Publish, save: Save) -> None:
    file = save(GaussianNB().fit(ROWS, SIDE))
    assert publish(file, "--task", "tensor", name="own").postprocess is None
    assert publish(file, name="own").labels == ("0", "1")


def invoke(store: str, model: str, body: str, kind: str) -> dict[str, list[Any]]:
    """The predictions of `/invocations`, by output."""
    call, headers = Function(store), {"content-type": kind, "x-pilotlight-model": model}
    answer = call.handle(call.event("POST", "/invocations", body.encode(), headers=headers), None)
    assert answer["statusCode"] == 200, answer["body"]
    found: dict[str, list[Any]] = json.loads(answer["body"])["predictions"]
    return found


def test_columns_of_every_type_are_inputs(publish: Publish, save: Save, ask: Ask, kept: str) -> None:
    import pandas

    table = pandas.DataFrame(
        {"age": ROWS[:, 0].astype(float), "rooms": np.arange(60), "job": np.where(SIDE, "cook", "nurse")}
    )
    parts = ColumnTransformer(
        [("n", StandardScaler(), ["age", "rooms"]), ("t", OneHotEncoder(handle_unknown="ignore"), ["job"])]
    )
    estimator = make_pipeline(parts, LogisticRegression()).fit(table, np.array(["a", "b"])[SIDE])
    types = [("age", DoubleTensorType([None, 1])), ("rooms", Int64TensorType([None, 1])),
             ("job", StringTensorType([None, 1]))]  # fmt: skip
    manifest = publish(save(estimator, types), name="columns")
    assert [each.datatype for each in manifest.inputs] == ["FP64", "INT64", "BYTES"]
    feed = {
        "age": table[["age"]].to_numpy(),
        "rooms": table[["rooms"]].to_numpy(np.int64),
        "job": table[["job"]].to_numpy(object),
    }
    for binary in (False, True):
        label, probability = ask("columns", feed, "label", "probability", binary=binary)
        assert texts(label) == estimator.predict(table).tolist()
        assert probability == pytest.approx(estimator.predict_proba(table).max(axis=1), abs=1e-4)
    right = estimator.predict(table).tolist()
    records = json.loads(table.to_json(orient="records"))
    found = invoke(kept, "columns", json.dumps({"dataframe_records": records}), "application/json")
    assert found["label"] == right
    assert invoke(kept, "columns", table.to_csv(index=False), "text/csv")["label"] == right


def test_a_locale_that_is_not_there_is_replaced(
    command: Callable[..., tuple[int, str, str]], publish: Publish, save: Save, ask: Ask, tmp_path: Path
) -> None:
    notes = ["good thing", "bad thing really", "GOOD and fine", "bad ÉCOLE"] * 3
    estimator = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(notes, ["up", "down", "up", "down"] * 3)
    file = save(estimator, [("text", StringTensorType([None, 1]))])
    manifest = publish(file, name="texts")
    assert manifest.labels == ("down", "up")
    label, _ = ask("texts", {"text": np.array([["Good"], ["BAD"]], object)})
    assert texts(label) == ["up", "down"]
    model = onnx.load(file)
    (node,) = [each for each in model.graph.node if each.op_type == "StringNormalizer"]
    node.attribute.append(helper.make_attribute("locale", "de_DE.UTF-8"))
    onnx.save(model, file)
    err = command(file, "--name", "m", "--store", tmp_path / "s")[2]
    assert re.search(r"locale 'de_DE.UTF-8', which a Lambda function does not have; it is published with C.UTF-8", err)


def test_every_other_byte_of_a_graph_is_kept(save: Save) -> None:
    file = save(LogisticRegression().fit(ROWS, SIDE))
    content = file.read_bytes()
    same = onnx_editing.rewrite_model(memoryview(content), lambda message, node: None, lambda name: None)
    assert onnx.load_from_string(same) == onnx.load_from_string(content)
