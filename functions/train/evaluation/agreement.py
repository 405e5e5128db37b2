"""How far a quantized graph repeats the answers of the fp32 graph, for every output, whatever the outputs mean.

Of floats: the largest |difference|, that as a share of fp32's largest |value|, the cosine of all values, and the share
of places whose largest value is the same. Of integers, booleans and texts: the share that is equal.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from msgspec import Struct

from functions.train.data import Array

MIN_SAME = 0.99  # share of places with the same largest value, or of equal answers
MAX_RELATIVE = 0.05  # the largest |difference|, as a share of the largest |value|
MIN_COSINE = 0.999
MIN_EXAMPLES = 16  # compared ones; fewer tell nothing
FLOOR = f"{MIN_SAME:.0%} the same, {MAX_RELATIVE:.0%} apart, cosine {MIN_COSINE}"
CLASS_AXIS_RANK = 4  # (N, classes, height, width), and beyond: the classes come second


class OutputAgreement(Struct, frozen=True):
    """How far two variants agree in one output."""

    name: str
    same: float = 1.0  # share of places with the same largest value, or of equal integers, booleans and texts
    max_abs: float = 0.0  # the largest |difference|
    relative: float = 0.0  # the same, as a share of fp32's largest |value|
    cosine: float = 1.0  # of all values
    exact: bool = False  # whether it is integers, booleans or texts, of which only `same` tells
    finite: bool = True  # whether numbers are answered wherever fp32 answers numbers
    told: bool = True  # whether there was something to compare: an answer that is not zero
    places: int = 0  # whose largest value was compared, or that were compared as they are

    @property
    def is_close(self) -> bool:
        """Whether the agreement is above the floor."""
        near = self.exact or (self.relative <= MAX_RELATIVE and self.cosine >= MIN_COSINE)
        return self.finite and self.same >= MIN_SAME and near

    def __str__(self) -> str:
        if self.exact:
            return f"{self.same:.2%} of {self.name!r} are equal"
        if not self.finite:
            return f"{self.name!r} has NaN or infinity where fp32 has numbers"
        same = f"the largest value in the same place in {self.same:.2%}, " if self.places else ""
        return f"{self.name!r}: {same}at most {self.relative:.2%} of the largest value apart, cosine {self.cosine:.4f}"


@dataclass
class AgreementMeter:
    """Adds up the agreement of one output over requests, without keeping them."""

    name: str
    equal: int = 0
    places: int = 0
    max_abs: float = 0.0
    largest: float = 0.0
    products: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])  # full * full, full * small, small * small
    is_exact: bool = False
    is_finite: bool = True

    def add(self, full: Array, small: Array) -> None:
        """Add the answers to one request."""
        if full.dtype.kind != "f" or full.shape != small.shape:
            self._add_exact(full, small)
            return
        one, other = full.astype(np.float64), small.astype(np.float64)
        usable = np.isfinite(one)
        self.is_finite &= bool(np.isfinite(other[usable]).all())
        one, other = np.where(usable, one, 0.0), np.where(usable & np.isfinite(other), other, 0.0)
        self.max_abs = max(self.max_abs, float(np.abs(one - other).max(initial=0.0)))
        self.largest = max(self.largest, float(np.abs(one).max(initial=0.0)))
        pairs = (one, one), (one, other), (other, other)
        self.products = [total + float(np.vdot(*pair)) for total, pair in zip(self.products, pairs, strict=True)]
        self._add_largest_places(one, other)

    def _add_exact(self, full: Array, small: Array) -> None:
        self.is_exact = True
        self.places += max(full.size, 1)
        self.equal += int(np.sum(full == small)) if full.shape == small.shape else 0

    def _add_largest_places(self, one: Array, other: Array) -> None:
        axis = 1 if one.ndim >= CLASS_AXIS_RANK else -1
        if one.ndim < 2 or one.shape[axis] < 2 or not one.size:
            return
        same = one.argmax(axis=axis) == other.argmax(axis=axis)
        self.places += same.size
        self.equal += int(same.sum())

    @property
    def agreement(self) -> OutputAgreement:
        """What was measured."""
        full, mixed, small = self.products
        length = np.sqrt(full) * np.sqrt(small)
        return OutputAgreement(
            self.name,
            same=self.equal / self.places if self.places else 1.0,
            max_abs=self.max_abs,
            relative=self.max_abs / self.largest if self.largest else float(self.max_abs > 0),
            cosine=float(mixed / length) if length else float(full == small),
            exact=self.is_exact,
            finite=self.is_finite,
            told=self.is_exact or self.largest > 0,
            places=self.places,
        )


def measure_agreements(
    pairs: Iterable[tuple[Mapping[str, Array], Mapping[str, Array]]],
) -> tuple[OutputAgreement, ...]:
    """Measure the agreement of each output over pairs of fp32's answers and the smaller variant's."""
    meters: dict[str, AgreementMeter] = {}
    for full, small in pairs:
        for name, values in full.items():
            meters.setdefault(name, AgreementMeter(name)).add(values, small[name])
    return tuple(meter.agreement for meter in meters.values())


def find_worst_agreement(agreements: Iterable[OutputAgreement]) -> OutputAgreement | None:
    """Find the output that agrees least: one below the floor before all others, then the least equal one."""
    return min(agreements, key=lambda one: (one.is_close, one.finite, one.same, -one.relative), default=None)
