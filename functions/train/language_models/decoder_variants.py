"""Write a decoder's variants, measure each on one text, and choose the one that is served.

The fp32 graph is what the others are compared with; it is removed unless it is served.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Literal, get_args

from msgspec.structs import replace

from functions.train.convert.progress_lines import show_line
from functions.train.evaluation.agreement import OutputAgreement
from functions.train.evaluation.variant_choice import Gain, Loss, Quality, weigh_named_variant, weigh_variant
from functions.train.evaluation.variant_report import (
    VariantMeasurement,
    VariantReport,
    compute_gain,
    describe_machine,
    summarize_variants,
)
from functions.train.evaluation.variant_timing import measure_request_times
from functions.train.export.candidate_search import QuantizationCandidate
from functions.train.language_models import text_scoring
from functions.train.language_models.decoder_config import DecoderCheckpoint
from functions.train.language_models.decoder_graph import GraphFiles, write_decoder_graph
from functions.train.language_models.progress import ProgressLine
from functions.train.language_models.text_scoring import EvaluationText, TokenScores
from pilotlight.contracts import decoder as tensors
from pilotlight.contracts.decoder import DecoderSpec
from pilotlight.contracts.manifest import EvaluationSet, Precision, Variant
from pilotlight.contracts.metric import METRICS, PERPLEXITY, SOURCE_PERPLEXITY, format_value
from pilotlight.errors import InvalidInputError
from pilotlight.runtime.session import Session, build_session, open_decoder_session

Quantize = Literal["auto", "int8", "int4", "none"]
QUANTIZE_WORDS: tuple[str, ...] = get_args(Quantize)
TIMED_LENGTH = 64  # tokens in the cache while the next one is timed
MEASURING_MB = 10_240  # of a function, whose vCPUs the sessions here may use
CANDIDATES: Mapping[str, tuple[Precision, ...]] = {  # the smallest first
    "auto": ("int4", "int8"),
    "int8": ("int8",),
    "int4": ("int4",),
    "none": (),
}


@dataclass(frozen=True)
class MeasuredVariant:
    """A variant's files, and how it did on the text."""

    files: GraphFiles
    scores: TokenScores
    measurement: VariantMeasurement


@dataclass(frozen=True)
class DecoderChoice:
    """The served variant, and the report of all that were measured."""

    precision: Precision
    variant: Variant
    report: VariantReport


@dataclass
class DecoderVariants:
    """Writes and measures variants in a folder, one after another."""

    checkpoint: DecoderCheckpoint
    spec: DecoderSpec
    text: EvaluationText
    windows: list[list[int]]
    folder: Path
    measured: dict[Precision, MeasuredVariant] = field(default_factory=dict)
    sessions: dict[Precision, Session] = field(default_factory=dict)  # fp32's stays open, to be timed beside others

    def choose(self, quantize: Quantize) -> DecoderChoice:
        """Write what `quantize` allows, from the smallest on, until one is good enough; fp32 always is."""
        self.measure("fp32")
        serve, verdict, candidates = self.search(quantize)
        self.sessions.clear()
        tried = candidates[-1].precision if candidates else None
        show_line(verdict)
        report = VariantReport(
            serve=serve,
            verdict=verdict,
            metric=PERPLEXITY,
            points_lost=candidates[-1].points_lost if candidates else None,
            budget=METRICS[PERPLEXITY].default_budget,
            evaluation=self.describe_evaluation(),
            rungs=candidates,
            compared=f"tokens of {self.text.name}",
            requests=self.describe_evaluation().examples,
            **summarize_variants(
                {name: one.measurement for name, one in self.measured.items()},
                tried,
                describe_machine(),
                [self.compute_agreement(tried)] if tried else (),
            ),
        )
        served = self.measured[serve]
        metrics = served.measurement.metrics | {"loss": served.scores.loss, "latency_ms": served.measurement.latency_ms}
        variant = Variant(served.files.graph.name, metrics, (served.files.weights.name,))
        self.remove_all_but(serve)
        return DecoderChoice(serve, variant, report)

    def search(self, quantize: Quantize) -> tuple[Precision, str, tuple[QuantizationCandidate, ...]]:
        """Weigh one quantized variant after another against fp32; return the choice, why, and what was tried."""
        candidates = list[QuantizationCandidate]()
        weigh = weigh_variant if quantize == "auto" else weigh_named_variant
        serve: Precision = "fp32"
        verdict = "fp32 is served, as asked."
        for precision in CANDIDATES[quantize]:
            self.measure(precision)
            gain, quality = self.compute_gain(precision), self.compute_quality(precision)
            serve, verdict = weigh(precision, gain, quality)
            candidates.append(self.describe_candidate(precision, gain, quality, holds=serve == precision))
            if serve == precision:
                break
            self.measured[precision].files.remove()
        return serve, verdict, tuple(candidates)

    def measure(self, precision: Precision) -> None:
        """Write a variant and measure it."""
        with ProgressLine(f"Writing {precision}") as line:
            files = write_decoder_graph(
                self.checkpoint.config, self.checkpoint.weights, precision, self.folder, self.spec.context_length, line
            )
        native = open_decoder_session(files.graph, MEASURING_MB)
        session = self.sessions[precision] = build_session(lambda: native, native)
        with ProgressLine(f"Scoring {precision} on {self.text.name}") as line:
            scores = text_scoring.score_windows(session, self.spec, self.windows, line)
        if precision == "fp32" and not isfinite(scores.loss):
            raise InvalidInputError(
                f"{self.checkpoint.origin} gives tokens the probability NaN; its weights are damaged. Download them "
                "again."
            )
        times = measure_token_times(self.sessions, self.spec)
        measurement = self.build_measurement(files, scores, times[precision])
        if precision != "fp32":
            del self.sessions[precision]
            full = self.measured["fp32"]
            timed = replace(full.measurement, latency_ms=times["fp32"])
            self.measured["fp32"] = MeasuredVariant(full.files, full.scores, timed)
        self.measured[precision] = MeasuredVariant(files, scores, measurement)
        show_line(describe_measurement(precision, measurement))

    def build_measurement(self, files: GraphFiles, scores: TokenScores, latency_ms: float) -> VariantMeasurement:
        """Build the measurements of a variant for the report; fp32 comes first, and the others are compared with it."""
        metrics = {PERPLEXITY: scores.perplexity}
        if full := self.measured.get("fp32"):
            metrics[SOURCE_PERPLEXITY] = full.scores.perplexity
            metrics["agreement"] = scores.compute_agreement(full.scores)
        return VariantMeasurement(scores.loss, {}, files.bytes, latency_ms, metrics=metrics)

    def compute_gain(self, precision: Precision) -> Gain:
        """Compute what a variant saves."""
        return compute_gain(self.measured["fp32"].measurement, self.measured[precision].measurement)

    def compute_agreement(self, precision: Precision) -> OutputAgreement:
        """Compute how often a variant finds the same token likeliest as fp32."""
        scores = self.measured[precision].scores
        same = scores.compute_agreement(self.measured["fp32"].scores)
        return OutputAgreement(tensors.LOGITS, same, places=len(scores.losses))

    def compute_quality(self, precision: Precision) -> Quality:
        """Compute how much of the perplexity a variant loses."""
        definition = METRICS[PERPLEXITY]
        before, after = (self.measured[name].scores.perplexity for name in ("fp32", precision))
        loss = Loss(PERPLEXITY, definition.compute_degradation(before, after), definition.default_budget)
        examples = len(self.measured[precision].scores.losses)
        return Quality([self.compute_agreement(precision)], examples, f"tokens of {self.text.name}", loss)

    def describe_candidate(
        self, precision: Precision, gain: Gain, quality: Quality, *, holds: bool
    ) -> QuantizationCandidate:
        """Describe a variant that was tried."""
        return QuantizationCandidate(
            plan=f"{precision} in blocks of 32",
            points_lost=quality.loss.amount if quality.loss else 0.0,
            bytes=self.measured[precision].files.bytes,
            holds=holds,
            why=f"{gain}; {quality}",
            precision=precision,
            size_ratio=gain.size_ratio,
            latency_ratio=gain.latency_ratio,
            agreement=self.compute_agreement(precision).same,
        )

    def describe_evaluation(self) -> EvaluationSet:
        """Describe what was scored."""
        return text_scoring.describe_evaluation(self.windows)

    def remove_all_but(self, serve: Precision) -> None:
        """Remove the files of the variants that are not served."""
        for precision, one in self.measured.items():
            if precision != serve:
                one.files.remove()


def describe_measurement(precision: Precision, measurement: VariantMeasurement) -> str:
    """Describe a variant in a line."""
    agreement = measurement.metrics.get("agreement")
    same = "" if agreement is None else f", {agreement:.1%} of the likeliest tokens as in fp32"
    perplexity = format_value(PERPLEXITY, measurement.metrics[PERPLEXITY])
    size = f"{measurement.bytes / 1e6:,.0f} MB"
    return f"{precision}: {size}, perplexity {perplexity}{same}, {measurement.latency_ms:.1f} ms a token"


def measure_token_times(sessions: Mapping[Precision, Session], spec: DecoderSpec) -> dict[Precision, float]:
    """Measure the median time of one more token behind a short text, in ms, with all sessions in turn."""
    length = min(TIMED_LENGTH, spec.context_length - 1)
    feed = text_scoring.create_cache(spec, length + 1) | text_scoring.build_feed([spec.end_tokens[0]], length + 1, 1)
    return measure_request_times(sessions, feed)
