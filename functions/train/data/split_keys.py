"""What determines the set of an example besides chance: files of a set's own, groups that stay together, and time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from functions.train.data import Array
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.data_schema import SplitFractions

SETS = ("train", "validation", "test")
OPEN = -1  # of an example whose set is not determined by its file


@dataclass(frozen=True, eq=False)
class SplitKeys:
    """What determines the set of each example; None where nothing does."""

    sets: Array | None = None  # int8 (N,), an index into SETS, or OPEN
    groups: Array | None = None  # (N,), examples of one value stay together
    times: Array | None = None  # (N,), earlier ones are learned from
    time_names: Array | None = None  # (N,), the times as they were written

    def select(self, indices: Array) -> "SplitKeys":
        """Select the examples at `indices`, in that order."""
        parts = (self.sets, self.groups, self.times, self.time_names)
        return SplitKeys(*(None if part is None else part[indices] for part in parts))

    @property
    def key(self) -> str | None:
        """The key of a recipe by which examples are split: groups or time, or None."""
        return "data.group" if self.groups is not None else None if self.times is None else "data.time"

    @property
    def is_random(self) -> bool:
        """Whether chance alone determines the sets."""
        return self.sets is None and self.groups is None and self.times is None


def assign_groups(
    groups: Array, strata: Array, fractions: SplitFractions, rng: np.random.Generator, taken: Array
) -> Array:
    """Assign each example to a set by its group, (N,), so that sizes and strata come as near the fractions as they can.

    The largest group first, each goes where it leaves the least distance to what is wanted. `taken` (N,) is the set of
    examples that have one, or OPEN; these say where their group goes.
    """
    names, codes = np.unique(groups, return_inverse=True)
    _, kinds = np.unique(strata, return_inverse=True)
    counts = np.zeros((len(names), kinds.max() + 1))
    np.add.at(counts, (codes, kinds), taken == OPEN)
    chosen = find_taken_sets(names, codes, taken)
    shares = np.array([fractions.train, fractions.validation, fractions.test])
    wanted = shares[:, None] * counts.sum(axis=0)
    have, scale = np.zeros_like(wanted), 1 / np.maximum(counts.sum(axis=0), 1)
    order = rng.permutation(np.flatnonzero(chosen == OPEN))
    for group in order[np.argsort(-counts[order].sum(axis=1), kind="stable")]:
        gain = ((2 * (wanted - have) - counts[group]) * counts[group] * scale).sum(axis=1)
        chosen[group] = np.where(shares > 0, gain, -np.inf).argmax()
        have[chosen[group]] += counts[group]
    return np.asarray(np.where(taken == OPEN, chosen[codes], taken))


def find_taken_sets(names: Array, codes: Array, taken: Array) -> Array:
    """Find the set of each group that files determine, or OPEN; refuse a group that lies in files of two sets."""
    chosen = np.full(len(names), OPEN, np.int8)
    for number in range(len(SETS)):
        inside = np.unique(codes[taken == number])
        if len(twice := inside[chosen[inside] != OPEN]):
            other = SETS[int(chosen[twice[0]])]
            raise InvalidInputError(
                f"data.group: {len(twice):,} groups, such as {names[twice[0]]!s}, lie in the files of both {other} and "
                f"{SETS[number]}; a group must be in one set."
            )
        chosen[inside] = number
    return chosen


def assign_times(times: Array, fractions: SplitFractions, taken: Array) -> Array:
    """Assign each example to a set by its time, (N,): the earliest to train; all of one time to one set."""
    chosen, free = taken.copy(), np.flatnonzero(taken == OPEN)
    moments, counts = np.unique(times[free], return_counts=True)
    ends = np.concatenate([[0], np.cumsum(counts)])  # how many examples are earlier than each distinct time
    shares = np.cumsum([fractions.train, fractions.validation]) * len(free)
    cuts = [int(np.abs(ends - share).argmin()) for share in shares]  # the nearest place between two times
    for number, share in enumerate((fractions.train, fractions.validation, fractions.test)):
        first, last = (cuts[number - 1] if number else 0), (cuts[number] if number < 2 else len(moments))
        if share and first == last:
            raise InvalidInputError(
                f"data.fractions.{SETS[number]} is too small: no time of data.time falls in that set; there are "
                f"{len(moments):,} different times."
            )
    codes = np.searchsorted(moments, times[free])
    chosen[free] = np.digitize(codes, cuts)
    return chosen


def describe_times(keys: SplitKeys, assigned: Array) -> str:
    """Describe where time was cut."""
    times, names = np.asarray(keys.times), np.asarray(keys.time_names)
    spans = []
    for number, name in enumerate(SETS):
        inside = np.flatnonzero(assigned == number)
        if len(inside):
            first, last = inside[times[inside].argmin()], inside[times[inside].argmax()]
            spans.append(f"{name} {names[first]} to {names[last]}")
    return f"split by time: {', '.join(spans)}"


def describe_groups(groups: Array, assigned: Array) -> str:
    """Describe how many groups each set has."""
    counts = [len(np.unique(groups[assigned == number])) for number in range(len(SETS))]
    parts = ", ".join(f"{count:,} {name}" for count, name in zip(counts, SETS, strict=True) if count)
    return f"split by groups, none of which is in two sets: {parts}"


def describe_own_files(counts: Sequence[int], names: Sequence[str]) -> str:
    """Describe which sets have files of their own."""
    parts = ", ".join(f"{name} ({count:,} examples)" for name, count in zip(names, counts, strict=True))
    return f"sets with files of their own: {parts}"
