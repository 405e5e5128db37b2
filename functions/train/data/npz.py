"""Arrays in NPZ files, numpy's own. Never unpickled: an array of Python objects is refused.

It knows arrays by their names and shapes, not what is learned from them.
"""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pilotlight.errors import InvalidInputError
from pilotlight.recipes.options.data import OwnOptions

Array = np.ndarray[Any, Any]


def read(path: Path, name: str, options: OwnOptions) -> tuple[Array, Array]:
    """The inputs float32 (N, columns) or (N, channels, height, width), and the answers (N,) as they came."""
    arrays = opened(path, name)
    target = str(options.target)
    others = [word for word in arrays if word != target and word not in options.drop]
    features = list(options.features or others)
    for word in (target, *features):
        if word not in arrays:
            raise InvalidInputError(f"{name} has no array {word!r}; it has {', '.join(arrays)}.")
    if len(features) != 1:
        raise InvalidInputError(
            f"{name} has the arrays {', '.join(arrays)}; data.features must name the one to learn from."
        )
    inputs, answers = arrays[features[0]], arrays[target]
    if answers.ndim == 2 and answers.shape[1] == 1:
        answers = answers[:, 0]
    if answers.ndim > 1:
        said = f"{target!r} is {answers.shape}; there must be one answer to an example, (N,)"
        raise InvalidInputError(f"{name}: {said}, a number, or a class as its index or name.")
    if answers.ndim != 1 or inputs.ndim < 2 or len(inputs) != len(answers) or not len(answers):
        shapes = f"{features[0]!r} is {inputs.shape} and {target!r} {answers.shape}"
        raise InvalidInputError(f"{name}: {shapes}; they must have the same number of examples first, one at least.")
    check_answers(answers, name, target)
    return shaped(inputs, name, features[0]), answers


def opened(path: Path, name: str) -> Mapping[str, Array]:
    """Every array of the file, by name."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise InvalidInputError(f"{name} is no NPZ file, but a single array.")
            return {word: archive[word] for word in archive.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as exc:
        said = str(exc).split("\n", 1)[0].rstrip(".")
        if "pickle" in said:
            said = "it holds Python objects, which are never unpickled; save plain numbers or text"
        raise InvalidInputError(f"{name} cannot be read as NPZ: {said}.") from exc


def check_answers(answers: Array, name: str, target: str) -> None:
    """Refuse answers that are missing, or neither numbers nor text."""
    if answers.dtype.kind not in "biufU":
        raise InvalidInputError(f"{name}: {target!r} holds {answers.dtype}, neither numbers nor text.")
    if answers.dtype.kind == "f" and not np.isfinite(answers).all():
        row = int(np.flatnonzero(~np.isfinite(answers))[0])
        raise InvalidInputError(f"{name}, row {row + 1}: the target {target!r} is {answers[row]}; drop it, or mend it.")


def shaped(inputs: Array, name: str, word: str) -> Array:
    """The inputs in float32 and in one of the two shapes; images of one channel may come without its axis."""
    if inputs.dtype.kind not in "biuf":
        raise InvalidInputError(f"{name}: {word!r} holds {inputs.dtype}, no numbers.")
    if inputs.ndim == 3:
        inputs = inputs[:, None]
    if inputs.ndim not in (2, 4):
        raise InvalidInputError(f"{name}: {word!r} is {inputs.shape}; it must be a table (N, columns) or images.")
    if inputs.ndim == 4 and inputs.shape[3] in (1, 3, 4) and inputs.shape[1] > 4:
        raise InvalidInputError(f"{name}: {word!r} is {inputs.shape}; images are (N, channels, height, width).")
    return inputs.astype(np.float32)
