"""Graphs of classifiers as skl2onnx, onnxmltools and CatBoost write them, made into graphs of tensors.

    ZipMap              gives a map from class to probability for each row, which no protocol here carries. Its tensor
                        of probabilities takes its place, under its name; its classes are the labels.
    StringNormalizer    opens only where its locale is installed; a Lambda function has C.UTF-8 alone.

The module reads and rewrites bytes and needs no onnx package. It knows graphs, not versions.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile

from pilotlight.runtime import onnx_editing, onnx_graph, onnx_header
from pilotlight.runtime.onnx_graph import OnnxGraph, OnnxNode
from pilotlight.runtime.wire_format import as_message, decode_integers, decode_text, iterate_fields, read_nested_integer

ZIP_MAP, SEQUENCE, NORMALIZER = ("ai.onnx.ml", "ZipMap"), "SequenceConstruct", "StringNormalizer"
LOCALE = "C.UTF-8"  # knows the case of all letters, and is part of glibc
FLOAT, STRING, INT64 = 1, 8, 7  # TensorProto.DataType
# Operators that keep the labels which they are given; the classes are those of the operator before them.
PASSING_OPERATORS = frozenset({"Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten"})
CLASSIFIERS = frozenset({"LinearClassifier", "SVMClassifier", "TreeEnsembleClassifier"})
MAX_STEPS = 8  # from an output back to its classifier


@dataclass(frozen=True)
class ClassifierOutputs:
    """The output with the scores of the classes, and the classes in their order."""

    scores: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class ServableGraph:
    """A graph of tensors: the file, whether it was rewritten, and what it says of its classes."""

    path: Path
    classifier: ClassifierOutputs | None = None
    notes: tuple[str, ...] = ()  # sentences about what was changed


def build_servable_graph(path: Path, folder: Path) -> ServableGraph:
    """Build a graph of tensors in `folder`, with its weights beside it; the file itself if it is one already.

    Raises `InvalidInputError` if the file is damaged.
    """
    header = onnx_header.read_onnx_header(path)
    names = {name for _, name in header.operators}
    if not names & {ZIP_MAP[1], SEQUENCE, NORMALIZER, "ArrayFeatureExtractor", *CLASSIFIERS}:
        return ServableGraph(path)
    with onnx_graph.map_model(path) as model:
        graph = onnx_graph.parse_model(model)
        classifier, notes = find_classifier(graph), tuple(describe_changes(graph))
    if not notes:
        return ServableGraph(path, classifier)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / path.name
    target.write_bytes(replace_nodes(model, graph))
    for location in header.external_files:
        (folder / location).parent.mkdir(parents=True, exist_ok=True)
        copyfile(path.parent / location, folder / location)
    return ServableGraph(target, classifier, notes)


def describe_changes(graph: OnnxGraph) -> Iterator[str]:
    """Yield a sentence for each change that the graph needs."""
    tensors = find_replaced_outputs(graph)
    for name, replaced in tensors.items():
        if replaced.columns is None:
            yield (
                f"The output {name!r} is a sequence of tensors; they are published as the outputs "
                f"{', '.join(map(repr, replaced.names))}."
            )
        else:
            yield (
                f"The output {name!r} is a map from class to probability (ZipMap); it is published as a tensor of "
                f"probabilities{f', one for each of {replaced.columns} classes' if replaced.columns else ''}."
            )
    for locale in {node.get_text("locale") or "en_US" for node in graph.nodes if needs_locale(node)}:
        yield (
            f"The graph changes the case of texts by the locale {locale!r}, which a Lambda function does not have; it "
            f"is published with {LOCALE}."
        )


@dataclass(frozen=True)
class ReplacedOutput:
    """An output that is no tensor, the tensors that take its place, and their columns, if they are known."""

    tensors: tuple[str, ...]
    names: tuple[str, ...]
    columns: int | None
    element_type: int = FLOAT


def find_replaced_outputs(graph: OnnxGraph) -> dict[str, ReplacedOutput]:
    """Find the outputs that are maps of probabilities or sequences of tensors, by name."""
    found = {}
    for name in graph.outputs:
        node = find_source(graph, name)
        if node is not None and is_zip_map(node):
            found[name] = ReplacedOutput(node.inputs[:1], (name,), len(get_class_labels(node)))
        elif node is not None and node.operator == SEQUENCE and node.domain in onnx_editing.DEFAULT_DOMAINS:
            names = tuple(f"{name}_{place}" for place in range(len(node.inputs)))
            found[name] = ReplacedOutput(node.inputs, names, None, get_element_type(graph, name))
    return found


def get_element_type(graph: OnnxGraph, output: str) -> int:
    """Return the type of the tensors of a sequence: TypeProto's sequence_type, elem_type, tensor_type, elem_type."""
    return read_nested_integer(graph.output_types[output], (2, 4, 1, 1, 1)) or FLOAT


def find_source(graph: OnnxGraph, output: str) -> OnnxNode | None:
    """Find the node that computes an output, behind those that only pass it on."""
    node = graph.producers.get(output)
    for _ in range(MAX_STEPS):  # a damaged file may go round in circles
        if node is None or node.operator != "Identity" or not node.inputs:
            break
        node = graph.producers.get(node.inputs[0])
    return node


def replace_nodes(model: memoryview, graph: OnnxGraph) -> bytes:
    """Return the model with tensors in place of maps and sequences, and with a locale that is installed everywhere."""
    replaced = find_replaced_outputs(graph)

    def edit_node(message: memoryview, node: OnnxNode) -> list[bytes] | None:
        if node.outputs and node.outputs[0] in replaced:
            output = replaced[node.outputs[0]]
            pairs = zip(output.tensors, output.names, strict=True)
            return [onnx_editing.encode_cast(tensor, name, output.element_type) for tensor, name in pairs]
        if is_zip_map(node):
            return []
        return [onnx_editing.replace_text_attribute(message, "locale", LOCALE)] if needs_locale(node) else None

    def edit_output(name: str) -> list[bytes] | None:
        if name not in replaced:
            return None
        kind, columns = replaced[name].element_type, replaced[name].columns
        return [onnx_editing.encode_tensor_output(each, kind, columns) for each in replaced[name].names]

    return onnx_editing.rewrite_model(model, edit_node, edit_output)


def is_zip_map(node: OnnxNode) -> bool:
    """Return whether the node makes maps of a tensor."""
    return (node.domain, node.operator) == ZIP_MAP and len(node.inputs) == 1


def needs_locale(node: OnnxNode) -> bool:
    """Return whether the node needs a locale other than the one that is there."""
    return node.operator == NORMALIZER and node.get_text("locale") not in (LOCALE, "C", "POSIX")


def get_class_labels(node: OnnxNode) -> tuple[str, ...]:
    """Return the classes of a ZipMap or of a classifier, in their order; none if it names none."""
    texts = node.get_texts("classlabels_strings")
    numbers = node.get_integers("classlabels_int64s") or node.get_integers("classlabels_ints")
    return texts or tuple(map(str, numbers))


def find_classifier(graph: OnnxGraph) -> ClassifierOutputs | None:
    """Find the scores and the classes of a graph that is one classifier; None for several, and for anything else."""
    maps = [(name, node) for name in graph.outputs if (node := find_source(graph, name)) and is_zip_map(node)]
    if maps:
        return ClassifierOutputs(maps[0][0], get_class_labels(maps[0][1])) if len(maps) == 1 else None
    if len(graph.outputs) != 2:
        return None
    found = [(name, labels) for name in graph.outputs if (labels := find_labels(graph, name))]
    if len(found) != 1:
        return None
    ((label_output, labels),) = found
    return ClassifierOutputs(next(name for name in graph.outputs if name != label_output), labels)


def find_labels(graph: OnnxGraph, output: str) -> tuple[str, ...]:
    """Find the classes from which an output is chosen, back through what only changes its form; none if unknown."""
    tensor = output
    for _ in range(MAX_STEPS):
        node = graph.producers.get(tensor)
        if node is None:
            return ()
        if node.operator in CLASSIFIERS and node.domain == ZIP_MAP[0]:
            return get_class_labels(node) if tensor == node.outputs[0] else ()
        if node.operator == "ArrayFeatureExtractor" and node.inputs:  # chooses the best class from a constant
            return read_constant_labels(graph.initializers, node.inputs[0])
        if node.operator not in PASSING_OPERATORS or not node.inputs:
            return ()
        tensor = node.inputs[0]
    return ()


def read_constant_labels(initializers: Mapping[str, memoryview], name: str) -> tuple[str, ...]:
    """Read a constant list of classes: texts or whole numbers; none if it is something else."""
    kind, texts, numbers, raw = 0, list[str](), list[int](), memoryview(b"")
    for number, value in iterate_fields(initializers.get(name, memoryview(b""))):
        if number == onnx_graph.TENSOR_KIND and isinstance(value, int):
            kind = value
        elif number == onnx_graph.TENSOR_STRING_DATA:
            texts.append(decode_text(value))
        elif number in (onnx_graph.TENSOR_INT32_DATA, onnx_graph.TENSOR_INT64_DATA):
            numbers += decode_integers(value)
        elif number == onnx_graph.TENSOR_RAW_DATA:
            raw = as_message(value)
    if kind == STRING:
        return tuple(texts)
    width = {INT64: 8, 6: 4}.get(kind)
    if width is None:
        return ()
    return tuple(map(str, numbers or read_integers(raw, width)))


def read_integers(raw: memoryview, width: int) -> Sequence[int]:
    """Read whole numbers of `width` bytes, little-endian."""
    parts = (raw[start : start + width] for start in range(0, len(raw), width))
    return [int.from_bytes(part, "little", signed=True) for part in parts]
