"""Examples of a graph's inputs, from the publisher's npz.

Nothing in an npz is unpickled. The module knows arrays and signatures, not what they mean; `right_answers` knows that.
"""

import hashlib
import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from functions.train.data import Array
from pilotlight.contracts.manifest import TensorSpec
from pilotlight.errors import InvalidInputError
from pilotlight.runtime.datatypes import NUMPY_DTYPES, cast_numbers
from pilotlight.runtime.example_batches import (
    AXIS_SUFFIX,
    BatchLayout,
    find_input_layout,
    find_layout,
    generate_answers,
)
from pilotlight.runtime.session import Session

INPUT_KINDS = {
    "f": "fiub",
    "i": "iub",
    "u": "iub",
    "b": "iub",
    "O": "US",
}  # of arrays, by the kind that the graph takes


@dataclass(frozen=True, eq=False)
class ExampleSet:
    """Inputs by name, where the examples are in them, and the right answers if there are any."""

    inputs: dict[str, Array]
    layout: BatchLayout
    target_name: str = ""  # of the targets
    targets: Array | None = None
    told: dict[str, int] = field(default_factory=dict)  # axes that shapes alone do not tell

    def __len__(self) -> int:
        return self.layout.count_examples(self.inputs)[0]

    def take(self, which: slice | Array) -> "ExampleSet":
        """Take some of the examples."""
        indices = np.arange(len(self))[which]
        targets = None if self.targets is None else self.targets[indices]
        return replace(self, inputs=self.layout.take(self.inputs, indices), targets=targets)

    @property
    def npz(self) -> bytes:
        """The examples as an npz file without pickles."""
        truth = {} if self.targets is None else {self.target_name: self.targets}
        axes = {name + AXIS_SUFFIX: np.array(axis) for name, axis in self.told.items()}
        inputs = {name: v.astype(str) if v.dtype == object else v for name, v in self.inputs.items()}
        return encode_npz({**inputs, **truth, **axes})

    @property
    def sha256(self) -> str:
        """Hash of the arrays' bytes in hex: inputs in their order, then the targets."""
        digest = hashlib.sha256()
        for values in (*self.inputs.values(), *([] if self.targets is None else [self.targets])):
            plain = values.astype(str) if values.dtype == object else values
            digest.update(np.ascontiguousarray(plain).tobytes())
        return digest.hexdigest()


def encode_npz(arrays: Mapping[str, Array]) -> bytes:
    """Encode arrays of any name as an npz; numpy.savez has arguments of its own, such as `file`, that none may have."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(values), allow_pickle=False)
    return target.getvalue()


def load_examples(
    file: Path, session: Session, *, with_targets: bool, arrays: dict[str, Array] | None = None
) -> ExampleSet:
    """Load the arrays of an npz that the graph takes; `with_targets` requires one more array, the targets.

    `arrays` are what a file of another format holds.
    """
    arrays = read_npz_arrays(file) if arrays is None else arrays
    names = [spec.name for spec in session.inputs]
    named_axes = [name for name in names if name + AXIS_SUFFIX in arrays]
    told = {name: read_axis(file, name, arrays.pop(name + AXIS_SUFFIX)) for name in named_axes}
    if missing := [name for name in names if name not in arrays]:
        raise InvalidInputError(f"{file} has no array {missing[0]!r}; the graph's inputs are {names}.")
    inputs = {spec.name: convert_to_datatype(file, spec, arrays[spec.name]) for spec in session.inputs}
    target_name = choose_target(file, session, arrays, names) if with_targets else ""
    targets = arrays[target_name] if with_targets else None
    if targets is not None and not targets.ndim:
        raise InvalidInputError(f"{file}: {target_name!r} is a single value, and not one right answer per example.")
    layout = find_example_layout(file, session, inputs, told, targets)
    plain = find_input_layout(session.inputs, inputs, {}, None)  # what the gate finds, which does not know the answers
    hidden = {name: -1 if axis is None else axis for name, axis in layout.inputs.items() if axis != plain.inputs[name]}
    examples = ExampleSet(inputs, layout, target_name, targets, hidden)
    check_numbers(file, session, examples)
    return examples


def find_example_layout(
    file: Path, session: Session, inputs: dict[str, Array], told: dict[str, int], targets: Array | None
) -> BatchLayout:
    """Find where the examples are; `InvalidInputError` names the file."""
    count = None if targets is None else len(targets)
    try:
        plain = find_input_layout(session.inputs, inputs, told, count)
    except InvalidInputError as exc:
        raise InvalidInputError(f"{file}: {exc}.") from exc
    lengths = sorted({*plain.count_examples(inputs), *([] if count is None else [count])})
    if len(lengths) != 1 or not lengths[0]:
        raise InvalidInputError(
            f"{file} holds arrays of {lengths} examples; all must have the same, some. Another axis than the first is "
            f"told by an array NAME{AXIS_SUFFIX}, -1 for an input that all examples share."
        )
    try:
        return find_layout(session, inputs, told, count)
    except InvalidInputError as exc:
        raise InvalidInputError(f"{file}: the graph does not answer its first examples. {exc}") from exc


def read_axis(file: Path, name: str, values: Array) -> int:
    """Read which axis of an input holds the examples."""
    if values.size != 1 or values.dtype.kind not in "iu" or values.min() < -1:
        raise InvalidInputError(
            f"{file}: {name + AXIS_SUFFIX!r} must be one whole number, the axis of the examples, or -1 for an input "
            f"that all share; it is {values.tolist()}."
        )
    return int(values.reshape(()))


def choose_target(file: Path, session: Session, arrays: dict[str, Array], names: Sequence[str]) -> str:
    """Choose the array with the right answers: the one that is left, or of several the one named as an output."""
    rest = sorted(set(arrays) - set(names))
    named = [spec.name for spec in session.outputs if spec.name in rest]
    if len(rest) == 1 or not named:
        if len(rest) != 1:
            raise InvalidInputError(
                f"{file} must hold one array besides {list(names)}, the right answers; it holds {rest}. Inputs alone "
                "go with --calibration."
            )
        return rest[0]
    return named[0]


def read_npz_arrays(file: Path) -> dict[str, Array]:
    """Read the arrays of an npz; `InvalidInputError` if it is not one, or contains pickles."""
    wrong = f"{file} is not an npz of plain arrays, as numpy.savez writes it"
    with open_file(file) as opened:  # np.load leaves a file of its own open when it is no zip
        try:
            archive = np.load(opened, allow_pickle=False)
        except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as exc:
            raise InvalidInputError(f"{wrong}; {describe_content(file)}.") from exc
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise InvalidInputError(f"{wrong}; it is one array without a name, which numpy.savez(FILE, x=array) gives.")
        with archive:
            arrays = {name: read_member(wrong, archive, name) for name in archive.files}
    if not arrays:
        raise InvalidInputError(f"{wrong}; it is empty.")
    return arrays


def open_file(file: Path) -> BinaryIO:
    """Open a file; `InvalidInputError` if it cannot be read."""
    try:
        return file.open("rb")
    except OSError as exc:
        raise InvalidInputError(f"Cannot read {file}: {exc.strerror or exc}.") from exc


def read_member(wrong: str, archive: "np.lib.npyio.NpzFile", name: str) -> Array:
    """Read one array of an npz; `InvalidInputError` if it is a pickle, cut off, or none at all."""
    try:
        values = archive[name]
    except ValueError as exc:
        reason = "holds Python objects, which are pickled" if "allow_pickle" in str(exc) else "cannot be read"
        raise InvalidInputError(f"{wrong}; its {name!r} {reason}: save numbers or texts.") from exc
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, MemoryError, SyntaxError) as exc:
        raise InvalidInputError(f"{wrong}; its {name!r} is cut off or damaged.") from exc
    if not isinstance(values, np.ndarray):
        raise InvalidInputError(f"{wrong}; its {name!r} is no array.")
    if values.dtype.kind not in "fiubUS":
        raise InvalidInputError(f"{wrong}; its {name!r} is of type {values.dtype}: save numbers or texts.")
    return decode_texts(wrong, name, values) if values.dtype.kind == "S" else values


def decode_texts(wrong: str, name: str, values: Array) -> Array:
    """Decode an array of bytes as UTF-8; `InvalidInputError` names the row of one that is not."""
    try:
        return np.strings.decode(values, "utf-8")
    except UnicodeDecodeError as exc:
        raise InvalidInputError(f"{wrong}; its {name!r} holds {exc.object[:40]!r}, which is not UTF-8.") from exc


def describe_content(file: Path) -> str:
    """Describe what a file is that is no npz."""
    with file.open("rb") as opened:
        start = opened.read(64)
    if not start:
        return "it is empty"
    if start[:1] == b"\x80":
        return "it is a pickle, which is not opened"
    if start.startswith(b"PK"):
        return "it is a zip that is cut off or damaged"
    return "it is text" if start.isascii() and b"\0" not in start else "it is something else"


def convert_to_datatype(file: Path, spec: TensorSpec, values: Array) -> Array:
    """Convert an array to the graph's datatype; refuse what it cannot hold."""
    dtype = NUMPY_DTYPES[spec.datatype]
    if spec.datatype == "BF16":
        raise InvalidInputError(f"{file}: {spec.name!r} is BF16 in the graph, for which an npz has no type.")
    if values.dtype.kind not in INPUT_KINDS[dtype.kind]:
        whole = values.dtype.kind == "f" and dtype.kind in "iu" and bool((values == np.rint(values)).all())
        if not whole:
            raise InvalidInputError(f"{file}: {spec.name!r} is {values.dtype}, the graph takes {spec.datatype}.")
    if dtype.kind == "O":
        return np.asarray(values, dtype, order="C")
    cast, lost = cast_numbers(values, dtype)
    if lost is not None:
        row = np.unravel_index(lost, values.shape)[0] if values.ndim else 0
        raise InvalidInputError(
            f"{file}: {spec.name!r} has {values.flat[lost]} in row {row}, which {spec.datatype}, what the graph takes, "
            "does not hold; scale the values as the model was trained on them, or mend them."
        )
    return cast


def check_numbers(file: Path, session: Session, examples: ExampleSet) -> None:
    """Refuse examples with NaN or infinity unless the graph answers them with numbers, as trees and imputers do."""
    found = find_rows_without_numbers(examples)
    if not len(found):
        return
    for answers in generate_answers(session, examples.take(found).inputs, examples.layout):
        if not all(map(is_finite, answers.values())):
            name = next(name for name, array in examples.inputs.items() if not is_finite(array))
            raise InvalidInputError(
                f"{file}: row {found[0]} of {name!r} has NaN or infinity, and the graph answers NaN or infinity there; "
                f"leave such rows out, or fill them ({len(found):,} of {len(examples):,})."
            )


def find_rows_without_numbers(examples: ExampleSet) -> Array:
    """Find the examples that have NaN or infinity in an input."""
    wrong = np.zeros(len(examples), bool)
    for name, values in examples.inputs.items():
        axis = examples.layout.inputs[name]
        if values.dtype.kind == "f" and axis is not None:
            front = np.moveaxis(values, max(axis, 0), 0)
            wrong |= ~np.isfinite(front).reshape(len(front), -1).all(axis=1)
    return np.flatnonzero(wrong)


def is_finite(values: Array) -> bool:
    """Return whether an array has neither NaN nor infinity."""
    return values.dtype.kind != "f" or bool(np.isfinite(values).all())
