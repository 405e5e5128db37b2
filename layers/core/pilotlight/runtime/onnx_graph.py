"""Read which node produces what in an ONNX file, from its bytes: without the onnx package and without a session.

Graphs in the attributes of `If` and `Loop`, and the file's own functions, are read as graphs too. It reads names and
small attributes; weights are passed over.
"""

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Union

from pilotlight.runtime.onnx_header import decode_text, iterate_all_fields, iterate_fields

MAX_DEPTH = 50  # of graphs in graphs
AttributeValue = Union[int, float, str, "OnnxGraph", None]


@dataclass(frozen=True)
class OnnxNode:
    """A node: its operator, and the names of what it takes and gives; an empty name is left out."""

    operator: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, AttributeValue]


@dataclass(frozen=True)
class OnnxGraph:
    """A graph, or the body of a function: its ends, and which node gives each name."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    producers: Mapping[str, OnnxNode]
    constants: frozenset[str] = frozenset()
    functions: dict[tuple[str, str], "OnnxGraph"] = field(default_factory=dict)  # of the file, by domain and name


def read_onnx_graph(path: Path) -> OnnxGraph:
    """Read the main graph and the functions of an ONNX file that `onnx_header` has checked."""
    with path.open("rb") as file:
        model = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    graph = OnnxGraph((), (), {})
    functions: dict[tuple[str, str], OnnxGraph] = {}
    for number, value in iterate_fields(model):
        if number == 7:
            graph = parse_graph(value, functions, 0)
        elif number == 25:
            key, body = parse_function(value, functions)
            functions[key] = body
    return graph


def parse_graph(message: int | memoryview, functions: dict[tuple[str, str], OnnxGraph], depth: int) -> OnnxGraph:
    """Parse a GraphProto."""
    if depth > MAX_DEPTH:
        return OnnxGraph((), (), {}, functions=functions)
    producers: dict[str, OnnxNode] = {}
    ends: dict[int, list[str]] = {11: [], 12: []}
    constants: set[str] = set()
    for number, value in iterate_fields(message):
        if number == 1:
            node = parse_node(value, functions, depth)
            producers.update(dict.fromkeys(filter(None, node.outputs), node))
        elif number == 5:
            constants.add(next((decode_text(part) for n, part in iterate_fields(value) if n == 8), ""))
        elif number in ends:
            ends[number].append(next((decode_text(part) for n, part in iterate_fields(value) if n == 1), ""))
    return OnnxGraph(tuple(ends[11]), tuple(ends[12]), producers, frozenset(constants), functions)


def parse_function(
    message: int | memoryview, functions: dict[tuple[str, str], OnnxGraph]
) -> tuple[tuple[str, str], OnnxGraph]:
    """Parse a FunctionProto; return its domain and name, and its body."""
    names: dict[int, str] = {}
    ends: dict[int, list[str]] = {4: [], 5: []}
    producers: dict[str, OnnxNode] = {}
    for number, value in iterate_fields(message):
        if number in (1, 10):
            names[number] = decode_text(value)
        elif number in ends:
            ends[number].append(decode_text(value))
        elif number == 7:
            node = parse_node(value, functions, 0)
            producers.update(dict.fromkeys(filter(None, node.outputs), node))
    body = OnnxGraph(tuple(ends[4]), tuple(ends[5]), producers, functions=functions)
    return (names.get(10, ""), names.get(1, "")), body


def parse_node(message: int | memoryview, functions: dict[tuple[str, str], OnnxGraph], depth: int) -> OnnxNode:
    """Parse a NodeProto."""
    inputs, outputs, names = list[str](), list[str](), dict[int, str]()
    attributes: dict[str, AttributeValue] = {}
    for number, value in iterate_fields(message):
        if number == 1:
            inputs.append(decode_text(value))
        elif number == 2:
            outputs.append(decode_text(value))
        elif number in (4, 7):
            names[number] = decode_text(value)
        elif number == 5:
            name, content = parse_attribute(value, functions, depth)
            attributes[name] = content
    domain = names.get(7, "").removeprefix("ai.onnx") if names.get(7) == "ai.onnx" else names.get(7, "")
    return OnnxNode(names.get(4, ""), domain, tuple(inputs), tuple(outputs), attributes)


def parse_attribute(
    message: int | memoryview, functions: dict[tuple[str, str], OnnxGraph], depth: int
) -> tuple[str, AttributeValue]:
    """Parse an AttributeProto's name, and its value if it is a number, a text or a graph."""
    name, content = "", None
    for number, value in iterate_all_fields(message):
        if number == 1:
            name = decode_text(value)
        elif number == 2 and isinstance(value, memoryview):
            content = struct.unpack("<f", value)[0]
        elif number == 3 and isinstance(value, int):
            content = value - (1 << 64) if value >> 63 else value
        elif number == 4:
            content = bytes(value).decode("utf-8", "replace") if isinstance(value, memoryview) else None
        elif number == 6:
            content = parse_graph(value, functions, depth + 1)
    return name, content
