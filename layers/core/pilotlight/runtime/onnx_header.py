"""What an ONNX file says of itself, read from its bytes, before anything opens it: no onnx package, no session.

It reads protobuf's wire format (protobuf.dev/programming-guides/encoding) and of onnx.proto3 only the fields that
decide whether the file may be served at all. It knows no store and no version.
"""

import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pilotlight.errors import InvalidInputError

IR, OPSET = 14, 28  # the newest that the pinned onnxruntime 1.32 reads
OWN = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.ms.internal.nhwc", "com.microsoft.nchwc"})
VARINT, I64, LEN, I32 = 0, 1, 2, 5  # wire types
EXTERNAL = 1  # TensorProto.DataLocation
Field = tuple[int, int | memoryview]


@dataclass(frozen=True)
class Anatomy:
    """An ONNX file: its format, the operators that it asks for, and where its weights lie if not inside."""

    ir: int
    opsets: dict[str, int]  # by domain
    operators: frozenset[tuple[str, str]]  # domain and name
    functions: frozenset[tuple[str, str]]  # the file's own, domain and name
    files: tuple[str, ...]  # paths of external weights, as written in the file
    unranked: tuple[str, ...] = ()  # inputs that do not say how many dimensions they have


def read(path: Path) -> Anatomy:
    """Take an ONNX file apart; `InvalidInputError` when it cannot be read or is no ONNX file."""
    try:
        with path.open("rb") as file:
            return anatomy(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    except OSError as exc:
        raise InvalidInputError(f"Cannot read {path}: {exc.strerror}.") from exc
    except (ValueError, RecursionError) as exc:
        raise InvalidInputError(f"{path} is not an ONNX file: {exc}.") from exc


def check(path: Path) -> Anatomy:
    """The anatomy of a file that may be served as far as can be told without opening it; `InvalidInputError` if not."""
    found = read(path)
    if found.ir > IR:
        raise InvalidInputError(f"{path} is in ONNX IR version {found.ir}; {IR} is the newest that is served.")
    opset = max(found.opsets.get("", 0), found.opsets.get("ai.onnx", 0))
    if opset > OPSET:
        raise InvalidInputError(
            f"{path} uses opset {opset}; {OPSET} is the newest that is served, export it with that."
        )
    custom = sorted(f"{domain}.{name}" for domain, name in found.operators - found.functions if domain not in OWN)
    if custom:
        raise InvalidInputError(
            f"{path} has custom operators, which onnxruntime alone cannot run: {', '.join(custom)}; export the model "
            "with standard operators, or with these as ONNX functions."
        )
    if found.unranked:
        raise InvalidInputError(
            f"{path} does not say how many dimensions its input {found.unranked[0]!r} has; export it with a shape, in "
            "which free dimensions may have names."
        )
    for place in found.files:
        check_place(path, place)
    return found


def check_place(path: Path, place: str) -> None:
    """Refuse weights that lie outside the folder of the file, or not at all."""
    folder = path.parent.resolve()
    inside = (folder / place).resolve().is_relative_to(folder)  # resolves symbolic links, as opening the file would
    if PurePosixPath(place).is_absolute() or re.match(r"[A-Za-z]:|\\", place) or not inside:
        raise InvalidInputError(
            f"{path} keeps weights at {place!r}, outside its own folder; save it with its weights beside it."
        )
    if not (folder / place).is_file():
        raise InvalidInputError(f"{path} keeps weights in {place!r}, which is not beside it; bring that file too.")


def anatomy(model: memoryview) -> Anatomy:
    """The parts of a ModelProto; `ValueError` when it is none."""
    ir, opsets, files, unranked = 0, dict[str, int](), list[str](), list[str]()
    nodes, functions = set[tuple[str, str]](), set[tuple[str, str]]()
    for number, value in fields(model):
        if number == 1 and isinstance(value, int):
            ir = value
        elif number == 8:
            domain, version = imported(value)
            opsets[domain] = version
        elif number == 7:
            graph(value, nodes, files)
            unranked += [name for name in map(without_shape, inputs(value)) if name]
        elif number == 25:
            functions.add(function(value, nodes, files))
    if not ir or not opsets:
        raise ValueError("it has no IR version and no opset")
    return Anatomy(ir, opsets, frozenset(nodes), frozenset(functions), tuple(dict.fromkeys(files)), tuple(unranked))


def imported(value: int | memoryview) -> tuple[str, int]:
    """Domain and version of an OperatorSetIdProto."""
    found = dict(fields(value))
    version = found.get(2, 0)
    return text(found.get(1)), version if isinstance(version, int) else 0


def graph(value: int | memoryview, nodes: set[tuple[str, str]], files: list[str]) -> None:
    """Note the operators and the places of weights of a GraphProto."""
    for number, part in fields(value):
        if number == 1:
            node(part, nodes, files)
        elif number == 5:
            tensor(part, files)
        elif number == 15:  # SparseTensorProto: values and indices
            for _, inner in ((n, p) for n, p in fields(part) if n in (1, 2)):
                tensor(inner, files)


def inputs(value: int | memoryview) -> Iterator[int | memoryview]:
    """The inputs of a GraphProto, each a ValueInfoProto."""
    return (part for number, part in fields(value) if number == 11)


def without_shape(value: int | memoryview) -> str:
    """The name of a ValueInfoProto that is a tensor without a shape; empty for any other."""
    info = dict(fields(value))
    tensor_type = dict(fields(info.get(2, memoryview(b"")))).get(1)
    return text(info.get(1)) if tensor_type is not None and 2 not in dict(fields(tensor_type)) else ""


def function(value: int | memoryview, nodes: set[tuple[str, str]], files: list[str]) -> tuple[str, str]:
    """Domain and name of a FunctionProto, whose nodes are noted as the graph's are."""
    name = domain = ""
    for number, part in fields(value):
        if number == 1:
            name = text(part)
        elif number == 10:
            domain = text(part)
        elif number == 7:
            node(part, nodes, files)
    return domain, name


def node(value: int | memoryview, nodes: set[tuple[str, str]], files: list[str]) -> None:
    """Note a NodeProto, and what its attributes hold: tensors and graphs."""
    name = domain = ""
    for number, part in fields(value):
        if number == 4:
            name = text(part)
        elif number == 7:
            domain = text(part)
        elif number == 5:
            for kind, inner in fields(part):
                if kind in (5, 10):
                    tensor(inner, files)
                elif kind in (6, 11):
                    graph(inner, nodes, files)
    nodes.add((domain, name))


def tensor(value: int | memoryview, files: list[str]) -> None:
    """Note where a TensorProto's numbers lie, if not in itself."""
    entries, external = {}, False
    for number, part in fields(value):
        if number == 14:
            external = part == EXTERNAL
        elif number == 13:
            entry = dict(fields(part))
            entries[text(entry.get(1))] = text(entry.get(2))
    if external:
        files.append(entries.get("location", ""))


def text(value: int | memoryview | None) -> str:
    """A string field; empty when it is not there."""
    return str(value, "utf-8") if isinstance(value, memoryview) else ""


def fields(message: int | memoryview) -> Iterator[Field]:
    """Number and value of each field of a message; numbers of fixed size are passed over. `ValueError` when cut."""
    if isinstance(message, int):
        raise ValueError("a message is a number")  # noqa: TRY004 - the file is wrong, not the caller
    place, end = 0, len(message)
    while place < end:
        key, place = varint(message, place)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, place = varint(message, place)
            yield number, value
            continue
        size, place = varint(message, place) if wire == LEN else ({I64: 8, I32: 4}.get(wire, end), place)
        if place + size > end:
            raise ValueError(f"field {number} of wire type {wire} does not fit into it")
        if wire == LEN:
            yield number, message[place : place + size]
        place += size


def varint(message: memoryview, place: int) -> tuple[int, int]:
    """A number in base 128, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            break
        byte = message[place]
        value, place = value | (byte & 0x7F) << shift, place + 1
        if byte < 0x80:
            return value, place
    raise ValueError("a number in it does not end")
