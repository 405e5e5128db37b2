"""The rule by which a quantized variant is served: what it saves and what it costs, weighed together (decision 0072).

It is served where it answers well enough and saves enough: at most `MAX_SIZE` of fp32's bytes or `MAX_TIME` of its
time, without costing too much of the other. Well enough is a loss within the metric's budget; without right answers,
an agreement above the floor of `agreement`. A variant that is slower must also change next to no class.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from functions.train.evaluation.agreement import (
    FLOOR,
    MIN_EXAMPLES,
    MIN_SAME,
    OutputAgreement,
    find_worst_agreement,
)
from pilotlight.contracts.manifest import Precision
from pilotlight.contracts.metric import METRICS

MAX_SIZE = 0.75  # of fp32's bytes: enough smaller
MAX_TIME = 0.80  # of fp32's time: enough faster
SLOWER = 1.05  # of fp32's time: beyond the noise of a median
MUCH_SLOWER = 1.5  # of fp32's time: too slow for any size
TOKEN_METRICS = ("loss", "perplexity")  # computed from the probability of each right token
UNNOTICED_MS = 0.05  # of difference, that no caller notices


@dataclass(frozen=True)
class Gain:
    """What a variant saves: its bytes and its time as shares of fp32's, and the difference of times in ms."""

    size_ratio: float
    latency_ratio: float
    slower_ms: float = 0.0

    @property
    def is_enough(self) -> bool:
        """Whether it saves enough of one, and does not cost too much of the other."""
        smaller = self.size_ratio <= MAX_SIZE and not self.is_much_slower
        faster = self.latency_ratio <= MAX_TIME and self.size_ratio <= 1
        return smaller or faster

    @property
    def is_slower(self) -> bool:
        """Whether it takes longer than fp32."""
        return self.latency_ratio > SLOWER

    @property
    def is_much_slower(self) -> bool:
        """Whether it takes so much longer that its size does not count."""
        return self.latency_ratio > MUCH_SLOWER and self.slower_ms > UNNOTICED_MS

    def __str__(self) -> str:
        return f"{self.size_ratio:.3f} of the size and {self.latency_ratio:.2f} of the time"


@dataclass(frozen=True)
class Loss:
    """What a variant loses of a metric, in its unit, and what it may lose."""

    metric: str
    amount: float
    budget: float

    @property
    def is_within_budget(self) -> bool:
        """Whether it may lose that much."""
        return self.amount <= self.budget

    def __str__(self) -> str:
        definition = METRICS[self.metric]
        relation = "within" if self.is_within_budget else "more than"
        change = "gains" if self.amount < 0 else "loses"
        return (
            f"it {change} {definition.format_difference(abs(self.amount), self.metric)}, {relation} the budget of "
            f"{self.budget:.{definition.decimals}f}"
        )


@dataclass(frozen=True)
class Quality:
    """How good a variant's answers are: a loss against right answers if there are any, and the agreement with fp32."""

    agreements: Sequence[OutputAgreement]
    examples: int
    source: str  # of the examples, such as "evaluation"
    loss: Loss | None = None

    @property
    def is_enough(self) -> bool:
        """Whether there are enough examples, and a loss is within its budget or all outputs agree above the floor."""
        if self.examples < MIN_EXAMPLES:
            return False
        if self.loss is not None:
            return self.loss.is_within_budget and all(one.finite for one in self.agreements)
        return self.is_told and all(one.is_close for one in self.agreements)

    @property
    def is_told(self) -> bool:
        """Whether fp32 answered anything but zeros: a detector that finds nothing agrees with any other."""
        return any(one.told for one in self.agreements)

    @property
    def changes_classes(self) -> bool:
        """Whether more answers become other classes than the floor lets through."""
        return any(one.places and one.same < MIN_SAME for one in self.agreements)

    def __str__(self) -> str:
        worst = find_worst_agreement(self.agreements)
        compared = f", over {self.examples:,} {self.source}"
        too_few = f"{compared}, too few to tell: {MIN_EXAMPLES} are enough" if self.examples < MIN_EXAMPLES else ""
        if self.loss is not None:
            what = "likeliest tokens stay the same" if self.loss.metric in TOKEN_METRICS else "answers keep their class"
            kept = f", {worst.same:.2%} of the {what}" if worst and worst.places else ""
            return f"{self.loss}{kept}{too_few}"
        if worst is None or not self.examples:
            return "nothing tells what it loses, since no request could be compared"
        if not self.is_told:
            return (
                f"nothing tells what it loses, since fp32 answers nothing but zeros to {self.examples:,} {self.source}"
            )
        return f"{worst}{too_few or compared}"


def weigh_variant(small: Precision, gain: Gain, quality: Quality) -> tuple[Precision, str]:
    """Choose between fp32 and a quantized variant; return the choice and a verdict with the numbers."""
    numbers = f"{small} takes {gain}; {quality}"
    if not quality.is_enough:
        return "fp32", f"fp32 is served: {numbers}{'' if quality.loss else f'; the floor is {FLOOR}'}."
    if not gain.is_enough:
        needed = f"{MAX_SIZE:g} of the size or {MAX_TIME:g} of the time"
        return "fp32", f"fp32 is served: {numbers}; that is no gain, for which it takes {needed}."
    if gain.is_slower and counts_classes(quality) and quality.changes_classes:
        changed = f"more than {1 - MIN_SAME:.0%} of the answers"
        return "fp32", f"fp32 is served: {numbers}; it is slower, and changes {changed}."
    return small, f"{small} is served: {numbers}."


def weigh_named_variant(small: Precision, gain: Gain, quality: Quality) -> tuple[Precision, str]:
    """Weigh a variant that was asked for by name: it is served whatever it costs, and the verdict tells of that."""
    serve, verdict = weigh_variant(small, gain, quality)
    if serve == small:
        return small, verdict.replace(f"{small} is served:", f"{small} is served, as asked:", 1)
    reason = verdict.removeprefix("fp32 is served: ")
    return small, f"{small} is served, as asked, though fp32 would be: {reason}"


def counts_classes(quality: Quality) -> bool:
    """Return whether right classes are counted: losses of tokens see every change of a probability by themselves."""
    return quality.loss is None or quality.loss.metric not in TOKEN_METRICS
