"""A training set in numbers, for comparison with captured requests: histograms of the features and of the answers.

Frozen msgspec structs as in the manifest; `pilotlight.drift` builds and compares them. A profile is a file of a version
beside its report, not part of the manifest, which a cold function reads before anything else.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=0)]


class NumericHistogram(Struct, frozen=True, tag="numbers", tag_field="kind"):
    """Counts of numbers between edges: bin i has edges[i - 1] < x <= edges[i], the last one all above them.

    The edges are quantiles, so most bins have about the same share; a frequent value has a bin of its own.
    """

    edges: tuple[float, ...]  # ascending
    counts: tuple[Count, ...]  # one more than edges
    missing: Count = 0

    def __post_init__(self) -> None:
        """Refuse a wrong number of bins and unsorted edges; msgspec reports it as an invalid document."""
        if len(self.counts) != len(self.edges) + 1 or sorted(set(self.edges)) != list(self.edges):
            raise ValueError(f"has {len(self.counts)} counts for {len(self.edges)} edges, which must ascend")


class CategoricalHistogram(Struct, frozen=True, tag="categories", tag_field="kind"):
    """Counts of each category, and at the end of all others together."""

    names: tuple[str, ...]
    counts: tuple[Count, ...]  # one more than names
    missing: Count = 0

    def __post_init__(self) -> None:
        """Refuse counts that are not one for each name and one for the rest; msgspec reports an invalid document."""
        if len(self.counts) != len(self.names) + 1:
            raise ValueError(f"has {len(self.counts)} counts for {len(self.names)} names and the rest")


Histogram = NumericHistogram | CategoricalHistogram


class FeatureProfile(Struct, frozen=True, kw_only=True):
    """What a version was trained on and how it answers, as far as its policy allows.

    The answers are those to examples that were not in training: a model is too confident about the others.
    """

    schema_version: Literal[1] = 1
    examples: Count  # in which the features were counted
    answered: Count = 0  # in which the answers were counted
    features: dict[str, Histogram]
    answers: dict[str, Histogram] = {}
    left_out: Count = 0  # features beyond the maximum
