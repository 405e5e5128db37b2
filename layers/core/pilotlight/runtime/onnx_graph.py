"""Read an ONNX file's graph from its bytes: without the onnx package and without a session.

It knows the messages of onnx.proto3, by the numbers of their fields, and no operator. Attributes, weights and the
graphs in the attributes of `If` and `Loop` stay views of the file until somebody asks for one.
"""

import mmap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pilotlight.errors import InvalidInputError
from pilotlight.runtime.wire_format import (
    FieldSizeError,
    FieldValue,
    as_message,
    decode_integers,
    decode_name,
    iterate_fields,
    iterate_values,
    read_name,
)

# The numbers of fields, by message.
MODEL_IR_VERSION, MODEL_GRAPH, MODEL_OPSET, MODEL_FUNCTION = 1, 7, 8, 25
OPSET_DOMAIN, OPSET_VERSION = 1, 2
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_INPUT, GRAPH_OUTPUT, GRAPH_SPARSE_INITIALIZER = 1, 5, 11, 12, 15
FUNCTION_NAME, FUNCTION_INPUT, FUNCTION_OUTPUT, FUNCTION_NODE, FUNCTION_DOMAIN = 1, 4, 5, 7, 10
NODE_INPUT, NODE_OUTPUT, NODE_NAME, NODE_OPERATOR, NODE_ATTRIBUTE, NODE_DOMAIN = 1, 2, 3, 4, 5, 7
ATTRIBUTE_NAME, ATTRIBUTE_INTEGER, ATTRIBUTE_TEXT, ATTRIBUTE_KIND = 1, 3, 4, 20
ATTRIBUTE_TENSOR, ATTRIBUTE_GRAPH, ATTRIBUTE_INTEGERS, ATTRIBUTE_TEXTS = 5, 6, 8, 9
ATTRIBUTE_TENSORS, ATTRIBUTE_GRAPHS, ATTRIBUTE_SPARSE_TENSOR, ATTRIBUTE_SPARSE_TENSORS = 10, 11, 22, 23
TENSOR_KIND, TENSOR_INT32_DATA, TENSOR_STRING_DATA, TENSOR_INT64_DATA = 2, 5, 6, 7
TENSOR_NAME, TENSOR_RAW_DATA, TENSOR_EXTERNAL_DATA, TENSOR_LOCATION = 8, 9, 13, 14
SPARSE_VALUES, SPARSE_INDICES = 1, 2
VALUE_NAME, VALUE_TYPE = 1, 2  # of ValueInfoProto
TYPE_TENSOR, TENSOR_TYPE_SHAPE = 1, 2  # of TypeProto, and of its Tensor
ENTRY_KEY, ENTRY_VALUE = 1, 2  # of StringStringEntryProto
FunctionKey = tuple[str, str]  # domain and name


class CutOffError(ValueError):
    """A file begins as an ONNX file and ends too early."""

    def __init__(self, missing: int) -> None:
        super().__init__(f"{missing:,} bytes are missing at its end")
        self.missing = missing


@dataclass(frozen=True)
class OnnxNode:
    """A node: its operator, the names of what it takes and gives, and its attributes by name, undecoded.

    An optional tensor that is left out has an empty name.
    """

    operator: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, memoryview] = field(default_factory=dict)  # AttributeProto

    def get_text(self, name: str) -> str:
        """Return the text of an attribute; empty if it is not there."""
        return read_name(self._get_attribute(name), ATTRIBUTE_TEXT)

    def get_texts(self, name: str) -> tuple[str, ...]:
        """Return the texts of an attribute; none if it is not there."""
        return tuple(map(decode_name, iterate_values(self._get_attribute(name), ATTRIBUTE_TEXTS)))

    def get_integers(self, name: str) -> tuple[int, ...]:
        """Return the whole numbers of an attribute; none if it is not there."""
        values = iterate_values(self._get_attribute(name), ATTRIBUTE_INTEGERS)
        return tuple(number for value in values for number in decode_integers(value))

    def parse_graphs(self) -> Iterator["OnnxGraph"]:
        """Parse the graph of each attribute that has one."""
        for attribute in self.attributes.values():
            graphs = list(iterate_values(attribute, ATTRIBUTE_GRAPH))
            if graphs:
                yield parse_graph(graphs)

    def _get_attribute(self, name: str) -> memoryview:
        return self.attributes.get(name, memoryview(b""))


@dataclass(frozen=True)
class OnnxGraph:
    """A graph, or the body of a function: its ends, its nodes and its constants."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[OnnxNode, ...]
    output_types: Mapping[str, memoryview] = field(default_factory=dict)  # ValueInfoProto by name
    initializers: Mapping[str, memoryview] = field(default_factory=dict)  # TensorProto by name
    functions: Mapping[FunctionKey, "OnnxGraph"] = field(default_factory=dict)  # of the file

    @cached_property
    def producers(self) -> Mapping[str, OnnxNode]:
        """The node that gives each name."""
        return {name: node for node in self.nodes for name in node.outputs if name}


@contextmanager
def map_model(path: Path) -> Iterator[memoryview]:
    """Map an ONNX file, and raise `InvalidInputError` if it cannot be read, or for what is found wrong in it."""
    try:
        with path.open("rb") as file:
            yield memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as exc:
        raise InvalidInputError(f"Cannot read {path}: {exc.strerror}.") from exc
    except CutOffError as exc:
        size = path.stat().st_size
        raise InvalidInputError(
            f"{path} is not a whole ONNX file: it has {size:,} bytes of {size + exc.missing:,} or more; download or "
            "export it again."
        ) from exc
    except (ValueError, RecursionError) as exc:
        raise InvalidInputError(f"{path} is not an ONNX file: {exc}.") from exc


def read_onnx_graph(path: Path) -> OnnxGraph:
    """Read the main graph and the functions of an ONNX file; `InvalidInputError` if it is damaged."""
    with map_model(path) as model:
        return parse_model(model)


def parse_model(model: memoryview) -> OnnxGraph:
    """Parse the main graph of a ModelProto, with the file's functions; `ValueError` if it is not one."""
    graphs: list[FieldValue] = []
    functions: dict[FunctionKey, OnnxGraph] = {}
    for number, value in iterate_model_fields(model):
        if number == MODEL_GRAPH:
            graphs.append(value)
        elif number == MODEL_FUNCTION:
            key, body = parse_function(value, functions)
            functions[key] = body
    return parse_graph(graphs, functions)


def iterate_model_fields(model: memoryview) -> Iterator[tuple[int, FieldValue]]:
    """Yield the fields of a ModelProto; `CutOffError` if it ends in its graph, or behind that."""
    seen = set[int]()
    try:
        for number, value in iterate_fields(model):
            if number != MODEL_IR_VERSION or isinstance(value, int):
                seen.add(number)
            yield number, value
    except FieldSizeError as exc:
        if MODEL_IR_VERSION in seen and MODEL_GRAPH in {exc.number, *seen}:
            raise CutOffError(exc.missing) from exc
        raise


def parse_graph(messages: Sequence[FieldValue], functions: Mapping[FunctionKey, OnnxGraph] | None = None) -> OnnxGraph:
    """Parse a GraphProto; the parts of one that is written in several are joined, as protobuf does."""
    nodes, inputs, outputs = list[OnnxNode](), list[str](), list[str]()
    output_types, initializers = dict[str, memoryview](), dict[str, memoryview]()
    for number, value in (each for message in messages for each in iterate_fields(message)):
        if number == GRAPH_NODE:
            nodes.append(parse_node(value))
        elif number == GRAPH_INITIALIZER:
            initializers[read_name(value, TENSOR_NAME)] = as_message(value)
        elif number == GRAPH_INPUT:
            inputs.append(read_name(value, VALUE_NAME))
        elif number == GRAPH_OUTPUT:
            outputs.append(read_name(value, VALUE_NAME))
            output_types[outputs[-1]] = as_message(value)
    return OnnxGraph(tuple(inputs), tuple(outputs), tuple(nodes), output_types, initializers, functions or {})


def parse_function(message: FieldValue, functions: Mapping[FunctionKey, OnnxGraph]) -> tuple[FunctionKey, OnnxGraph]:
    """Parse a FunctionProto; return its domain and name, and its body, which may call the others."""
    key = read_name(message, FUNCTION_DOMAIN), read_name(message, FUNCTION_NAME)
    inputs, outputs = (
        tuple(map(decode_name, iterate_values(message, number))) for number in (FUNCTION_INPUT, FUNCTION_OUTPUT)
    )
    nodes = tuple(map(parse_node, iterate_values(message, FUNCTION_NODE)))
    return key, OnnxGraph(inputs, outputs, nodes, functions=functions)


def parse_node(message: FieldValue) -> OnnxNode:
    """Parse a NodeProto."""
    names: dict[int, str] = {}
    ends: dict[int, list[str]] = {NODE_INPUT: [], NODE_OUTPUT: []}
    attributes: dict[str, memoryview] = {}
    for number, value in iterate_fields(message):
        if number in ends:
            ends[number].append(decode_name(value))
        elif number in (NODE_OPERATOR, NODE_DOMAIN):
            names[number] = decode_name(value)
        elif number == NODE_ATTRIBUTE:
            attributes[read_name(value, ATTRIBUTE_NAME)] = as_message(value)
    return OnnxNode(
        operator=names.get(NODE_OPERATOR, ""),
        domain=names.get(NODE_DOMAIN, ""),
        inputs=tuple(ends[NODE_INPUT]),
        outputs=tuple(ends[NODE_OUTPUT]),
        attributes=attributes,
    )
