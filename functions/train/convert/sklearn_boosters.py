"""Let skl2onnx convert boosted trees inside pipelines: of XGBoost, LightGBM, CatBoost, and scikit-learn's histograms.

They are registered when their library is imported already, which it is if a publisher's pipeline holds one. The nodes
are those of `tree_ensemble`.
"""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import NodeProto, helper, numpy_helper
from skl2onnx import update_registered_converter
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from sklearn.pipeline import Pipeline

from functions.train.convert import boosters, tree_ensemble
from functions.train.convert.boosters import LoadedBooster
from pilotlight.errors import InvalidInputError

ESTIMATORS = {
    "xgboost": ("XGBClassifier", "XGBRegressor", "XGBRFClassifier", "XGBRFRegressor", "XGBRanker"),
    "lightgbm": ("LGBMClassifier", "LGBMRegressor", "LGBMRanker"),
    "catboost": ("CatBoostClassifier", "CatBoostRegressor", "CatBoostRanker"),
    "sklearn.ensemble": ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor"),
}
FLAGS = [True, False]
CLASSIFIER_OPTIONS = {
    "zipmap": [True, False, "columns"],
    "nocl": FLAGS,
    "output_class_labels": FLAGS,
    "raw_scores": FLAGS,
}


def register_boosters() -> None:
    """Register the estimators of the libraries that are imported."""
    for kind in list_estimators():
        is_classifier = kind.__name__.endswith("Classifier")
        update_registered_converter(
            kind,
            f"Pilotlight{kind.__name__}",
            set_output_types,
            write_nodes,
            parser=None if not kind.__module__.startswith("catboost") else parse_catboost,
            options=CLASSIFIER_OPTIONS if is_classifier else None,
        )


def holds_booster(estimator: Any) -> bool:  # noqa: ANN401 - scikit-learn ships no types
    """Return whether it is a pipeline, which makes something of the columns, with boosted trees at its end."""
    return isinstance(estimator, Pipeline) and isinstance(estimator.steps[-1][1], tuple(list_estimators()))


def list_estimators() -> Iterator[type]:
    """List the estimators' classes."""
    for library, names in ESTIMATORS.items():
        module = sys.modules.get(library)
        yield from (getattr(module, name) for name in names if module is not None and hasattr(module, name))


def parse_catboost(scope: Any, model: Any, inputs: list[Any], custom_parsers: Any = None) -> list[Any]:  # noqa: ANN401
    """Declare the operator and its outputs; CatBoost's estimators are none of scikit-learn's classes."""
    operator = scope.declare_local_operator(f"Pilotlight{type(model).__name__}", model)
    operator.inputs.extend(inputs)
    names = ["label", "probabilities"] if type(model).__name__ == "CatBoostClassifier" else ["variable"]
    kinds = [Int64TensorType(), FloatTensorType()] if len(names) == 2 else [FloatTensorType()]
    operator.outputs.extend(scope.declare_local_variable(name, kind) for name, kind in zip(names, kinds, strict=True))
    return list(operator.outputs)


def load_operator(operator: Any) -> LoadedBooster:  # noqa: ANN401 - skl2onnx has no types
    """Load the booster of an operator of skl2onnx."""
    model = operator.raw_operator
    loaded = boosters.find_booster(model, type(model).__name__)
    if loaded is None:
        raise InvalidInputError(f"{type(model).__name__} is no estimator of {', '.join(ESTIMATORS)}.")
    return loaded


def set_output_types(operator: Any) -> None:  # noqa: ANN401 - skl2onnx has no types
    """Set the types of the operator's outputs: label and probabilities, or numbers."""
    ensemble = load_operator(operator).ensemble
    if len(operator.outputs) == 1:
        operator.outputs[0].set_type(FloatTensorType([None, ensemble.answers]))
        return
    has_texts = np.asarray(operator.raw_operator.classes_).dtype.kind in "OSU"
    operator.outputs[0].set_type((StringTensorType if has_texts else Int64TensorType)([None]))
    operator.outputs[1].set_type(FloatTensorType([None, ensemble.answers]))


def write_nodes(scope: Any, operator: Any, container: Any) -> None:  # noqa: ANN401 - skl2onnx has no types
    """Write the operator's nodes into skl2onnx's container."""
    ensemble = load_operator(operator).ensemble
    prefix = f"{scope.get_unique_variable_name('booster')}_"
    features = f"{prefix}features"
    kind = helper.np_dtype_to_tensor_dtype(ensemble.dtype)
    casts = [
        helper.make_node("Cast", [variable.full_name], [f"{prefix}cast{place}"], to=kind)
        for place, variable in enumerate(operator.inputs)
    ]
    nodes = [*casts, helper.make_node("Concat", [each.output[0] for each in casts], [features], axis=1)]
    inner, constants = tree_ensemble.build_nodes(ensemble, features, operator.outputs[-1].full_name, prefix)
    nodes += inner
    if len(operator.outputs) == 2:
        best, classes = f"{prefix}best", f"{prefix}classes"
        values = np.asarray(operator.raw_operator.classes_)
        constants.append(
            numpy_helper.from_array(values.astype(object if values.dtype.kind in "OSU" else np.int64), classes)
        )
        nodes.append(helper.make_node("ArgMax", [operator.outputs[-1].full_name], [best], axis=1, keepdims=0))
        nodes.append(helper.make_node("Gather", [classes, best], [operator.outputs[0].full_name]))
    for constant in constants:
        nodes.insert(0, helper.make_node("Constant", [], [constant.name], value=constant))
    for node in nodes:
        add_node(container, node)


def add_node(container: Any, node: NodeProto) -> None:  # noqa: ANN401 - skl2onnx has no types
    """Add a node to skl2onnx's container."""
    attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    version = tree_ensemble.OPSETS[node.domain] if node.domain else None
    container.add_node(
        node.op_type, list(node.input), list(node.output), op_domain=node.domain, op_version=version,
        name=f"{node.op_type}_{node.output[0]}", **attributes,
    )  # fmt: skip
