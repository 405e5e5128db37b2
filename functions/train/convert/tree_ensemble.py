"""Boosted trees of any library, and the ONNX nodes that compute what the library computes.

A library's own document is read by `xgboost_model`, `lightgbm_model` or `catboost_model`; this module knows none of
them. The converters of onnxmltools 1.16 were tried first: several objectives, forests and linear trees come out wrong
(decision 0070).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from functions.train.data import Array

Test = Literal["BRANCH_LT", "BRANCH_LEQ", "BRANCH_GT", "BRANCH_EQ"]
# From margins to answers: each of them alone, or all of a row together.
Link = Literal[
    "identity", "sigmoid", "softmax", "exp", "signed_square", "softplus", "positive", "mean_variance"
]  # fmt: skip
SMALLEST = 1e-30  # of values in made-up rows; LightGBM reads 1e-35 as 0
LARGEST = 1e37  # of thresholds that made-up rows lie beside: larger ones divide numbers from gaps
ML_DOMAIN = "ai.onnx.ml"
OPSETS = {"": 18, ML_DOMAIN: 3}


@dataclass(frozen=True)
class Branch:
    """An inner node: rows that pass the test go to node `yes`; those without a value, as `missing_yes` says."""

    feature: int
    test: Test
    value: float
    yes: int
    no: int
    missing_yes: bool


@dataclass(frozen=True)
class Leaf:
    """What a tree adds to the margins, by target."""

    weights: Mapping[int, float]


Tree = Sequence[Branch | Leaf]  # the root first; several branches may lead to one node


@dataclass(frozen=True)
class TreeEnsemble:
    """The trees, what their sum begins with, and what becomes of it."""

    trees: Sequence[Tree]
    features: tuple[str, ...]
    base: tuple[float, ...]  # of the margins, one for each target
    link: Link = "identity"
    scale: float = 1.0  # of the margins, before the link
    is_classifier: bool = False  # one sigmoid of two classes becomes two probabilities
    takes_double: bool = False  # the library compares in float64
    linear: Array | None = None  # weights [features, targets] instead of trees
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by feature, where the library knows them
    gap: float | None = None  # a number that stands for no value, beside NaN

    @property
    def targets(self) -> int:
        """How many margins there are."""
        return len(self.base)

    @property
    def answers(self) -> int:
        """How many numbers a row is answered with."""
        return 2 if self.is_classifier and self.targets == 1 else self.targets

    @property
    def dtype(self) -> "np.dtype[np.float32] | np.dtype[np.float64]":
        """The type of the features."""
        return np.dtype(np.float64) if self.takes_double else np.dtype(np.float32)


def build_model(ensemble: TreeEnsemble, input_name: str, output_name: str) -> onnx.ModelProto:
    """Build a graph of the ensemble alone, [rows, features] to [rows, answers]."""
    kind = TensorProto.DOUBLE if ensemble.takes_double else TensorProto.FLOAT
    nodes, constants = build_nodes(ensemble, input_name, output_name)
    graph = helper.make_graph(
        nodes,
        "trees",
        [helper.make_tensor_value_info(input_name, kind, ["batch", len(ensemble.features)])],
        [helper.make_tensor_value_info(output_name, TensorProto.FLOAT, ["batch", ensemble.answers])],
        constants,
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def build_nodes(
    ensemble: TreeEnsemble, input_name: str, output_name: str, prefix: str = ""
) -> tuple[list[NodeProto], list[TensorProto]]:
    """Build the nodes from features to answers, and their constants; inner names begin with the prefix."""
    margins, scaled, linked = f"{prefix}margins", f"{prefix}scaled", f"{prefix}linked"
    nodes, constants = build_margins(ensemble, input_name, margins, prefix)
    source = margins
    if ensemble.scale != 1:
        constants.append(numpy_helper.from_array(np.array(ensemble.scale, np.float32), f"{prefix}scale"))
        nodes.append(helper.make_node("Mul", [margins, f"{prefix}scale"], [scaled]))
        source = scaled
    splits = ensemble.is_classifier and ensemble.targets == 1
    nodes += build_link(ensemble.link, source, linked if splits else output_name, prefix)
    if splits:
        constants.append(numpy_helper.from_array(np.ones(1, np.float32), f"{prefix}one"))
        nodes.append(helper.make_node("Sub", [f"{prefix}one", linked], [f"{prefix}other"]))
        nodes.append(helper.make_node("Concat", [f"{prefix}other", linked], [output_name], axis=1))
    return nodes, constants


def build_link(link: Link, source: str, target: str, prefix: str) -> list[NodeProto]:
    """Build the nodes from margins to answers."""
    node = helper.make_node
    if link == "signed_square":
        size = f"{prefix}size"
        return [node("Abs", [source], [size]), node("Mul", [source, size], [target])]
    if link == "positive":
        zero = f"{prefix}zero"
        made = node("Constant", [], [zero], value=numpy_helper.from_array(np.zeros(1, np.float32)))
        above = f"{prefix}above"
        return [made, node("Greater", [source, zero], [above]), node("Cast", [above], [target], to=TensorProto.FLOAT)]
    if link == "mean_variance":
        return build_mean_and_variance(source, target, prefix)
    if link == "softmax":
        return [node("Softmax", [source], [target], axis=1)]
    names = {"identity": "Identity", "sigmoid": "Sigmoid", "exp": "Exp", "softplus": "Softplus"}
    return [node(names[link], [source], [target])]


def build_mean_and_variance(source: str, target: str, prefix: str) -> list[NodeProto]:
    """Build the nodes from a mean and the logarithm of a deviation to the mean and the variance."""
    mean, spread, doubled, variance = (f"{prefix}{word}" for word in ("mean", "spread", "doubled", "variance"))
    return [
        helper.make_node("Split", [source], [mean, spread], axis=1, num_outputs=2),
        helper.make_node("Add", [spread, spread], [doubled]),
        helper.make_node("Exp", [doubled], [variance]),
        helper.make_node("Concat", [mean, variance], [target], axis=1),
    ]


def build_gaps(ensemble: TreeEnsemble, source: str, prefix: str) -> tuple[str, list[NodeProto], list[TensorProto]]:
    """Build the nodes that make NaN of the number that stands for no value; return the name of the features then."""
    if ensemble.gap is None:
        return source, [], []
    names = gap, nothing, found, features = [f"{prefix}{word}" for word in ("gap", "no_value", "is_gap", "with_gaps")]
    values = zip((ensemble.gap, np.nan), names[:2], strict=True)
    constants = [numpy_helper.from_array(np.array(value, ensemble.dtype), name) for value, name in values]
    equal = helper.make_node("Equal", [source, gap], [found])
    return features, [equal, helper.make_node("Where", [found, nothing, source], [features])], constants


def build_margins(
    ensemble: TreeEnsemble, input_name: str, target: str, prefix: str
) -> tuple[list[NodeProto], list[TensorProto]]:
    """Build the nodes from features to margins."""
    features, nodes, constants = build_gaps(ensemble, input_name, prefix)
    inner, inner_constants = build_sums(ensemble, features, target, prefix)
    return [*nodes, *inner], [*constants, *inner_constants]


def build_sums(
    ensemble: TreeEnsemble, input_name: str, target: str, prefix: str
) -> tuple[list[NodeProto], list[TensorProto]]:
    """Build the nodes of the trees or the weights."""
    if ensemble.linear is not None:
        constants = [
            numpy_helper.from_array(ensemble.linear.astype(np.float32), f"{prefix}weights"),
            numpy_helper.from_array(np.array(ensemble.base, np.float32), f"{prefix}bias"),
            numpy_helper.from_array(np.zeros(1, np.float32), f"{prefix}nothing"),
        ]
        gaps, filled = f"{prefix}gaps", f"{prefix}filled"
        return [
            helper.make_node("IsNaN", [input_name], [gaps]),
            helper.make_node("Where", [gaps, f"{prefix}nothing", input_name], [filled]),
            helper.make_node("Gemm", [filled, f"{prefix}weights", f"{prefix}bias"], [target]),
        ], constants
    attributes = build_tree_attributes(ensemble)
    return [
        helper.make_node(
            "TreeEnsembleRegressor", [input_name], [target], f"{prefix}trees", domain=ML_DOMAIN, **attributes
        )
    ], []


def build_tree_attributes(ensemble: TreeEnsemble) -> dict[str, Any]:
    """Build the attributes of TreeEnsembleRegressor; numbers are in float64 if the features are."""
    nodes: dict[str, list[Any]] = {name: [] for name in NODE_ATTRIBUTES}
    targets: dict[str, list[Any]] = {name: [] for name in ("treeids", "nodeids", "ids", "weights")}
    for number, tree in enumerate(ensemble.trees or [[Leaf({0: 0.0})]]):
        for place, each in enumerate(tree):
            for name, value in describe_node(number, place, each).items():
                nodes[name].append(value)
            if isinstance(each, Leaf):
                for target, weight in each.weights.items():
                    for name, value in zip(targets, (number, place, target, weight), strict=True):
                        targets[name].append(value)
    numbers = {
        "nodes_values": nodes.pop("values"),
        "target_weights": targets.pop("weights"),
        "base_values": list(ensemble.base),
    }
    attributes: dict[str, Any] = {f"nodes_{name}": values for name, values in nodes.items()}
    attributes |= {f"target_{name}": values for name, values in targets.items()}
    for name, values in numbers.items():
        if ensemble.takes_double:
            attributes[f"{name}_as_tensor"] = numpy_helper.from_array(np.array(values, np.float64), name)
        else:
            attributes[name] = [float(np.float32(value)) for value in values]
    return attributes | {"n_targets": ensemble.targets, "post_transform": "NONE"}


NODE_ATTRIBUTES = ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids",
                   "missing_value_tracks_true")  # fmt: skip


def describe_node(tree: int, place: int, node: Branch | Leaf) -> dict[str, object]:
    """Describe a node by the operator's attributes."""
    if isinstance(node, Leaf):
        values: tuple[object, ...] = (tree, place, 0, "LEAF", 0.0, 0, 0, 0)
    else:
        values = (tree, place, node.feature, node.test, node.value, node.yes, node.no, int(node.missing_yes))
    return dict(zip(NODE_ATTRIBUTES, values, strict=True))


def append_membership(
    nodes: list[Branch | Leaf],
    place: int,
    feature: int,
    members: Sequence[float],
    inside: int,
    outside: int,
    *,
    missing_inside: bool,
) -> None:
    """Write a test of membership to `place`, as a chain of tests for equality whose other nodes are appended."""
    chain = [place, *range(len(nodes), len(nodes) + len(members) - 1)]
    nodes += [Leaf({})] * (len(members) - 1)
    for position, member in enumerate(members):
        following = chain[position + 1] if position + 1 < len(chain) else outside
        nodes[chain[position]] = Branch(feature, "BRANCH_EQ", float(member), inside, following, missing_inside)


def draw_rows(ensemble: TreeEnsemble, count: int, *, with_gaps: bool = True) -> Array:
    """Draw rows near the trees' own thresholds, on both sides of them and at them, some cells missing."""
    random = np.random.default_rng(0)
    rows = random.standard_normal((count, len(ensemble.features)))
    for feature, tests in collect_tests(ensemble).items():
        values = np.array([value for value, _ in tests if abs(value) < LARGEST] or [0.0])
        spread = max(float(np.ptp(values)), float(np.abs(values).max()), 1e-6)
        chosen = random.choice(values, count)
        if tests[0][1] == "BRANCH_EQ":
            chosen = np.where(random.random(count) < 0.2, values.max() + 1, chosen)
        else:
            chosen = chosen + random.standard_normal(count) * random.choice([0.0, 1e-3, 0.1, 1.0], count) * spread
        rows[:, feature] = np.where(np.abs(chosen) < SMALLEST, 0.0, chosen)
    if with_gaps:
        rows[random.random(rows.shape) < 0.1] = np.nan
        if ensemble.gap is not None:
            rows[random.random(rows.shape) < 0.1] = ensemble.gap
    return np.asarray(rows.astype(np.float32), ensemble.dtype)


def collect_tests(ensemble: TreeEnsemble) -> dict[int, list[tuple[float, Test]]]:
    """Collect the thresholds by feature."""
    found: dict[int, list[tuple[float, Test]]] = {}
    for tree in ensemble.trees:
        for node in tree:
            if isinstance(node, Branch):
                found.setdefault(node.feature, []).append((node.value, node.test))
    return found
