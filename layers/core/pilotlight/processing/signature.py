"""How a model may be called: with what its manifest's steps take and give, or with the graph's own tensors.

    image           image BYTES [-1]                            -> label BYTES [-1], probability FP32 [-1]
    text            text BYTES [-1]                             -> embedding FP32 [-1, width]
    tabular         a tensor for each column, or table [-1, n]  -> prediction FP32 [-1, n]
    always          the graph's own inputs                      -> the graph's own outputs

Metadata shows the first way. Whichever way the inputs come, every output may be asked for by its name.
It knows manifests, not arrays.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from pilotlight.contracts.manifest import Manifest, TensorSpec
from pilotlight.contracts.processing import Classification, Column, Embedding, Image, Preparation, Regression, Table

NUMBERS = frozenset(
    {"BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64"}
)
CELLS = NUMBERS | {"BYTES"}  # a column may come as text too, as a CSV file has it
BATCH = "batch"


@dataclass(frozen=True)
class Input:
    """An input of a caller: as metadata tells of it, the datatypes that it may come in, and how its data are read."""

    spec: TensorSpec
    datatypes: frozenset[str]
    opaque: bool = False  # BYTES elements that are no text
    nullable: bool = False  # JSON's null is a missing value


@dataclass(frozen=True)
class Signature:
    """One way to call a model: all of `inputs`; `outputs` come back, or whatever is asked for of these and `more`."""

    inputs: tuple[Input, ...]
    outputs: tuple[TensorSpec, ...]
    more: tuple[TensorSpec, ...] = ()
    raw: bool = False  # the graph's own tensors

    @functools.cached_property
    def names(self) -> list[str]:
        """The names of its inputs."""
        return [given.spec.name for given in self.inputs]

    def input(self, name: str) -> Input | None:
        """Its input of that name."""
        return next((given for given in self.inputs if given.spec.name == name), None)

    @functools.cached_property
    def answers(self) -> list[str]:
        """The names of all outputs that may be asked for."""
        return list(dict.fromkeys(spec.name for spec in (*self.outputs, *self.more)))

    def output(self, name: str) -> TensorSpec | None:
        """The output of that name, among all that may be asked for."""
        return next((spec for spec in (*self.outputs, *self.more) if spec.name == name), None)

    def takes(self, name: str, datatype: str) -> bool:
        """Whether it has such an input."""
        given = self.input(name)
        return given is not None and datatype in given.datatypes


@functools.lru_cache(maxsize=64)  # asked for several times in each request
def signatures(manifest: Manifest) -> tuple[Signature, ...]:
    """All ways to call the model, the one that metadata shows first, the graph's own last."""
    graph = tuple(Input(spec, frozenset({spec.datatype})) for spec in manifest.inputs)
    own, (finished, more) = manifest.outputs, answers(manifest)
    if manifest.prepare is None:
        return (Signature(graph, finished or own, (*more, *own), raw=True),)
    ways = (Signature(inputs, finished or own, (*more, *own)) for inputs in calls(manifest.prepare))
    return (*ways, Signature(graph, own, (*finished, *more), raw=True))


def choose(manifest: Manifest, given: Mapping[str, str]) -> Signature:
    """The way in which inputs of these names and datatypes call the model; the nearest one when none fits."""
    ways = signatures(manifest)
    if len(ways) == 1:
        return ways[0]
    for way in ways:
        if all(way.takes(name, datatype) for name, datatype in given.items()):
            return way
    return max(ways, key=lambda way: sum(name in way.names for name in given))


def calls(steps: Preparation) -> list[tuple[Input, ...]]:
    """The ways to bring what the steps take."""
    if isinstance(steps, Table):
        return [tuple(map(cells, steps.columns)), (rows(steps),)]
    spec = TensorSpec(steps.name, "BYTES", (BATCH,))
    return [(Input(spec, frozenset({"BYTES"}), opaque=isinstance(steps, Image)),)]


def cells(column: Column) -> Input:
    """A column as a tensor of its own."""
    return Input(TensorSpec(column.name, "BYTES" if column.categories else "FP64", (BATCH,)), CELLS, nullable=True)


def rows(table: Table) -> Input:
    """All columns as one tensor: numbers, or text where some are categories."""
    mixed = any(column.categories for column in table.columns)
    spec = TensorSpec(table.name, "BYTES" if mixed else "FP64", (BATCH, len(table.columns)))
    return Input(spec, CELLS, nullable=True)


def answers(manifest: Manifest) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """What the finish gives by default, and what it gives if asked; nothing when there is no finish."""
    finish = manifest.finish
    if finish is None:
        return (), ()
    shape = next(spec.shape for spec in manifest.outputs if spec.name == finish.output)
    if isinstance(finish, Classification):
        best = shape[:-1] if finish.top == 1 else (*shape[:-1], finish.top)
        label, probability = TensorSpec(finish.label, "BYTES", best), TensorSpec(finish.probability, "FP32", best)
        every = (*shape[:-1], len(manifest.labels) or shape[-1])
        return (label, probability), (TensorSpec(finish.probabilities, "FP32", every),)
    if isinstance(finish, Embedding) and len(shape) == 3:
        shape = (shape[0], shape[2])
    elif isinstance(finish, Regression) and shape[1:] == (1,):
        shape = shape[:1]
    return (TensorSpec(finish.name, "FP32", shape),), ()
