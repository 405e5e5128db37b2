"""The manifest of a version: its tensors, files, variants, measurements and training.

Frozen msgspec structs: checked when decoded, with the path of the wrong field, and imported in 50 ms where pydantic
takes 250 ms, because a cold handler reads two of them first (infra/decisions/0002). Unknown fields are ignored, because
a handler may be older than the job that wrote a manifest; `schema_version` guards what an old reader would misread.
This module depends on no store, no runtime and no protocol.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from pilotlight.contracts.capture_policy import CapturePolicy
from pilotlight.contracts.decoder import DecoderSpec
from pilotlight.contracts.names import Name, Version
from pilotlight.contracts.processing import (
    AudioPreprocessing,
    ClassificationPostprocessing,
    CtcPostprocessing,
    DetectionPostprocessing,
    ImagePreprocessing,
    Postprocessing,
    Preprocessing,
    SegmentationPostprocessing,
    TablePreprocessing,
    TextPreprocessing,
)
from pilotlight.errors import InvalidInputError

FINISHES_WITH_LABELS = (DetectionPostprocessing, CtcPostprocessing, SegmentationPostprocessing)
FILE_PATH_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$"
Precision = Literal["fp32", "int8", "int4"]
Task = Literal["tensor", "image", "audio", "text", "tabular", "generation"]
Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "BF16", "FP32", "FP64", "BYTES",
]  # fmt: skip


class TensorSpec(Struct, frozen=True):
    """One input or output: its name, its V2 datatype, and its shape, where a string is a free dimension's name."""

    name: Annotated[str, Meta(min_length=1)]
    datatype: Datatype
    shape: tuple[Annotated[int, Meta(ge=0)] | str, ...]

    @property
    def v2_shape(self) -> list[int]:
        """The shape as in V2 metadata: -1 for each free dimension."""
        return [dimension if isinstance(dimension, int) else -1 for dimension in self.shape]


class ManifestFile(Struct, frozen=True):
    """A file of a version: its path, which never leaves the version's folder, its size in bytes, its sha256 in hex."""

    path: Annotated[str, Meta(pattern=FILE_PATH_PATTERN)]
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
    lengths: tuple[int, ...] = ()  # of sequences, each tested at each batch size; empty if the length is fixed


class Standardization(Struct, frozen=True):
    """How raw numbers and those that the model computes with belong together: (raw - mean) / deviation, by column.

    For the reader only: the graph holds the same constants, and takes and gives raw numbers.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


class TrainingRecord(Struct, frozen=True):
    """Where a version comes from, enough to train it again."""

    recipe: dict[str, Any]
    data_sha256: str
    seed: int
    revision: str
    device: str
    wall_s: float
    precision: str = "fp32"  # in which the forward passes of training were computed


class CostPoint(Struct, frozen=True):
    """One measured run of the graph: its rows, and what they took on one vCPU."""

    rows: Annotated[int, Meta(ge=1)]
    row_bytes: Annotated[int, Meta(ge=0)]  # of the graph's inputs, for each row
    ms: Annotated[float, Meta(ge=0)]
    peak_bytes: Annotated[int, Meta(ge=0)]  # beyond the open session and the inputs
    output_bytes: Annotated[int, Meta(ge=0)]  # of all outputs


class RequestCost(Struct, frozen=True):
    """What requests of a version cost, as measured when it was published; by it, requests are weighed."""

    points: Annotated[tuple[CostPoint, ...], Meta(min_length=1)]
    session_bytes: Annotated[int, Meta(ge=0)]  # memory of the open session
    rows_independent: bool = False  # whether several rows have the same answers as each alone; then they may be divided


class GenerationSpeed(Struct, frozen=True):
    """How fast one environment with so many threads reads a prompt and writes an answer, in tokens per second."""

    threads: Annotated[int, Meta(ge=1)]
    prompt: Annotated[float, Meta(gt=0)]
    answer: Annotated[float, Meta(gt=0)]


class GenerationCost(Struct, frozen=True, kw_only=True):
    """What texts of a language model cost, as measured when it was published: memory, and speeds by threads.

    An environment needs `session_bytes + working_bytes`, and the keys and values of its tokens.
    """

    prompt_tokens: Annotated[int, Meta(ge=1)]  # of the measured prompt
    first_token_ms: Annotated[float, Meta(ge=0)]  # of that prompt, with one thread
    session_bytes: Annotated[int, Meta(ge=0)]  # memory of the open session
    working_bytes: Annotated[int, Meta(ge=0)]  # at the peak of opening it and of a run, beyond that
    speeds: Annotated[tuple[GenerationSpeed, ...], Meta(min_length=1)]  # fewest threads first


class ManifestDraft(Struct, frozen=True, kw_only=True):
    """A version without a number, as its publisher describes it; the registry makes a `Manifest` of it."""

    name: Name
    task: Task = "tensor"
    inputs: tuple[TensorSpec, ...]  # may be empty: a graph of constants has an answer too
    outputs: Annotated[tuple[TensorSpec, ...], Meta(min_length=1)]
    # Steps before and after the graph, with older names in JSON; without them, callers use the graph's own tensors.
    preprocess: Preprocessing | None = field(name="prepare", default=None)
    postprocess: Postprocessing | None = field(name="finish", default=None)
    labels: tuple[str, ...] = ()
    variants: Annotated[dict[Precision, Variant], Meta(min_length=1)]
    serve: Precision
    metric: str | None = None  # the one of the variants' metrics that the gate compares
    budget: Annotated[float, Meta(ge=0)] | None = None  # for quantization, in the metric's unit (`contracts.metric`)
    # Of the inputs' columns or channels, and of the answer if it is a number; both inside the graph.
    input_standardization: Standardization | None = field(name="preprocessing", default=None)
    output_standardization: Standardization | None = field(name="postprocessing", default=None)
    opset: int | None = None
    evaluation: EvaluationSet | None = None
    parity: ExportParity | None = None
    report: str | None = None  # path of the report among the files
    golden: str | None = None  # path of the golden requests among the files
    tokenizer: str | None = None  # path of the tokenizer among the files, of a language model
    decoder: DecoderSpec | None = None  # of a language model that generates text, whose task is generation
    profile: str | None = None  # path of the training set's profile among the files
    request_cost: RequestCost | None = None  # without it, environments learn what requests cost
    generation_cost: GenerationCost | None = None  # of a language model
    capture: CapturePolicy | None = None  # what may be kept of requests; without it, summaries
    training: TrainingRecord | None = None
    parent: Version | None = None
    licence: str | None = None
    by: str = ""

    @property
    def maskable_fields(self) -> frozenset[str]:
        """The names that a policy may mask: what callers send and receive, and the graph's own."""
        names = {spec.name for spec in (*self.inputs, *self.outputs)}
        if self.preprocess is not None:
            names.add(self.preprocess.name)
        if isinstance(self.preprocess, TablePreprocessing):
            names.update(column.name for column in self.preprocess.columns)
        if self.postprocess is not None:
            names.update(self.postprocess.output_names)
        return frozenset(names)


class Manifest(ManifestDraft, frozen=True, kw_only=True):
    """The commit record of a version: written last and create-only, and never changed."""

    schema_version: Literal[1] = 1
    version: Version
    created: str  # RFC 3339, UTC
    nonce: str  # distinguishes this publisher's manifest from another's of the same content
    files: tuple[ManifestFile, ...]

    def __post_init__(self) -> None:
        """Refuse a manifest whose fields name unlisted files; msgspec reports it as an invalid document."""
        listed_paths = {file.path for file in self.files}
        if self.serve not in self.variants:
            raise ValueError(f"serves {self.serve!r}, but its variants are {sorted(self.variants)}")
        variant_paths = {path for variant in self.variants.values() for path in variant.paths}
        named_paths = variant_paths | ({self.report, self.golden, self.tokenizer, self.profile} - {None})
        named_paths |= {self.preprocess.tokenizer} if isinstance(self.preprocess, TextPreprocessing) else set()
        named_paths |= {self.decoder.chat_template} - {None} if self.decoder is not None else set()
        if named_paths - listed_paths:
            raise ValueError(f"names {sorted(map(str, named_paths - listed_paths))}, which are not among its files")
        self._check_steps()
        if self.capture is not None:
            self.capture.check_fields(self.maskable_fields)

    def __hash__(self) -> int:
        """Hash the nonce, since the mappings have no hash; so values derived from a manifest can be cached by it."""
        return hash(self.nonce)

    def _check_steps(self) -> None:
        """Check that the steps match the task and the graph's signature."""
        inputs, outputs = ([spec.name for spec in specs] for specs in (self.inputs, self.outputs))
        if (self.task == "generation") != (self.decoder is not None):
            raise ValueError(f"has the task {self.task!r}, but {'a' if self.decoder is not None else 'no'} decoder")
        if self.decoder is not None and self.tokenizer is None:
            raise ValueError("generates text, but names no tokenizer")
        default_kind = "tensor" if self.decoder is None else "generation"
        kind = default_kind if self.preprocess is None else self.preprocess.__struct_config__.tag
        if kind != self.task:
            raise ValueError(f"prepares {kind!r}, but its task is {self.task!r}")
        if isinstance(self.preprocess, ImagePreprocessing | TablePreprocessing) and self.preprocess.input not in inputs:
            raise ValueError(f"prepares the input {self.preprocess.input!r}, but the graph has {inputs}")
        if isinstance(self.preprocess, AudioPreprocessing):
            self.preprocess.check_graph(inputs, outputs)
        if self.postprocess is None:
            return
        unknown = [name for name in self.postprocess.sources if name not in outputs]
        if unknown:
            raise ValueError(f"finishes the output {unknown[0]!r}, but the graph has {outputs}")
        self._check_labels(self.postprocess)
        if set(self.postprocess.output_names) & set(outputs):
            raise ValueError(
                f"gives outputs {list(self.postprocess.output_names)}, some named as the graph's {outputs}"
            )

    def _check_labels(self, postprocess: Postprocessing) -> None:
        """Check that there are as many labels as classes, if their number is fixed; one score may have two labels."""
        shape = next(spec.shape for spec in self.outputs if spec.name == postprocess.output)
        classes, labels = shape[-1:], len(self.labels)
        if not labels:
            return
        if isinstance(postprocess, FINISHES_WITH_LABELS):
            counts = postprocess.list_label_counts(shape)
            if counts and labels not in counts:
                fitting = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
                raise ValueError(f"has {labels} labels, but the graph's {postprocess.output!r} takes {fitting}")
        if not isinstance(postprocess, ClassificationPostprocessing) or (classes == (1,) and labels == 2):
            return
        if classes and isinstance(classes[0], int) and classes[0] != labels:
            raise ValueError(f"has {labels} labels, but the graph's {postprocess.output!r} has {classes[0]} classes")

    def get_file(self, path: str) -> ManifestFile:
        """Return the record of the file at `path`; `InvalidInputError` if the manifest lists none."""
        for file in self.files:
            if file.path == path:
                return file
        raise InvalidInputError(f"The manifest of {self.name}:{self.version} names no file {path!r}.")

    def has_same_tokenizer(self, other: "Manifest") -> bool:
        """Return whether two versions split a text into the same tokens, by the bytes of their tokenizers."""
        hashes = [None if each.tokenizer is None else each.get_file(each.tokenizer).sha256 for each in (self, other)]
        return hashes[0] is not None and hashes[0] == hashes[1]

    @property
    def graph_file(self) -> ManifestFile:
        """The file of the graph that is served."""
        return self.get_file(self.variants[self.serve].graph)

    def get_serving_files(self, runtime: str) -> tuple[ManifestFile, ...]:
        """Return the files that this build of onnxruntime opens to serve the version, the graph first."""
        variant = self.variants[self.serve]
        chosen = variant.prepared if variant.prepared and variant.prepared.runtime == runtime else variant
        return tuple(map(self.get_file, (chosen.graph, *chosen.weights)))

    def find_compressed_file(self, file: ManifestFile) -> CompressedFile | None:
        """Find the compressed form of a file that is served, if it has one."""
        optimized = self.variants[self.serve].prepared
        return optimized.packed.get(file.path) if optimized else None

    @property
    def served_bytes(self) -> int:
        """The size of the served model: its graph and its weights."""
        return self.graph_file.bytes + sum(self.get_file(path).bytes for path in self.variants[self.serve].weights)

    @property
    def asset_files(self) -> tuple[ManifestFile, ...]:
        """The files that serving needs besides the graph."""
        paths = [self.preprocess.tokenizer] if isinstance(self.preprocess, TextPreprocessing) else []
        if self.decoder is not None:
            paths += [path for path in (self.tokenizer, self.decoder.chat_template) if path is not None]
        return tuple(map(self.get_file, paths))
