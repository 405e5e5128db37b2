"""Read and rewrite the nodes of an ONNX file's graph from its bytes, without the onnx package.

Like `onnx_header`, this knows protobuf's wire format and the fields of onnx.proto3 that it needs; every other field is
copied as it is. It knows no operator.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pilotlight.errors import InvalidInputError
from pilotlight.runtime.onnx_header import I32, I64, LEN, VARINT, decode_text, read_varint

MODEL_GRAPH, MODEL_OPSET = 7, 8  # fields of ModelProto
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_OUTPUT = 1, 5, 12  # of GraphProto
NODE_INPUT, NODE_OUTPUT, NODE_NAME, NODE_OPERATOR, NODE_ATTRIBUTE, NODE_DOMAIN = 1, 2, 3, 4, 5, 7
ATTRIBUTE_NAME, ATTRIBUTE_INTEGER, ATTRIBUTE_TEXT, ATTRIBUTE_KIND = 1, 3, 4, 20  # of AttributeProto
ATTRIBUTE_INTEGERS, ATTRIBUTE_TEXTS = 8, 9
INTEGER_KIND, TEXT_KIND = 2, 3  # AttributeProto.AttributeType
DEFAULT_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True)
class RawField:
    """A field of a message: its number, its value, and its bytes with the key before them."""

    number: int
    value: int | memoryview
    raw: memoryview


@dataclass(frozen=True)
class GraphNode:
    """A node of the graph: its operator, the names of its tensors, and its attributes by name, undecoded."""

    operator: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, memoryview] = field(default_factory=dict)

    def get_texts(self, name: str) -> tuple[str, ...]:
        """Return the texts of an attribute; none if it is not there."""
        entries = split_fields(self.attributes.get(name, memoryview(b"")))
        return tuple(decode_text(each.value) for each in entries if each.number == ATTRIBUTE_TEXTS)

    def get_integers(self, name: str) -> tuple[int, ...]:
        """Return the whole numbers of an attribute; none if it is not there."""
        entries = split_fields(self.attributes.get(name, memoryview(b"")))
        return tuple(
            number for each in entries if each.number == ATTRIBUTE_INTEGERS for number in decode_integers(each.value)
        )

    def get_text(self, name: str) -> str:
        """Return the text of an attribute; empty if it is not there."""
        entries = split_fields(self.attributes.get(name, memoryview(b"")))
        return next((decode_text(each.value) for each in entries if each.number == ATTRIBUTE_TEXT), "")


@dataclass(frozen=True)
class RawGraph:
    """A model's nodes, outputs and constants: the messages of its main graph."""

    nodes: tuple[GraphNode, ...]
    outputs: Mapping[str, memoryview]  # ValueInfoProto by name
    initializers: Mapping[str, memoryview]  # TensorProto by name

    def find_producer(self, tensor: str) -> GraphNode | None:
        """Find the node that computes the tensor."""
        return next((node for node in self.nodes if tensor in node.outputs), None)


def read_graph(path: Path) -> RawGraph:
    """Read the graph of an ONNX file that `check_onnx_file` has taken; `InvalidInputError` if it is damaged."""
    try:
        return parse_graph(memoryview(path.read_bytes()))
    except (OSError, ValueError) as exc:
        raise InvalidInputError(f"{path} is not an ONNX file: {exc}.") from exc


def parse_graph(model: memoryview) -> RawGraph:
    """Parse the main graph of a ModelProto; `ValueError` if it is not one."""
    parts = [
        part for each in split_fields(model) if each.number == MODEL_GRAPH for part in split_fields(as_message(each))
    ]
    outputs, tensors = (
        [as_message(part) for part in parts if part.number == number] for number in (GRAPH_OUTPUT, GRAPH_INITIALIZER)
    )
    return RawGraph(
        nodes=tuple(parse_node(as_message(part)) for part in parts if part.number == GRAPH_NODE),
        outputs={get_text_field(each, 1): each for each in outputs},
        initializers={get_text_field(tensor, 8): tensor for tensor in tensors},
    )


def parse_node(message: memoryview) -> GraphNode:
    """Parse a NodeProto."""
    parts = list(split_fields(message))
    attributes = [as_message(part) for part in parts if part.number == NODE_ATTRIBUTE]
    return GraphNode(
        operator=get_text_field(message, NODE_OPERATOR),
        domain=get_text_field(message, NODE_DOMAIN),
        inputs=tuple(decode_text(part.value) for part in parts if part.number == NODE_INPUT),
        outputs=tuple(decode_text(part.value) for part in parts if part.number == NODE_OUTPUT),
        attributes={get_text_field(each, ATTRIBUTE_NAME): each for each in attributes},
    )


def rewrite_model(
    model: memoryview,
    edit_node: Callable[[memoryview, GraphNode], list[bytes] | None],
    edit_output: Callable[[str], list[bytes] | None],
) -> bytes:
    """Return the model with edited nodes and outputs of its main graph; None from an edit leaves a message as it is.

    An edit gives the messages that take the place of one.

    The default domain of operators is declared if it was not.
    """
    fields = list(split_fields(model))
    domains = {get_text_field(as_message(each), 1) for each in fields if each.number == MODEL_OPSET}
    parts = [
        encode_message(MODEL_GRAPH, rewrite_graph(as_message(each), edit_node, edit_output))
        if each.number == MODEL_GRAPH
        else bytes(each.raw)
        for each in fields
    ]
    if not domains & set(DEFAULT_DOMAINS):
        parts.append(encode_message(MODEL_OPSET, encode_integer(2, 13)))
    return b"".join(parts)


def rewrite_graph(
    graph: memoryview,
    edit_node: Callable[[memoryview, GraphNode], list[bytes] | None],
    edit_output: Callable[[str], list[bytes] | None],
) -> bytes:
    """Return the GraphProto with edited nodes and outputs."""
    parts = list[bytes]()
    for each in split_fields(graph):
        edited = None
        if each.number == GRAPH_NODE:
            edited = edit_node(as_message(each), parse_node(as_message(each)))
        elif each.number == GRAPH_OUTPUT:
            edited = edit_output(get_text_field(as_message(each), 1))
        parts += [bytes(each.raw)] if edited is None else [encode_message(each.number, one) for one in edited]
    return b"".join(parts)


def encode_cast(source: str, target: str, element_type: int) -> bytes:
    """Encode the node that gives the tensor `source` as `target`, in this TensorProto.DataType."""
    attribute = encode_message(ATTRIBUTE_NAME, b"to") + encode_integer(ATTRIBUTE_INTEGER, element_type)
    attribute += encode_integer(ATTRIBUTE_KIND, INTEGER_KIND)
    return encode_node("Cast", [source], [target]) + encode_message(NODE_ATTRIBUTE, attribute)


def encode_node(operator: str, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """Encode a NodeProto of the default domain without attributes."""
    return b"".join(
        [
            *(encode_message(NODE_INPUT, name.encode()) for name in inputs),
            *(encode_message(NODE_OUTPUT, name.encode()) for name in outputs),
            encode_message(NODE_NAME, f"{operator}_{outputs[0]}".encode()),
            encode_message(NODE_OPERATOR, operator.encode()),
        ]
    )


def replace_text_attribute(node: memoryview, name: str, value: str) -> bytes:
    """Return the NodeProto with the text of one attribute set."""
    kept = [
        bytes(each.raw)
        for each in split_fields(node)
        if each.number != NODE_ATTRIBUTE or get_text_field(as_message(each), ATTRIBUTE_NAME) != name
    ]
    attribute = encode_message(ATTRIBUTE_NAME, name.encode()) + encode_message(ATTRIBUTE_TEXT, value.encode())
    return b"".join([*kept, encode_message(NODE_ATTRIBUTE, attribute + encode_integer(ATTRIBUTE_KIND, TEXT_KIND))])


def encode_tensor_output(name: str, element_type: int, columns: int | None) -> bytes:
    """Encode the ValueInfoProto of a tensor [free, columns]; None leaves the columns free too."""
    shape = encode_message(1, b"") + encode_message(1, b"" if columns is None else encode_integer(1, columns))
    tensor = encode_integer(1, element_type) + encode_message(2, shape)
    return encode_message(1, name.encode()) + encode_message(2, encode_message(1, tensor))


def encode_message(number: int, content: bytes) -> bytes:
    """Encode a field of bytes, text or a message."""
    return encode_varint(number << 3 | LEN) + encode_varint(len(content)) + content


def encode_integer(number: int, value: int) -> bytes:
    """Encode a field of a whole number that is not negative."""
    return encode_varint(number << 3 | VARINT) + encode_varint(value)


def encode_varint(value: int) -> bytes:
    """Encode a number in base 128."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def decode_integers(value: int | memoryview) -> Iterator[int]:
    """Yield the signed numbers of a repeated int64, packed or not."""
    numbers = [value] if isinstance(value, int) else []
    offset = 0
    while isinstance(value, memoryview) and offset < len(value):
        number, offset = read_varint(value, offset)
        numbers.append(number)
    yield from (number - (1 << 64) if number >= 1 << 63 else number for number in numbers)


def get_nested_integer(message: memoryview, path: Sequence[int]) -> int:
    """Return the number at the end of a path of field numbers; 0 if it is not there."""
    for each in split_fields(message):
        if each.number == path[0] and len(path) > 1 and isinstance(each.value, memoryview):
            return get_nested_integer(each.value, path[1:])
        if each.number == path[0] and isinstance(each.value, int):
            return each.value
    return 0


def get_text_field(message: memoryview, number: int) -> str:
    """Return the last text of this field number; empty if there is none."""
    found = ""
    for each in split_fields(message):
        if each.number == number:
            found = decode_text(each.value)
    return found


def as_message(part: RawField) -> memoryview:
    """Return the bytes of a field that holds a message; `ValueError` if it is a number."""
    if isinstance(part.value, int):
        raise ValueError("a message is a number")  # noqa: TRY004 - the file is wrong, not the caller
    return part.value


def split_fields(message: memoryview) -> Iterator[RawField]:
    """Yield every field of a message; fixed-size numbers have their bytes as their value."""
    start, end = 0, len(message)
    while start < end:
        key, offset = read_varint(message, start)
        number, wire = key >> 3, key & 7
        value: int | memoryview
        if wire == VARINT:
            value, offset = read_varint(message, offset)
        else:
            size, offset = read_varint(message, offset) if wire == LEN else ({I64: 8, I32: 4}.get(wire, end), offset)
            if offset + size > end:
                raise ValueError(f"field {number} of wire type {wire} does not fit into it")
            value, offset = message[offset : offset + size], offset + size
        yield RawField(number, value, message[start:offset])
        start = offset
