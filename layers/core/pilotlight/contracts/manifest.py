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

from pilotlight.contracts.capture_policy import CapturePolicy
from pilotlight.contracts.processing import (
    ClassificationPostprocessing,
    ImagePreprocessing,
    Postprocessing,
    Preprocessing,
    TablePreprocessing,
    TextPreprocessing,
)
from pilotlight.errors import InvalidInputError

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
RESERVED_NAMES = frozenset({"stats"})  # `/v2/models/stats` is a route of the statistics extension
CHAMPION = "champion"  # serves when the caller names neither version nor alias
TOTAL_WEIGHT = 10_000  # what the weights of an alias's shares are parts of: a weight of 1 is 0.01 %
CANDIDATE = "candidate"  # the newest version that has not passed the gate

Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
Version = Annotated[int, Meta(ge=1)]
Precision = Literal["fp32", "int8", "int4"]
Task = Literal["tensor", "image", "text", "tabular"]
Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "BF16", "FP32", "FP64", "BYTES",
]  # fmt: skip
DocumentT = TypeVar("DocumentT", bound=Struct)


class TensorSpec(Struct, frozen=True):
    """One input or output: its name, its V2 datatype, and its shape, where a string is a free dimension's name."""

    name: Annotated[str, Meta(min_length=1)]
    datatype: Datatype
    shape: tuple[Annotated[int, Meta(ge=0)] | str, ...]

    @property
    def v2_shape(self) -> list[int]:
        """The shape as V2 metadata prints it: -1 for each free dimension."""
        return [dimension if isinstance(dimension, int) else -1 for dimension in self.shape]


class ManifestFile(Struct, frozen=True):
    """A file of a version: its path, which never leaves the version's folder, its size in bytes, its sha256 in hex."""

    path: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$")]
    bytes: Annotated[int, Meta(ge=0)]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]


class CompressedFile(Struct, frozen=True):
    """Another form of a file, for slow links: a frame of zstd for each `part` bytes of it, and the frames' bytes."""

    path: str
    part: Annotated[int, Meta(ge=1)]
    frames: tuple[Annotated[int, Meta(ge=1)], ...]


class OptimizedGraph(Struct, frozen=True):
    """A variant's graph as one build of onnxruntime has optimised it, which opens faster; for that build alone."""

    runtime: str  # as `pilotlight.runtime.model_files.RUNTIME`
    graph: str
    weights: tuple[str, ...]
    packed: dict[str, CompressedFile] = {}  # other forms of these files, by the files' paths

    @property
    def paths(self) -> tuple[str, ...]:
        """All its files, the graph first."""
        return self.graph, *self.weights, *(packed.path for packed in self.packed.values())


class Variant(Struct, frozen=True):
    """One precision of a version: the path of its graph, and what was measured of it.

    `weights` are the files that the graph keeps its weights in, if not in itself; they lie beside it.
    """

    graph: str
    metrics: dict[str, float] = {}
    weights: tuple[str, ...] = ()
    prepared: OptimizedGraph | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """All its files, the graph first."""
        return self.graph, *self.weights, *(self.prepared.paths if self.prepared else ())


class EvaluationSet(Struct, frozen=True):
    """The held-out set that every variant's metrics were measured on."""

    sha256: str
    examples: int


class ExportParity(Struct, frozen=True):
    """How far the exported graph is from the framework's own answer: max |difference| over these sizes."""

    max_abs: float
    batches: tuple[int, ...]
    lengths: tuple[int, ...] = ()  # of sequences, each tried at each batch size; empty where the length is fixed


class Standardization(Struct, frozen=True):
    """How raw numbers and those that the model computes with belong together: (raw - mean) / deviation, by column.

    For the reader only: the graph holds the same constants, and takes and gives raw numbers.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


class InputColumn(Struct, frozen=True):
    """A column of a table as it is sent: a number, or where it has categories the index of one of them, from 0."""

    name: str
    categories: tuple[str, ...] = ()
    fill: float | None = None  # what the graph puts in the place of a missing value, which is sent as NaN


class TrainingRecord(Struct, frozen=True):
    """Where a version comes from, enough to train it again."""

    recipe: dict[str, Any]
    data_sha256: str
    seed: int
    revision: str
    device: str
    wall_s: float
    precision: str = "fp32"  # in which the forward passes of training computed


class ManifestDraft(Struct, frozen=True, kw_only=True):
    """What a publisher knows of a version before it has a number; the registry makes a `Manifest` of it."""

    name: Name
    task: Task = "tensor"
    inputs: tuple[TensorSpec, ...]  # may be empty: a graph of constants gives an answer as well
    outputs: Annotated[tuple[TensorSpec, ...], Meta(min_length=1)]
    prepare: Preprocessing | None = None  # before the graph; without it, callers send the graph's own tensors
    finish: Postprocessing | None = None  # behind the graph; without it, callers get the graph's own tensors
    labels: tuple[str, ...] = ()
    variants: Annotated[dict[Precision, Variant], Meta(min_length=1)]
    serve: Precision
    metric: str | None = None  # which of the variants' metrics the model is judged by
    budget: Annotated[float, Meta(ge=0)] | None = None  # that quantization may cost of it, in its unit (`metric`)
    preprocessing: Standardization | None = None  # of the inputs' columns or channels, inside the graph
    postprocessing: Standardization | None = None  # of the answer, where it is a number, inside the graph
    opset: int | None = None
    evaluation: EvaluationSet | None = None
    parity: ExportParity | None = None
    report: str | None = None  # path of the report among the files
    golden: str | None = None  # path of the golden requests among the files
    tokenizer: str | None = None  # path of the tokenizer among the files, of a language model
    profile: str | None = None  # path of the training set's profile among the files
    capture: CapturePolicy | None = None  # what may be kept of requests; without it, summaries
    training: TrainingRecord | None = None
    parent: Version | None = None
    licence: str | None = None
    by: str = ""

    @property
    def maskable_fields(self) -> frozenset[str]:
        """The names that a policy may mask: what callers send and get, and the graph's own."""
        columns = (
            [column.name for column in self.prepare.columns] if isinstance(self.prepare, TablePreprocessing) else []
        )
        input_names = [self.prepare.name] if self.prepare is not None else []
        return frozenset([*columns, *input_names, *(self.finish.output_names if self.finish is not None else ()),
                          *(spec.name for spec in (*self.inputs, *self.outputs))])  # fmt: skip


class Manifest(ManifestDraft, frozen=True, kw_only=True):
    """The commit record of a version: written last and create-only, and never changed."""

    schema_version: Literal[1] = 1
    version: Version
    created: str  # RFC 3339, UTC
    nonce: str  # tells this publisher's manifest from another's of the same content
    files: tuple[ManifestFile, ...]

    def __post_init__(self) -> None:
        """Refuse a manifest that names files that it does not list; msgspec reports it as a wrong document."""
        listed_paths = {file.path for file in self.files}
        if self.serve not in self.variants:
            raise ValueError(f"serves {self.serve!r}, but its variants are {sorted(self.variants)}")
        variant_paths = {path for variant in self.variants.values() for path in variant.paths}
        named_paths = variant_paths | ({self.report, self.golden, self.tokenizer, self.profile} - {None})
        named_paths |= {self.prepare.tokenizer} if isinstance(self.prepare, TextPreprocessing) else set()
        if named_paths - listed_paths:
            raise ValueError(f"names {sorted(map(str, named_paths - listed_paths))}, which are not among its files")
        self._check_steps()
        if self.capture is not None:
            self.capture.check_fields(self.maskable_fields)

    def __hash__(self) -> int:
        """By the nonce, since its mappings have no hash: what is derived from a manifest can be cached by it."""
        return hash(self.nonce)

    def _check_steps(self) -> None:
        """The steps fit the task and the graph's signature."""
        inputs, outputs = ([spec.name for spec in specs] for specs in (self.inputs, self.outputs))
        kind = "tensor" if self.prepare is None else self.prepare.__struct_config__.tag
        if kind != self.task:
            raise ValueError(f"prepares {kind!r}, but its task is {self.task!r}")
        if isinstance(self.prepare, ImagePreprocessing | TablePreprocessing) and self.prepare.input not in inputs:
            raise ValueError(f"prepares the input {self.prepare.input!r}, but the graph has {inputs}")
        if self.finish is None:
            return
        if self.finish.output not in outputs:
            raise ValueError(f"finishes the output {self.finish.output!r}, but the graph has {outputs}")
        self._check_labels(self.finish)
        if set(self.finish.output_names) & set(outputs):
            raise ValueError(
                f"gives outputs {list(self.finish.output_names)}, some named as the graph's {outputs}; rename"
            )

    def _check_labels(self, finish: Postprocessing) -> None:
        """As many labels as classes, where the graph says how many; two for one score."""
        classes = next(spec.shape for spec in self.outputs if spec.name == finish.output)[-1:]
        labels = len(self.labels)
        if not isinstance(finish, ClassificationPostprocessing) or not labels or (classes == (1,) and labels == 2):
            return
        if classes and isinstance(classes[0], int) and classes[0] != labels:
            raise ValueError(f"has {labels} labels, but the graph's {finish.output!r} has {classes[0]} classes")

    def get_file(self, path: str) -> ManifestFile:
        """The record of the file at `path`; `InvalidInputError` when the manifest names none."""
        for file in self.files:
            if file.path == path:
                return file
        raise InvalidInputError(f"The manifest of {self.name}:{self.version} names no file {path!r}.")

    @property
    def graph_file(self) -> ManifestFile:
        """The file of the graph that is served."""
        return self.get_file(self.variants[self.serve].graph)

    def get_serving_files(self, runtime: str) -> tuple[ManifestFile, ...]:
        """The files that this build of onnxruntime opens to serve the version, the graph first."""
        variant = self.variants[self.serve]
        chosen = variant.prepared if variant.prepared and variant.prepared.runtime == runtime else variant
        return tuple(map(self.get_file, (chosen.graph, *chosen.weights)))

    def find_compressed_file(self, file: ManifestFile) -> CompressedFile | None:
        """The other form of a file that is served, if it has one."""
        optimized = self.variants[self.serve].prepared
        return optimized.packed.get(file.path) if optimized else None

    @property
    def served_bytes(self) -> int:
        """How large the served model is: its graph and its weights."""
        return self.graph_file.bytes + sum(self.get_file(path).bytes for path in self.variants[self.serve].weights)

    @property
    def asset_files(self) -> tuple[ManifestFile, ...]:
        """The files that serving needs beside the graph."""
        return (self.get_file(self.prepare.tokenizer),) if isinstance(self.prepare, TextPreprocessing) else ()


class Suspension(Struct, frozen=True):
    """That an alias answers nobody for now: who took it out of service, when and why."""

    by: str
    at: str  # RFC 3339, UTC
    reason: str


class TrafficShare(Struct, frozen=True):
    """A part of an alias's requests that goes to another version than the one it points to."""

    version: Version
    weight: Annotated[int, Meta(ge=1, le=TOTAL_WEIGHT)]  # of WHOLE requests


class Canary(Struct, frozen=True):
    """A trial of a version on a share of an alias's requests: what ends it, and how.

    `functions/promote` promotes the version when `until` has passed, and takes the share away as soon as one of the
    limits is broken; each environment stops by itself before that (`runtime.canary`).
    """

    version: Version
    until: str  # RFC 3339, UTC: the end of the bake time
    max_error_rate: Annotated[float, Meta(ge=0, le=1)] = 0.01
    max_latency_ratio: Annotated[float, Meta(gt=0)] = 2.0  # its mean time of inference over the champion's
    max_drift: Annotated[float, Meta(ge=0, le=1)] = 0.25  # total variation between the two versions' answers
    min_requests: Annotated[int, Meta(ge=1)] = 50  # before any of these limits is applied


class AliasDocument(Struct, frozen=True):
    """Where an alias points, where it pointed before, and who moved it, when and why.

    Replaced as a whole by compare-and-swap, each time under the next number. `aliases` says which changes there are and
    which version a request goes to. `suspended` outlives moves: what somebody took out of service, no promotion brings
    back (infra/decisions/0014).
    """

    version: Version
    previous: Version | None
    by: str
    at: str  # RFC 3339, UTC
    reason: str
    suspended: Suspension | None = None
    number: Annotated[int, Meta(ge=1)] = 1  # of this document among all that the alias has had
    shares: tuple[TrafficShare, ...] = ()  # together less than WHOLE; the rest goes to `version`
    canary: Canary | None = None  # why there is a share, if it is for a trial
    shadow: TrafficShare | None = None  # a copy of so many requests goes to that version too, off the caller's path

    def __post_init__(self) -> None:
        """Refuse shares that leave nothing for the version itself; msgspec reports it as a wrong document."""
        total_weight = sum(share.weight for share in self.shares)
        if total_weight >= TOTAL_WEIGHT:
            raise ValueError(
                f"shares out {total_weight} of {TOTAL_WEIGHT} requests, and leaves none for version {self.version}"
            )


class PromotionRequest(Struct, frozen=True):
    """Bring a version to an alias through the gate; `force` moves it even if it is refused, and wants a `why`."""

    id: str
    model: str
    version: Version
    alias: str
    by: str
    at: str  # RFC 3339, UTC, when it was asked for
    force: bool = False
    why: str = ""
    state: Literal["asked", "promoted", "refused", "failed"] = "asked"
    said: str = ""  # what the gate found, or went wrong, in sentences
    done: str = ""  # RFC 3339, UTC; empty until it is


class ModelReference(Struct, frozen=True):
    """A model, and the version or alias that is meant: `digits`, `digits:3`, `digits@candidate`."""

    name: str
    version: int | None = None
    alias: str = CHAMPION

    @classmethod
    def parse(cls, text: str) -> "ModelReference":
        """Read `name`, `name:3` or `name@alias`; `InvalidInputError` says what a reference looks like."""
        name, mark, selector = re.split("([:@])", text, maxsplit=1) if re.search("[:@]", text) else (text, "", "")
        if mark and not selector:
            raise InvalidInputError(f"{text!r} ends in {mark!r}; write name, name:3 or name@alias.")
        if mark and is_version(selector) != (mark == ":"):
            raise InvalidInputError(f"{selector!r} in {text!r} is wrong; versions, 1 2 3 ..., follow ':', aliases '@'.")
        return cls.from_selector(name, selector or None)

    @classmethod
    def from_selector(cls, name: str, selector: str | None = None) -> "ModelReference":
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


def encode_document(document: Struct) -> bytes:
    """A document as indented JSON, since people open them in the store."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def decode_document(data: bytes, document_type: type[DocumentT], source: str) -> DocumentT:
    """Read and check a document; `InvalidInputError` names the place and the wrong field."""
    try:
        return msgspec.json.decode(data, type=document_type)
    except (msgspec.ValidationError, msgspec.DecodeError) as exc:
        raise InvalidInputError(f"{source} is not a {document_type.__name__}: {exc}.") from exc
