"""The documents that parts of Pilotlight hand to each other, and the names that go into URLs and paths.

Frozen msgspec structs: checked when decoded, with the path of the wrong field, and 50 ms to import where
pydantic takes 250 ms, because a cold handler reads two of them first (infra/decisions/0002).
Unknown fields are let through: a handler may be older than the job that wrote a manifest; `schema_version` guards
what an old reader would get wrong. This module knows no store, no runtime and no protocol.
"""

import re
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from pilotlight.errors import InvalidInputError

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
RESERVED_NAMES = frozenset({"stats"})  # `/v2/models/stats` is a route of the statistics extension
CHAMPION = "champion"  # serves when the caller names neither version nor alias
CANDIDATE = "candidate"  # the newest version that has not passed the gate

Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
Version = Annotated[int, Meta(ge=1)]
Precision = Literal["fp32", "int8", "int4"]
Task = Literal["tensor"]
Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "BF16", "FP32", "FP64", "BYTES",
]  # fmt: skip
Document = TypeVar("Document", bound=Struct)


class TensorSpec(Struct, frozen=True):
    """One input or output: its name, its V2 datatype, and its shape, where a string is a free dimension's name."""

    name: Annotated[str, Meta(min_length=1)]
    datatype: Datatype
    shape: tuple[Annotated[int, Meta(ge=0)] | str, ...]

    @property
    def free_shape(self) -> list[int]:
        """The shape as V2 metadata prints it: -1 for each free dimension."""
        return [dimension if isinstance(dimension, int) else -1 for dimension in self.shape]


class File(Struct, frozen=True):
    """A file of a version: its path, which never leaves the version's folder, its size in bytes, its sha256 in hex."""

    path: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$")]
    bytes: Annotated[int, Meta(ge=0)]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]


class Variant(Struct, frozen=True):
    """One precision of a version: the path of its graph, and what was measured of it."""

    graph: str
    metrics: dict[str, float] = {}


class Evaluation(Struct, frozen=True):
    """The held-out set that every variant's metrics were measured on."""

    sha256: str
    examples: int


class Parity(Struct, frozen=True):
    """How far the exported graph is from the framework's own answer: max |difference| over these sizes."""

    max_abs: float
    batches: tuple[int, ...]
    lengths: tuple[int, ...] = ()  # of sequences, each at each batch; none where the graph takes one shape alone


class Scaling(Struct, frozen=True):
    """How raw numbers and those that the model computes with belong together: (raw - mean) / deviation, by column.

    For the reader only: the graph holds the same constants, and takes and gives raw numbers.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


class Training(Struct, frozen=True):
    """Where a version comes from, enough to train it again."""

    recipe: dict[str, Any]
    data_sha256: str
    seed: int
    revision: str
    device: str
    wall_s: float
    precision: str = "fp32"  # in which the forward passes of training computed


class Draft(Struct, frozen=True, kw_only=True):
    """What a publisher knows of a version before it has a number; the registry makes a `Manifest` of it."""

    name: Name
    task: Task = "tensor"
    inputs: Annotated[tuple[TensorSpec, ...], Meta(min_length=1)]
    outputs: Annotated[tuple[TensorSpec, ...], Meta(min_length=1)]
    labels: tuple[str, ...] = ()
    variants: Annotated[dict[Precision, Variant], Meta(min_length=1)]
    serve: Precision
    metric: str | None = None  # which of the variants' metrics the model is judged by
    preprocessing: Scaling | None = None  # of the inputs' columns or channels
    postprocessing: Scaling | None = None  # of the answer, where it is a number
    opset: int | None = None
    evaluation: Evaluation | None = None
    parity: Parity | None = None
    report: str | None = None  # path of the report among the files
    golden: str | None = None  # path of the golden requests among the files
    tokenizer: str | None = None  # path of the tokenizer among the files, of a language model
    training: Training | None = None
    parent: Version | None = None
    licence: str | None = None
    by: str = ""


class Manifest(Draft, frozen=True, kw_only=True):
    """The commit record of a version: written last and create-only, and never changed."""

    schema_version: Literal[1] = 1
    version: Version
    created: str  # RFC 3339, UTC
    nonce: str  # tells this publisher's manifest from another's of the same content
    files: tuple[File, ...]

    def __post_init__(self) -> None:
        """Refuse a manifest that names files that it does not list; msgspec reports it as a wrong document."""
        listed = {file.path for file in self.files}
        if self.serve not in self.variants:
            raise ValueError(f"serves {self.serve!r}, but its variants are {sorted(self.variants)}")
        named = {variant.graph for variant in self.variants.values()} | ({self.report, self.golden, self.tokenizer} - {None})
        if named - listed:
            raise ValueError(f"names {sorted(map(str, named - listed))}, which are not among its files")

    def file(self, path: str) -> File:
        """The record of the file at `path`; `InvalidInputError` when the manifest names none."""
        for file in self.files:
            if file.path == path:
                return file
        raise InvalidInputError(f"The manifest of {self.name}:{self.version} names no file {path!r}.")

    @property
    def graph(self) -> File:
        """The file of the graph that is served."""
        return self.file(self.variants[self.serve].graph)


class AliasDocument(Struct, frozen=True):
    """Where an alias points, where it pointed before, and who moved it, when and why."""

    version: Version
    previous: Version | None
    by: str
    at: str  # RFC 3339, UTC
    reason: str


class Reference(Struct, frozen=True):
    """A model, and the version or alias that is meant: `digits`, `digits:3`, `digits@candidate`."""

    name: str
    version: int | None = None
    alias: str = CHAMPION

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Read `name`, `name:3` or `name@alias`; `InvalidInputError` says what a reference looks like."""
        name, mark, selector = re.split("([:@])", text, maxsplit=1) if re.search("[:@]", text) else (text, "", "")
        if mark and not selector:
            raise InvalidInputError(f"{text!r} ends in {mark!r}; write name, name:3 or name@alias.")
        if mark and is_version(selector) != (mark == ":"):
            raise InvalidInputError(f"{selector!r} in {text!r} is wrong; versions, 1 2 3 ..., follow ':', aliases '@'.")
        return cls.select(name, selector or None)

    @classmethod
    def select(cls, name: str, selector: str | None = None) -> "Reference":
        """From a model's name and a V2 `versions/...` path segment: a number, an alias, or nothing for the champion."""
        check_name(name, "model name")
        if selector is None:
            return cls(name)
        if is_version(selector):
            return cls(name, int(selector))
        return cls(name, None, check_alias(selector))

    def __str__(self) -> str:
        return f"{self.name}:{self.version}" if self.version is not None else f"{self.name}@{self.alias}"


def is_version(text: str) -> bool:
    """Whether `text` is a version as it stands in paths: a positive whole number without leading zeros."""
    return re.fullmatch(r"[1-9][0-9]{0,17}", text) is not None


def check_name(name: str, what: str) -> str:
    """Give `name` back, or raise `InvalidInputError` that says what names look like."""
    if re.fullmatch(NAME_PATTERN, name) is None or name in RESERVED_NAMES:
        raise InvalidInputError(
            f"{name!r} is not a {what}: 1 to 64 of A-Z a-z 0-9 . _ -, the first a letter or digit, "
            f"and not {', '.join(sorted(RESERVED_NAMES))}."
        )
    return name


def check_alias(alias: str) -> str:
    """Give `alias` back, or raise `InvalidInputError`; digits alone would be mistaken for a version."""
    if alias.isdecimal():
        raise InvalidInputError(f"{alias!r} is neither a version (1, 2, 3, ...) nor an alias, which has letters too.")
    return check_name(alias, "version or alias")


def encode(document: Struct) -> bytes:
    """A document as indented JSON, since people open them in the store."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def decode(data: bytes, kind: type[Document], where: str) -> Document:
    """Read and check a document; `InvalidInputError` names the place and the wrong field."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.ValidationError, msgspec.DecodeError) as exc:
        raise InvalidInputError(f"{where} is not a {kind.__name__}: {exc}.") from exc
