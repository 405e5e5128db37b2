"""Arrays in NPZ files, numpy's own format. Nothing is unpickled: an array of Python objects is refused."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from functions.train.data import Array
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.data_schema import UserDataOptions


def read_npz(path: Path, file_name: str, options: UserDataOptions) -> tuple[Array, Array]:
    """Read the inputs float32 (N, columns) or (N, channels, height, width), and the targets (N,) as stored.

    Images of 8 bits stay uint8.
    """
    arrays = load_npz_arrays(path, file_name)
    target_name = str(options.target)
    others = [word for word in arrays if word != target_name and word not in options.drop]
    features = list(options.features or others)
    for word in (target_name, *features):
        if word not in arrays:
            raise InvalidInputError(f"{file_name} has no array {word!r}; it has {', '.join(arrays)}.")
    if len(features) != 1:
        raise InvalidInputError(
            f"{file_name} has the arrays {', '.join(arrays)}; data.features must name the one to learn from."
        )
    inputs, targets = arrays[features[0]], arrays[target_name]
    if targets.ndim == 2 and targets.shape[1] == 1:
        targets = targets[:, 0]
    if targets.ndim > 1:
        said = f"{target_name!r} is {targets.shape}; there must be one answer to an example, (N,)"
        raise InvalidInputError(f"{file_name}: {said}, a number, or a class as its index or name.")
    if targets.ndim != 1 or inputs.ndim < 2 or len(inputs) != len(targets) or not len(targets):
        shapes = f"{features[0]!r} is {inputs.shape} and {target_name!r} {targets.shape}"
        raise InvalidInputError(
            f"{file_name}: {shapes}; they must have the same number of examples first, one at least."
        )
    check_target_array(targets, file_name, target_name, options)
    return convert_input_array(inputs, file_name, features[0]), targets


def load_npz_arrays(path: Path, file_name: str) -> Mapping[str, Array]:
    """Load every array of the file, by name."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise InvalidInputError(f"{file_name} is no NPZ file, but a single array.")
            return {word: archive[word] for word in archive.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as exc:
        said = str(exc).split("\n", 1)[0].rstrip(".")
        if "pickle" in said:
            said = "it holds Python objects, which are never unpickled; save plain numbers or text"
        raise InvalidInputError(f"{file_name} cannot be read as NPZ: {said}.") from exc


def check_target_array(targets: Array, file_name: str, target_name: str, options: UserDataOptions) -> None:
    """Refuse targets that are missing, or neither numbers nor text."""
    if targets.dtype.kind not in "biufU":
        raise InvalidInputError(f"{file_name}: {target_name!r} holds {targets.dtype}, neither numbers nor text.")
    present = np.isfinite(targets) if targets.dtype.kind == "f" else np.ones(len(targets), bool)
    if present.all() or (options.unlabelled == "drop" and present.any()):
        return
    row = int(np.flatnonzero(~present)[0])
    raise InvalidInputError(
        f"{file_name}, row {row + 1}: the target {target_name!r} is {targets[row]}, as in {int((~present).sum()):,} of "
        f"{len(targets):,}; mend them, or let data.unlabelled: drop leave them out."
    )


def convert_input_array(inputs: Array, file_name: str, array_name: str) -> Array:
    """Convert the inputs to float32, but not images of 8 bits, and one of two shapes; grey images may lack an axis."""
    if inputs.dtype.kind not in "biuf":
        raise InvalidInputError(f"{file_name}: {array_name!r} holds {inputs.dtype}, no numbers.")
    if inputs.ndim == 3:
        inputs = inputs[:, None]
    if inputs.ndim not in (2, 4):
        raise InvalidInputError(
            f"{file_name}: {array_name!r} is {inputs.shape}; it must be a table (N, columns) or images."
        )
    if inputs.ndim == 4 and inputs.shape[3] in (1, 3, 4) and inputs.shape[1] > 4:
        raise InvalidInputError(
            f"{file_name}: {array_name!r} is {inputs.shape}; images are (N, channels, height, width)."
        )
    if inputs.ndim == 4 and inputs.dtype == np.uint8:
        return inputs
    with np.errstate(over="ignore"):
        converted = inputs.astype(np.float32)
    if inputs.dtype.kind == "f" and (large := np.isinf(converted) & np.isfinite(inputs)).any():
        row = int(np.argwhere(large)[0][0])
        raise InvalidInputError(
            f"{file_name}, row {row + 1}: {array_name!r} holds {inputs[large][0]:g}, beyond what float32 can; take "
            "another unit, or its logarithm."
        )
    return converted
