"""Read the header of an ONNX file from its bytes, before it is opened: without the onnx package and without a session.

This module reads protobuf's wire format (protobuf.dev/programming-guides/encoding), and of onnx.proto3 only the fields
that decide whether the file may be served. It depends on no store and no version.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pilotlight.errors import InvalidInputError
from pilotlight.runtime import containment

NEWEST_IR_VERSION, NEWEST_OPSET = 14, 28  # the newest that the pinned onnxruntime 1.32 reads
SUPPORTED_DOMAINS = frozenset(
    {"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.ms.internal.nhwc", "com.microsoft.nchwc"}
)
VARINT, I64, LEN, I32 = 0, 1, 2, 5  # wire types
GRAPH_FIELD = 7  # of a ModelProto
EXTERNAL_LOCATION = 1  # TensorProto.DataLocation
ProtobufField = tuple[int, int | memoryview]


class FieldSizeError(ValueError):
    """A field of a message is longer than the message."""

    def __init__(self, number: int, wire: int, missing: int) -> None:
        super().__init__(f"field {number} of wire type {wire} does not fit into it")
        self.number, self.missing = number, missing


class CutOffError(ValueError):
    """A file begins as an ONNX file and ends within its graph."""

    def __init__(self, missing: int) -> None:
        super().__init__(f"{missing:,} bytes are missing at its end")
        self.missing = missing


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
    try:
        with path.open("rb") as file:
            return parse_model(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
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


def parse_model(model: memoryview) -> OnnxHeader:
    """Parse a ModelProto; `ValueError` if it is not one."""
    ir_version, opsets, external_files, unranked_inputs = 0, dict[str, int](), list[str](), list[str]()
    operators, functions = set[tuple[str, str]](), set[tuple[str, str]]()
    for number, value in iterate_model_fields(model):
        if number == 1 and isinstance(value, int):
            ir_version = value
        elif number == 8:
            domain, version = parse_opset_import(value)
            opsets[domain] = version
        elif number == 7:
            scan_graph(value, operators, external_files)
            unranked_inputs += find_unranked_inputs(value)
        elif number == 25:
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


def iterate_model_fields(model: memoryview) -> Iterator[ProtobufField]:
    """Yield the fields of a ModelProto; `CutOffError` if it is a beginning of one: IR version and opset or producer."""
    fields = dict[int, int | memoryview]()
    try:
        for number, value in iterate_fields(model):
            fields[number] = value
            yield number, value
    except FieldSizeError as exc:
        if exc.number == GRAPH_FIELD and isinstance(fields.get(1), int):
            raise CutOffError(exc.missing) from exc
        raise


def parse_opset_import(value: int | memoryview) -> tuple[str, int]:
    """Return the domain and the version of an OperatorSetIdProto."""
    entries = dict(iterate_fields(value))
    version = entries.get(2, 0)
    return decode_text(entries.get(1)), version if isinstance(version, int) else 0


def scan_graph(value: int | memoryview, operators: set[tuple[str, str]], external_files: list[str]) -> None:
    """Collect the operators and the external files of a GraphProto."""
    for number, part in iterate_fields(value):
        if number == 1:
            scan_node(part, operators, external_files)
        elif number == 5:
            scan_tensor(part, external_files)
        elif number == 15:  # SparseTensorProto: values and indices
            for _, inner in ((n, p) for n, p in iterate_fields(part) if n in (1, 2)):
                scan_tensor(inner, external_files)


def iterate_graph_inputs(value: int | memoryview) -> Iterator[int | memoryview]:
    """Iterate over the inputs of a GraphProto, each a ValueInfoProto."""
    return (part for number, part in iterate_fields(value) if number == 11)


def find_unranked_inputs(value: int | memoryview) -> list[str]:
    """Find the inputs of a GraphProto that have no shape; an initializer that is listed as an input has its own."""
    names = [name for name in map(find_unranked_name, iterate_graph_inputs(value)) if name]
    given = {name for number, part in iterate_fields(value) if number == 5 for name in read_tensor_name(part)}
    return [name for name in names if name not in given] if names else []


def read_tensor_name(value: int | memoryview) -> list[str]:
    """Read the name of a TensorProto."""
    return [decode_text(part) for number, part in iterate_fields(value) if number == 8]


def find_unranked_name(value: int | memoryview) -> str:
    """Return the name of a ValueInfoProto that is a tensor without a shape; empty for any other."""
    info = dict(iterate_fields(value))
    tensor_type = dict(iterate_fields(info.get(2, memoryview(b"")))).get(1)
    return decode_text(info.get(1)) if tensor_type is not None and 2 not in dict(iterate_fields(tensor_type)) else ""


def scan_function(
    value: int | memoryview, operators: set[tuple[str, str]], external_files: list[str]
) -> tuple[str, str]:
    """Return the domain and the name of a FunctionProto, and collect from its nodes as from a graph's."""
    name = domain = ""
    for number, part in iterate_fields(value):
        if number == 1:
            name = decode_text(part)
        elif number == 10:
            domain = decode_text(part)
        elif number == 7:
            scan_node(part, operators, external_files)
    return domain, name


def scan_node(value: int | memoryview, operators: set[tuple[str, str]], external_files: list[str]) -> None:
    """Collect the operator of a NodeProto, and from the tensors and graphs in its attributes."""
    name = domain = ""
    for number, part in iterate_fields(value):
        if number == 4:
            name = decode_text(part)
        elif number == 7:
            domain = decode_text(part)
        elif number == 5:
            for kind, inner in iterate_fields(part):
                if kind in (5, 10):
                    scan_tensor(inner, external_files)
                elif kind in (6, 11):
                    scan_graph(inner, operators, external_files)
    operators.add((domain, name))


def scan_tensor(value: int | memoryview, external_files: list[str]) -> None:
    """Collect the external file of a TensorProto's numbers, if it has one."""
    entries, external = {}, False
    for number, part in iterate_fields(value):
        if number == 14:
            external = part == EXTERNAL_LOCATION
        elif number == 13:
            entry = dict(iterate_fields(part))
            entries[decode_text(entry.get(1))] = decode_text(entry.get(2))
    if external:
        external_files.append(entries.get("location", ""))


def decode_text(value: int | memoryview | None) -> str:
    """Decode a string field; empty if it is missing."""
    return str(value, "utf-8") if isinstance(value, memoryview) else ""


def iterate_fields(message: int | memoryview) -> Iterator[ProtobufField]:
    """Yield the number and value of each field of a message, except fixed-size numbers; `ValueError` if cut off."""
    return ((number, value) for number, value, wire in iterate_wire_fields(message) if wire in (VARINT, LEN))


def iterate_all_fields(message: int | memoryview) -> Iterator[ProtobufField]:
    """Yield the number and value of each field of a message; fixed-size numbers as their bytes."""
    return ((number, value) for number, value, _ in iterate_wire_fields(message))


def iterate_wire_fields(message: int | memoryview) -> Iterator[tuple[int, int | memoryview, int]]:
    """Yield the number, value and wire type of each field of a message; `ValueError` if it is cut off."""
    if isinstance(message, int):
        raise ValueError("a message is a number")  # noqa: TRY004 - the file is wrong, not the caller
    offset, end = 0, len(message)
    while offset < end:
        key, offset = read_varint(message, offset)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, offset = read_varint(message, offset)
            yield number, value, wire
            continue
        size, offset = read_varint(message, offset) if wire == LEN else ({I64: 8, I32: 4}.get(wire, end), offset)
        if offset + size > end:
            raise FieldSizeError(number, wire, offset + size - end)
        yield number, message[offset : offset + size], wire
        offset += size


def read_varint(message: memoryview, offset: int) -> tuple[int, int]:
    """Return a number in base 128, and the offset after it."""
    value = 0
    for shift in range(0, 70, 7):
        if offset >= len(message):
            break
        byte = message[offset]
        value, offset = value | (byte & 0x7F) << shift, offset + 1
        if byte < 0x80:
            return value, offset
    raise ValueError("a number in it does not end")
