"""Pictures are drawn for two classes and for a thousand, and are the same each time."""

from io import BytesIO
from pathlib import Path

import matplotlib.image
import msgspec
import numpy as np
import pytest

from functions.train.data.dataset import Dataset
from functions.train.data.split import Splits
from functions.train.evaluation import plots
from functions.train.evaluation.diagnostics import (
    ClassificationDiagnosis,
    Diagnosis,
    diagnose_answers,
    diagnose_classification,
)
from functions.train.evaluation.drift_plot import draw_drift_plot
from pilotlight.drift.charts import ChartPanel
from tests.functions.train.conftest import Finished


def judged(classes: int, examples: int, name: str = "class") -> ClassificationDiagnosis:
    random = np.random.default_rng(0)
    labels = random.integers(0, classes, examples)
    logits = random.normal(size=(examples, classes)).astype(np.float32)
    return diagnose_classification(logits, labels, tuple(f"{name} {number}" for number in range(classes)))


def size(picture: bytes) -> tuple[int, int]:
    """Width and height in pixels."""
    pixels = np.asarray(matplotlib.image.imread(BytesIO(picture)))
    assert np.ptp(pixels) > 0.5
    return pixels.shape[1], pixels.shape[0]


@pytest.mark.parametrize(("classes", "examples"), [(2, 1), (12, 400), (30, 200), (31, 200), (1000, 2000)])
def test_confusions_stay_readable(classes: int, examples: int) -> None:
    width, height = size(
        plots.draw_confusions(judged(classes, examples, "a rather long name of a class, $x^2$"), "title")
    )
    assert 300 < width < 2000
    assert 200 < height < 2000


def test_nothing_confused_is_drawn_too() -> None:
    labels = np.arange(40)
    found = diagnose_classification(np.eye(40, dtype=np.float32) * 9, labels, tuple(map(str, labels)))
    assert found.worst == ()
    assert size(plots.draw_confusions(found, "title"))


def test_reliability_is_drawn_of_a_single_answer_and_of_many() -> None:
    for examples in (1, 1000):
        assert size(plots.draw_reliability_diagram(judged(3, examples).calibration, "title"))


def test_drawing_is_repeatable() -> None:
    found = judged(5, 100)
    assert plots.draw_confusions(found, "title") == plots.draw_confusions(found, "title")


def test_numbers_are_drawn_against_the_truth() -> None:
    truth = np.linspace(0, 9, 20, dtype=np.float32)[:, None]
    found = diagnose_answers(truth * 1.1, Dataset(truth, truth, ())).regression
    assert found is not None
    assert size(plots.draw_prediction_scatter(truth[:, 0] * 1.1, truth[:, 0], found, "title"))


def test_model_of_neither_kind_gets_no_picture(tiny: Finished, splits: Splits) -> None:
    other = msgspec.structs.replace(tiny.outcome.report, diagnosis=Diagnosis())
    assert plots.draw_diagnosis_plots(other, Path("nowhere.onnx"), splits.test, "x") == {}


@pytest.mark.parametrize("labels", [(), (r"$\frac{$", "$^$")])
def test_names_of_columns_are_no_formulas(labels: tuple[str, ...]) -> None:
    panel = ChartPanel(r"$\frac{$", "feature", "stable", 0.0, labels, 0.0, 1.0, (0.5, 0.5), (0.5, 0.5))
    assert draw_drift_plot([panel]).startswith(b"\x89PNG")
