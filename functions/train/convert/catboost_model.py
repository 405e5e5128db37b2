"""Read CatBoost's own document of a model, the JSON of `save_model(format="json")`, as trees. It imports no library."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from functions.train.convert.tree_ensemble import Branch, Leaf, Link, Tree, TreeEnsemble
from pilotlight.errors import InvalidInputError

Document = Mapping[str, Any]
LINKS: Mapping[str, Link] = {
    "Logloss": "sigmoid", "CrossEntropy": "sigmoid", "Focal": "sigmoid",
    "MultiClass": "softmax", "MultiClassOneVsAll": "sigmoid", "MultiLogloss": "sigmoid", "MultiCrossEntropy": "sigmoid",
    "Poisson": "exp", "Tweedie": "exp", "RMSEWithUncertainty": "mean_variance",
}  # fmt: skip
CLASSIFIERS = {"Logloss", "CrossEntropy", "Focal", "MultiClass", "MultiClassOneVsAll"}


def read_document(content: bytes, source_name: str) -> TreeEnsemble:
    """Read the document; `InvalidInputError` for what is no such model, or cannot be said in ONNX."""
    try:
        return read_model(msgspec.json.decode(content), source_name)
    except (msgspec.DecodeError, KeyError, TypeError, IndexError, ValueError) as exc:
        raise InvalidInputError(
            f"{source_name} is not a whole CatBoost model, as save_model writes it: {type(exc).__name__} {exc}."
        ) from exc


def read_model(document: Document, source_name: str) -> TreeEnsemble:
    """Read trees, loss and names."""
    features, loss = document["features_info"], read_loss(document)
    for kind in ("categorical_features", "text_features", "embedding_features"):
        if features.get(kind):
            names = [each.get("feature_id") or each["flat_feature_index"] for each in features[kind]]
            raise build_feature_error(source_name, kind.replace("_", " "), names)
    columns = features["float_features"]
    scale, bias = document["scale_and_bias"]
    bias = bias if isinstance(bias, list) else [bias]
    trees = [
        *(read_oblivious_tree(tree, columns, len(bias), scale) for tree in document.get("oblivious_trees", [])),
        *(read_nested_tree(tree, columns, scale) for tree in document.get("trees", [])),
    ]
    return TreeEnsemble(
        trees=trees,
        features=name_features(columns),
        base=tuple(map(float, bias)),
        link=LINKS.get(loss, "identity"),
        is_classifier=loss in CLASSIFIERS,
    )


def build_feature_error(source_name: str, kind: str, names: Sequence[object]) -> InvalidInputError:
    """Build the error of features that no graph can compute."""
    return InvalidInputError(
        f"{source_name} has {kind}, {list(names)}, which CatBoost hashes and counts in ways that ONNX does not have; "
        "train it on numbers, for instance after an OrdinalEncoder in a Pipeline."
    )


def read_loss(document: Document) -> str:
    """Read the name of the loss that the model was trained for; empty if it does not tell."""
    parameters = document.get("model_info", {}).get("params", {})
    return str(parameters.get("loss_function", {}).get("type", ""))


def name_features(columns: list[Document]) -> tuple[str, ...]:
    """Return the features' names, `f0` and so on for those without one."""
    width = 1 + max(column["flat_feature_index"] for column in columns)
    named = {column["flat_feature_index"]: column.get("feature_id") for column in columns}
    return tuple(named.get(place) or f"f{place}" for place in range(width))


def build_split(split: Document, columns: list[Document], yes: int, no: int) -> Branch:
    """Build the branch of a split by a number."""
    column = columns[split["float_feature_index"]]
    missing_yes = column.get("nan_value_treatment") == "AsTrue"
    return Branch(column["flat_feature_index"], "BRANCH_GT", split["border"], yes, no, missing_yes)


def read_oblivious_tree(tree: Document, columns: list[Document], targets: int, scale: float) -> Tree:
    """Read a tree that asks the same of all nodes of a level; the first split is the lowest bit of a leaf's number."""
    splits = list(reversed(tree.get("splits") or []))
    depth = len(splits)
    nodes: list[Branch | Leaf] = []
    for level, split in enumerate(splits):
        below = 2 ** (level + 1) - 1  # where the next level begins
        nodes += [build_split(split, columns, below + 2 * place + 1, below + 2 * place) for place in range(2**level)]
    values = tree["leaf_values"]
    rows = (values[leaf * targets : (leaf + 1) * targets] for leaf in range(2**depth))
    nodes += [Leaf({target: scale * value for target, value in enumerate(weights)}) for weights in rows]
    return nodes


def read_nested_tree(tree: Document, columns: list[Document], scale: float) -> Tree:
    """Read a tree of any shape; the test's yes is the right."""
    nodes: list[Branch | Leaf] = [Leaf({})]
    waiting = [(0, tree)]
    while waiting:
        place, part = waiting.pop()
        if "split" not in part:
            values = part["value"] if isinstance(part["value"], list) else [part["value"]]
            nodes[place] = Leaf({target: scale * value for target, value in enumerate(values)})
            continue
        no, yes = len(nodes), len(nodes) + 1
        nodes += [Leaf({}), Leaf({})]
        nodes[place] = build_split(part["split"], columns, yes, no)
        waiting += [(no, part["left"]), (yes, part["right"])]
    return nodes
