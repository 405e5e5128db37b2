"""Read XGBoost's own document of a model, the JSON of `save_model`, as trees.

Source of the form: XGBoost's documentation, "Introduction to Model IO", and its JSON schema. It imports no library.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np

from functions.train.convert.tree_ensemble import Branch, Leaf, Link, Tree, TreeEnsemble, append_membership
from pilotlight.errors import InvalidInputError

Document = Mapping[str, Any]
LINKS: Mapping[str, Link] = {
    "binary:logistic": "sigmoid", "reg:logistic": "sigmoid", "binary:logitraw": "identity", "binary:hinge": "positive",
    "multi:softprob": "softmax", "multi:softmax": "softmax",
    "count:poisson": "exp", "reg:gamma": "exp", "reg:tweedie": "exp", "survival:cox": "exp", "survival:aft": "exp",
    "reg:squarederror": "identity", "reg:linear": "identity", "reg:squaredlogerror": "identity",
    "reg:pseudohubererror": "identity", "reg:absoluteerror": "identity", "reg:quantileerror": "identity",
    "rank:pairwise": "identity", "rank:ndcg": "identity", "rank:map": "identity",
}  # fmt: skip
CLASSIFIERS = {"binary:logistic", "multi:softprob", "multi:softmax"}


def read_document(content: bytes, source_name: str) -> TreeEnsemble:
    """Read the document; `InvalidInputError` for what is no such model, or cannot be said in ONNX."""
    try:
        learner = msgspec.json.decode(content)["learner"]
        return read_learner(learner, source_name)
    except (msgspec.DecodeError, KeyError, TypeError, IndexError, ValueError) as exc:
        raise InvalidInputError(
            f"{source_name} is not a whole XGBoost model, as Booster.save_model writes it: {type(exc).__name__} {exc}."
        ) from exc


def read_learner(learner: Document, source_name: str) -> TreeEnsemble:
    """Read trees or weights, objective and names."""
    objective, parameters = learner["objective"]["name"], learner["learner_model_param"]
    if objective not in LINKS:
        raise InvalidInputError(
            f"{source_name} was trained for the objective {objective!r}, which is not known here; known are "
            f"{', '.join(sorted(LINKS))}."
        )
    width = int(parameters["num_feature"])
    targets = max(int(parameters["num_class"]), int(parameters.get("num_target", "1")), 1)
    link = LINKS[objective]
    base = compute_margins(parse_numbers(parameters["base_score"]), link, targets)
    names = tuple(learner.get("feature_names") or ()) or tuple(f"f{place}" for place in range(width))
    booster = learner["gradient_booster"]
    is_linear = booster["name"] == "gblinear"
    if is_linear:
        weights = np.array(booster["model"]["weights"], np.float64).reshape(width + 1, targets)
        base, linear = tuple(np.add(base[0], weights[-1]).tolist()), weights[:-1]  # it adds the first to all of them
    return TreeEnsemble(
        trees=[] if is_linear else read_trees(booster, learner.get("attributes", {}), source_name),
        features=names,
        base=base,
        link=link,
        is_classifier=objective in CLASSIFIERS and (targets == 1 or link == "softmax"),  # else several labels at once
        linear=linear if is_linear else None,
        categories={} if is_linear else read_categories(booster, names, source_name),
    )


def parse_numbers(text: str) -> list[float]:
    """Parse a number, or a list of them in brackets as XGBoost 3.1 and newer write it."""
    return [float(word) for word in text.strip("[]").split(",")]


def compute_margins(scores: Sequence[float], link: Link, targets: int) -> tuple[float, ...]:
    """Compute the margins of base scores, which are saved in the unit of the answers."""
    wide = np.broadcast_to(np.array(scores, np.float64), targets)
    if link == "sigmoid":
        wide = np.log(wide / (1 - wide))
    elif link == "exp":
        wide = np.log(wide)
    return tuple(wide.tolist())


def read_trees(booster: Document, attributes: Mapping[str, str], source_name: str) -> list[Tree]:
    """Read the trees, those of `dart` with their weights; up to the best round where scikit-learn's interface saved."""
    factors = booster.get("weight_drop")
    model = booster["gbtree"]["model"] if booster["name"] == "dart" else booster["model"]
    count = len(model["trees"])
    if "best_iteration" in attributes and "scikit_learn" in attributes and "iteration_indptr" in model:
        count = model["iteration_indptr"][int(attributes["best_iteration"]) + 1]
    return [
        read_tree(tree, group, 1.0 if factors is None else factors[place], source_name)
        for place, (tree, group) in enumerate(zip(model["trees"][:count], model["tree_info"], strict=False))
    ]


def read_tree(tree: Document, group: int, factor: float, source_name: str) -> Tree:
    """Read one tree; `group` is the target that it adds to."""
    size = int(tree["tree_param"].get("size_leaf_vector", "1") or 1)
    lefts, rights = tree["left_children"], tree["right_children"]
    nodes: list[Branch | Leaf] = [Leaf({})] * len(lefts)
    members = read_members(tree)
    for place, (left, right) in enumerate(zip(lefts, rights, strict=True)):
        if left == -1:
            nodes[place] = read_leaf(tree, place, group, factor, size)
            continue
        feature, missing_left = tree["split_indices"][place], bool(tree["default_left"][place])
        if tree.get("split_type", [])[place : place + 1] != [1]:
            value = tree["split_conditions"][place]
            nodes[place] = Branch(feature, "BRANCH_LT", value, left, right, missing_left)
        elif members.get(place):  # the categories of a node go to the right
            append_membership(nodes, place, feature, members[place], right, left, missing_inside=not missing_left)
        else:
            raise InvalidInputError(f"{source_name} has a split into no categories in a tree.")
    return nodes


def read_leaf(tree: Document, place: int, group: int, factor: float, size: int) -> Leaf:
    """Read a leaf: a number for one target, or one for each."""
    if size <= 1:
        return Leaf({group: factor * tree["split_conditions"][place]})
    if "leaf_weights" in tree:  # the right child of a leaf says where its numbers are
        values = tree["leaf_weights"][tree["right_children"][place] * size :][:size]
    else:
        values = tree["base_weights"][place * size :][:size]
    return Leaf({target: factor * value for target, value in enumerate(values)})


def read_members(tree: Document) -> dict[int, list[int]]:
    """Read the categories that go to the right, by node."""
    parts = zip(
        tree.get("categories_nodes", []), tree.get("categories_segments", []), tree.get("categories_sizes", []),
        strict=True,
    )  # fmt: skip
    return {node: tree["categories"][start : start + size] for node, start, size in parts}


def read_categories(booster: Document, names: Sequence[str], source_name: str) -> dict[str, tuple[str, ...]]:
    """Read the words of categorical features, where XGBoost was trained on a table that had them."""
    model = booster["gbtree"]["model"] if booster["name"] == "dart" else booster["model"]
    found = {}
    for name, encoding in zip(names, model.get("cats", {}).get("enc", []), strict=False):
        offsets, values = encoding.get("offsets"), encoding.get("values", [])
        if offsets is None and values:
            found[name] = tuple(map(str, values))
        elif values and not all(0 <= value < 128 for value in values):
            raise InvalidInputError(
                f"{source_name} has categories of {name!r} with letters beyond ASCII, whose names XGBoost saves cut "
                "off; train it on other names, or on an OrdinalEncoder's numbers."
            )
        elif values:
            found[name] = tuple(bytes(values[start:end]).decode() for start, end in pairwise(offsets))
    return found
