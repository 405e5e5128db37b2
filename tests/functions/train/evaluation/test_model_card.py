"""The model card says what was measured, its example works, and its limitations follow from the numbers."""

import json
import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from functions.train.data.folds import FoldScores
from functions.train.data.split_keys import SplitKeys
from functions.train.evaluation import model_card
from functions.train.evaluation.diagnostics import Diagnosis, diagnose_classification
from functions.train.evaluation.markdown_table import format_markdown_table
from functions.train.export.artifacts import TrainingArtifacts
from pilotlight.runtime.golden import GoldenExchange, GoldenRequest, GoldenResponse, GoldenTensor
from pilotlight.runtime.session import open_session
from tests.functions.train.conftest import Finished


@pytest.fixture
def product(tiny: Finished) -> TrainingArtifacts:
    """What the run handed to the registry."""
    assert tiny.product is not None
    return tiny.product


def body(text: str) -> Any:  # noqa: ANN401 - JSON
    """What the card's curl sends."""
    (command,) = re.findall(r"^\$ (.*curl.*)$", text, re.MULTILINE)
    words = shlex.split(command)
    if words[0] == "curl":
        return json.loads(words[words.index("-d") + 1])
    made = subprocess.run(["python3", *words[1:3]], capture_output=True, text=True, check=True)
    return json.loads(made.stdout)


def test_example_is_answered_by_the_served_graph(tiny: Finished, tmp_path: Path) -> None:
    text, manifest = tiny.file("model-card.md").decode(), tiny.outcome.manifest
    (given,) = body(text)["inputs"]
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny.file(manifest.graph_file.path))
    image = np.array(given["data"], np.float32).reshape(given["shape"])
    assert open_session(str(path)).run({given["name"]: image})["logits"].shape == (1, 10)
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert code is not None
    compile(code[1], "card", "exec")


def test_card_has_the_reports_numbers(tiny: Finished) -> None:
    text, report = tiny.file("model-card.md").decode(), tiny.outcome.report
    for precision, variant in report.variants.items():
        assert re.search(rf"^\| .*{precision}.* {variant.accuracy:.2%} .*\|$", text, re.MULTILINE)
    found = report.diagnosis.classification
    assert found is not None
    for one in found.classes:
        assert f"| {one.name} | {one.support} |" in text
    for words in (report.verdict, report.evaluation.sha256, "CC-BY-4.0", tiny.outcome.run_name, "cnn, channels [4, 8]"):
        assert words in text
    linked = set(re.findall(r"\]\((.*?\.png)\)", text))
    assert linked <= {file.path for file in tiny.outcome.manifest.files}
    assert linked == {"curves.png", "confusion.png", "calibration.png"}
    assert "{" not in re.sub(r"```.*?```|fractions \{.*?\}", "", text, flags=re.DOTALL)


def test_same_product_same_card(product: TrainingArtifacts) -> None:
    assert model_card.format_model_card(product) == model_card.format_model_card(product)


def limits(product: TrainingArtifacts, **report: object) -> str:
    changed = msgspec.structs.replace(product.report, **report)
    return "\n".join(model_card.list_limitations(replace(product, report=changed)))


def test_limitations_follow_from_the_numbers(product: TrainingArtifacts) -> None:
    labels = np.repeat([0, 1, 2], [40, 40, 4])
    logits = np.zeros((84, 3), np.float32)
    logits[:, 0] = 1
    collapsed = Diagnosis(classification=diagnose_classification(logits, labels, ("a", "b", "c")))
    said = limits(product, diagnosis=collapsed)
    assert "It never answers b, c, though they occur" in said
    assert "behind the figures of c (4)." in said
    assert "It most often takes b for a (40), c for a (4)." in said
    assert "between 37.3% and 58.2%" in said
    assert "off by" in said


def test_quantization_and_folds_are_told(product: TrainingArtifacts) -> None:
    assert "int8 loses 0.25 points of accuracy, of a budget of 0.50" in limits(product, serve="int8", points_lost=0.25)
    assert "It is not quantized" in limits(product, serve="fp32")
    crossed = replace(product, folds=FoldScores("accuracy", (0.9, 0.94, 0.98)))
    assert "on 3 folds the recipe gave accuracy 94.00%, deviation 4.00%" in "\n".join(
        model_card.list_limitations(crossed)
    )


def keyed(product: TrainingArtifacts, **keys: Any) -> tuple[str, str]:  # noqa: ANN401 - arrays
    """What the card says of how the data was split, and of the test set, where these keys determine the sets."""
    parts = {name: replace(getattr(product.splits, name), keys=SplitKeys(**keys)) for name in ("train", "test")}
    changed = replace(product, splits=replace(product.splits, **parts))
    split = re.search(r"^- (Split .*)$", model_card.format_model_card(changed), re.MULTILINE)
    assert split is not None
    return split[1], next(iter(model_card.list_limitations(changed)))


def test_the_split_is_told_as_it_was_made(product: TrainingArtifacts) -> None:
    split, test_set = keyed(product)
    assert split.startswith("Split by seed 1; of each class in proportion: ")
    assert test_set.startswith("The test set is a random part of the same data, 450 examples; ")
    split, test_set = keyed(product, times=np.arange(3))
    assert split.startswith("Split by time: ")
    assert test_set.startswith("The test set is the latest part of the same data, 450 examples; ")
    split, test_set = keyed(product, groups=np.arange(3))
    assert split.startswith("Split by seed 1; whole groups: ")
    assert test_set.startswith("The test set is groups of the same data that were not learned from, ")
    for own in (np.array([2, 2], np.int8), np.array([1, -1], np.int8)):
        _, test_set = keyed(product, sets=own)
        assert ("files of its own" in test_set) == (own[0] == 2)


def test_recipe_without_a_licence_says_so(product: TrainingArtifacts) -> None:
    recipe = product.recipe.model_copy(update={"licence": None})
    assert "None is named in the recipe" in model_card.format_model_card(replace(product, recipe=recipe))


def test_large_example_is_made_rather_than_written_out(product: TrainingArtifacts) -> None:
    large = GoldenTensor("image", (1, 3, 20, 20), "FP32", (0.5,) * 1200)
    exchange = GoldenExchange(GoldenRequest((large,)), GoldenResponse((large,)))
    golden = msgspec.structs.replace(product.golden, exchanges=(exchange,))
    text = model_card.format_model_card(replace(product, golden=golden))
    (given,) = body(text)["inputs"]
    assert given == {"name": "image", "shape": [1, 3, 20, 20], "datatype": "FP32", "data": [0] * 1200}
    assert max(map(len, text.splitlines())) < 1000


def test_names_do_not_break_a_table() -> None:
    assert format_markdown_table(("a",), [("x|y\nz",)]).splitlines()[-1] == r"| x\|y z |"
