"""Candidates for a graph of fewer bits, tried from the cheapest to the most careful, until one is good enough.

The search of a training, and that of a graph that was brought in, say what is tried and what is good enough. It imports
no torch, which takes seconds.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from msgspec import Struct

from functions.train.data.pixels import Inputs, Pixels
from functions.train.errors import QuantizationError
from functions.train.export.quantize import QuantizationPlan, list_quantizable_layers, quantize_graph
from pilotlight.contracts.manifest import Precision
from pilotlight.errors import InvalidInputError, ModelRefusedError
from pilotlight.runtime.golden_recorder import Feeds
from pilotlight.runtime.session import Session, open_session

Quantizer = Callable[[Path, Inputs | Sequence[Feeds], QuantizationPlan, Path], None]


class QuantizationCandidate(Struct, frozen=True):
    """A way to quantize that was tried, and its result."""

    plan: str
    points_lost: float  # of the metric, on the validation set, in its unit (`pilotlight.contracts.metric`)
    bytes: int
    holds: bool  # within the budget, and smaller than fp32
    why: str
    spared: dict[str, float] = {}  # layers left in fp32, with dB of signal to noise where each alone is quantized
    precision: Precision = "int8"
    failed: bool = False  # no graph was written, or it does not open; then nothing was measured
    size_ratio: float | None = None  # to fp32
    latency_ratio: float | None = None  # to fp32, if it was timed
    agreement: float | None = None  # share of answers that are fp32's, if there was nothing to judge them by


def select_best_candidate(candidates: Sequence[QuantizationCandidate]) -> QuantizationCandidate | None:
    """Select the candidate whose graph was written: the one that holds, or the first that loses least; None if none."""
    written = [one for one in candidates if not one.failed]
    if not written:
        return None
    return written[-1] if written[-1].holds else min(written, key=rank_loss)


def rank_loss(candidate: QuantizationCandidate) -> tuple[bool, float]:
    """Rank a written candidate by what it loses, after all others if it is not even smaller than fp32."""
    return (candidate.size_ratio or 0.0) >= 1, candidate.points_lost


@dataclass(frozen=True)
class CandidateSearch(ABC):
    """Tries quantization plans of one graph on the same calibration inputs; a plan that fails is a candidate too."""

    graph: Path
    calibration: Inputs | Sequence[Feeds]
    quantize: Quantizer = field(default=quantize_graph, kw_only=True)

    def search(self, path: Path) -> tuple[QuantizationCandidate, ...]:
        """Write the first variant that holds, or the one that loses least, and return all candidates.

        Nothing is written if every plan fails.
        """
        tried: list[QuantizationCandidate] = []
        least = path.with_name(f"{path.name}.least")  # the written one that loses least so far
        for plan, spared in self.generate_plans():
            candidate = self.try_plan(plan, spared, path)
            best = min((rank_loss(one) for one in tried if not one.failed), default=(True, float("inf")))
            tried.append(candidate)
            if candidate.holds:
                least.unlink(missing_ok=True)
                return tuple(tried)
            if not candidate.failed and rank_loss(candidate) < best:
                path.replace(least)
        path.unlink(missing_ok=True)
        if least.exists():
            least.replace(path)
        return tuple(tried)

    def try_plan(self, plan: QuantizationPlan, spared: dict[str, float], path: Path) -> QuantizationCandidate:
        """Quantize by a plan and evaluate the result; what does not quantize, open or run has failed."""
        try:
            self.quantize(self.graph, self.calibration, plan, path)
            return self.evaluate_candidate(plan, spared, path)
        except QuantizationError as exc:
            return build_failed_candidate(plan, str(exc), spared)
        except (ModelRefusedError, InvalidInputError):  # of opening and of running it, in onnxruntime's own words
            return build_failed_candidate(plan, "onnxruntime does not run the quantized graph", spared)

    @abstractmethod
    def generate_plans(self) -> Iterator[tuple[QuantizationPlan, dict[str, float]]]:
        """Generate plans in order, each with the layers that it spares."""

    @abstractmethod
    def evaluate_candidate(self, plan: QuantizationPlan, spared: dict[str, float], path: Path) -> QuantizationCandidate:
        """Evaluate whether a variant that was written is good enough."""

    def generate_sparing_plans(self, plan: QuantizationPlan) -> Iterator[tuple[QuantizationPlan, dict[str, float]]]:
        """Generate plans without the worst layers, whose number doubles: one, two, four ..."""
        worst, count = self.rank_layers(plan), 1
        while count < len(worst):
            spared = dict(list(worst.items())[:count])
            yield replace(plan, excluded_layers=tuple(spared)), spared
            count *= 2

    def rank_layers(self, plan: QuantizationPlan) -> dict[str, float]:
        """Rank the layers, worst first, by the signal-to-noise ratio in dB when only that layer is quantized.

        Layers that cannot be quantized alone are left out: a plan can spare nothing there. None if none can.
        """
        layer_names = self.list_layers()
        alone = {}
        for name in layer_names:
            with suppress(QuantizationError, ModelRefusedError, InvalidInputError):  # then it is not ranked
                others = tuple(other for other in layer_names if other != name)
                alone[name] = self.measure_signal_to_noise(replace(plan, excluded_layers=others))
        return dict(sorted(alone.items(), key=lambda pair: pair[1]))

    def list_layers(self) -> tuple[str, ...]:
        """List the layers that can be spared; none if the graph cannot be prepared."""
        try:
            return list_quantizable_layers(self.graph)
        except QuantizationError:
            return ()

    def measure_signal_to_noise(self, plan: QuantizationPlan) -> float:
        """Measure the ratio of the outputs on the calibration inputs to the quantization noise, in dB."""
        with TemporaryDirectory(prefix="pilotlight-ladder-") as folder:
            path = Path(folder, "alone.onnx")
            self.quantize(self.graph, self.calibration, plan, path)
            return measure_signal_to_noise(self.graph, path, self.calibration)


def build_failed_candidate(
    plan: QuantizationPlan, reason: str, spared: dict[str, float] | None = None
) -> QuantizationCandidate:
    """Build the candidate of a plan that wrote no graph."""
    return QuantizationCandidate(str(plan), 0.0, 0, False, reason, spared or {}, plan.precision, failed=True)


def generate_batches(session: Session, inputs: Inputs | Sequence[Feeds]) -> Iterator[Feeds]:
    """Generate requests of a few of a graph's inputs (N, ...), or the requests as they are."""
    if not isinstance(inputs, np.ndarray | Pixels):
        yield from inputs
        return
    from functions.train.evaluation.graphs import split_examples  # imports torch

    for rows in split_examples(inputs):
        yield {session.inputs[0].name: inputs[rows]}


def measure_signal_to_noise(graph: Path, changed: Path, inputs: Inputs | Sequence[Feeds]) -> float:
    """Measure the ratio of a graph's outputs to their change, in dB, as onnxruntime's `qdq_loss_debug` defines it."""
    (session, other), sums = [open_session(str(path)) for path in (graph, changed)], np.zeros(2)
    for feed in generate_batches(session, inputs):
        expected, found = session.run(feed), other.run(feed)
        for name, values in expected.items():
            if values.dtype.kind == "f":
                one, two = values.astype(np.float64), found[name].astype(np.float64)
                sums += np.square(one).sum(), np.square(one - two).sum()
    signal, noise = np.sqrt(np.maximum(sums, np.finfo(np.float64).eps ** 2))
    return float(20 * np.log10(signal / noise))
