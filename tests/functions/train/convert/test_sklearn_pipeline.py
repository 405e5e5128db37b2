"""scikit-learn's estimators as people fit them: tables with named columns, texts among numbers, trees, clusters."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import tritonclient.http as triton

from pilotlight.runtime.datatypes import Array
from tests.functions.train.convert.conftest import Publish, Refused, imported

SOURCE = """
import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.ensemble import VotingClassifier
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

random = np.random.default_rng(0)
people = pd.DataFrame({
    "age": random.integers(18, 80, 200).astype(float),
    "job": random.choice(["cook", "nurse", "clerk"], 200),
    "pay": random.normal(50, 10, 200),
})
numbers, both = people[["age", "pay"]], np.c_[people.age > 40, people.pay > 50]
rich = np.where(people.pay + 10 * (people.job == "cook") > 52, "yes", "no")


def mixed():
    filled = make_pipeline(SimpleImputer(), StandardScaler())
    encoder = OneHotEncoder(handle_unknown="ignore")
    parts = ColumnTransformer([("numbers", filled, ["age", "pay"]), ("texts", encoder, ["job"])])
    return make_pipeline(parts, LogisticRegression()).fit(people, rich)


def placed():
    parts = ColumnTransformer([("job", OrdinalEncoder(), [1])], remainder="passthrough")
    return make_pipeline(parts, RandomForestClassifier(5, random_state=0)).fit(people, rich)


def unnamed():
    parts = ColumnTransformer([("texts", OneHotEncoder(), [0]), ("numbers", StandardScaler(), [1])])
    rows = np.array([["a", 1.0], ["b", 2.0], ["a", 3.0], ["b", 0.0]] * 10, object)
    return make_pipeline(parts, LogisticRegression()).fit(rows, [0, 1, 1, 0] * 10)


def sliced():
    parts = ColumnTransformer([("job", OrdinalEncoder(), slice("job", "pay"))], remainder="passthrough")
    return make_pipeline(parts, RandomForestClassifier(5, random_state=0)).fit(people, rich)


def codes():
    rows = random.integers(4, 8, (50, 2))
    return make_pipeline(OneHotEncoder(), LogisticRegression()).fit(rows, rows[:, 0] > 5)


def boosted():
    return HistGradientBoostingClassifier(max_iter=5).fit(*load_breast_cancer(return_X_y=True))


def boosted_numbers():
    return HistGradientBoostingRegressor(max_iter=5).fit(*load_diabetes(return_X_y=True))


def clusters():
    return KMeans(3, n_init=1, random_state=0).fit(load_iris().data)


def no_negative(rows):
    raise ValueError("no negative numbers")


def spaced():
    table = people[["age", "pay"]].rename(columns={"age": "age (years)", "pay": "numbers"})
    parts = ColumnTransformer([("age", StandardScaler(), ["age (years)"])], remainder="passthrough")
    return make_pipeline(parts, LogisticRegression()).fit(table, rich)


def answered():
    table = people[["age", "pay"]].rename(columns={"age": "probabilities_of_classes", "pay": "output_label"})
    parts = ColumnTransformer([("age", StandardScaler(), ["output_label"])], remainder="passthrough")
    return make_pipeline(parts, LogisticRegression()).fit(table, rich)


def several():
    return RandomForestClassifier(3, random_state=0).fit(numbers, both)


def several_at_once():
    return OneVsRestClassifier(LogisticRegression()).fit(numbers, both)


def texts():
    return make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(people.job, rich)


def a_text_among_numbers():
    parts = ColumnTransformer([("job", TfidfVectorizer(), "job"), ("age", StandardScaler(), ["age"])])
    return make_pipeline(parts, LogisticRegression()).fit(people, rich)


def words(**options):
    texts = ["The café Über good", "bad thing really", "good and fine a b", "bad ÉCOLE 1"] * 3
    return make_pipeline(TfidfVectorizer(**options), LogisticRegression()).fit(texts, ["up", "down", "up", "down"] * 3)


def pairs():
    return words(ngram_range=(1, 2))


def stripped():
    return words(strip_accents="unicode")


def hashed():
    return make_pipeline(HashingVectorizer(), LogisticRegression()).fit(people.job, rich)


class Doubled(TransformerMixin, BaseEstimator):
    def fit(self, rows, answers=None):
        self.n_features_in_ = rows.shape[1]
        return self

    def transform(self, rows):
        return 2 * rows


def homemade():
    return make_pipeline(Doubled(), LogisticRegression()).fit(numbers.to_numpy(), rich)


def transformed():
    estimator = TransformedTargetRegressor(LinearRegression(), func=np.log1p, inverse_func=np.expm1)
    return estimator.fit(numbers.to_numpy(), people.age)


def voted():
    return VotingClassifier([("a", LogisticRegression())], voting="soft").fit(numbers.to_numpy(), rich)


def idle():
    steps = [("nothing", "passthrough"), ("scale", StandardScaler()), ("none", None), ("last", LogisticRegression())]
    return Pipeline(steps).fit(np.arange(12.0).reshape(6, 2), [0, 1] * 3)


def empty():
    return make_pipeline(OrdinalEncoder(), LogisticRegression()).fit(np.full((6, 1), None), [0, 1] * 3)


def processes():
    return GaussianProcessClassifier().fit(numbers, (people.age > 40).astype(int))


choosy = LinearRegression().fit([[1.0, 2.0], [3.0, 4.0]], [1.0, 2.0])
choosy.predict = no_negative
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("estimators") / "estimators.py"
    path.write_text(SOURCE)
    return path


@pytest.fixture(scope="module")
def mine(file: Path) -> ModuleType:
    return imported(file)


def probabilities(client: triton.InferenceServerClient, name: str, **columns: Array) -> Array:
    inputs = []
    for column, values in columns.items():
        tensor = triton.InferInput(column, list(values.shape), "BYTES" if values.dtype == object else "FP32")
        inputs.append(tensor.set_data_from_numpy(values))
    wanted = [triton.InferRequestedOutput("probabilities")]
    found: Array = client.infer(name, inputs, outputs=wanted).as_numpy("probabilities")
    return found


def columns(mine: ModuleType) -> dict[str, Array]:
    """Some of the people as the graph takes them, [rows, 1] by column."""
    some = mine.people.iloc[::7]
    numbers = {name: some[[name]].to_numpy(np.float32) for name in ("age", "pay")}
    return numbers | {"job": some[["job"]].to_numpy(object)}


@pytest.mark.parametrize("name", ["mixed", "placed"])
def test_a_table_of_numbers_and_texts(
    publish: Publish, client: triton.InferenceServerClient, file: Path, mine: ModuleType, name: str
) -> None:
    manifest = publish(f"{file}:{name}", name=name)
    kinds = [(spec.name, spec.datatype) for spec in manifest.inputs]
    assert kinds == [("age", "FP32"), ("job", "BYTES"), ("pay", "FP32")]
    assert manifest.labels == ("no", "yes")
    found = probabilities(client, name, **columns(mine))
    right = getattr(mine, name)().predict_proba(mine.people.iloc[::7])
    np.testing.assert_allclose(found, right, atol=1e-5)


def test_columns_without_names(
    publish: Publish, client: triton.InferenceServerClient, file: Path, mine: ModuleType
) -> None:
    publish(f"{file}:unnamed", name="unnamed")
    found = probabilities(client, "unnamed", x0=np.array([["a"], ["b"]], object), x1=np.array([[1], [2]], "f"))
    right = mine.unnamed().predict_proba(np.array([["a", 1.0], ["b", 2.0]], object))
    np.testing.assert_allclose(found, right, atol=1e-5)


@pytest.mark.parametrize("name", ["boosted", "boosted_numbers", "clusters", "codes", "voted", "idle", "empty"])
def test_estimators_that_need_care(publish: Publish, file: Path, name: str) -> None:
    """Trees whose booleans onnx refuses, clusters that keep the dtype of fit, categories that no random number is."""
    manifest = publish(f"{file}:{name}", name=name)
    assert manifest.parity is not None
    assert manifest.parity.batches == (512 if name.startswith("boosted") else 64,)


def test_an_estimator_that_takes_no_made_up_rows(refused: Refused, file: Path) -> None:
    said = refused(f"{file}:choosy")
    assert "refuses rows of ['x0', 'x1'] that were made up to compare it with its graph: no negative numbers." in said


def test_a_slice_of_names(refused: Refused, file: Path) -> None:
    assert "give the ColumnTransformer a list for slice('job', 'pay', None)" in refused(f"{file}:sliced")


@pytest.mark.parametrize("name", ["spaced", "answered"])
def test_columns_keep_whatever_names_they_have(
    publish: Publish, client: triton.InferenceServerClient, file: Path, mine: ModuleType, name: str
) -> None:
    estimator, rows = getattr(mine, name)(), mine.people[["age", "pay"]].to_numpy(np.float32)[:5]
    names = list(estimator.feature_names_in_)
    assert [spec.name for spec in publish(f"{file}:{name}", name=name).inputs] == names
    found = probabilities(client, name, **{key: rows[:, [place]] for place, key in enumerate(names)})
    right = estimator.predict_proba(mine.pd.DataFrame(rows, columns=names))
    np.testing.assert_allclose(found, right, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("several", "answers 2 targets at once; fit an estimator for each, and publish them apart."),
        ("several_at_once", "answers 2 targets at once; fit an estimator for each, and publish them apart."),
        ("hashed", "hashed holds a HashingVectorizer, which has no vocabulary; a TfidfVectorizer or a CountVectorizer"),
        ("stripped", "stripped, a Pipeline of TfidfVectorizer, LogisticRegression, cannot be converted by skl2onnx: "),
        ("homemade", "homemade holds a Doubled, for which skl2onnx has no converter"),
        ("transformed", "holds a TransformedTargetRegressor, for which skl2onnx has no converter"),
        ("processes", "processes becomes a graph that cannot be served: onnxruntime"),
    ],
)
def test_what_cannot_be_served_is_refused(refused: Refused, file: Path, name: str, said: str) -> None:
    assert said in refused(f"{file}:{name}")


@pytest.mark.parametrize("name", ["words", "pairs"])
def test_texts_are_read_in_every_alphabet_without_a_locale(
    publish: Publish, client: triton.InferenceServerClient, file: Path, mine: ModuleType, name: str
) -> None:
    manifest = publish(f"{file}:{name}", name=name)
    assert [(spec.name, spec.datatype) for spec in manifest.inputs] == [("text", "BYTES")]
    assert manifest.labels == ("down", "up")
    texts = ["CAFÉ", "a bad café über all", "nothing known"]
    found = probabilities(client, name, text=np.array(texts, object).reshape(-1, 1))
    np.testing.assert_allclose(found, getattr(mine, name)().predict_proba(texts), atol=1e-5)


def test_a_text_among_numbers(
    publish: Publish, client: triton.InferenceServerClient, file: Path, mine: ModuleType
) -> None:
    publish(f"{file}:a_text_among_numbers", name="among")
    found = probabilities(client, "among", **columns(mine))
    right = mine.a_text_among_numbers().predict_proba(mine.people.iloc[::7])
    np.testing.assert_allclose(found, right, atol=1e-5)


def test_a_table_without_pandas(
    refused: Refused, file: Path, mine: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in an environment to which an estimator was brought by skops or joblib."""
    monkeypatch.setattr(mine, "model", mine.mixed(), raising=False)
    monkeypatch.setitem(sys.modules, "brought_without_pandas", mine)
    monkeypatch.setitem(sys.modules, "pandas", None)
    said = refused("brought_without_pandas:model")
    assert "was fitted on a DataFrame with the columns ['age', 'job', 'pay']" in said
    assert "run pip install pandas" in said


def write_tables(folder: Path, people: pd.DataFrame) -> list[Path]:
    """The same table in every format."""
    people.to_csv(folder / "e.csv", index=False)
    people.to_csv(folder / "e.csv.gz", index=True)
    people.to_parquet(folder / "e.parquet")
    people.astype({"job": "category"}).to_parquet(folder / "c.parquet")
    people.to_json(folder / "e.jsonl", orient="records", lines=True)
    return sorted(folder.glob("*.*"))


def test_right_answers_in_a_table_judge_a_pipeline(
    publish: Publish, file: Path, mine: ModuleType, tmp_path: Path
) -> None:
    expected = (mine.mixed().predict(mine.people) == mine.rich).mean()
    tables = write_tables(tmp_path, mine.people.assign(target=mine.rich))
    assert len(tables) == 5
    for number, table in enumerate(tables):
        manifest = publish(f"{file}:mixed", "--evaluation", table, name=f"tabled-{number}")
        assert manifest.metric == "accuracy"
        assert manifest.evaluation is not None
        assert manifest.evaluation.examples == 200
        assert manifest.variants["fp32"].metrics["accuracy"] == pytest.approx(expected)
        assert manifest.profile is not None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows.drop(columns="target"), "which other column has the right answers is not plain: call it t"),
        (lambda rows: rows.drop(columns="age"), "has the inputs ['age', 'job', 'pay']; the body has"),
        (lambda rows: rows.assign(age="old"), "'old' is no number"),
        (lambda rows: rows.assign(target=None), "row 0 has no right answer in 'target'; leave it out."),
        (lambda rows: rows.head(0), "has no rows."),
        (lambda rows: rows.assign(target="perhaps"), "row 0 is 'perhaps', which is no label of the model"),
    ],
)
def test_tables_that_do_not_fit_the_model_are_refused(
    refused: Refused,
    file: Path,
    mine: ModuleType,
    tmp_path: Path,
    change: Callable[[pd.DataFrame], pd.DataFrame],
    said: str,
) -> None:
    change(mine.people.assign(target=mine.rich)).to_csv(tmp_path / "e.csv", index=False)
    assert said in refused(f"{file}:mixed", "--evaluation", tmp_path / "e.csv")
