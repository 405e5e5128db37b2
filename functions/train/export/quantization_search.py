"""The quantization ladder: ways to fewer bits from the cheapest to the most careful, tried until one is good enough.

Each rung is judged on the validation set: the test set, on which the report then measures the one that held, has no
say in which it is. It knows graphs as files, not how they were trained.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec import Struct
from onnxruntime.quantization.qdq_loss_debug import compute_signal_to_quantization_noice_ratio as signal_to_noise

from functions.train.data.dataset import Array, Dataset
from functions.train.evaluation.metrics import judge
from functions.train.export.graph import ask
from functions.train.export.quantize import Plan, layers, quantize
from pilotlight.contracts.manifest import Precision
from pilotlight.contracts.metric import METRICS
from pilotlight.recipes.options.graph import QuantizationOptions
from pilotlight.runtime.session import open_session

# Static starts per channel: at no cost in time on any CPU measured, while dynamic pays some bytes and time for it.
FIRST: Mapping[str, Plan] = {"static": Plan("static"), "dynamic": Plan("dynamic", per_channel=False)}
FIRST = {**FIRST, "weight-only": FIRST["dynamic"]}  # the 8-bit rungs, which follow the 4-bit one


class Rung(Struct, frozen=True):
    """A way to quantize that was tried, and what became of it."""

    plan: str
    points_lost: float  # of the metric, on the validation set, in its unit (`pilotlight.contracts.metric`)
    bytes: int
    holds: bool  # within the budget, and smaller than fp32
    why: str
    spared: dict[str, float] = {}  # layers left in fp32, with dB of signal to noise where each alone is quantized
    precision: Precision = "int8"


def kept(rungs: Sequence[Rung]) -> Rung:
    """The rung whose graph was written: the one that holds, or the first of those that lose least."""
    return rungs[-1] if rungs[-1].holds else min(rungs, key=lambda rung: rung.points_lost)


@dataclass(frozen=True)
class Ladder:
    """What the rungs have in common: the graph, its inputs for calibration, and how it is judged."""

    graph: Path
    calibration: Array
    validation: Dataset
    options: QuantizationOptions

    def climb(self, path: Path) -> tuple[Rung, ...]:
        """Write the first variant that holds, or the one that loses least, and tell of all that were tried."""
        tried: list[tuple[Rung, Plan]] = []
        for plan, spared in self.plans():
            quantize(self.graph, self.calibration, plan, path)
            tried.append((self.judge(plan, spared, path), plan))
            if tried[-1][0].holds:
                break
        else:
            _, least = min(tried, key=lambda each: each[0].points_lost)
            quantize(self.graph, self.calibration, least, path)
        return tuple(rung for rung, _ in tried)

    def plans(self) -> Iterator[tuple[Plan, dict[str, float]]]:
        """From the bottom: 4 bits for weights alone; in 8, the scheme, per channel, then its worst layers spared.

        Of these one, two, four ... more with each rung.
        """
        if self.options.scheme == "weight-only":
            yield Plan("weight-only", block=self.options.block), {}
        first = FIRST[self.options.scheme]
        yield first, {}
        finer = replace(first, per_channel=True)
        if finer != first:
            yield finer, {}
        worst, count = self.ranked(finer), 1
        while count < len(worst):
            spared = dict(list(worst.items())[:count])
            yield replace(finer, exclude=tuple(spared)), spared
            count *= 2

    def judge(self, plan: Plan, spared: dict[str, float], path: Path) -> Rung:
        """Whether a variant is within the budget on the validation set, and smaller than fp32."""
        full, size, name = self.graph.stat().st_size, path.stat().st_size, self.validation.metric
        metric, budget = METRICS[name], self.budget
        lost = metric.lost(self.value(self.graph), self.value(path))
        holds = lost <= budget
        why = f"it loses {metric.told(lost, name)}, {'within' if holds else 'more than'} the budget of "
        why += f"{budget:.{metric.digits}f}"
        if holds and size >= full:
            holds, why = False, f"its {size:,} bytes are no fewer than the {full:,} of fp32"
        return Rung(str(plan), lost, size, holds, why, spared, plan.precision)

    @property
    def budget(self) -> float:
        """What may be lost, in the metric's unit."""
        return METRICS[self.validation.metric].budget if self.options.budget is None else self.options.budget

    def value(self, graph: Path) -> float:
        """The metric of a graph on the validation set."""
        answers = ask(open_session(str(graph)), self.validation.inputs)
        return judge(answers, self.validation).metrics[self.validation.metric]

    def ranked(self, plan: Plan) -> dict[str, float]:
        """The layers, worst first, by the dB of signal to noise in the answers when a layer alone is quantized."""
        every = layers(self.graph)
        alone = {
            name: self.noise(replace(plan, exclude=tuple(other for other in every if other != name))) for name in every
        }
        return dict(sorted(alone.items(), key=lambda pair: pair[1]))

    def noise(self, plan: Plan) -> float:
        """How far above the quantization noise the answers to the calibration inputs are, in dB."""
        with TemporaryDirectory(prefix="pilotlight-ladder-") as folder:
            path = Path(folder, "alone.onnx")
            quantize(self.graph, self.calibration, plan, path)
            answers = [ask(open_session(str(graph)), self.calibration) for graph in (self.graph, path)]
        return float(signal_to_noise(*answers))
