"""Examples of a graph's inputs, from the publisher's npz.

Nothing in an npz is unpickled. The module knows arrays and signatures, not what they mean.
"""

import hashlib
import io
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from functions.train.data import Array
from pilotlight.contracts.manifest import TensorSpec
from pilotlight.errors import InvalidInputError
from pilotlight.runtime.datatypes import NUMPY_DTYPES
from pilotlight.runtime.session import Session


@dataclass(frozen=True, eq=False)
class ExampleSet:
    """Inputs by name, with the example as the first dimension, and the targets if there are any."""

    inputs: dict[str, Array]
    target_name: str = ""  # of the targets
    targets: Array | None = None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def take(self, which: slice) -> "ExampleSet":
        """Take a slice of the examples."""
        inputs = {name: values[which] for name, values in self.inputs.items()}
        return replace(self, inputs=inputs, targets=None if self.targets is None else self.targets[which])

    @property
    def npz(self) -> bytes:
        """The examples as an npz file without pickles."""
        target = io.BytesIO()
        truth = {} if self.targets is None else {self.target_name: self.targets}
        np.savez_compressed(target, allow_pickle=False, **self.inputs, **truth)
        return target.getvalue()

    @property
    def sha256(self) -> str:
        """Hash of the arrays' bytes in hex: inputs in their order, then the targets."""
        digest = hashlib.sha256()
        for values in (*self.inputs.values(), *([] if self.targets is None else [self.targets])):
            digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()


def load_examples(file: Path, session: Session, *, with_targets: bool) -> ExampleSet:
    """Load the arrays of an npz that the graph takes; `with_targets` requires one more array, the targets."""
    arrays = read_npz_arrays(file)
    names = [spec.name for spec in session.inputs]
    if missing := [name for name in names if name not in arrays]:
        raise InvalidInputError(f"{file} has no array {missing[0]!r}; the graph's inputs are {names}.")
    inputs = {spec.name: convert_to_signature(file, spec, arrays[spec.name]) for spec in session.inputs}
    rest = sorted(set(arrays) - set(names))
    if with_targets and len(rest) != 1:
        raise InvalidInputError(f"{file} must hold one array besides {names}, the right answers; it holds {rest}.")
    examples = ExampleSet(inputs, rest[0], convert_targets(arrays[rest[0]])) if with_targets else ExampleSet(inputs)
    lengths = {len(values) for values in (*inputs.values(), *([] if examples.targets is None else [examples.targets]))}
    if len(lengths) != 1 or not len(examples):
        raise InvalidInputError(f"{file} holds arrays of {sorted(lengths)} examples; all must have the same, some.")
    return examples


def read_npz_arrays(file: Path) -> dict[str, Array]:
    """Read the arrays of an npz; `InvalidInputError` if it is not one, or contains pickles."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            return dict(archive)
    except OSError as exc:
        raise InvalidInputError(f"Cannot read {file}: {exc.strerror or exc}.") from exc
    except (ValueError, TypeError, zipfile.BadZipFile) as exc:
        raise InvalidInputError(f"{file} is not an npz of plain arrays, as numpy.savez writes it: {exc}.") from exc


def convert_to_signature(file: Path, spec: TensorSpec, values: Array) -> Array:
    """Convert the array to the graph's datatype; refuse a shape that does not match the signature."""
    fits = values.ndim == len(spec.shape) and all(
        wanted in (-1, found) or place == 0
        for place, (wanted, found) in enumerate(zip(spec.v2_shape, values.shape, strict=True))
    )
    if not fits or not values.ndim:
        raise InvalidInputError(
            f"{file}: {spec.name!r} has shape {list(values.shape)}, the graph takes {spec.v2_shape}."
        )
    return np.ascontiguousarray(values, NUMPY_DTYPES[spec.datatype])


def convert_targets(values: Array) -> Array:
    """Convert targets for evaluation: classes to int64 (N, ...), numbers to float32 (N, 1)."""
    if values.dtype.kind in "iub":
        return values.astype(np.int64)
    return values.astype(np.float32).reshape(len(values), -1)
