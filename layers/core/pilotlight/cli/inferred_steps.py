"""Infer from the graph and its answers what the steps around it leave open, and note each thing that is assumed.

Nothing is a default that the graph contradicts: what ends in a Softmax gets no second one. What the publisher says
stays, and is told where the graph says otherwise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pilotlight.cli.assumptions import Assumptions
from pilotlight.contracts.manifest import TensorSpec
from pilotlight.contracts.processing import ImagePreprocessing
from pilotlight.errors import InvalidInputError
from pilotlight.runtime.datatypes import Array
from pilotlight.runtime.onnx_graph import OnnxGraph, read_onnx_graph
from pilotlight.runtime.output_activation import OutputActivation, find_activation
from pilotlight.runtime.session import GraphSignature

ProcessingSteps = dict[str, Any]  # a document of pilotlight.contracts.processing, not yet checked
USUAL_SIDE = 224  # pixels, of images for a graph that takes any size
CHANNEL_COUNTS = (1, 3)
CALLER_NAMES = ("label", "probability", "probabilities")  # of what a classification gives
FLOAT_DATATYPES = {"FP16", "FP32", "FP64", "BF16"}


@dataclass(frozen=True)
class GraphFacts:
    """A graph, and what it answered when it was tried."""

    signature: GraphSignature
    graph: Path
    answers: Mapping[str, Sequence[Array]]  # of recorded requests, by output
    input_shapes: Mapping[str, Sequence[int]]  # of a request that it answered; empty if it answered none
    outputs: tuple[TensorSpec, ...]  # with the dimensions that were seen, where the graph does not say them

    @cached_property
    def nodes(self) -> OnnxGraph:
        """The graph's nodes."""
        return read_onnx_graph(self.graph)

    def find_activation(self, output: str) -> OutputActivation | None:
        """Find what a finish has to apply to an output."""
        return find_activation(self.nodes, output, self.answers.get(output, ()))

    def find_output(self, name: str) -> TensorSpec | None:
        """Find the output of this name."""
        return next((spec for spec in self.outputs if spec.name == name), None)

    def get_width(self, name: str) -> int | None:
        """Return the size of an output's last dimension, as the graph says or as it was seen; None if neither tells."""
        spec = self.find_output(name)
        if spec is not None and spec.shape and isinstance(spec.shape[-1], int):
            return spec.shape[-1]
        widths = {values.shape[-1] for values in self.answers.get(name, ()) if values.ndim}
        return widths.pop() if len(widths) == 1 else None


def complete_steps(
    steps: ProcessingSteps, facts: GraphFacts, labels: Sequence[str], assumed: Assumptions
) -> ProcessingSteps:
    """Complete the steps from the graph: its input and output, an image's form, and a finish's activation."""
    preprocess, postprocess = steps.get("prepare"), steps.get("finish")
    if preprocess is not None and preprocess.get("kind") in {"image", "audio", "tabular"}:
        preprocess.setdefault("input", choose_input(facts.signature, preprocess["kind"]).name)
    if preprocess is not None and preprocess.get("kind") == "image":
        preprocess = complete_image_steps(preprocess, facts, assumed)
    if preprocess is not None and preprocess.get("kind") == "audio":
        preprocess = complete_audio_steps(preprocess, facts, assumed)
    if postprocess is not None:
        postprocess = dict(postprocess)
        if "output" not in postprocess and facts.outputs:
            postprocess["output"] = choose_output(facts, postprocess.get("kind", ""), assumed)
        if postprocess.get("kind") == "classification":
            postprocess = complete_classification(postprocess, facts, labels, assumed)
    return {"prepare": preprocess, "finish": postprocess}


def choose_input(signature: GraphSignature, kind: str) -> TensorSpec:
    """Choose the input that a step fills: for images the first of four dimensions, else the first."""
    if not signature.inputs:
        raise InvalidInputError(f"The graph has no inputs, so that no {kind} can be given to it; use --task tensor.")
    images = [spec for spec in signature.inputs if len(spec.shape) == 4]
    return images[0] if kind == "image" and images else signature.inputs[0]


def choose_output(facts: GraphFacts, kind: str, assumed: Assumptions) -> str:
    """Choose the output that a finish reads: the first; for classes, the first of floats."""
    floats = [spec.name for spec in facts.outputs if spec.datatype in FLOAT_DATATYPES]
    name = floats[0] if kind == "classification" and floats else facts.outputs[0].name
    if len(facts.outputs) > 1:
        assumed.add("output", name, f"the first that suits, of {', '.join(spec.name for spec in facts.outputs)}")
    return name


def complete_image_steps(steps: ProcessingSteps, facts: GraphFacts, assumed: Assumptions) -> ProcessingSteps:
    """Complete layout, colour, size and scale of images from the graph's input, as far as they are not given."""
    spec = next((spec for spec in facts.signature.inputs if spec.name == steps["input"]), None)
    if spec is None:
        return steps
    if len(spec.shape) != 4 and set(steps) - {"kind", "input"}:
        return steps  # the publisher knows
    if len(spec.shape) != 4:
        shape = f"[{', '.join(map(str, spec.shape))}]"
        raise InvalidInputError(
            f"--task image: the graph's {spec.name!r} is {shape}, and images are [batch, channels, height, width] or "
            "[batch, height, width, channels]; send it tensors, or export it so."
        )
    signature = f"its input {spec.name} is {spec.datatype} [{', '.join(map(str, spec.shape))}]"
    steps = choose_layout(steps, spec, facts, assumed, signature)
    return choose_scale(choose_size(steps, spec, facts, assumed, signature), spec, assumed)


def choose_layout(
    steps: ProcessingSteps, spec: TensorSpec, facts: GraphFacts, assumed: Assumptions, signature: str
) -> ProcessingSteps:
    """Choose the layout and the colours from the fixed sizes, else from what the graph answered."""
    seen = facts.input_shapes.get(spec.name, ())
    shape, why = spec.shape, signature
    if not any(isinstance(shape[axis], int) for axis in (1, 3)) and len(seen) == 4:
        shape, why = tuple(seen), f"it answers {list(seen)}"
    last = shape[3] in CHANNEL_COUNTS and shape[1] not in CHANNEL_COUNTS
    layout = steps.get("layout") or ("NHWC" if last else "NCHW")
    channels = shape[3] if layout == "NHWC" else shape[1]
    if isinstance(channels, int) and channels not in CHANNEL_COUNTS and "colour" not in steps:
        raise InvalidInputError(
            f"--task image: {signature}, of {channels} channels; images have 1 (grey) or 3 (colour)."
        )
    colour = steps.get("colour") or ("L" if channels == 1 else "RGB")
    if "layout" not in steps:
        assumed.add("layout", layout, why)
    if "colour" not in steps:
        known = isinstance(channels, int)
        assumed.add("colour", colour, f"{why}; nothing tells RGB from BGR" if colour == "RGB" and known else why)
    return steps | {"layout": layout, "colour": colour}


def choose_size(
    steps: ProcessingSteps, spec: TensorSpec, facts: GraphFacts, assumed: Assumptions, signature: str
) -> ProcessingSteps:
    """Choose the size of images: the graph's, or a usual one if it takes any."""
    if {*ImagePreprocessing.sizings, "crop"} & set(steps):
        return steps
    axes = (1, 2) if steps["layout"] == "NHWC" else (2, 3)
    sides = [spec.shape[axis] for axis in axes]
    if all(isinstance(side, int) for side in sides):
        assumed.add("size", f"{sides[0]} x {sides[1]}", signature)
        return steps | {"resize": sides}
    chosen = [side if isinstance(side, int) else USUAL_SIDE for side in sides]
    assumed.add("size", f"{chosen[0]} x {chosen[1]}", f"{signature}: it takes any, and {USUAL_SIDE} is usual")
    return steps | {"resize": chosen}


def choose_scale(steps: ProcessingSteps, spec: TensorSpec, assumed: Assumptions) -> ProcessingSteps:
    """Choose how pixels become numbers: as they are for integers, else from 0 to 1."""
    given = {"scale", "mean", "deviation"} & set(steps)
    if spec.datatype not in FLOAT_DATATYPES:
        if "scale" not in steps:
            assumed.add("scale", "1", f"the graph takes {spec.datatype}: pixels of 0 to 255")
            return steps | {"scale": 1.0}
        return steps
    if "scale" not in given:
        assumed.add("scale", "1/255", "pixels of 0 to 1 are usual, and no file says otherwise")
    if not {"mean", "deviation"} & given:
        assumed.add("mean and deviation", "none", "no file tells any; ImageNet's are usual for pretrained models")
    return steps


def complete_audio_steps(steps: ProcessingSteps, facts: GraphFacts, assumed: Assumptions) -> ProcessingSteps:
    """Complete layout and, unless the steps say otherwise, the length of sound from the graph's input."""
    spec = next((spec for spec in facts.signature.inputs if spec.name == steps["input"]), None)
    inferred = {} if spec is None else infer_audio_steps(spec.shape, steps)
    for setting, value in inferred.items():
        if spec is not None and setting not in steps:
            assumed.add(setting, value, f"its input {spec.name} is [{', '.join(map(str, spec.shape))}]")
    return inferred | steps


def infer_audio_steps(shape: Sequence[int | str], steps: ProcessingSteps) -> ProcessingSteps:
    """Infer the layout of sound, and its length unless the steps say otherwise, from the shape of a graph's input."""
    if steps.get("spectrogram") is not None or not 1 <= len(shape) <= 3:
        return {}
    layout = {1: "S", 2: "NS", 3: "NS1" if shape[-1] == 1 else "N1S"}[len(shape)]
    size = shape[-2] if layout == "NS1" else shape[-1]
    has_length = "length" in steps or "window" in steps
    return {"layout": layout} | ({"length": size} if isinstance(size, int) and not has_length else {})


def complete_classification(
    steps: ProcessingSteps, facts: GraphFacts, labels: Sequence[str], assumed: Assumptions
) -> ProcessingSteps:
    """Choose the activation by what produces the output; an explicit one stays, and a contradiction is told."""
    output = str(steps.get("output", ""))
    if facts.find_output(output) is None:
        return steps
    hint = steps.pop("activation_hint", None)  # of config.json, which knows the training and not the export
    found = facts.find_activation(output)
    if "activation" in steps:
        if found is not None and found.activation != steps["activation"]:
            why = f"--processing says so, but {output}: {found.evidence}, for which it is {found.activation!r}"
            assumed.add("activation (contradicted)", steps["activation"], why)
        return steps
    activation, why = choose_activation(found, hint, facts.get_width(output), len(labels))
    assumed.add("activation", activation, f"{output}: {why}")
    return steps | {"activation": activation}


def choose_activation(
    found: OutputActivation | None, hint: str | None, width: int | None, labels: int
) -> tuple[str, str]:
    """Choose an activation, and say why."""
    if found is not None:
        return found.activation, found.evidence
    if hint is not None:
        return hint, "config.json says that several labels may hold at once"
    if width == 1 and labels == 2:
        return "sigmoid", "it is one score for two labels, and nothing in the graph makes it a probability"
    return "softmax", "nothing in the graph makes its scores probabilities"


def build_label_finish(facts: GraphFacts, labels: Sequence[str], assumed: Assumptions) -> ProcessingSteps | None:
    """Build the classification of a graph of tensors with labels: if one output alone can hold their scores."""
    outputs = [spec for spec in facts.outputs if spec.datatype in FLOAT_DATATYPES]
    if len(facts.outputs) != 1 or len(outputs) != 1 or len(outputs[0].shape) != 2:
        return None
    width = facts.get_width(outputs[0].name)
    if width is None or not fits_labels(width, len(labels)):
        return None
    assumed.add("finish", "classification", f"there are labels, and {outputs[0].name} has a score for each")
    steps = {"kind": "classification", "output": outputs[0].name} | choose_caller_names(facts.outputs)
    return complete_classification(steps, facts, labels, assumed)


def build_probability_finish(facts: GraphFacts, assumed: Assumptions) -> ProcessingSteps | None:
    """Build the classification of images without labels: if the graph's one output is probabilities by class."""
    if len(facts.outputs) != 1 or len(facts.outputs[0].shape) != 2:
        return None
    name = facts.outputs[0].name
    found, width = facts.find_activation(name), facts.get_width(name)
    if found is None or width is None or width < 2:
        return None
    assumed.add("finish", "classification", f"{name}: {found.evidence}; without --labels a class is its index")
    steps = {"kind": "classification", "output": name} | choose_caller_names(facts.outputs)
    return complete_classification(steps, facts, (), assumed)


def choose_caller_names(outputs: Sequence[TensorSpec]) -> ProcessingSteps:
    """Choose names of a classification's outputs that the graph's own leave free."""
    taken = {spec.name for spec in outputs}
    return {} if taken.isdisjoint(CALLER_NAMES) else {name: f"predicted_{name}" for name in CALLER_NAMES}


def check_label_count(labels: Sequence[str], origin: str, steps: Mapping[str, Any] | None, facts: GraphFacts) -> None:
    """Raise `InvalidInputError` if the labels are surely not one for each score."""
    if not labels or (steps is not None and steps.get("kind") != "classification"):
        return
    names = [str(steps.get("output", ""))] if steps is not None else [spec.name for spec in facts.outputs if spec.shape]
    widths = {name: facts.get_width(name) for name in names if facts.find_output(name) is not None}
    if not widths or any(width is None or fits_labels(width, len(labels)) for width in widths.values()):
        return
    given = " and ".join(f"{name!r} has {width} classes" for name, width in widths.items())
    raise InvalidInputError(
        f"{origin} has {len(labels)} labels, but the graph's {given}; bring one label for each class, in their order."
    )


def fits_labels(width: int, labels: int) -> bool:
    """Return whether scores of this width can have so many labels; one score may have two."""
    return width == labels or (width == 1 and labels == 2)
