"""Write ONNX graphs as protobuf, without the onnx package, which is not where handlers run.

model([node("Relu", ["x"], ["y"])], [value("x", FLOAT, ["n", 3])], [value("y", FLOAT, ["n", 3])])
"""

import struct
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

FLOAT, UINT8, INT32, INT64, STRING, BOOL, DOUBLE = 1, 2, 6, 7, 8, 9, 11  # of TensorProto.DataType
ELEMENT_TYPES = {"float32": FLOAT, "uint8": UINT8, "int32": INT32, "int64": INT64, "bool": BOOL, "float64": DOUBLE}


def number(value: int) -> bytes:
    """A whole number in protobuf's base 128; a negative one as 64 bits."""
    value &= (1 << 64) - 1
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + number(rest) if rest else bytes([low])


def part(field: int, content: bytes | str | int | float) -> bytes:
    """A field of a message."""
    if isinstance(content, int):
        return number(field << 3) + number(content)
    if isinstance(content, float):
        return number(field << 3 | 5) + struct.pack("<f", content)
    data = content.encode() if isinstance(content, str) else content
    return number(field << 3 | 2) + number(len(data)) + data


def parts(field: int, contents: Iterable[bytes | str | int | float]) -> bytes:
    """A repeated field."""
    return b"".join(part(field, content) for content in contents)


def tensor(name: str, values: "np.ndarray[Any, Any]") -> bytes:
    """A TensorProto."""
    kind = part(2, ELEMENT_TYPES[values.dtype.name])
    return parts(1, values.shape) + kind + part(8, name) + part(9, values.tobytes())


def attribute(name: str, content: Any) -> bytes:  # noqa: ANN401 - what an attribute holds
    """An AttributeProto: a number, a text, a list of them, or the bytes of a TensorProto."""
    fields: dict[type, tuple[int, int]] = {float: (2, 1), int: (3, 2), str: (4, 3), bytes: (5, 4)}
    lists: dict[type, tuple[int, int]] = {float: (7, 6), int: (8, 7), str: (9, 8)}
    if isinstance(content, list):
        field, kind = lists[type(content[0])]
        return part(1, name) + parts(field, content) + part(20, kind)
    field, kind = fields[type(content)]
    return part(1, name) + part(field, content) + part(20, kind)


def node(operator: str, inputs: Sequence[str], outputs: Sequence[str], domain: str = "", **attributes: Any) -> bytes:  # noqa: ANN401 - what attributes hold
    """A NodeProto."""
    held = parts(5, [attribute(name, content) for name, content in attributes.items()])
    return parts(1, inputs) + parts(2, outputs) + part(4, operator) + held + (part(7, domain) if domain else b"")


def value(
    name: str, kind: int, shape: Sequence[int | str] | None, *, sequence: bool = False, optional: bool = False
) -> bytes:
    """A ValueInfoProto of a tensor, or of a sequence or an optional of them; None is a shape that is not given."""
    dimensions = [part(1, part(1, one) if isinstance(one, int) else part(2, one)) for one in shape or ()]
    type_of_tensor = part(1, part(1, kind) + (b"" if shape is None else part(2, b"".join(dimensions))))
    if sequence:
        type_of_tensor = part(4, part(1, type_of_tensor))
    if optional:
        type_of_tensor = part(9, part(1, type_of_tensor))
    return part(1, name) + part(2, type_of_tensor)


def model(
    nodes: Sequence[bytes],
    inputs: Sequence[bytes],
    outputs: Sequence[bytes],
    initializers: Sequence[bytes] = (),
    *,
    ir: int = 10,
    opset: int = 18,
    functions: Sequence[bytes] = (),
    domains: Sequence[str] = (),
) -> bytes:
    """A ModelProto that imports the standard operators, those of machine learning, and a domain `mine`; and others."""
    opsets = [part(1, "") + part(2, opset), part(1, "ai.onnx.ml") + part(2, 3), part(1, "mine") + part(2, 1)]
    opsets += [part(1, domain) + part(2, 1) for domain in domains]
    graph = parts(1, nodes) + part(2, "g") + parts(5, initializers) + parts(11, inputs) + parts(12, outputs)
    return part(1, ir) + part(7, graph) + parts(8, opsets) + parts(25, functions)
