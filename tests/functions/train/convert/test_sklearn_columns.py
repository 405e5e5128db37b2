"""Columns of scikit-learn's pipelines as tables have them: with gaps, in bins, in a search."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, OneHotEncoder, OrdinalEncoder, StandardScaler

from functions.train.convert.sklearn_pipeline import convert_estimator
from functions.train.errors import ParityError
from pilotlight.errors import InvalidInputError
from pilotlight.runtime.datatypes import Array
from pilotlight.runtime.session import open_session

pandas = pytest.importorskip("pandas")
random = np.random.default_rng(7)
PEOPLE = pandas.DataFrame({
    "age": random.integers(18, 80, 120).astype(float),
    "job": random.choice(["cook", "nurse", "clerk"], 120),
    "town": random.choice(["Köln", "Bonn"], 120),
    "pay": random.normal(50, 10, 120),
})  # fmt: skip
WITH_GAPS = PEOPLE.assign(job=PEOPLE.job.where(PEOPLE.index % 5 != 0, None))
RICH = np.where(PEOPLE.pay + 10 * (PEOPLE.job == "cook") > 52, "yes", "no")
ONE_HOT = OneHotEncoder(handle_unknown="ignore")
ORDINAL = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)


def probabilities(estimator: Any, table: Any, folder: Path) -> Array:  # noqa: ANN401
    """What the graph answers to a table, in which a missing text is an empty one."""
    convert_estimator(estimator, "mine.py:model", folder / "model.onnx")
    session = open_session(str(folder / "model.onnx"))
    texts = {spec.name for spec in session.inputs if spec.datatype == "BYTES"}
    feed = {
        spec.name: table[[spec.name]].fillna("").to_numpy(object)
        if spec.name in texts
        else table[[spec.name]].to_numpy(np.float32)
        for spec in session.inputs
    }
    return session.run(feed)["probabilities_of_classes"]


@pytest.mark.parametrize(
    ("texts", "gap"),
    [
        (make_pipeline(SimpleImputer(strategy="most_frequent"), ONE_HOT), np.nan),
        (make_pipeline(SimpleImputer(strategy="constant", fill_value="?"), ORDINAL), np.nan),
        (make_pipeline(SimpleImputer(strategy="constant", fill_value="?", missing_values=None), ONE_HOT), None),
        (ONE_HOT, np.nan),
        (ONE_HOT, None),
    ],
)
def test_a_missing_text_is_an_empty_one(tmp_path: Path, texts: Any, gap: float | None) -> None:  # noqa: ANN401
    jobs = [gap if place % 5 == 0 else job for place, job in enumerate(PEOPLE.job)]
    table = PEOPLE.assign(job=pandas.Series(jobs, dtype=object))
    parts = ColumnTransformer([("texts", texts, ["job", "town"]), ("numbers", StandardScaler(), ["pay"])])
    estimator = make_pipeline(parts, LogisticRegression()).fit(table, RICH)
    found = probabilities(estimator, table, tmp_path)
    np.testing.assert_allclose(found, estimator.predict_proba(table), atol=1e-5)


def test_the_parameters_of_an_estimator_are_as_before(tmp_path: Path) -> None:
    imputer = SimpleImputer(strategy="most_frequent")
    parts = ColumnTransformer([("texts", make_pipeline(imputer, ONE_HOT), ["job", "town"])])
    estimator = make_pipeline(parts, LogisticRegression()).fit(WITH_GAPS, RICH)
    before = estimator.predict_proba(WITH_GAPS)
    probabilities(estimator, WITH_GAPS, tmp_path)
    np.testing.assert_array_equal(estimator.predict_proba(WITH_GAPS), before)


def test_a_search_over_a_table_has_its_columns(tmp_path: Path) -> None:
    parts = ColumnTransformer([("numbers", StandardScaler(), ["age", "pay"]), ("job", ONE_HOT, ["job", "town"])])
    pipeline = make_pipeline(parts, LogisticRegression())
    search = GridSearchCV(pipeline, {"logisticregression__C": [0.1, 1.0]}, cv=2).fit(PEOPLE, RICH)
    np.testing.assert_allclose(probabilities(search, PEOPLE, tmp_path), search.predict_proba(PEOPLE), atol=1e-5)


def test_bins_are_converted_as_they_are_by_default(tmp_path: Path) -> None:
    rows = PEOPLE[["age", "pay"]].to_numpy()
    options = {"quantile_method": "averaged_inverted_cdf"}
    estimator = make_pipeline(KBinsDiscretizer(4, **options), LogisticRegression()).fit(rows, RICH)
    convert_estimator(estimator, "mine.py:model", tmp_path / "model.onnx")
    (found,) = open_session(str(tmp_path / "model.onnx")).run({"features": rows.astype("f4")}).values()
    np.testing.assert_allclose(found, estimator.predict_proba(rows), atol=1e-5)
    assert estimator[0].encode == "onehot"


def test_pairs_of_words_around_a_word_that_is_left_out_are_refused(tmp_path: Path) -> None:
    """skl2onnx pairs words that stand side by side alone; scikit-learn, those that are left."""
    vectorizer = CountVectorizer(ngram_range=(1, 2), stop_words=["und"])
    texts = ["gut und billig", "schlecht und teuer", "gut", "teuer und gut"] * 5
    estimator = make_pipeline(vectorizer, MultinomialNB()).fit(texts, [1, 0, 1, 0] * 5)
    with pytest.raises(ParityError, match="skl2onnx splits texts otherwise than scikit-learn"):
        convert_estimator(estimator, "mine.py:model", tmp_path / "model.onnx")


def test_a_classifier_without_probabilities_is_told_a_way(tmp_path: Path) -> None:
    from sklearn.svm import LinearSVC

    estimator = LinearSVC().fit(PEOPLE[["age", "pay"]].to_numpy(), RICH)
    with pytest.raises(InvalidInputError, match="fit it within a CalibratedClassifierCV"):
        convert_estimator(estimator, "mine.py:model", tmp_path / "model.onnx")
