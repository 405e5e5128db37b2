"""Feed a set of examples to a graph as the graph takes them, and sort its answers by example.

The examples of an input lie along one of its axes: mostly the first, the second of an RNN's state. A graph with a fixed
size there is fed that many at a time; one without such an axis, one by one. The axes are found from names, from shapes,
and from what the graph answers to one, two and three examples. Publishing, the gate and the profile share this module.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from pilotlight.contracts.manifest import TensorSpec
from pilotlight.errors import InvalidInputError
from pilotlight.runtime.datatypes import Array
from pilotlight.runtime.session import Session

BATCH_SIZE: Final = 64  # examples that are run at once
BATCH_NAMES: Final = re.compile(r"n|b|bs|.*batch.*|(num_?)?(examples|samples|rows)", re.IGNORECASE)
AXIS_SUFFIX: Final = ".batch_axis"  # of an array with the axis of NAME that holds the examples; -1: it is shared
STACKED: Final = -1  # in place of an axis: the graph takes one example, without an axis for several
Axis = int | None  # None: the same for all examples, or not divisible by example


@dataclass(frozen=True)
class BatchLayout:
    """Where the examples are in each input and output, and how many the graph takes at once."""

    inputs: Mapping[str, Axis]
    size: int | None = None  # examples in each run, if the graph fixes it
    outputs: Mapping[str, Axis] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)  # of an output for each example, if more than one

    @property
    def description(self) -> str:
        """Where the examples are, for people: clauses; empty if they come first everywhere and in any number."""
        axes = [("input", *pair) for pair in self.inputs.items()] + [("output", *pair) for pair in self.outputs.items()]
        elsewhere = [f"along axis {axis} of the {kind} {name!r}" for kind, name, axis in axes if axis and axis > 0]
        shared = [f"all with the same {name!r}" for name, axis in self.inputs.items() if axis is None]
        size = [f"{self.size} at a time"] if self.size is not None else []
        return ", ".join([*size, *elsewhere, *shared])

    def count_examples(self, arrays: Mapping[str, Array]) -> tuple[int, ...]:
        """Count the examples in each input; more than one number if the inputs differ."""
        axes = [(arrays[name], axis) for name, axis in self.inputs.items() if axis is not None]
        return tuple(sorted({values.shape[max(axis, 0)] for values, axis in axes})) or (1,)

    def take(self, arrays: Mapping[str, Array], indices: Array | Sequence[int]) -> dict[str, Array]:
        """Take some examples; the arrays keep their form."""
        return {
            name: arrays[name] if axis is None else np.take(arrays[name], indices, axis=max(axis, 0))
            for name, axis in self.inputs.items()
        }

    def build_feed(self, arrays: Mapping[str, Array], indices: Array | Sequence[int]) -> dict[str, Array]:
        """Build a request of some examples as the graph takes it; the last one fills a size that is fixed."""
        missing = (self.size or 0) - len(indices)
        taken = self.take(arrays, [*indices, *[indices[-1]] * missing])
        return {
            name: np.asarray(values[0] if self.inputs[name] == STACKED else values, order="C")
            for name, values in taken.items()
        }

    def generate_feeds(
        self, arrays: Mapping[str, Array], batch_size: int = BATCH_SIZE
    ) -> Iterator[tuple[dict[str, Array], int]]:
        """Generate requests with all examples, and how many of them each has."""
        examples = self.count_examples(arrays)[0]
        step = self.size or batch_size
        for start in range(0, examples, step):
            indices = range(start, min(start + step, examples))
            yield self.build_feed(arrays, indices), len(indices)

    def sort_answers(self, answers: Mapping[str, Array], examples: int) -> dict[str, Array]:
        """Move the examples to the front of each answer, without those that filled it up."""
        return {name: self._sort_answer(name, values, examples) for name, values in answers.items()}

    def _sort_answer(self, name: str, values: Array, examples: int) -> Array:
        axis = self.outputs.get(name)
        if axis is None:
            return values
        if axis == STACKED:
            return values[np.newaxis]
        front = np.moveaxis(values, axis, 0)
        rows = self.rows.get(name, 1)
        front = front.reshape(-1, rows, *front.shape[1:]) if rows > 1 else front
        return front[:examples]


def find_layout(
    session: Session, arrays: Mapping[str, Array], told: Mapping[str, int] | None = None, examples: int | None = None
) -> BatchLayout:
    """Find where the examples are; `InvalidInputError` for arrays that do not fit the graph, or that it refuses.

    `told` are axes by input that the publisher has named, `examples` their number where it is known.
    """
    layout = find_input_layout(session.inputs, arrays, told or {}, examples)
    lengths = layout.count_examples(arrays)
    if len(lengths) != 1 or not lengths[0]:
        raise InvalidInputError(f"arrays of {list(lengths)} examples; all must have the same, some")
    return add_output_axes(session, arrays, layout)


def find_input_layout(
    specs: Sequence[TensorSpec], arrays: Mapping[str, Array], told: Mapping[str, int], examples: int | None
) -> BatchLayout:
    """Find the axis of the examples in each input, and how many of them the graph takes."""
    axes: dict[str, Axis] = {}
    batch: int | str | None = None  # the size, or its name, that the first of them has in the graph
    count = examples
    for spec in specs:
        values, axis = arrays[spec.name], told.get(spec.name)
        if axis is None:
            axes[spec.name] = find_input_axis(spec, values, batch, count)
        elif axis < len(spec.shape):
            axes[spec.name] = axis if axis >= 0 else None
        else:
            raise InvalidInputError(f"{spec.name + AXIS_SUFFIX!r} is {axis}; {spec.name!r} has {len(spec.shape)} axes")
        if axis is not None and values.ndim != len(spec.shape):
            raise build_shape_error(spec, values)
        if (found := axes[spec.name]) is not None and batch is None:
            batch = spec.shape[found] if found >= 0 else 1
            count = values.shape[max(found, 0)]
    return BatchLayout(axes, choose_size(specs, axes))


def find_input_axis(spec: TensorSpec, values: Array, batch: int | str | None, count: int | None) -> Axis:
    """Find the axis of the examples in one input; `InvalidInputError` if the array does not fit the graph.

    `batch` is the size or name of that axis in another input, `count` the number of examples; None if not known yet.
    """
    if values.ndim == len(spec.shape) + 1 and fits(spec.v2_shape, values.shape[1:]):
        return STACKED
    axes = [axis for axis in range(values.ndim) if can_hold_examples(spec, values, axis)]
    if values.ndim != len(spec.shape) or (values.ndim and not axes):
        raise build_shape_error(spec, values)
    named = [axis for axis in axes if isinstance(batch, str) and spec.shape[axis] == batch]
    named += [axis for axis in axes if BATCH_NAMES.fullmatch(str(spec.shape[axis]))]
    if named:
        return named[0]
    counted = [axis for axis in axes if values.shape[axis] == count]
    if batch is not None and spec.v2_shape == list(values.shape):  # fixed, and given as it is: for all of them alike,
        return next((axis for axis in counted if spec.shape[axis] == batch), None)  # unless all inputs are fixed so
    return next(iter(counted or axes), None)


def can_hold_examples(spec: TensorSpec, values: Array, axis: int) -> bool:
    """Return whether an array fits the graph if its examples lie along this axis.

    A fixed size is taken for a number of examples where no size is free, where it comes first, and where it is 1.
    """
    if not fits(without(spec.v2_shape, axis), without(values.shape, axis)):
        return False
    is_fixed = all(isinstance(size, int) for size in spec.shape)
    return is_fixed or axis == 0 or spec.v2_shape[axis] in {-1, 1}


def fits(wanted: Sequence[int], found: Sequence[int]) -> bool:
    """Return whether a shape fits one in which -1 is any size."""
    return len(wanted) == len(found) and all(size in (-1, other) for size, other in zip(wanted, found, strict=True))


def without(shape: Sequence[int], axis: int) -> list[int]:
    """Return the shape without one of its axes."""
    return [size for place, size in enumerate(shape) if place != axis]


def build_shape_error(spec: TensorSpec, values: Array) -> InvalidInputError:
    """Build the error of an array that does not fit the graph."""
    return InvalidInputError(f"{spec.name!r} has shape {list(values.shape)}, the graph takes {spec.v2_shape}")


def choose_size(specs: Sequence[TensorSpec], axes: Mapping[str, Axis]) -> int | None:
    """Choose how many examples are run at once: the size that an input fixes; None if all are free."""
    sizes = {1 if axis == STACKED else spec.v2_shape[axis] for spec in specs if (axis := axes[spec.name]) is not None}
    fixed = sorted(size for size in sizes if size > 0)
    return fixed[0] if fixed else None


def add_output_axes(session: Session, arrays: Mapping[str, Array], layout: BatchLayout) -> BatchLayout:
    """Add where the examples are in the answers, by what the graph answers to one, two and three of them.

    A graph that answers one and not two is fed one by one, whatever its shapes say.
    """
    examples = layout.count_examples(arrays)[0]
    if layout.size is not None:
        answers = session.run(layout.build_feed(arrays, range(min(layout.size, examples))))
        return replace(layout, outputs=find_fixed_axes(session, answers, layout.size))
    try:
        two, three = (session.run(layout.build_feed(arrays, [place % examples for place in range(n)])) for n in (2, 3))
    except InvalidInputError:
        session.run(layout.build_feed(arrays, [0]))  # raises if it does not answer one either
        return add_output_axes(session, arrays, replace(layout, size=1))
    found = {name: find_growing_axis(two[name].shape, three[name].shape) for name in two}
    return replace(
        layout,
        outputs={name: growth[0] if growth else None for name, growth in found.items()},
        rows={name: growth[1] for name, growth in found.items() if growth and growth[1] > 1},
    )


def find_growing_axis(two: Sequence[int], three: Sequence[int]) -> tuple[int, int] | None:
    """Find the only axis that grows with the examples, and its rows for each; None if there is not exactly one."""
    if len(two) != len(three):
        return None
    changed = [axis for axis in range(len(two)) if two[axis] != three[axis]]
    if len(changed) != 1 or 3 * two[changed[0]] != 2 * three[changed[0]] or not two[changed[0]]:
        return None
    return changed[0], two[changed[0]] // 2


def find_fixed_axes(session: Session, answers: Mapping[str, Array], size: int) -> dict[str, Axis]:
    """Find the axis of the examples in the answers of a graph that takes `size` of them."""
    found: dict[str, Axis] = {}
    for spec in session.outputs:
        shape = answers[spec.name].shape
        places = [axis for axis, count in enumerate(shape) if count == size]
        named = [axis for axis in places if BATCH_NAMES.fullmatch(str(spec.shape[axis]))] if places else []
        alone = STACKED if size == 1 else None
        found[spec.name] = next(iter(named or places), alone)
    return found


def run_examples(
    session: Session,
    arrays: Mapping[str, Array],
    layout: BatchLayout,
    outputs: Sequence[str] | None = None,
    batch_size: int = BATCH_SIZE,
) -> dict[str, Array]:
    """Run the graph on all examples; the answers have the example as their first dimension.

    Those that cannot be divided by example are left out, and those of another shape for each, as lists of objects are.
    """
    parts = list(generate_answers(session, arrays, layout, outputs, batch_size))
    divided = [name for name in parts[0] if layout.outputs.get(name) is not None]
    alike = [name for name in divided if len({part[name].shape[1:] for part in parts}) == 1]
    return {name: np.concatenate([part[name] for part in parts]) for name in alike}


def generate_answers(
    session: Session,
    arrays: Mapping[str, Array],
    layout: BatchLayout,
    outputs: Sequence[str] | None = None,
    batch_size: int = BATCH_SIZE,
) -> Iterator[dict[str, Array]]:
    """Run the graph on a batch of examples after the other, as `run_examples` does, and generate their answers."""
    for feed, examples in layout.generate_feeds(arrays, batch_size):
        yield layout.sort_answers(session.run(feed, outputs), examples)
