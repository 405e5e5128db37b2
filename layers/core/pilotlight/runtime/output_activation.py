"""Tell what an output of a graph holds, scores or probabilities, from the nodes that give it and from its answers.

A finish that takes the softmax of probabilities says 73 % where the graph says 99.99 %. So what comes last before the
output decides; where that says nothing, answers that are between 0 and 1 and sum to 1 do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pilotlight.runtime.datatypes import Array
from pilotlight.runtime.onnx_graph import OnnxGraph, OnnxNode

Activation = Literal["softmax", "sigmoid", "exp", "none"]  # as of a classification finish
MAX_STEPS = 200  # of nodes that are looked at
SUM_TOLERANCE = 1e-3  # of a row's probabilities, which may be of 16 bits
PROBABILITY_OPERATORS = frozenset({
    "Softmax", "Sigmoid", "Hardmax", "HardSigmoid", "QLinearSoftmax", "QLinearSigmoid", "BiasSoftmax",
})  # fmt: skip
LOG_OPERATORS = frozenset({"LogSoftmax"})
# What gives the same numbers, or some of them, in another form.
PASSING_OPERATORS = frozenset({
    "Identity", "Cast", "CastLike", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Dropout", "Slice",
    "Gather", "Split", "ArrayFeatureExtractor", "QuantizeLinear", "DequantizeLinear", "Clip", "Expand", "Tile",
    "ZipMap", "Normalizer", "Concat", "Optional", "OptionalGetElement", "FeatureVectorizer",
})  # fmt: skip
TREE_OPERATORS = frozenset({"TreeEnsembleClassifier", "LinearClassifier", "SVMClassifier"})
PROBABILITY_TRANSFORMS = frozenset({"LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT"})


@dataclass(frozen=True)
class OutputActivation:
    """What a finish has to apply to an output to get probabilities, and what tells so."""

    activation: Activation
    evidence: str  # a clause: "it comes from a Softmax node"


def find_activation(graph: OnnxGraph, output: str, answers: Sequence[Array] = ()) -> OutputActivation | None:
    """Find what an output needs; None if neither its nodes nor its answers tell."""
    return trace_output(graph, output) or judge_answers(answers)


def trace_output(graph: OnnxGraph, output: str) -> OutputActivation | None:
    """Follow an output back to the node that tells what it holds."""
    return ActivationTracer().trace(output, (graph,))


def judge_answers(answers: Sequence[Array]) -> OutputActivation | None:
    """Judge by answers, classes in the last dimension: whether all are probabilities, or logarithms of them."""
    rows = [
        values.astype(np.float64).reshape(-1, values.shape[-1])
        for values in answers
        if values.dtype.kind == "f" and values.ndim and values.shape[-1] > 1 and values.size
    ]
    if not rows or len(rows) < len(answers):
        return None
    if all(is_distribution(values) for values in rows):
        return OutputActivation("none", "its answers are between 0 and 1 and sum to 1")
    if all((values <= 0).all() and is_distribution(np.exp(values)) for values in rows):
        return OutputActivation("exp", "its answers are logarithms of numbers that sum to 1")
    return None


def is_distribution(rows: Array) -> bool:
    """Return whether each row is numbers between 0 and 1 that sum to 1."""
    within = bool(((rows >= -SUM_TOLERANCE) & (rows <= 1 + SUM_TOLERANCE)).all())
    return within and bool((np.abs(rows.sum(axis=-1) - 1) <= SUM_TOLERANCE).all())


class ActivationTracer:
    """Follows a name through nodes, subgraphs and functions, a bounded number of them."""

    def __init__(self) -> None:
        self._steps = 0

    def trace(self, name: str, scopes: tuple[OnnxGraph, ...]) -> OutputActivation | None:
        """Tell what the value of this name holds; the innermost of the graphs comes last."""
        self._steps += 1
        place = next((number for number in range(len(scopes) - 1, -1, -1) if name in scopes[number].producers), None)
        if place is None or self._steps > MAX_STEPS:
            return None
        scopes = scopes[: place + 1]
        node = scopes[-1].producers[name]
        body = scopes[0].functions.get((node.domain, node.operator))
        if body is not None:
            return self._trace_function(node, name, body, scopes)
        return self._judge_node(node, name, scopes)

    def _judge_node(self, node: OnnxNode, name: str, scopes: tuple[OnnxGraph, ...]) -> OutputActivation | None:
        operator = node.operator
        if operator in PROBABILITY_OPERATORS:
            return OutputActivation("none", f"it comes from a {operator} node")
        if operator in LOG_OPERATORS:
            return OutputActivation("exp", f"it comes from a {operator} node")
        if operator in TREE_OPERATORS:
            return judge_classifier(node)
        if operator == "If":
            return self._trace_branches(node, name, scopes)
        if operator in ("Concat", "Sub"):
            return self._trace_all(node, scopes)
        if operator in PASSING_OPERATORS and node.inputs:
            return self.trace(node.inputs[0], scopes)
        return self._judge_composition(node, scopes)

    def _judge_composition(self, node: OnnxNode, scopes: tuple[OnnxGraph, ...]) -> OutputActivation | None:
        """Judge a softmax or its logarithm that is written out: Exp / ReduceSum(Exp), Log(Softmax)."""
        inner = [self._find_producer(name, scopes) for name in node.inputs]
        if node.operator == "Log" and inner and (found := self.trace(node.inputs[0], scopes)):
            return OutputActivation("exp", f"it is the logarithm of what follows: {found.evidence}")
        if node.operator == "Div" and len(inner) == 2 and inner[1] and inner[1].operator == "ReduceSum":
            numerator, summed = node.inputs[0], inner[1].inputs[0]
            if numerator == summed:
                return OutputActivation("none", "it is divided by its own sum")
        return None

    def _find_producer(self, name: str, scopes: tuple[OnnxGraph, ...]) -> OnnxNode | None:
        return next((scope.producers[name] for scope in reversed(scopes) if name in scope.producers), None)

    def _trace_all(self, node: OnnxNode, scopes: tuple[OnnxGraph, ...]) -> OutputActivation | None:
        """Trace every input that is computed: [1 - p, p] holds what p does, and 1 - p as well."""
        names = [
            name
            for name in node.inputs
            if (producer := self._find_producer(name, scopes)) is not None and producer.operator != "Constant"
        ]
        if node.operator == "Sub":
            producer = self._find_producer(node.inputs[1], scopes) if len(node.inputs) == 2 else None
            if producer is not None and producer.operator == "ReduceLogSumExp" and producer.inputs[0] == node.inputs[0]:
                return OutputActivation("exp", "the logarithm of its sum of powers is taken from it")
            if len(names) != 1:
                return None
        found = [self.trace(name, scopes) for name in names]
        first = found[0] if found else None
        if first is None or not all(one is not None and one.activation == first.activation for one in found):
            return None
        # 1 - p is a probability as p is; 1 - log p is nothing.
        return first if node.operator == "Concat" or first.activation == "none" else None

    def _trace_branches(self, node: OnnxNode, name: str, scopes: tuple[OnnxGraph, ...]) -> OutputActivation | None:
        place = node.outputs.index(name)
        branches = list(node.parse_graphs())
        found = [self.trace(branch.outputs[place], (*scopes, branch)) for branch in branches]
        first = found[0] if found else None
        same = first is not None and all(one is not None and one.activation == first.activation for one in found)
        return first if same else None

    def _trace_function(
        self, node: OnnxNode, name: str, body: OnnxGraph, scopes: tuple[OnnxGraph, ...]
    ) -> OutputActivation | None:
        """Trace an output of a function's body; where that is one of its inputs, go on at the caller."""
        if self._steps > MAX_STEPS:
            return None
        inner = body.outputs[node.outputs.index(name)]
        found = self.trace(inner, (body,))
        if found is not None:
            return found
        source = find_source(body, inner)
        if source in body.inputs and body.inputs.index(source) < len(node.inputs):
            return self.trace(node.inputs[body.inputs.index(source)], scopes)
        return None


def find_source(graph: OnnxGraph, name: str) -> str:
    """Find from which name a value comes through nodes that change only its form."""
    for _ in range(MAX_STEPS):
        node = graph.producers.get(name)
        if node is None or node.operator not in PASSING_OPERATORS or not node.inputs:
            break
        name = node.inputs[0]
    return name


def judge_classifier(node: OnnxNode) -> OutputActivation | None:
    """Judge a classifier of ai.onnx.ml by its last transformation; without one, its answers tell."""
    transform = node.get_text("post_transform") or "NONE"
    if transform in PROBABILITY_TRANSFORMS or "prob_a" in node.attributes:
        return OutputActivation("none", f"it comes from a {node.operator} node that gives probabilities")
    return None
