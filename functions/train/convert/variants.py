"""The graph in fewer bits, which variant is served, and the report: all use of the ladder is here.

With right answers the ladder climbs on one half of them and the report is measured on the other (decision 0013);
without, only the distance between the answers of both variants can be told.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from msgspec import Struct

from functions.train.convert import quantize_data
from functions.train.convert.examples import Examples
from functions.train.data.dataset import Array, Dataset
from functions.train.evaluation.metrics import Score, score
from functions.train.evaluation.quantization_report import compare
from functions.train.export.quantization_search import Ladder
from functions.train.export.quantize import Plan, quantize
from pilotlight.contracts.manifest import Evaluation, Precision, encode
from pilotlight.contracts.metric import METRICS
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.options.graph import QuantizationOptions
from pilotlight.runtime.golden_recorder import Feeds
from pilotlight.runtime.session import Session, open_session

BATCH = 64  # examples asked at once


class Agreement(Struct, frozen=True, kw_only=True):
    """`report.json` of a version whose variants were compared without a ladder."""

    schema_version: int = 1
    serve: Precision
    verdict: str
    bytes: dict[Precision, int]
    size_ratio: float = 1.0  # of the smaller variant to fp32
    max_abs: float = 0.0  # the largest |difference| of an output
    cosine: float = 1.0  # mean over the requests, of their answers laid flat
    requests: int = 0  # that were compared
    metric: str | None = None
    metrics: dict[Precision, dict[str, float]] = {}
    evaluation: Evaluation | None = None


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The variants that a version gets, the one that is served, and why."""

    graphs: dict[Precision, Path]
    serve: Precision
    verdict: str
    report: bytes
    metrics: dict[Precision, dict[str, float]]
    metric: str | None = None
    budget: float | None = None  # that the smaller variant may lose of the metric, in its unit
    test: Examples | None = None  # what the metrics were measured on


@dataclass(frozen=True)
class Material:
    """A graph in fp32, and what its smaller variants are made and judged with."""

    graph: Path
    feeds: tuple[Feeds, ...]
    labels: tuple[str, ...] = ()
    evaluation: Examples | None = None
    calibration: Examples | None = None

    @property
    def laddered(self) -> bool:
        """Whether the ladder can climb: one input of numbers, one output, right answers."""
        if self.evaluation is None or len(self.evaluation) < 2:
            return False
        session = open_session(str(self.graph))
        ends = (*session.inputs, *session.outputs)
        return len(ends) == 2 and all(spec.datatype == "FP32" for spec in ends) and len(session.outputs[0].shape) == 2


def choose(material: Material, asked: str) -> Choice:
    """Make what was asked for: auto, int8, int4 or none; `InvalidInputError` when it would buy nothing."""
    if asked == "none":
        return told({"fp32": material.graph}, material, "fp32 is served, as it was given.")
    if asked != "int4" and material.laddered:
        return climbed(material, asked)
    precision: Precision = "int4" if asked == "int4" else "int8"
    small = material.graph.with_name(f"model.{precision}.onnx")
    shrink(material, precision, small)
    sizes = [path.stat().st_size for path in (small, material.graph)]
    if sizes[0] >= sizes[1]:
        why = f"{precision} takes {sizes[0]:,} bytes, no fewer than the {sizes[1]:,} of fp32"
        if asked == "auto":
            return told({"fp32": material.graph}, material, f"fp32 is served: {why}.")
        raise InvalidInputError(f"{why}; publish it without --quantize.")
    return told({"fp32": material.graph, precision: small}, material, "", asked)


def shrink(material: Material, precision: Precision, path: Path) -> None:
    """Write the smaller variant: calibrated, where there is one input to calibrate and 8 bits are asked for."""
    session = open_session(str(material.graph))
    if precision == "int8" and material.calibration is not None and len(session.inputs) == 1:
        inputs = next(iter(material.calibration.inputs.values()))
        quantize(material.graph, inputs, Plan(scheme(material.graph)), path)
    else:
        quantize_data.reduce(material.graph, precision, path)


def told(graphs: dict[Precision, Path], material: Material, verdict: str, asked: str = "none") -> Choice:
    """What can be said of the variants, and which is served."""
    scores = {name: judged(path, material) for name, path in graphs.items()} if material.evaluation else {}
    metrics = {name: {**found.metrics, "loss": found.loss} for name, found in scores.items()}
    metric = next(iter(scores["fp32"].metrics)) if scores else None
    serve: Precision = "fp32"
    if not verdict:
        small = next(name for name in graphs if name != "fp32")
        serve, verdict = decide(small, asked, metric, metrics)
    sizes = {name: path.stat().st_size for name, path in graphs.items()}
    distance, cosine = apart(graphs, material.feeds) if len(graphs) > 1 else (0.0, 1.0)
    test = material.evaluation
    report = Agreement(
        serve=serve,
        verdict=verdict,
        bytes=sizes,
        size_ratio=min(sizes.values()) / sizes["fp32"],
        max_abs=distance,
        cosine=cosine,
        requests=len(material.feeds),
        metric=metric,
        metrics=metrics,
        evaluation=Evaluation(test.sha256, len(test)) if test else None,
    )
    return Choice(
        graphs=graphs,
        serve=serve,
        verdict=verdict,
        report=encode(report),
        metrics=metrics,
        metric=metric,
        budget=METRICS[metric].budget if metric else None,
        test=test,
    )


def decide(
    small: Precision, asked: str, metric: str | None, metrics: Mapping[Precision, Mapping[str, float]]
) -> tuple[Precision, str]:
    """What was asked for by name is served; what was not must have shown that it is good enough."""
    if metric is None:
        if asked == "auto":
            return "fp32", f"fp32 is served: nothing tells what {small} loses; give --evaluation, or ask for {small}."
        return small, f"{small} is served, as asked; nothing tells what it loses."
    known = METRICS[metric]
    lost = known.lost(metrics["fp32"][metric], metrics[small][metric])
    held = lost <= known.budget
    said = f"{known.told(lost, metric)}, {'within' if held else 'more than'} the budget of "
    said += f"{known.budget:.{known.digits}f}"
    serve: Precision = small if asked != "auto" or held else "fp32"
    return serve, f"{serve} is served{'' if asked == 'auto' else ', as asked'}: {small} loses {said}."


def climbed(material: Material, asked: str) -> Choice:
    """The ladder over one half of the right answers, the report over the other."""
    examples = material.evaluation
    if examples is None:
        raise InvalidInputError("The ladder needs --evaluation FILE.")
    validation, test = (
        dataset(examples.take(slice(0, None, 2)), material),
        dataset(examples.take(slice(1, None, 2)), material),
    )
    calibration = validation
    if material.calibration is not None:
        inputs = next(iter(material.calibration.inputs.values()))
        calibration = replace(validation, inputs=inputs, targets=np.zeros(len(inputs), np.int64))
    small = material.graph.with_name("model.int8.onnx")
    options = QuantizationOptions(scheme=scheme(material.graph))
    ladder = Ladder(material.graph, calibration.inputs, validation, options)
    rungs = ladder.climb(small)
    graphs: dict[Precision, Path] = {"fp32": material.graph, "int8": small}
    report = compare(graphs, test, calibration, ladder.budget, rungs)
    if asked == "int8" and report.serve != "int8":
        why = f"int8 is served, as asked, though it did not hold. {report.verdict}"
        report = type(report)(
            **{name: getattr(report, name) for name in report.__struct_fields__} | {"serve": "int8", "verdict": why}
        )
    metrics = {
        name: {**one.metrics, "loss": one.loss, "latency_ms": one.latency_ms} for name, one in report.variants.items()
    }
    return Choice(
        graphs=graphs,
        serve=report.serve,
        verdict=report.verdict,
        report=encode(report),
        metrics=metrics,
        metric=report.metric,
        budget=report.budget,
        test=examples.take(slice(1, None, 2)),
    )


def dataset(examples: Examples, material: Material) -> Dataset:
    """Examples as the ladder takes them."""
    (inputs,), targets = examples.inputs.values(), examples.targets
    if targets is None:
        raise InvalidInputError("--evaluation FILE needs the right answers.")
    classes = names(open_session(str(material.graph)), targets, material.labels)
    return Dataset(inputs, targets, classes, metric="accuracy" if classes else "r2")


def names(session: Session, targets: Array, labels: Sequence[str]) -> tuple[str, ...]:
    """The classes' names; none where the answer is a number. `InvalidInputError` when targets and answers differ."""
    width = session.outputs[0].free_shape[-1:]
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


def judged(graph: Path, material: Material) -> Score:
    """The score of a variant's first output on the examples."""
    examples, session = material.evaluation, open_session(str(graph))
    if examples is None or examples.targets is None:
        raise InvalidInputError("--evaluation FILE needs the right answers.")
    first, classes = session.outputs[0].name, names(session, examples.targets, material.labels)
    parts = [
        session.run(examples.take(slice(start, start + BATCH)).inputs, [first])[first]
        for start in range(0, len(examples), BATCH)
    ]
    return score(np.concatenate(parts), examples.targets, classes)


def apart(graphs: Mapping[Precision, Path], feeds: Sequence[Feeds]) -> tuple[float, float]:
    """The largest |difference| and the mean cosine of both variants' answers to the requests."""
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


def scheme(graph: Path) -> Literal["static", "dynamic"]:
    """Static for convolutions, dynamic for all else (decision 0013)."""
    model = onnx.load(graph, load_external_data=False)
    return "static" if any(node.op_type == "Conv" for node in model.graph.node) else "dynamic"
