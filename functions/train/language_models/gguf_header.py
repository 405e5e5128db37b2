"""The header of a GGUF file: its metadata by key, and where each tensor lies.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The gguf package has a reader too, but it makes an array for
each word of a vocabulary, and runs for as long as a damaged count says. Here every length is checked against the file.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from functions.train.language_models.gguf_signature import GGUF_MAGIC
from pilotlight.errors import InvalidInputError, UnsupportedError

VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32  # bytes
TEXT, ARRAY = 8, 9  # kinds of values; the others are scalars
SCALAR_CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
MAX_DIMENSIONS = 4
MAX_NESTING = 2  # of arrays in arrays, which no known file has

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class GgufTensor:
    """A tensor of the file: its shape as numpy writes it, and its bytes, which are not read before they are used."""

    name: str
    kind: GGMLQuantizationType
    shape: tuple[int, ...]
    content: Bytes  # as it is in the file, (rows, bytes of a row)


@dataclass(frozen=True)
class GgufHeader:
    """What a GGUF file says before its weights."""

    file: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]


class HeaderCursor:
    """Reads one value after the other; `InvalidInputError` when the file ends before its value does."""

    def __init__(self, file: Path, content: Bytes) -> None:
        self.file, self.content, self.position = file, content, 0

    def take(self, size: int) -> bytes:
        """Take the next bytes."""
        if size > self.content.size - self.position:
            raise InvalidInputError(
                f"{self.file} ends after {self.content.size:,} bytes, within its header; it is incomplete or damaged. "
                "Download it again."
            )
        taken = self.content[self.position : self.position + size].tobytes()
        self.position += size
        return taken

    def read_scalars(self, code: str, count: int = 1) -> tuple[Any, ...]:
        """Read so many numbers of a kind that `struct` names by this letter."""
        return struct.unpack(f"<{count}{code}", self.take(count * struct.calcsize(f"<{code}")))

    def read_text(self) -> str:
        """Read a text, which follows its length."""
        (size,) = self.read_scalars("Q")
        try:
            return self.take(size).decode()
        except UnicodeDecodeError as exc:
            raise InvalidInputError(f"{self.file} has a text in its header that is not UTF-8: {exc}.") from exc

    def read_value(self, kind: int, nesting: int = 0) -> Any:  # noqa: ANN401 - any kind of value
        """Read a value: a number, a text, or a list of them."""
        if kind == TEXT:
            return self.read_text()
        if kind in SCALAR_CODES:
            return self.read_scalars(SCALAR_CODES[kind])[0]
        if kind != ARRAY or nesting == MAX_NESTING:
            raise InvalidInputError(f"{self.file} has a value of kind {kind} in its header, which no GGUF file has.")
        item_kind, count = self.read_scalars("I")[0], self.read_scalars("Q")[0]
        if item_kind in SCALAR_CODES:
            return list(self.read_scalars(SCALAR_CODES[item_kind], count))
        return [self.read_value(item_kind, nesting + 1) for _ in range(count)]  # each takes bytes, or there is an error


def read_gguf_header(file: Path) -> GgufHeader:
    """Read the header, and map the weights; `InvalidInputError` if the file is damaged or of another format."""
    content = map_file(file)
    cursor = HeaderCursor(file, content)
    if cursor.take(len(GGUF_MAGIC)) != GGUF_MAGIC:
        raise InvalidInputError(f"{file} is no GGUF file: it does not begin with {GGUF_MAGIC.decode()}.")
    (version,) = cursor.read_scalars("I")
    if version not in VERSIONS:
        raise UnsupportedError(
            f"{file} is GGUF of version {version}; versions 2 and 3, least significant byte first, are read. Convert "
            "the model again with a recent llama.cpp."
        )
    tensor_count, value_count = cursor.read_scalars("Q", 2)
    metadata: dict[str, Any] = {}
    for _ in range(value_count):
        key = cursor.read_text()
        metadata[key] = cursor.read_value(*cursor.read_scalars("I"))
    if metadata.get("split.count", 0) not in (0, 1):
        raise UnsupportedError(
            f"{file} is one of {metadata['split.count']} parts; join them by `llama-gguf-split --merge` first."
        )
    return GgufHeader(file, metadata, read_tensor_table(cursor, tensor_count, metadata))


def map_file(file: Path) -> Bytes:
    """Map the file into memory, so that only what is used of it is read."""
    try:
        return np.memmap(file, dtype=np.uint8, mode="r")
    except OSError as exc:
        raise InvalidInputError(f"Cannot read {file}: {exc.strerror}.") from exc
    except ValueError as exc:
        raise InvalidInputError(f"{file} is empty; download it again.") from exc


def read_tensor_table(cursor: HeaderCursor, count: int, metadata: Mapping[str, Any]) -> dict[str, GgufTensor]:
    """Read the names, shapes and places of the tensors."""
    described = [read_tensor_entry(cursor) for _ in range(count)]
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise InvalidInputError(f"{cursor.file} has the alignment {alignment!r}, which must be a whole number from 1.")
    start = -(-cursor.position // alignment) * alignment
    tensors: dict[str, GgufTensor] = {}
    for name, shape, kind, offset in described:
        if name in tensors:
            raise InvalidInputError(f"{cursor.file} has the weight {name} twice; it is damaged.")
        tensors[name] = GgufTensor(name, kind, shape, find_content(cursor, name, shape, kind, start + offset))
    return tensors


def read_tensor_entry(cursor: HeaderCursor) -> tuple[str, tuple[int, ...], GGMLQuantizationType, int]:
    """Read name, shape, kind and place of a tensor; the file has the fastest dimension first, numpy last."""
    name, (dimensions,) = cursor.read_text(), cursor.read_scalars("I")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise InvalidInputError(f"{cursor.file}: the weight {name} has {dimensions} dimensions; it is damaged.")
    shape = cursor.read_scalars("Q", dimensions)[::-1]
    kind, offset = cursor.read_scalars("I")[0], cursor.read_scalars("Q")[0]
    try:
        return name, shape, GGMLQuantizationType(kind), offset
    except ValueError as exc:
        raise UnsupportedError(
            f"{cursor.file}: the weight {name} is of the kind {kind}, which is not known; quantize the model to Q8_0 "
            "or Q4_0."
        ) from exc


def find_content(
    cursor: HeaderCursor, name: str, shape: tuple[int, ...], kind: GGMLQuantizationType, start: int
) -> Bytes:
    """Find the bytes of a tensor, (rows, bytes of a row); `InvalidInputError` if the file ends before they do."""
    block, block_bytes = GGML_QUANT_SIZES[kind]
    if min(shape) < 1 or shape[-1] % block:
        raise InvalidInputError(
            f"{cursor.file}: the weight {name} is {list(shape)} in blocks of {block}, which cannot be; it is damaged."
        )
    rows = 1
    for size in shape[:-1]:
        rows *= size
    row_bytes = shape[-1] // block * block_bytes
    end = start + rows * row_bytes
    if end > cursor.content.size:
        raise InvalidInputError(
            f"{cursor.file} ends after {cursor.content.size:,} bytes, but the weight {name} goes to {end:,}; the file "
            "is incomplete. Download it again."
        )
    return cursor.content[start:end].reshape(rows, row_bytes)
