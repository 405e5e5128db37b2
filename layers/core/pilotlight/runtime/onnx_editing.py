"""Rewrite the nodes of an ONNX file's graph in its bytes, without the onnx package.

Whatever is not edited is copied as it is. The module knows no operator but those that it writes.
"""

from collections.abc import Callable, Sequence

from pilotlight.runtime.onnx_graph import (
    ATTRIBUTE_INTEGER,
    ATTRIBUTE_KIND,
    ATTRIBUTE_NAME,
    ATTRIBUTE_TEXT,
    GRAPH_NODE,
    GRAPH_OUTPUT,
    MODEL_GRAPH,
    MODEL_OPSET,
    NODE_ATTRIBUTE,
    NODE_INPUT,
    NODE_NAME,
    NODE_OPERATOR,
    NODE_OUTPUT,
    OPSET_DOMAIN,
    OPSET_VERSION,
    TYPE_TENSOR,
    VALUE_NAME,
    VALUE_TYPE,
    OnnxNode,
    parse_node,
)
from pilotlight.runtime.wire_format import (
    as_message,
    encode_integer,
    encode_message,
    encode_name,
    iterate_values,
    read_name,
    walk_fields,
)

INTEGER_KIND, TEXT_KIND = 2, 3  # AttributeProto.AttributeType
DEFAULT_DOMAINS = ("", "ai.onnx")
DEFAULT_OPSET = 13  # is declared where none is


def rewrite_model(
    model: memoryview,
    edit_node: Callable[[memoryview, OnnxNode], list[bytes] | None],
    edit_output: Callable[[str], list[bytes] | None],
) -> bytes:
    """Return the model with edited nodes and outputs of its main graph; None from an edit leaves a message as it is.

    An edit gives the messages that take the place of one.

    The default domain of operators is declared if it was not.
    """
    domains = {read_name(value, OPSET_DOMAIN) for value in iterate_values(model, MODEL_OPSET)}
    parts: list[bytes | memoryview] = [
        encode_message(MODEL_GRAPH, rewrite_graph(as_message(value), edit_node, edit_output))
        if number == MODEL_GRAPH
        else model[start:end]
        for number, _, value, start, end in walk_fields(model)
    ]
    if not domains & set(DEFAULT_DOMAINS):
        parts.append(encode_message(MODEL_OPSET, encode_integer(OPSET_VERSION, DEFAULT_OPSET)))
    return b"".join(parts)


def rewrite_graph(
    graph: memoryview,
    edit_node: Callable[[memoryview, OnnxNode], list[bytes] | None],
    edit_output: Callable[[str], list[bytes] | None],
) -> bytes:
    """Return the GraphProto with edited nodes and outputs."""
    parts = list[bytes | memoryview]()
    for number, _, value, start, end in walk_fields(graph):
        edited = None
        if number == GRAPH_NODE:
            edited = edit_node(as_message(value), parse_node(value))
        elif number == GRAPH_OUTPUT:
            edited = edit_output(read_name(value, VALUE_NAME))
        parts += [graph[start:end]] if edited is None else [encode_message(number, one) for one in edited]
    return b"".join(parts)


def encode_cast(source: str, target: str, element_type: int) -> bytes:
    """Encode the node that gives the tensor `source` as `target`, in this TensorProto.DataType."""
    attribute = encode_name(ATTRIBUTE_NAME, "to") + encode_integer(ATTRIBUTE_INTEGER, element_type)
    attribute += encode_integer(ATTRIBUTE_KIND, INTEGER_KIND)
    return encode_node("Cast", [source], [target]) + encode_message(NODE_ATTRIBUTE, attribute)


def encode_node(operator: str, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """Encode a NodeProto of the default domain without attributes."""
    return b"".join(
        [
            *(encode_name(NODE_INPUT, name) for name in inputs),
            *(encode_name(NODE_OUTPUT, name) for name in outputs),
            encode_name(NODE_NAME, f"{operator}_{outputs[0]}"),
            encode_name(NODE_OPERATOR, operator),
        ]
    )


def replace_text_attribute(node: memoryview, name: str, value: str) -> bytes:
    """Return the NodeProto with the text of one attribute set."""
    kept = [
        node[start:end]
        for number, _, content, start, end in walk_fields(node)
        if number != NODE_ATTRIBUTE or read_name(content, ATTRIBUTE_NAME) != name
    ]
    attribute = encode_name(ATTRIBUTE_NAME, name) + encode_name(ATTRIBUTE_TEXT, value)
    return b"".join([*kept, encode_message(NODE_ATTRIBUTE, attribute + encode_integer(ATTRIBUTE_KIND, TEXT_KIND))])


def encode_tensor_output(name: str, element_type: int, columns: int | None) -> bytes:
    """Encode the ValueInfoProto of a tensor [free, columns]; None leaves the columns free too."""
    shape = encode_message(1, b"") + encode_message(1, b"" if columns is None else encode_integer(1, columns))
    tensor = encode_integer(1, element_type) + encode_message(2, shape)
    return encode_name(VALUE_NAME, name) + encode_message(VALUE_TYPE, encode_message(TYPE_TENSOR, tensor))
