"""Convert boosted trees: files of XGBoost, LightGBM and CatBoost, or objects of these and of scikit-learn.

Each library is imported only for a model of its own. It loads the file, gives its document, from which the graph is
made, and says what the answers must be. Nothing is unpickled.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from sklearn.exceptions import NotFittedError

from functions.train.convert import catboost_model, hist_gradient_model, lightgbm_model, tree_ensemble, xgboost_model
from functions.train.convert.converted_model import ConvertedModel, measure_parity
from functions.train.convert.tree_ensemble import TreeEnsemble
from functions.train.data import Array
from functions.train.errors import ParityError
from pilotlight.contracts.processing import (
    ClassificationPostprocessing,
    Postprocessing,
    RegressionPostprocessing,
    TableColumn,
    TablePreprocessing,
)
from pilotlight.errors import InvalidInputError
from pilotlight.runtime.booster_format import BoosterFile, Library

PARITY_ROWS = 512  # beside the trees' own thresholds, on which graph and library must agree
INPUT_NAME, SCORES_NAME, NUMBERS_NAME = "features", "probabilities_of_classes", "numbers"
LIBRARY_NAMES: dict[Library | Literal["sklearn"], str] = {
    "xgboost": "XGBoost", "lightgbm": "LightGBM", "catboost": "CatBoost", "sklearn": "scikit-learn",
}  # fmt: skip


@dataclass(frozen=True)
class LoadedBooster:
    """A model in its library: its trees, what it answers to rows, and the names of its classes."""

    library: Library | Literal["sklearn"]
    ensemble: TreeEnsemble
    predict: Callable[[Array], Array]  # in the shape of the graph's answers, or of a column of them
    labels: tuple[str, ...] = ()


def convert_booster_file(path: Path, found: BoosterFile, target: Path) -> ConvertedModel:
    """Convert a library's file."""
    load = {"xgboost": load_xgboost_file, "lightgbm": load_lightgbm_file, "catboost": load_catboost_file}
    try:
        loaded = load[found.library](path, found.form)
    except InvalidInputError:
        raise
    except Exception as exc:
        raise InvalidInputError(f"{LIBRARY_NAMES[found.library]} does not read {path}: {shorten_error(exc)}.") from exc
    return convert_loaded(loaded, str(path), target)


def find_booster(candidate: object, source_name: str) -> LoadedBooster | None:
    """Find the booster in an object of one of the libraries; None for any other object."""
    library = type(candidate).__module__.partition(".")[0]
    if isinstance(candidate, hist_gradient_model.ESTIMATORS):
        library = "sklearn"
    elif library == "sklearn":
        return None
    load = {
        "xgboost": load_xgboost, "lightgbm": load_lightgbm, "catboost": load_catboost, "sklearn": load_hist_gradient,
    }.get(library)  # fmt: skip
    if load is None:
        return None
    try:
        loaded = load(candidate, source_name)
        check_classes(loaded, source_name)
    except InvalidInputError:
        raise
    except NotFittedError as exc:
        raise InvalidInputError(f"{source_name} is not fitted; call fit before it is published.") from exc
    except Exception as exc:
        raise InvalidInputError(
            f"{source_name}, a {type(candidate).__name__}, cannot be converted: {shorten_error(exc)}."
        ) from exc
    return loaded


def check_classes(loaded: LoadedBooster, source_name: str) -> None:
    """Refuse a classifier that has seen a single class, for which its trees give two probabilities."""
    if len(loaded.labels) == 1 < loaded.ensemble.answers:
        raise InvalidInputError(
            f"{source_name} was fitted on the class {loaded.labels[0]!r} alone, and answers nothing else; fit it on "
            "two classes or more."
        )


def convert_loaded(loaded: LoadedBooster, source_name: str, target: Path) -> ConvertedModel:
    """Write the graph, and compare it with the library's own answers."""
    ensemble = loaded.ensemble
    names = name_columns(ensemble.features)
    output = choose_free_name(SCORES_NAME if ensemble.is_classifier else NUMBERS_NAME, names)
    input_name = choose_free_name(INPUT_NAME, names)
    onnx.save(tree_ensemble.build_model(ensemble, input_name, output), target)

    def compute_answers(feed: Any) -> dict[str, Array]:  # noqa: ANN401 - feeds by name
        answers = np.asarray(loaded.predict(feed[input_name]), np.float32).reshape(len(feed[input_name]), -1)
        if ensemble.answers == 2 and answers.shape[1] == 1:
            answers = np.concatenate([1 - answers, answers], axis=1)
        return {output: answers}

    rows = tree_ensemble.draw_rows(ensemble, PARITY_ROWS)
    try:
        parity = measure_parity(target, compute_answers, ({input_name: rows},))
    except ParityError as exc:
        raise ParityError(f"{source_name}: {exc}") from exc
    whole = tree_ensemble.draw_rows(ensemble, 3, with_gaps=False)
    postprocess: Postprocessing = (
        ClassificationPostprocessing(output=output, activation="none")
        if ensemble.is_classifier
        else RegressionPostprocessing(output=output)
    )
    return ConvertedModel(
        graph=target,
        description=f"The {LIBRARY_NAMES[loaded.library]} model of `{source_name}`",
        feeds=tuple({input_name: whole[:size]} for size in (1, 3)),
        parity=parity,
        task="tabular",
        preprocess=TablePreprocessing(input=input_name, columns=build_columns(ensemble, names)),
        postprocess=postprocess,
        labels=choose_labels(loaded),
    )


def choose_labels(loaded: LoadedBooster) -> tuple[str, ...]:
    """Return the classes' names, their numbers where the model does not tell."""
    if not loaded.ensemble.is_classifier:
        return ()
    return loaded.labels or tuple(map(str, range(loaded.ensemble.answers)))


def name_columns(features: Sequence[str]) -> tuple[str, ...]:
    """Return the columns' names: the features', or `f0` and so on if some are empty or alike."""
    usable = all(features) and len(set(features)) == len(features)
    return tuple(features) if usable else tuple(f"f{place}" for place in range(len(features)))


def build_columns(ensemble: TreeEnsemble, names: Sequence[str]) -> tuple[TableColumn, ...]:
    """Build the columns of records: numbers or categories, whose gaps the trees have ways for."""
    columns = []
    for feature, name in zip(ensemble.features, names, strict=True):
        words = ensemble.categories.get(feature, ())
        gap = None if "nan" in words else "nan"
        columns.append(TableColumn(name=name, categories=words, encoding="index" if words else "onehot", missing=gap))
    return tuple(columns)


def choose_free_name(name: str, taken: Sequence[str]) -> str:
    """Choose a name that no column has."""
    while name in taken:
        name += "_"
    return name


def shorten_error(error: Exception) -> str:
    """Shorten a library's message to one line."""
    return f"{type(error).__name__}, {' '.join(str(error).split())[:300].rstrip('.')}"


def load_xgboost_file(path: Path, form: str) -> LoadedBooster:
    """Load a file of XGBoost."""
    import xgboost

    booster = xgboost.Booster()
    booster.load_model(bytearray(path.read_bytes()))
    return read_xgboost(booster, str(path), through_sklearn=booster.attr("scikit_learn") is not None)


def load_xgboost(candidate: Any, source_name: str) -> LoadedBooster:  # noqa: ANN401 - no types
    """Load a Booster, or an estimator with XGBoost's interface of scikit-learn."""
    import xgboost

    if isinstance(candidate, xgboost.Booster):
        return read_xgboost(candidate, source_name)
    if not isinstance(candidate, xgboost.XGBModel):
        raise InvalidInputError(f"{source_name} gives a {type(candidate).__name__}; give its Booster or estimator.")
    booster = candidate.get_booster()
    labels = tuple(map(str, candidate.classes_)) if isinstance(candidate, xgboost.XGBClassifier) else ()
    return read_xgboost(booster, source_name, labels, through_sklearn=True, gap=find_gap(candidate.missing))


def find_gap(missing: float | None) -> float | None:
    """Find the number that an estimator takes for no value; None where that is NaN, as it is by default."""
    return None if missing is None or np.isnan(missing) else float(missing)


def read_xgboost(
    booster: Any,  # noqa: ANN401 - no types
    source_name: str,
    labels: tuple[str, ...] = (),
    *,
    through_sklearn: bool = False,
    gap: float | None = None,
) -> LoadedBooster:
    """Read a Booster; its interface of scikit-learn stops at the best round, others at the last.

    `gap` stands for no value: estimators know it, files do not.
    """
    import xgboost

    if through_sklearn and booster.attr("best_iteration") is not None:
        booster = booster[: int(booster.attr("best_iteration")) + 1]
    ensemble = replace(xgboost_model.read_document(bytes(booster.save_raw("json")), source_name), gap=gap)
    kinds = booster.feature_types

    def predict(rows: Array) -> Array:
        missing = np.nan if gap is None else gap
        data = xgboost.DMatrix(rows, missing=missing, feature_names=booster.feature_names, feature_types=kinds)
        if ensemble.link != "softmax":
            return np.asarray(booster.predict(data))
        margins = np.asarray(booster.predict(data, output_margin=True), np.float64)
        powers = np.exp(margins - margins.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    return LoadedBooster("xgboost", ensemble, predict, labels)


def load_lightgbm_file(path: Path, form: str) -> LoadedBooster:
    """Load a file of LightGBM."""
    import lightgbm

    return read_lightgbm(lightgbm.Booster(model_str=path.read_text("utf-8")), str(path))


def load_lightgbm(candidate: Any, source_name: str) -> LoadedBooster:  # noqa: ANN401 - no types
    """Load a Booster, or an estimator with LightGBM's interface of scikit-learn."""
    import lightgbm

    if isinstance(candidate, lightgbm.Booster):
        return read_lightgbm(candidate, source_name)
    if not isinstance(candidate, lightgbm.LGBMModel):
        raise InvalidInputError(f"{source_name} gives a {type(candidate).__name__}; give its Booster or estimator.")
    labels = tuple(map(str, candidate.classes_)) if isinstance(candidate, lightgbm.LGBMClassifier) else ()
    return read_lightgbm(candidate.booster_, source_name, labels)


def read_lightgbm(booster: Any, source_name: str, labels: tuple[str, ...] = ()) -> LoadedBooster:  # noqa: ANN401
    """Read a Booster, up to its best round."""
    ensemble = lightgbm_model.read_text(booster.model_to_string(), source_name)
    return LoadedBooster("lightgbm", ensemble, lambda rows: np.asarray(booster.predict(rows, num_threads=1)), labels)


def load_catboost_file(path: Path, form: str) -> LoadedBooster:
    """Load a file of CatBoost."""
    import catboost

    model = catboost.CatBoost()
    model.load_model(str(path), format="json" if form == "json" else "cbm")
    return read_catboost(model, str(path))


def load_catboost(candidate: Any, source_name: str) -> LoadedBooster:  # noqa: ANN401 - no types
    """Load a model of CatBoost."""
    import catboost

    if not isinstance(candidate, catboost.CatBoost):
        raise InvalidInputError(f"{source_name} gives a {type(candidate).__name__}; give a CatBoost model.")
    return read_catboost(candidate, source_name)


def read_catboost(model: Any, source_name: str) -> LoadedBooster:  # noqa: ANN401 - no types
    """Read a model of CatBoost through its own JSON, which it writes to a file alone."""
    import catboost

    if not model.is_fitted():
        raise InvalidInputError(f"{source_name} is not fitted; call fit before it is published.")
    if indices := model.get_cat_feature_indices():
        names = [model.feature_names_[index] for index in indices]
        raise catboost_model.build_feature_error(source_name, "categorical features", names)
    with tempfile.TemporaryDirectory(prefix="pilotlight-catboost-") as folder:
        file = Path(folder) / "model.json"
        model.save_model(str(file), format="json")
        ensemble = catboost_model.read_document(file.read_bytes(), source_name)
    kinds = {
        "sigmoid": "Probability", "softmax": "Probability", "exp": "Exponent", "mean_variance": "RMSEWithUncertainty",
    }  # fmt: skip
    kind = kinds.get(ensemble.link, "RawFormulaVal")
    labels = tuple(map(str, model.classes_)) if ensemble.is_classifier and len(model.classes_) else ()

    def predict(rows: Array) -> Array:  # a ranker's own method takes no prediction_type
        return np.asarray(catboost.CatBoost.predict(model, rows, prediction_type=kind, thread_count=1))

    return LoadedBooster("catboost", ensemble, predict, labels)


def load_hist_gradient(candidate: Any, source_name: str) -> LoadedBooster:  # noqa: ANN401 - no types
    """Load a histogram gradient boosting estimator of scikit-learn."""
    ensemble = hist_gradient_model.read_estimator(candidate)
    labels = tuple(map(str, candidate.classes_)) if ensemble.is_classifier else ()

    def predict(rows: Array) -> Array:
        table = hist_gradient_model.build_table(candidate, ensemble, rows)
        return np.asarray(candidate.predict_proba(table) if ensemble.is_classifier else candidate.predict(table))

    return LoadedBooster("sklearn", ensemble, predict, labels)
