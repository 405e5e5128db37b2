"""The signatures of a model: the inputs and outputs of the manifest's steps, or the graph's own tensors.

    image           image BYTES [-1]                            -> label BYTES [-1], probability FP32 [-1]
    audio           audio BYTES [-1]                            -> the graph's own outputs
    text            text BYTES [-1]                             -> embedding FP32 [-1, width]
    tabular         a tensor for each column, or table [-1, n]  -> prediction FP32 [-1, n]
    always          the graph's own inputs                      -> the graph's own outputs

Metadata shows the first signature. Every output may be requested by its name, whichever inputs are sent. The module
depends on manifests, not on arrays.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from pilotlight.contracts.manifest import Manifest, TensorSpec
from pilotlight.contracts.processing import (
    AudioPreprocessing,
    ClassificationPostprocessing,
    CtcPostprocessing,
    DetectionPostprocessing,
    EmbeddingPostprocessing,
    Preprocessing,
    RegressionPostprocessing,
    SegmentationPostprocessing,
    TableColumn,
    TablePreprocessing,
)

NUMERIC_DATATYPES = frozenset(
    {"BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64"}
)
CELL_DATATYPES = NUMERIC_DATATYPES | {"BYTES"}  # a column may be sent as text too, as in a CSV file
BATCH_DIMENSION = "batch"


@dataclass(frozen=True)
class SignatureInput:
    """An input of a caller: its spec for the metadata, the datatypes that it accepts, and how its data are read."""

    spec: TensorSpec
    datatypes: frozenset[str]
    opaque: bool = False  # BYTES elements that are not text
    nullable: bool = False  # JSON's null is a missing value
    media_types: tuple[str, ...] = ()  # of bodies that are one element of it, such as image/*


@dataclass(frozen=True)
class CallSignature:
    """A way to call a model: all `inputs` are required; `outputs` are returned unless others are requested."""

    inputs: tuple[SignatureInput, ...]
    outputs: tuple[TensorSpec, ...]
    extra_outputs: tuple[TensorSpec, ...] = ()
    is_raw: bool = False  # the graph's own tensors

    @functools.cached_property
    def input_names(self) -> list[str]:
        """The names of the inputs."""
        return [given.spec.name for given in self.inputs]

    def find_input(self, name: str) -> SignatureInput | None:
        """Find the input of this name."""
        return next((given for given in self.inputs if given.spec.name == name), None)

    @functools.cached_property
    def output_names(self) -> list[str]:
        """The names of all outputs that may be requested."""
        return list(dict.fromkeys(spec.name for spec in (*self.outputs, *self.extra_outputs)))

    def find_output(self, name: str) -> TensorSpec | None:
        """Find the output of this name, among all that may be requested."""
        return next((spec for spec in (*self.outputs, *self.extra_outputs) if spec.name == name), None)

    def has_input(self, name: str, datatype: str) -> bool:
        """Return whether there is an input of this name that accepts the datatype."""
        found_input = self.find_input(name)
        return found_input is not None and datatype in found_input.datatypes


@functools.lru_cache(maxsize=64)  # called several times in each request
def list_signatures(manifest: Manifest) -> tuple[CallSignature, ...]:
    """List all signatures of the model: the one that metadata shows first, the graph's own last."""
    graph_inputs = tuple(SignatureInput(spec, frozenset({spec.datatype})) for spec in manifest.inputs)
    graph_outputs, (default_outputs, extra_outputs) = manifest.outputs, list_postprocessed_outputs(manifest)
    if manifest.preprocess is None:
        return (
            CallSignature(
                graph_inputs, default_outputs or graph_outputs, (*extra_outputs, *graph_outputs), is_raw=True
            ),
        )
    carried = get_carried_outputs(manifest.preprocess)
    shown_outputs = tuple(spec for spec in graph_outputs if spec.name not in carried)
    prepared_signatures = (
        CallSignature(inputs, default_outputs or shown_outputs or graph_outputs, (*extra_outputs, *graph_outputs))
        for inputs in list_input_sets(manifest.preprocess)
    )
    return (
        *prepared_signatures,
        CallSignature(graph_inputs, graph_outputs, (*default_outputs, *extra_outputs), is_raw=True),
    )


def get_carried_outputs(steps: Preprocessing) -> set[str]:
    """Return the outputs that become inputs of the next window, which nobody wants unless he asks for them."""
    return {state.output for state in steps.states} if isinstance(steps, AudioPreprocessing) else set()


def choose_signature(manifest: Manifest, datatypes: Mapping[str, str]) -> CallSignature:
    """Choose the signature for inputs of these names and datatypes; the nearest one if none matches."""
    candidates = list_signatures(manifest)
    if len(candidates) == 1:
        return candidates[0]
    for signature in candidates:
        if all(signature.has_input(name, datatype) for name, datatype in datatypes.items()):
            return signature
    return max(candidates, key=lambda way: sum(name in way.input_names for name in datatypes))


def list_input_sets(steps: Preprocessing) -> list[tuple[SignatureInput, ...]]:
    """List the alternative inputs of the steps."""
    if isinstance(steps, TablePreprocessing):
        return [tuple(map(build_column_input, steps.columns)), (build_table_input(steps),)]
    spec = TensorSpec(steps.name, "BYTES", (BATCH_DIMENSION,))
    return [(SignatureInput(spec, frozenset({"BYTES"}), opaque=not steps.is_text, media_types=steps.media_types),)]


def build_column_input(column: TableColumn) -> SignatureInput:
    """Build the input for one column."""
    return SignatureInput(
        TensorSpec(column.name, "BYTES" if column.categories else "FP64", (BATCH_DIMENSION,)),
        CELL_DATATYPES,
        nullable=True,
    )


def build_table_input(table: TablePreprocessing) -> SignatureInput:
    """Build the input for all columns: numbers, or text if some are categories."""
    mixed = any(column.categories for column in table.columns)
    spec = TensorSpec(table.name, "BYTES" if mixed else "FP64", (BATCH_DIMENSION, len(table.columns)))
    return SignatureInput(spec, CELL_DATATYPES, nullable=True)


def list_postprocessed_outputs(manifest: Manifest) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """List the outputs that `postprocess` returns by default, and those on request; both are empty without it."""
    postprocess = manifest.postprocess
    if postprocess is None:
        return (), ()
    if isinstance(postprocess, DetectionPostprocessing | CtcPostprocessing | SegmentationPostprocessing):
        return list_finish_outputs(postprocess)
    shape = next(spec.shape for spec in manifest.outputs if spec.name == postprocess.output)
    if isinstance(postprocess, ClassificationPostprocessing):
        several = postprocess.threshold is not None
        best = shape[:-1] if postprocess.top == 1 else (*shape[:-1], postprocess.top)
        best = (*shape[:-1], "labels") if several else best
        label = TensorSpec(postprocess.label, "BYTES", best)
        probability = TensorSpec(postprocess.probability, "FP32", best)
        every = (*shape[:-1], len(manifest.labels) or shape[-1])
        count = (TensorSpec(postprocess.count, "INT32", shape[:-1]),) if several else ()
        return (label, probability, *count), (TensorSpec(postprocess.probabilities, "FP32", every),)
    if isinstance(postprocess, EmbeddingPostprocessing) and len(shape) in {3, 4}:
        shape = (shape[0], shape[2] if len(shape) == 3 else shape[1])
    elif isinstance(postprocess, RegressionPostprocessing) and shape[1:] == (1,):
        shape = shape[:1]
    return (TensorSpec(postprocess.name, "FP32", shape),), ()


def list_finish_outputs(
    steps: DetectionPostprocessing | CtcPostprocessing | SegmentationPostprocessing,
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """List the outputs of objects, texts or masks; free dimensions are those of the longest list of a request."""
    each = (BATCH_DIMENSION,)
    if isinstance(steps, CtcPostprocessing):
        return (TensorSpec(steps.text, "BYTES", each), TensorSpec(steps.confidence, "FP32", each)), ()
    count = TensorSpec(steps.count, "INT32", each)
    if isinstance(steps, DetectionPostprocessing):
        lists = (*each, "objects")
        label, score = TensorSpec(steps.label, "BYTES", lists), TensorSpec(steps.score, "FP32", lists)
        boxes = TensorSpec(steps.boxes, "FP32", (*lists, 4))
        return (label, score, boxes, count), (TensorSpec(steps.class_index, "INT64", lists),)
    lists = (*each, "classes")
    mask, label = TensorSpec(steps.mask, "BYTES", each), TensorSpec(steps.label, "BYTES", lists)
    return (mask, label, TensorSpec(steps.area, "FP32", lists), count), ()
