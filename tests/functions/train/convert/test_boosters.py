"""Models of XGBoost, LightGBM and CatBoost: their files and objects, beside what the library itself answers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.ensemble
import tritonclient.http as triton
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from functions.train.convert import boosters, sklearn_pipeline, tree_ensemble
from functions.train.convert.converted_model import ConvertedModel
from pilotlight.contracts.processing import (
    ClassificationPostprocessing,
    RegressionPostprocessing,
    TableColumn,
    TablePreprocessing,
)
from pilotlight.errors import InvalidInputError, UnavailableError
from pilotlight.runtime import booster_format
from pilotlight.runtime.booster_format import check_booster_file
from pilotlight.runtime.session import open_session
from tests.functions.train.convert.conftest import Publish, Refused
from tests.functions.train.convert.test_classifier_graphs import invoke

random = np.random.default_rng(0)
ROWS = random.normal(size=(300, 4))
GAPS = np.where(random.random(ROWS.shape) < 0.2, np.nan, ROWS)
AMOUNT = np.round(np.abs(3 * ROWS[:, 0] + ROWS[:, 1]) + 0.1, 3)
SIDE = (ROWS[:, 0] + ROWS[:, 1] > 0).astype(int)
KIND = np.digitize(ROWS[:, 2], [-0.5, 0.5])
XGB: dict[str, Any] = {"n_estimators": 4, "max_depth": 3, "n_jobs": 1}
LGB: dict[str, Any] = {"n_estimators": 4, "num_leaves": 7, "verbose": -1, "n_jobs": 1}
CAT: dict[str, Any] = {"iterations": 4, "verbose": 0, "allow_writing_files": False, "thread_count": 1}

CASES: list[tuple[str, str, dict[str, Any], Any, Any]] = [
    ("xgboost", "XGBClassifier", XGB, GAPS, SIDE),
    ("xgboost", "XGBClassifier", XGB, ROWS, KIND),
    ("xgboost", "XGBClassifier", XGB, ROWS, np.c_[SIDE, 1 - SIDE]),
    ("xgboost", "XGBClassifier", XGB | {"objective": "binary:logitraw", "base_score": 0.3}, ROWS, SIDE),
    ("xgboost", "XGBClassifier", XGB | {"objective": "binary:hinge"}, ROWS, SIDE),
    *(
        ("xgboost", "XGBRegressor", XGB | {"objective": objective}, ROWS, AMOUNT)
        for objective in ("reg:squarederror", "count:poisson", "reg:gamma", "reg:tweedie", "reg:absoluteerror")
    ),
    ("xgboost", "XGBRegressor", XGB | {"objective": "reg:logistic", "base_score": 0.2}, ROWS, SIDE * 0.5),
    ("xgboost", "XGBRegressor", XGB | {"objective": "survival:cox"}, ROWS, AMOUNT),
    ("xgboost", "XGBRegressor", XGB | {"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.9]}, ROWS, AMOUNT),
    ("xgboost", "XGBRegressor", XGB, ROWS, np.c_[AMOUNT, -AMOUNT]),
    ("xgboost", "XGBRegressor", XGB | {"multi_strategy": "multi_output_tree"}, ROWS, np.c_[AMOUNT, -AMOUNT]),
    ("xgboost", "XGBRegressor", XGB | {"booster": "dart", "rate_drop": 0.5}, ROWS, AMOUNT),
    ("xgboost", "XGBRegressor", {"n_estimators": 4, "booster": "gblinear", "n_jobs": 1}, ROWS, AMOUNT),
    ("xgboost", "XGBClassifier", {"n_estimators": 4, "booster": "gblinear", "n_jobs": 1}, ROWS, KIND),
    ("xgboost", "XGBRegressor", XGB | {"missing": -999}, np.nan_to_num(GAPS, nan=-999), AMOUNT),
    ("xgboost", "XGBRegressor", XGB | {"missing": 0}, np.nan_to_num(GAPS), AMOUNT),
    ("xgboost", "XGBRFClassifier", XGB, ROWS, KIND),
    ("lightgbm", "LGBMClassifier", LGB, GAPS, SIDE),
    ("lightgbm", "LGBMClassifier", LGB, ROWS, np.array(["low", "middle", "high"])[KIND]),
    ("lightgbm", "LGBMClassifier", LGB | {"objective": "multiclassova", "sigmoid": 2.0}, ROWS, KIND),
    (
        "lightgbm",
        "LGBMClassifier",
        LGB | {"zero_as_missing": True},
        np.where(random.random(ROWS.shape) < 0.3, 0, ROWS),
        SIDE,
    ),
    ("lightgbm", "LGBMClassifier", LGB | {"use_missing": False}, ROWS, SIDE),
    (
        "lightgbm",
        "LGBMClassifier",
        LGB | {"boosting_type": "rf", "bagging_freq": 1, "bagging_fraction": 0.5},
        ROWS,
        KIND,
    ),
    *(
        ("lightgbm", "LGBMRegressor", LGB | {"objective": objective}, ROWS, AMOUNT)
        for objective in ("regression", "poisson", "tweedie", "l1", "quantile")
    ),
    ("lightgbm", "LGBMRegressor", LGB | {"objective": "cross_entropy"}, ROWS, SIDE * 0.5),
    ("lightgbm", "LGBMRegressor", LGB | {"objective": "cross_entropy_lambda"}, ROWS, SIDE * 0.5),
    ("lightgbm", "LGBMRegressor", LGB | {"reg_sqrt": True}, ROWS, AMOUNT - 2),
    ("lightgbm", "LGBMRegressor", LGB | {"boosting_type": "dart"}, ROWS, AMOUNT),
    ("catboost", "CatBoostClassifier", CAT, GAPS, SIDE),
    ("catboost", "CatBoostClassifier", CAT | {"nan_mode": "Max", "grow_policy": "Lossguide"}, GAPS, SIDE),
    ("catboost", "CatBoostClassifier", CAT, ROWS, np.array(["low", "middle", "high"])[KIND]),
    ("catboost", "CatBoostClassifier", CAT | {"grow_policy": "Depthwise"}, ROWS, KIND),
    ("catboost", "CatBoostClassifier", CAT | {"loss_function": "MultiClassOneVsAll"}, ROWS, KIND),
    ("catboost", "CatBoostClassifier", CAT | {"loss_function": "MultiLogloss"}, ROWS, np.c_[SIDE, 1 - SIDE]),
    ("catboost", "CatBoostRegressor", CAT, ROWS, AMOUNT),
    ("catboost", "CatBoostRegressor", CAT | {"loss_function": "Poisson"}, ROWS, AMOUNT),
    ("catboost", "CatBoostRegressor", CAT | {"loss_function": "LogLinQuantile"}, ROWS, AMOUNT),
    ("catboost", "CatBoostRegressor", CAT | {"loss_function": "RMSEWithUncertainty"}, ROWS, AMOUNT),
    ("catboost", "CatBoostRegressor", CAT | {"loss_function": "MultiRMSE"}, ROWS, np.c_[AMOUNT, -AMOUNT]),
]


def name_case(case: Any) -> str:  # noqa: ANN401
    return case if isinstance(case, str) else ""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("library", "name", "options", "rows", "answers"), CASES, ids=name_case)
def test_a_model_answers_as_its_library_does(
    tmp_path: Path,
    library: str,
    name: str,
    options: dict[str, Any],
    rows: Any,  # noqa: ANN401
    answers: Any,  # noqa: ANN401
) -> None:
    """Independently of the parity that publishing measures, on the rows of training."""
    estimator = getattr(pytest.importorskip(library), name)(**options).fit(rows, answers)
    model = converted(estimator, tmp_path)
    assert model.parity is not None
    assert model.parity.batches == (boosters.PARITY_ROWS,)
    session = open_session(str(model.graph))
    feed = rows.astype("f8" if library == "lightgbm" else "f4")
    (found,) = session.run({session.inputs[0].name: feed}).values()
    is_classifier = isinstance(model.postprocess, ClassificationPostprocessing)
    several = options.get("loss_function") == "MultiLogloss"
    right = estimator.predict_proba(rows) if is_classifier or several else ask_for_numbers(estimator, rows)
    assert found.shape == (300, found.shape[1])
    np.testing.assert_allclose(found, np.reshape(right, found.shape), rtol=1e-3, atol=2e-5)
    assert model.labels == (tuple(map(str, estimator.classes_)) if is_classifier else ())


def ask_for_numbers(estimator: Any, rows: Any) -> Any:  # noqa: ANN401
    if getattr(estimator, "objective", None) in ("binary:logitraw", "binary:hinge"):
        return estimator.get_booster().inplace_predict(rows)
    if type(estimator).__name__ == "XGBClassifier":
        return estimator.predict_proba(rows)
    return estimator.predict(rows)


def converted(candidate: object, folder: Path, name: str = "mine.py:model") -> ConvertedModel:
    found = boosters.find_booster(candidate, name)
    assert found is not None
    return boosters.convert_loaded(found, name, folder / "model.onnx")


@pytest.fixture
def people() -> Any:  # noqa: ANN401
    import pandas

    words = np.array(["cook", "nurse", "clerk"])[random.integers(0, 3, 300)]
    return pandas.DataFrame({"age": ROWS[:, 0], "job": pandas.Categorical(words), "pay": ROWS[:, 1]})


@pytest.mark.parametrize(("library", "suffix"), [("xgboost", "json"), ("xgboost", "ubj"), ("lightgbm", "txt")])
def test_a_file_with_words_is_published_and_takes_records(
    publish: Publish,
    client: triton.InferenceServerClient,
    kept: str,
    tmp_path: Path,
    people: Any,  # noqa: ANN401
    library: str,
    suffix: str,
) -> None:
    module = pytest.importorskip(library)
    target = ((people.job == "cook") ^ (people.age > 0)).astype(int)
    if library == "xgboost":
        estimator = module.XGBClassifier(**XGB, enable_categorical=True).fit(people, target)
        estimator.save_model(tmp_path / f"model.{suffix}")
    else:
        options = LGB | {"min_data_per_group": 1, "cat_smooth": 1.0}
        estimator = module.LGBMClassifier(**options).fit(people, target)
        estimator.booster_.save_model(tmp_path / f"model.{suffix}")
    model = f"{library}-{suffix}"
    manifest = publish(tmp_path / f"model.{suffix}", name=model)
    assert manifest.preprocess == TablePreprocessing(
        input="features",
        columns=(
            TableColumn(name="age", missing="nan"),
            TableColumn(name="job", categories=("clerk", "cook", "nurse"), encoding="index", missing="nan"),
            TableColumn(name="pay", missing="nan"),
        ),
    )
    assert manifest.labels == ("0", "1")
    asked = [
        triton.InferInput("age", [3], "FP64"),
        triton.InferInput("job", [3], "BYTES"),
        triton.InferInput("pay", [3], "FP64"),
    ]
    asked[0].set_data_from_numpy(np.array([1.0, -1.0, np.nan]), binary_data=True)
    asked[1].set_data_from_numpy(np.array(["cook", "clerk", "nurse"], object))
    asked[2].set_data_from_numpy(np.array([0.0, 1.0, 2.0]))
    wanted = [triton.InferRequestedOutput("probabilities")]
    found = client.infer(model, asked, outputs=wanted).as_numpy("probabilities")
    import pandas

    jobs = pandas.Categorical(["cook", "clerk", "nurse"], categories=["clerk", "cook", "nurse"])
    table = pandas.DataFrame({"age": [1.0, -1.0, np.nan], "job": jobs, "pay": [0.0, 1.0, 2.0]})
    np.testing.assert_allclose(found, estimator.predict_proba(table), atol=1e-5)
    csv = "age,job,pay\n1,cook,0\n-1,clerk,1\n,nurse,2\n"
    assert invoke(kept, model, csv, "text/csv")["probability"] == pytest.approx(found.max(axis=1), abs=1e-5)
    records = [{"age": 1.0, "job": word, "pay": None} for word in ("Paris", None)]
    answers = invoke(kept, model, json.dumps({"dataframe_records": records}), "application/json")
    assert answers["probability"][0] == answers["probability"][1]  # an unknown category has no value for the trees


def test_a_catboost_file_and_its_json(publish: Publish, tmp_path: Path) -> None:
    catboost = pytest.importorskip("catboost")
    estimator = catboost.CatBoostClassifier(**CAT).fit(ROWS, np.array(["no", "yes"])[SIDE])
    for name, form in (("model.cbm", "cbm"), ("model.json", "json")):
        estimator.save_model(str(tmp_path / name), format=form)
        manifest = publish(tmp_path / name, name=f"catboost-{form}")
        assert manifest.labels == ("no", "yes")
        assert [column.name for column in manifest.preprocess.columns] == ["f0", "f1", "f2", "f3"]  # type: ignore[union-attr]  # it has columns


HGB = "HistGradientBoostingRegressor"
HISTOGRAMS: list[tuple[str, dict[str, Any], Any, Any]] = [
    ("HistGradientBoostingClassifier", {}, GAPS, SIDE),
    ("HistGradientBoostingClassifier", {}, ROWS, np.array(["low", "middle", "high"])[KIND]),
    (HGB, {"monotonic_cst": [1, 0, 0, -1]}, GAPS, AMOUNT),
    (HGB, {"loss": "poisson"}, ROWS, AMOUNT),
    (HGB, {"loss": "gamma"}, ROWS, AMOUNT),
    (HGB, {"loss": "quantile", "quantile": 0.9}, ROWS, AMOUNT),
    (
        "HistGradientBoostingClassifier",
        {"categorical_features": [1, 3]},
        np.c_[ROWS[:, 0], random.integers(0, 40, 300), GAPS[:, 1], random.integers(3, 9, 300)],
        KIND,
    ),
]


@pytest.mark.parametrize(("name", "options", "rows", "answers"), HISTOGRAMS)
def test_histogram_gradient_boosting_answers_as_scikit_learn_does(
    tmp_path: Path,
    name: str,
    options: dict[str, Any],
    rows: Any,  # noqa: ANN401
    answers: Any,  # noqa: ANN401
) -> None:
    estimator = getattr(sklearn.ensemble, name)(max_iter=4, min_samples_leaf=3, **options).fit(rows, answers)
    model = converted(estimator, tmp_path)
    ask = getattr(estimator, "predict_proba", estimator.predict)
    unknown = np.where(np.arange(4) == 3, 77.0, rows)  # a number that no category has
    for some in (rows, unknown):
        (found,) = open_session(str(model.graph)).run({"features": some}).values()
        np.testing.assert_allclose(found, np.reshape(ask(some), found.shape), rtol=1e-4, atol=1e-6)


def test_histogram_gradient_boosting_takes_words(tmp_path: Path, people: Any) -> None:  # noqa: ANN401
    options = {"categorical_features": "from_dtype", "max_iter": 4, "min_samples_leaf": 3}
    target = ((people.job == "cook") ^ (people.age > 0)).astype(int)
    estimator = sklearn.ensemble.HistGradientBoostingClassifier(**options).fit(people, target)
    model = converted(estimator, tmp_path)
    assert isinstance(model.preprocess, TablePreprocessing)
    assert model.preprocess.columns[1] == TableColumn(
        name="job", categories=("clerk", "cook", "nurse"), encoding="index", missing="nan"
    )
    rows = np.c_[people.age, people.job.cat.codes, people.pay]
    (found,) = open_session(str(model.graph)).run({"features": rows}).values()
    np.testing.assert_allclose(found, estimator.predict_proba(people), rtol=1e-4, atol=1e-6)


def test_early_stopping_is_as_the_interface_has_it(tmp_path: Path) -> None:
    xgboost = pytest.importorskip("xgboost")
    options = XGB | {"n_estimators": 60, "learning_rate": 1.0, "early_stopping_rounds": 2}
    noise = random.normal(size=300)
    estimator = xgboost.XGBRegressor(**options).fit(
        ROWS[:200], noise[:200], eval_set=[(ROWS[200:], noise[200:])], verbose=0
    )
    estimator.save_model(tmp_path / "model.json")
    found = check_booster_file(tmp_path / "model.json")
    assert found is not None
    model = boosters.convert_booster_file(tmp_path / "model.json", found, tmp_path / "model.onnx")
    assert isinstance(model.postprocess, RegressionPostprocessing)
    answers = open_session(str(model.graph)).run({"features": ROWS.astype("f4")})["numbers"]
    np.testing.assert_allclose(answers[:, 0], estimator.predict(ROWS), rtol=1e-4, atol=1e-5)


def test_rankers_give_scores(tmp_path: Path) -> None:
    xgboost, lightgbm = pytest.importorskip("xgboost"), pytest.importorskip("lightgbm")
    ranker = xgboost.XGBRanker(**XGB).fit(ROWS, SIDE, qid=np.repeat(np.arange(30), 10))
    assert converted(ranker, tmp_path).labels == ()
    lambdarank = lightgbm.LGBMRanker(**LGB).fit(ROWS, SIDE, group=[10] * 30)
    assert isinstance(converted(lambdarank.booster_, tmp_path).postprocess, RegressionPostprocessing)


def test_boosters_inside_pipelines(tmp_path: Path, people: Any) -> None:  # noqa: ANN401
    xgboost, lightgbm = pytest.importorskip("xgboost"), pytest.importorskip("lightgbm")
    for estimator in (xgboost.XGBClassifier(**XGB), lightgbm.LGBMClassifier(**LGB)):
        parts = ColumnTransformer(
            [("n", SimpleImputer(), ["age", "pay"]), ("t", OneHotEncoder(handle_unknown="ignore"), ["job"])]
        )
        table = people.assign(job=people.job.astype(object))
        pipeline = make_pipeline(parts, clone(estimator)).fit(table, KIND)
        model = sklearn_pipeline.convert_estimator(pipeline, "mine.py:model", tmp_path / "model.onnx")
        assert model.labels == ("0", "1", "2")
        search = GridSearchCV(make_pipeline(StandardScaler(), clone(estimator)), {}, cv=2).fit(ROWS, SIDE)
        model = sklearn_pipeline.convert_estimator(search, "mine.py:model", tmp_path / "model.onnx")
        assert model.parity is not None


@pytest.mark.parametrize("library", ["xgboost", "lightgbm", "sklearn.ensemble"])
def test_what_comes_before_the_trees_is_not_rounded(tmp_path: Path, library: str) -> None:
    """Rows of the training lie at the thresholds: in float32 some of them go to the other side."""
    module = pytest.importorskip(library)
    kinds = {"xgboost": ("XGBRegressor", XGB), "lightgbm": ("LGBMRegressor", LGB), "sklearn.ensemble": (HGB, {})}
    kind, options = kinds[library]
    estimator = make_pipeline(StandardScaler(), getattr(module, kind)(**options)).fit(ROWS, AMOUNT)
    model = sklearn_pipeline.convert_estimator(estimator, "mine.py:model", tmp_path / "model.onnx")
    (found,) = open_session(str(model.graph)).run({"features": ROWS}).values()
    np.testing.assert_allclose(found[:, 0], estimator.predict(ROWS), rtol=1e-5)


def test_what_no_graph_computes_is_said(tmp_path: Path, people: Any) -> None:  # noqa: ANN401
    lightgbm = pytest.importorskip("lightgbm")
    estimator = lightgbm.LGBMRegressor(**LGB, linear_tree=True).fit(ROWS, AMOUNT)
    with pytest.raises(InvalidInputError, match=r"^mine.py:model has linear trees \(linear_tree\), which no operator"):
        converted(estimator, tmp_path)
    with pytest.raises(InvalidInputError, match="was fitted on the class 'yes' alone, and answers nothing else; fit"):
        converted(lightgbm.LGBMClassifier(**LGB).fit(ROWS, ["yes"] * 300), tmp_path)
    with pytest.raises(InvalidInputError, match="is not fitted; call fit before"):
        converted(lightgbm.LGBMRegressor(), tmp_path)


def test_categories_that_xgboost_cuts_off_are_said(tmp_path: Path, people: Any) -> None:  # noqa: ANN401
    xgboost = pytest.importorskip("xgboost")
    table = people.assign(job=people.job.cat.rename_categories({"cook": "Köchin"}))
    estimator = xgboost.XGBClassifier(**XGB, enable_categorical=True).fit(table, SIDE)
    with pytest.raises(InvalidInputError, match="categories of 'job' with letters beyond ASCII"):
        converted(estimator, tmp_path)


def test_catboost_s_own_categories_are_said(tmp_path: Path, people: Any) -> None:  # noqa: ANN401
    catboost = pytest.importorskip("catboost")
    table = people.assign(job=people.job.astype(str))
    estimator = catboost.CatBoostClassifier(**CAT, cat_features=["job"]).fit(table, SIDE)
    with pytest.raises(InvalidInputError, match=r"categorical features, \['job'\], which CatBoost hashes"):
        converted(estimator, tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("digit.json", b'{"data": [1, 2]}', "digit.json is not an XGBoost model, as save_model writes .json or .ubj"),
        ("labels.txt", b"cat\ndog\n", "labels.txt is not a LightGBM model, as save_model writes .txt"),
        ("model.cbm", b"CBM0", "model.cbm is not a CatBoost model"),
        ("dump.json", b'[\n  { "nodeid": 0, "depth": 0', "dump of XGBoost's trees for people"),
        ("dump.json", b'{"name": "tree", "version": "v4"', "dump of LightGBM's trees for people"),
        ("model.json", b'{"learner": {"objective": {}}}', "does not read|not a whole XGBoost model"),
        ("model.txt", b"tree\nversion=v4\nnum_class=1\n", "does not read|not a whole LightGBM model"),
    ],
)
def test_a_file_that_only_looks_like_one(
    refused: Refused, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    import re

    pytest.importorskip("xgboost")
    pytest.importorskip("lightgbm")
    (tmp_path / name).write_bytes(content)
    assert re.search(said, refused(tmp_path / name))


def test_a_library_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(booster_format, "find_spec", lambda name: None)
    (tmp_path / "model.txt").write_text("tree\nversion=v4\n")
    with pytest.raises(UnavailableError, match=r"lightgbm is not installed; run pip install lightgbm"):
        check_booster_file(tmp_path / "model.txt")


def test_other_files_are_none_of_them(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\x08\x07")
    assert check_booster_file(tmp_path / "model.onnx") is None
    assert check_booster_file(tmp_path) is None
    (tmp_path / "model").write_text(json.dumps({"learner": {}, "version": [3, 2, 0]}))
    pytest.importorskip("xgboost")
    assert check_booster_file(tmp_path / "model") == booster_format.BoosterFile("xgboost", "json")


def test_made_up_rows_are_on_both_sides_of_the_thresholds() -> None:
    tree: list[tree_ensemble.Branch | tree_ensemble.Leaf] = [tree_ensemble.Branch(0, "BRANCH_LT", 1e6, 1, 2, False)]
    tree += [tree_ensemble.Leaf({0: 1.0}), tree_ensemble.Leaf({0: 2.0})]
    rows = tree_ensemble.draw_rows(tree_ensemble.TreeEnsemble([tree], ("a", "b"), (0.0,)), 100)
    known = rows[:, 0][~np.isnan(rows[:, 0])]
    assert (known < 1e6).sum() > 10
    assert (known > 1e6).sum() > 10
    assert (known == 1e6).sum() > 5
    assert np.isnan(rows).any()
