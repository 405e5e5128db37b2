"""Read the header of an ONNX file from its bytes, before it is opened: without the onnx package and without a session.

It scans the messages that decide whether the file may be served, and keeps no node: a file that nobody has examined
may have any number of them. It depends on no store and no version.
"""

from dataclasses import dataclass
from pathlib import Path

from pilotlight.errors import InvalidInputError
from pilotlight.runtime import containment, onnx_graph
from pilotlight.runtime.wire_format import FieldValue, decode_text, iterate_fields, iterate_values

NEWEST_IR_VERSION, NEWEST_OPSET = 14, 28  # the newest that the pinned onnxruntime 1.32 reads
SUPPORTED_DOMAINS = frozenset(
    {"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.ms.internal.nhwc", "com.microsoft.nchwc"}
)
EXTERNAL_LOCATION = 1  # TensorProto.DataLocation
TENSOR_ATTRIBUTES = (onnx_graph.ATTRIBUTE_TENSOR, onnx_graph.ATTRIBUTE_TENSORS)
SPARSE_ATTRIBUTES = (onnx_graph.ATTRIBUTE_SPARSE_TENSOR, onnx_graph.ATTRIBUTE_SPARSE_TENSORS)
GRAPH_ATTRIBUTES = (onnx_graph.ATTRIBUTE_GRAPH, onnx_graph.ATTRIBUTE_GRAPHS)


@dataclass(frozen=True)
class OnnxHeader:
    """An ONNX file's format, the operators that it uses, and the files of its external weights."""

    ir_version: int
    opsets: dict[str, int]  # by domain
    operators: frozenset[tuple[str, str]]  # domain and name
    functions: frozenset[tuple[str, str]]  # the file's own, domain and name
    external_files: tuple[str, ...]  # paths of external weights, as written in the file
    unranked_inputs: tuple[str, ...] = ()  # inputs whose number of dimensions is not given


def read_onnx_header(path: Path) -> OnnxHeader:
    """Read the header of an ONNX file; `InvalidInputError` if it cannot be read or is not an ONNX file."""
    with onnx_graph.map_model(path) as model:
        return parse_header(model)


def is_onnx_file(path: Path) -> bool:
    """Return whether the file reads as an ONNX file, whatever its name."""
    try:
        read_onnx_header(path)
    except InvalidInputError:
        return False
    return True


def check_onnx_file(path: Path) -> OnnxHeader:
    """Return the header of a file that may be served, as far as the header shows; `InvalidInputError` if it may not."""
    header = read_onnx_header(path)
    if header.ir_version > NEWEST_IR_VERSION:
        raise InvalidInputError(
            f"{path} is in ONNX IR version {header.ir_version}; {NEWEST_IR_VERSION} is the newest that is served."
        )
    opset = max(header.opsets.get("", 0), header.opsets.get("ai.onnx", 0))
    if opset > NEWEST_OPSET:
        raise InvalidInputError(
            f"{path} uses opset {opset}; {NEWEST_OPSET} is the newest that is served, export it with that."
        )
    custom = sorted(
        f"{domain}.{name}" for domain, name in header.operators - header.functions if domain not in SUPPORTED_DOMAINS
    )
    if custom:
        raise InvalidInputError(
            f"{path} has custom operators, which onnxruntime alone cannot run: {', '.join(custom)}; export the model "
            "with standard operators, or with these as ONNX functions."
        )
    if header.unranked_inputs:
        raise InvalidInputError(
            f"{path} does not say how many dimensions its input {header.unranked_inputs[0]!r} has; export it with a "
            "shape, in "
            "which free dimensions may have names."
        )
    for location in header.external_files:
        check_weights_location(path, location)
    return header


def check_weights_location(path: Path, location: str) -> None:
    """Refuse weights that are outside the folder of the file, or missing."""
    if not containment.is_contained(path.parent, location):
        raise InvalidInputError(
            f"{path} keeps weights at {location!r}, outside its own folder; save it with its weights beside it."
        )
    if not (path.parent / location).is_file():
        raise InvalidInputError(f"{path} keeps weights in {location!r}, which is not beside it; bring that file too.")


def parse_header(model: memoryview) -> OnnxHeader:
    """Parse a ModelProto; `ValueError` if it is not one."""
    ir_version, opsets, external_files, unranked_inputs = 0, dict[str, int](), list[str](), list[str]()
    operators, functions = set[tuple[str, str]](), set[tuple[str, str]]()
    for number, value in onnx_graph.iterate_model_fields(model):
        if number == onnx_graph.MODEL_IR_VERSION and isinstance(value, int):
            ir_version = value
        elif number == onnx_graph.MODEL_OPSET:
            domain, version = parse_opset_import(value)
            opsets[domain] = version
        elif number == onnx_graph.MODEL_GRAPH:
            scan_graph(value, operators, external_files)
            unranked_inputs += find_unranked_inputs(value)
        elif number == onnx_graph.MODEL_FUNCTION:
            functions.add(scan_function(value, operators, external_files))
    if not ir_version or not opsets:
        raise ValueError("it has no IR version and no opset")
    return OnnxHeader(
        ir_version,
        opsets,
        frozenset(operators),
        frozenset(functions),
        tuple(dict.fromkeys(external_files)),
        tuple(unranked_inputs),
    )


def parse_opset_import(value: FieldValue) -> tuple[str, int]:
    """Return the domain and the version of an OperatorSetIdProto."""
    entries = dict(iterate_fields(value))
    version = entries.get(onnx_graph.OPSET_VERSION, 0)
    return decode_text(entries.get(onnx_graph.OPSET_DOMAIN)), version if isinstance(version, int) else 0


def scan_graph(value: FieldValue, operators: set[tuple[str, str]], external_files: list[str]) -> None:
    """Collect the operators and the external files of a GraphProto."""
    for number, part in iterate_fields(value):
        if number == onnx_graph.GRAPH_NODE:
            scan_node(part, operators, external_files)
        elif number == onnx_graph.GRAPH_INITIALIZER:
            scan_tensor(part, external_files)
        elif number == onnx_graph.GRAPH_SPARSE_INITIALIZER:
            scan_sparse_tensor(part, external_files)


def find_unranked_inputs(value: FieldValue) -> list[str]:
    """Find the inputs of a GraphProto that have no shape; an initializer that is listed as an input has its own."""
    names = [name for name in map(find_unranked_name, iterate_values(value, onnx_graph.GRAPH_INPUT)) if name]
    given = {
        decode_text(name)
        for part in (iterate_values(value, onnx_graph.GRAPH_INITIALIZER) if names else ())
        for name in iterate_values(part, onnx_graph.TENSOR_NAME)
    }
    return [name for name in names if name not in given]


def find_unranked_name(value: FieldValue) -> str:
    """Return the name of a ValueInfoProto that is a tensor without a shape; empty for any other."""
    info = dict(iterate_fields(value))
    tensor_type = dict(iterate_fields(info.get(onnx_graph.VALUE_TYPE, memoryview(b"")))).get(onnx_graph.TYPE_TENSOR)
    is_unranked = tensor_type is not None and onnx_graph.TENSOR_TYPE_SHAPE not in dict(iterate_fields(tensor_type))
    return decode_text(info.get(onnx_graph.VALUE_NAME)) if is_unranked else ""


def scan_function(value: FieldValue, operators: set[tuple[str, str]], external_files: list[str]) -> tuple[str, str]:
    """Return the domain and the name of a FunctionProto, and collect from its nodes as from a graph's."""
    name = domain = ""
    for number, part in iterate_fields(value):
        if number == onnx_graph.FUNCTION_NAME:
            name = decode_text(part)
        elif number == onnx_graph.FUNCTION_DOMAIN:
            domain = decode_text(part)
        elif number == onnx_graph.FUNCTION_NODE:
            scan_node(part, operators, external_files)
    return domain, name


def scan_node(value: FieldValue, operators: set[tuple[str, str]], external_files: list[str]) -> None:
    """Collect the operator of a NodeProto, and from the tensors and graphs in its attributes."""
    name = domain = ""
    for number, part in iterate_fields(value):
        if number == onnx_graph.NODE_OPERATOR:
            name = decode_text(part)
        elif number == onnx_graph.NODE_DOMAIN:
            domain = decode_text(part)
        elif number == onnx_graph.NODE_ATTRIBUTE:
            scan_attribute(part, operators, external_files)
    operators.add((domain, name))


def scan_attribute(value: FieldValue, operators: set[tuple[str, str]], external_files: list[str]) -> None:
    """Collect from the tensors and graphs of an AttributeProto."""
    for number, part in iterate_fields(value):
        if number in TENSOR_ATTRIBUTES:
            scan_tensor(part, external_files)
        elif number in SPARSE_ATTRIBUTES:
            scan_sparse_tensor(part, external_files)
        elif number in GRAPH_ATTRIBUTES:
            scan_graph(part, operators, external_files)


def scan_sparse_tensor(value: FieldValue, external_files: list[str]) -> None:
    """Collect the external files of a SparseTensorProto's values and indices."""
    for number in (onnx_graph.SPARSE_VALUES, onnx_graph.SPARSE_INDICES):
        for part in iterate_values(value, number):
            scan_tensor(part, external_files)


def scan_tensor(value: FieldValue, external_files: list[str]) -> None:
    """Collect the external file of a TensorProto's numbers, if it has one."""
    entries, external = {}, False
    for number, part in iterate_fields(value):
        if number == onnx_graph.TENSOR_LOCATION:
            external = part == EXTERNAL_LOCATION
        elif number == onnx_graph.TENSOR_EXTERNAL_DATA:
            entry = dict(iterate_fields(part))
            entries[decode_text(entry.get(onnx_graph.ENTRY_KEY))] = decode_text(entry.get(onnx_graph.ENTRY_VALUE))
    if external:
        external_files.append(entries.get("location", ""))
