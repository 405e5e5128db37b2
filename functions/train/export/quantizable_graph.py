"""Bring a graph of any exporter into the form that onnxruntime's quantizers take, or say why there is none.

The quantizers look nodes up by name, name new tensors after old ones, and know neither functions nor what a subgraph
reads from outside of it. So nodes get unique names, functions are inlined, initializers that are inputs too become
constants, old opsets are raised, and tensors that have the quantizers' own suffixes get other names.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, inliner, version_converter

from functions.train.errors import QuantizationError
from pilotlight.contracts.manifest import Precision
from pilotlight.runtime import onnx_header

MAX_BYTES = 2_000_000_000  # nearly the maximum of a protobuf message, which the quantizers write
CHANNEL_OPSET = 13  # the first with a scale for each channel
OLDEST_OPSET = 7  # that onnx's converter starts from
STATIC_OPSET = 10  # the first with QuantizeLinear
INTEGER_OPERATORS = re.compile(  # of onnx and of com.microsoft, that only quantized graphs have
    r"(Dynamic|De)?[Qq]uantizeLinear|QLinear\w+|Q(Attention|Gemm|MoE|OrderedMatMul|EmbedLayerNormalization)|"
    r"(MatMul|Conv)Integer\w*|DynamicQuantize\w+|QOrdered\w+|GatherBlockQuantized|MatMul(NBits|BnB4|FpQ4)"
)
FOUR_BIT_OPERATORS = frozenset({"MatMulNBits", "MatMulBnB4", "MatMulFpQ4"})
MANGLED_NAMES = re.compile(  # the endings that quantizers give to tensors of their own
    r".*(_quantized|_scale|_zero_point|_steps|_float|_quant|_i8|_nbits|_bias_add|_output|_mul|_cast|_reshape|_row|"
    r"QuantizeLinear(_\w+)?|_QuantizeLinear_\w+|_DequantizeLinear_\w+|_[QB]\d+G?\w*|_scales|_MatMul)$"
)
WEIGHTED_OPERATORS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN", "Gather", "Attention"})
FLOAT_NAMES = {TensorProto.FLOAT16: "FP16", TensorProto.DOUBLE: "FP64", TensorProto.BFLOAT16: "BF16"}


def load_quantizable_graph(path: Path) -> ModelProto:
    """Load a graph in the form that the quantizers take; `QuantizationError` says why it cannot be quantized."""
    check_size(path)
    model = onnx.load(path)
    if model.functions:
        model = inliner.inline_local_functions(model)
    remove_overridable_inputs(model)
    if reason := find_obstacle(model):
        raise QuantizationError(reason)
    model = raise_opset(model)
    name_nodes(model)
    rename_mangled_tensors(model)
    return model


def check_size(path: Path) -> None:
    """Raise `QuantizationError` for a graph that is too large with its weights."""
    header = onnx_header.read_onnx_header(path)
    size = sum(file.stat().st_size for file in (path, *(path.parent / name for name in header.external_files)))
    if size > MAX_BYTES:
        raise QuantizationError(
            f"the graph takes {size:,} bytes with its weights, more than the {MAX_BYTES:,} that the quantizers read"
        )


def find_quantized_operators(path: Path) -> tuple[str, ...]:
    """List the operators of a graph that only quantized graphs have; empty if it is not quantized yet."""
    operators = {name for _, name in onnx_header.read_onnx_header(path).operators}
    return tuple(sorted(name for name in operators if INTEGER_OPERATORS.fullmatch(name)))


def get_quantized_precision(operators: tuple[str, ...]) -> Precision:
    """Return the precision of a graph with these operators."""
    return "int4" if FOUR_BIT_OPERATORS & set(operators) else "int8"


def find_obstacle(model: ModelProto) -> str:
    """Return why a graph has nothing that could be quantized; empty if it has."""
    found = Counter(tensor.data_type for tensor in list_weights(model.graph))
    if found[TensorProto.FLOAT]:
        return ""
    for kind, name in FLOAT_NAMES.items():
        if found[kind]:
            return f"its weights are {name}, and the quantizers read FP32"
    return "it has no weights in FP32 that products, convolutions or tables use"


def list_weights(graph: GraphProto, outer: Mapping[str, TensorProto] | None = None) -> Iterator[TensorProto]:
    """List the constants that weighted operators use, also those of subgraphs, which read the graph outside as well.

    They may pass Transpose or Cast before.
    """
    constants = {**(outer or {}), **{tensor.name: tensor for tensor in graph.initializer}}
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                constants[node.output[0]] = attribute.t
        if node.op_type in {"Transpose", "Identity", "Cast", "Reshape"} and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]]
        if node.op_type in WEIGHTED_OPERATORS:
            yield from (constants[name] for name in node.input if name in constants)
    for inner in iterate_subgraphs(graph):
        yield from list_weights(inner, constants)


def iterate_subgraphs(graph: GraphProto) -> Iterator[GraphProto]:
    """Iterate over the graphs in the attributes of a graph's nodes, without those inside of them."""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield attribute.g
            elif attribute.type == AttributeProto.GRAPHS:
                yield from attribute.graphs


def iterate_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """Iterate over the nodes of a graph and of its subgraphs."""
    yield from graph.node
    for inner in iterate_subgraphs(graph):
        yield from iterate_nodes(inner)


def count_uses(graph: GraphProto) -> Counter[str]:
    """Count how often each tensor is read, also by subgraphs, or is an output."""
    uses = Counter(name for node in iterate_nodes(graph) for name in node.input)
    uses.update(value.name for value in graph.output)
    for inner in iterate_subgraphs(graph):
        uses.update(value.name for value in inner.output)
    return uses


def find_captured_names(graph: GraphProto) -> set[str]:
    """Find the names that subgraphs mention: what the main graph has under them must stay."""
    return {
        name
        for inner in iterate_subgraphs(graph)
        for name in (*(name for node in iterate_nodes(inner) for name in node.input), *(v.name for v in inner.output))
    }


def remove_overridable_inputs(model: ModelProto) -> None:
    """Make constants of initializers that are inputs as well, as all should be in IR 3: callers never send them."""
    constants = {tensor.name for tensor in model.graph.initializer}
    for value in [value for value in model.graph.input if value.name in constants]:
        model.graph.input.remove(value)
    if constants:
        model.ir_version = max(model.ir_version, 4)  # before, every initializer has to be an input


def raise_opset(model: ModelProto) -> ModelProto:
    """Raise an old opset to the first with a scale for each channel; the graph as it is if that is not possible."""
    opset = get_opset(model)
    if opset >= CHANNEL_OPSET or opset < OLDEST_OPSET:
        return model
    try:
        raised = version_converter.convert_version(model, CHANNEL_OPSET)
        onnx.checker.check_model(raised)
    except Exception:  # noqa: BLE001 - onnx raises whatever its C++ does; a graph that stays old has fewer ways
        return model
    kept = [entry for entry in model.opset_import if entry.domain not in {"", "ai.onnx"}]
    raised.opset_import.extend(one for one in kept if one.domain not in {entry.domain for entry in raised.opset_import})
    raised.ir_version = max(raised.ir_version, 7)
    return raised


def get_opset(model: ModelProto) -> int:
    """Return the version of the standard operators; 0 if a graph has none."""
    return max((int(entry.version) for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), default=0)


def name_nodes(model: ModelProto) -> None:
    """Give a name of its own to each node that has none, or another's."""
    seen: set[str] = set()
    for place, node in enumerate(iterate_nodes(model.graph)):
        if not node.name or node.name in seen:
            node.name = f"{node.name or node.op_type}_{place}"
            while node.name in seen:
                node.name += "x"
        seen.add(node.name)


def rename_mangled_tensors(model: ModelProto) -> None:
    """Rename inner tensors if names look like those that quantizers make; inputs and outputs keep theirs."""
    graph = model.graph
    if any(True for _ in iterate_subgraphs(graph)):
        return  # names of several scopes; a quantizer that mixes them up makes a graph that does not open
    kept = {value.name for value in (*graph.input, *graph.output)}
    names = {tensor.name for tensor in graph.initializer} | {name for node in graph.node for name in node.output}
    if not any(MANGLED_NAMES.fullmatch(name) for name in names | kept):
        return
    renamed = {name: f"tensor.{place}" for place, name in enumerate(sorted(names - kept - {""}))}
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    for tensor in graph.initializer:
        tensor.name = renamed.get(tensor.name, tensor.name)
    del graph.value_info[:]  # is inferred anew
