"""A training set in numbers, as captured requests are compared with it: histograms by feature and of the answers.

Frozen msgspec structs as in the manifest; `pilotlight.drift` makes and compares them. A profile is a file of
a version beside its report, not part of the manifest, which a cold function reads before anything else.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=0)]


class NumericHistogram(Struct, frozen=True, tag="numbers", tag_field="kind"):
    """How many numbers lie between the edges: bin i has edges[i - 1] < x <= edges[i], the last all above them.

    The edges are quantiles, so most bins are of about the same share; a value that is frequent has a bin of its own.
    """

    edges: tuple[float, ...]  # ascending
    counts: tuple[Count, ...]  # one more than edges
    missing: Count = 0

    def __post_init__(self) -> None:
        """Refuse bins that cannot be counted in; msgspec reports it as a wrong document."""
        if len(self.counts) != len(self.edges) + 1 or sorted(set(self.edges)) != list(self.edges):
            raise ValueError(f"has {len(self.counts)} counts for {len(self.edges)} edges, which must ascend")


class CategoricalHistogram(Struct, frozen=True, tag="categories", tag_field="kind"):
    """How often each word came, and behind them all others together."""

    names: tuple[str, ...]
    counts: tuple[Count, ...]  # one more than names
    missing: Count = 0

    def __post_init__(self) -> None:
        """Refuse counts that are not one for each name and one for the rest; msgspec reports it."""
        if len(self.counts) != len(self.names) + 1:
            raise ValueError(f"has {len(self.counts)} counts for {len(self.names)} names and the rest")


Histogram = NumericHistogram | CategoricalHistogram


class FeatureProfile(Struct, frozen=True, kw_only=True):
    """What a version was trained on and how it answers, as far as its policy lets it be kept.

    The answers are those to examples that it did not learn from: to the others every model is too sure of itself.
    """

    schema_version: Literal[1] = 1
    examples: Count  # that the features were counted in
    answered: Count = 0  # that the answers were counted in
    features: dict[str, Histogram]
    answers: dict[str, Histogram] = {}
    left_out: Count = 0  # features beyond the most that are profiled
