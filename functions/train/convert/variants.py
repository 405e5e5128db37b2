"""Make the quantized variants, choose the served one, and write the report: the only module here to use the ladder.

With targets the ladder uses one half of the examples and the report the other (decision 0007); without targets, only
the distance between the answers of both variants is known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import onnx
from msgspec import Struct

from functions.train.convert import data_free_quantization
from functions.train.convert.evaluation_data import ExampleSet
from functions.train.data import Array
from functions.train.data.dataset import Dataset
from functions.train.evaluation.metrics import score_outputs
from functions.train.evaluation.quantization_report import compare_variants
from functions.train.evaluation.totals import Score
from functions.train.export.quantization_search import QuantizationSearch
from functions.train.export.quantize import QuantizationPlan, quantize_graph
from pilotlight.contracts.codec import encode_document
from pilotlight.contracts.manifest import EvaluationSet, Precision
from pilotlight.contracts.metric import METRICS
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.schema import QuantizationOptions
from pilotlight.runtime.golden_recorder import Feeds
from pilotlight.runtime.session import Session, open_session

BATCH_SIZE = 64  # examples that are run at once


class VariantAgreement(Struct, frozen=True, kw_only=True):
    """`report.json` of a version whose variants were compared without a ladder."""

    schema_version: int = 1
    serve: Precision
    verdict: str
    bytes: dict[Precision, int]
    size_ratio: float = 1.0  # of the smaller variant to fp32
    max_abs: float = 0.0  # the largest |difference| of an output
    cosine: float = 1.0  # mean over the requests, of their flattened answers
    requests: int = 0  # that were compared
    metric: str | None = None
    metrics: dict[Precision, dict[str, float]] = {}
    evaluation: EvaluationSet | None = None


@dataclass(frozen=True, kw_only=True)
class VariantChoice:
    """The variants of a version, the one that is served, and why."""

    graphs: dict[Precision, Path]
    serve: Precision
    verdict: str
    report: bytes
    metrics: dict[Precision, dict[str, float]]
    metric: str | None = None
    budget: float | None = None  # for what the smaller variant may lose of the metric, in its unit
    test: ExampleSet | None = None  # what the metrics were measured on


@dataclass(frozen=True)
class QuantizationSource:
    """A graph in fp32, and the data to make and evaluate its smaller variants."""

    graph: Path
    feeds: tuple[Feeds, ...]
    labels: tuple[str, ...] = ()
    evaluation: ExampleSet | None = None
    calibration: ExampleSet | None = None

    @property
    def can_search(self) -> bool:
        """Whether the ladder can be used: one numeric input, one output, and targets."""
        if self.evaluation is None or len(self.evaluation) < 2:
            return False
        session = open_session(str(self.graph))
        tensors = (*session.inputs, *session.outputs)
        return (
            len(tensors) == 2
            and all(spec.datatype == "FP32" for spec in tensors)
            and len(session.outputs[0].shape) == 2
        )


def choose_variants(source: QuantizationSource, requested_precision: str) -> VariantChoice:
    """Make the requested variant: auto, int8, int4 or none; `InvalidInputError` if it would save nothing."""
    if requested_precision == "none":
        return build_choice({"fp32": source.graph}, source, "fp32 is served, as it was given.")
    if requested_precision != "int4" and source.can_search:
        return search_variants(source, requested_precision)
    precision: Precision = "int4" if requested_precision == "int4" else "int8"
    small = source.graph.with_name(f"model.{precision}.onnx")
    write_smaller_variant(source, precision, small)
    sizes = [path.stat().st_size for path in (small, source.graph)]
    if sizes[0] >= sizes[1]:
        reason = f"{precision} takes {sizes[0]:,} bytes, no fewer than the {sizes[1]:,} of fp32"
        if requested_precision == "auto":
            return build_choice({"fp32": source.graph}, source, f"fp32 is served: {reason}.")
        raise InvalidInputError(f"{reason}; publish it without --quantize.")
    return build_choice({"fp32": source.graph, precision: small}, source, "", requested_precision)


def write_smaller_variant(source: QuantizationSource, precision: Precision, path: Path) -> None:
    """Write the smaller variant: calibrated if it is int8, there are examples, and the graph has one input."""
    session = open_session(str(source.graph))
    if precision == "int8" and source.calibration is not None and len(session.inputs) == 1:
        inputs = next(iter(source.calibration.inputs.values()))
        quantize_graph(source.graph, inputs, QuantizationPlan(choose_scheme(source.graph)), path)
    else:
        data_free_quantization.quantize_without_data(source.graph, precision, path)


def build_choice(
    graphs: dict[Precision, Path], source: QuantizationSource, verdict: str, requested_precision: str = "none"
) -> VariantChoice:
    """Measure the variants, and choose the served one."""
    scores = {name: score_variant(path, source) for name, path in graphs.items()} if source.evaluation else {}
    metrics = {name: {**found.metrics, "loss": found.loss} for name, found in scores.items()}
    metric = next(iter(scores["fp32"].metrics)) if scores else None
    serve: Precision = "fp32"
    if not verdict:
        small = next(name for name in graphs if name != "fp32")
        serve, verdict = choose_served_precision(small, requested_precision, metric, metrics)
    report = build_agreement_report(graphs, source, serve, verdict, metric, metrics)
    return VariantChoice(
        graphs=graphs,
        serve=serve,
        verdict=verdict,
        report=encode_document(report),
        metrics=metrics,
        metric=metric,
        budget=METRICS[metric].default_budget if metric else None,
        test=source.evaluation,
    )


def build_agreement_report(
    graphs: Mapping[Precision, Path],
    source: QuantizationSource,
    serve: Precision,
    verdict: str,
    metric: str | None,
    metrics: dict[Precision, dict[str, float]],
) -> VariantAgreement:
    """Build the report on the variants' sizes, answers and metrics."""
    sizes = {name: path.stat().st_size for name, path in graphs.items()}
    distance, cosine = measure_distance(graphs, source.feeds) if len(graphs) > 1 else (0.0, 1.0)
    test = source.evaluation
    return VariantAgreement(
        serve=serve,
        verdict=verdict,
        bytes=sizes,
        size_ratio=min(sizes.values()) / sizes["fp32"],
        max_abs=distance,
        cosine=cosine,
        requests=len(source.feeds),
        metric=metric,
        metrics=metrics,
        evaluation=EvaluationSet(test.sha256, len(test)) if test else None,
    )


def choose_served_precision(
    small: Precision, requested_precision: str, metric: str | None, metrics: Mapping[Precision, Mapping[str, float]]
) -> tuple[Precision, str]:
    """Choose the served variant: one requested by name, else the smaller one only if it is within its budget."""
    if metric is None:
        if requested_precision == "auto":
            return "fp32", f"fp32 is served: nothing tells what {small} loses; give --evaluation, or ask for {small}."
        return small, f"{small} is served, as asked; nothing tells what it loses."
    definition = METRICS[metric]
    lost = definition.compute_degradation(metrics["fp32"][metric], metrics[small][metric])
    held = lost <= definition.default_budget
    loss_text = f"{definition.format_difference(lost, metric)}, {'within' if held else 'more than'} the budget of "
    loss_text += f"{definition.default_budget:.{definition.decimals}f}"
    serve: Precision = small if requested_precision != "auto" or held else "fp32"
    return (
        serve,
        f"{serve} is served{'' if requested_precision == 'auto' else ', as asked'}: {small} loses {loss_text}.",
    )


def search_variants(source: QuantizationSource, requested_precision: str) -> VariantChoice:
    """Run the ladder on one half of the examples, and report on the other."""
    examples = source.evaluation
    if examples is None:
        raise InvalidInputError("The ladder needs --evaluation FILE.")
    test_examples = examples.take(slice(1, None, 2))
    validation, test = to_dataset(examples.take(slice(0, None, 2)), source), to_dataset(test_examples, source)
    calibration = choose_calibration_set(source, validation)
    small = source.graph.with_name("model.int8.onnx")
    options = QuantizationOptions(scheme=choose_scheme(source.graph))
    search = QuantizationSearch(source.graph, calibration.inputs, validation, options)
    candidates = search.search(small)
    graphs: dict[Precision, Path] = {"fp32": source.graph, "int8": small}
    report = compare_variants(graphs, test, calibration, search.budget, candidates)
    if requested_precision == "int8" and report.serve != "int8":
        reason = f"int8 is served, as asked, though it did not hold. {report.verdict}"
        report = msgspec.structs.replace(report, serve="int8", verdict=reason)
    metrics = {
        name: {**one.metrics, "loss": one.loss, "latency_ms": one.latency_ms} for name, one in report.variants.items()
    }
    return VariantChoice(
        graphs=graphs,
        serve=report.serve,
        verdict=report.verdict,
        report=encode_document(report),
        metrics=metrics,
        metric=report.metric,
        budget=report.budget,
        test=test_examples,
    )


def choose_calibration_set(source: QuantizationSource, validation: Dataset) -> Dataset:
    """Choose the calibration examples that were given, without targets; else those of the validation set."""
    if source.calibration is None:
        return validation
    inputs = next(iter(source.calibration.inputs.values()))
    return replace(validation, inputs=inputs, targets=np.zeros(len(inputs), np.int64))


def to_dataset(examples: ExampleSet, source: QuantizationSource) -> Dataset:
    """Convert examples to the ladder's data set."""
    (inputs,), targets = examples.inputs.values(), examples.targets
    if targets is None:
        raise InvalidInputError("--evaluation FILE needs the right answers.")
    classes = get_class_names(open_session(str(source.graph)), targets, source.labels)
    return Dataset(inputs, targets, classes, metric="accuracy" if classes else "r2")


def get_class_names(session: Session, targets: Array, labels: Sequence[str]) -> tuple[str, ...]:
    """Return the classes' names, none if the answer is a number; `InvalidInputError` if targets do not match."""
    width = session.outputs[0].v2_shape[-1:]
    if targets.dtype.kind == "f":
        if targets.shape[1:] != (1,) or width != [1]:
            raise InvalidInputError(
                f"The right answers are numbers, [N, {targets.shape[-1]}], the graph gives {width}; one is judged."
            )
        return ()
    count = max(width[0] if width else 0, int(targets.max()) + 1)
    if width == [-1] or (width and count == width[0]):
        return tuple(labels) if len(labels) == count else tuple(map(str, range(count)))
    raise InvalidInputError(f"The right answers go up to class {count - 1}, the graph gives scores for {width}.")


def score_variant(graph: Path, source: QuantizationSource) -> Score:
    """Score a variant's first output on the examples."""
    examples, session = source.evaluation, open_session(str(graph))
    if examples is None or examples.targets is None:
        raise InvalidInputError("--evaluation FILE needs the right answers.")
    first, classes = session.outputs[0].name, get_class_names(session, examples.targets, source.labels)
    parts = [
        session.run(examples.take(slice(start, start + BATCH_SIZE)).inputs, [first])[first]
        for start in range(0, len(examples), BATCH_SIZE)
    ]
    return score_outputs(np.concatenate(parts), examples.targets, classes)


def measure_distance(graphs: Mapping[Precision, Path], feeds: Sequence[Feeds]) -> tuple[float, float]:
    """Measure the largest |difference| and the mean cosine of both variants' answers to the requests."""
    sessions = [open_session(str(path)) for path in graphs.values()]
    answers = [[session.run(feed) for feed in feeds] for session in sessions]
    distance, cosines = 0.0, []
    for full, less in zip(*answers, strict=True):
        for name, values in full.items():
            if values.dtype.kind != "f":
                continue
            one, other = values.astype(np.float64).ravel(), less[name].astype(np.float64).ravel()
            distance = max(distance, float(np.abs(one - other).max(initial=0.0)))
            cosines.append(float(one @ other / max(np.linalg.norm(one) * np.linalg.norm(other), 1e-12)))
    return distance, float(np.mean(cosines)) if cosines else 1.0


def choose_scheme(graph: Path) -> Literal["static", "dynamic"]:
    """Choose static for convolutions, dynamic for all else (decision 0007)."""
    model = onnx.load(graph, load_external_data=False)
    return "static" if any(node.op_type == "Conv" for node in model.graph.node) else "dynamic"
