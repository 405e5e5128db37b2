"""A data set of the user's own, from its files to arrays: cleaned, with classes or numbers as answers.

It knows what the recipe says and how the formats' modules answer; how the examples are shared out is for `data`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from functions.train.data import image_folders, npz, tabular_files
from functions.train.data.cleaning import Cleaning, clean, firsts
from functions.train.data.dataset import Array, Dataset
from functions.train.data.files import File, Place, find
from functions.train.data.target import understood
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.options.data import OwnOptions

ENDINGS = {"csv": (".csv",), "parquet": (".parquet",), "npz": (".npz",), "images": image_folders.ENDINGS}
TABLES: Mapping[str, Callable[[Path, str, OwnOptions], Any]] = {
    "csv": tabular_files.read_csv,
    "parquet": tabular_files.read_parquet,
}


@dataclass(frozen=True, eq=False)
class Raw:
    """A data set as it was read."""

    inputs: Array  # float64 (N, columns) with NaN for gaps, or float32 images (N, channels, height, width)
    answers: Array  # (N,) of text, truth values or numbers
    features: tuple[str, ...]
    categories: tuple[tuple[str, ...], ...]  # of each column
    origin: tabular_files.Origin


def read(options: OwnOptions, place: Place) -> Dataset:
    """The data set; `InvalidInputError` says in one sentence what is wrong with which file."""
    files = find(options.paths, place, ENDINGS[options.kind])
    if options.kind == "images":
        return pictures(files, options)
    raw = arrays(files, options) if options.kind == "npz" else tables(files, options)
    return of_images(raw, options) if raw.inputs.ndim == 4 else of_table(raw, options)


def tables(files: Sequence[File], options: OwnOptions) -> Raw:
    """The tables of all files, below each other."""
    parts = []
    for file in files:
        with file.local() as path:
            parts.append(TABLES[options.kind](path, file.name, options))
    whole, origin = tabular_files.join(parts, [file.name for file in files])
    features = tabular_files.chosen(whole.column_names, options, files[0].name)
    columns = [tabular_files.values(whole, name, origin) for name in features]
    answers = tabular_files.answers(whole, str(options.target), origin)
    inputs = np.stack([column for column, _ in columns], axis=1)
    return Raw(inputs, answers, features, tuple(words for _, words in columns), origin)


def arrays(files: Sequence[File], options: OwnOptions) -> Raw:
    """The arrays of all files, below each other; their columns or channels have numbers for names."""
    parts = []
    for file in files:
        with file.local() as path:
            parts.append(npz.read(path, file.name, options))
        if parts[-1][0].shape[1:] != parts[0][0].shape[1:]:
            shapes = f"{parts[-1][0].shape[1:]}, and those of {files[0].name} {parts[0][0].shape[1:]}"
            raise InvalidInputError(f"The examples of {file.name} are {shapes}.")
    inputs, answers = (np.concatenate(part) for part in zip(*parts, strict=True))
    features = tuple(f"x{number}" for number in range(inputs.shape[1]))
    origin = tabular_files.Origin(tuple(file.name for file in files), tuple(len(part[1]) for part in parts))
    return Raw(inputs, answers, features, ((),) * len(features), origin)


def pictures(files: Sequence[File], options: OwnOptions) -> Dataset:
    """A folder of images as a data set."""
    inputs, answers, channels = image_folders.read(files, options.image)
    origin = tabular_files.Origin(tuple(file.name for file in files), (1,) * len(files))
    return of_images(Raw(inputs, answers, channels, (), origin), options)


def of_images(raw: Raw, options: OwnOptions) -> Dataset:
    """Images: a second copy of one is left out, and a value that is no number is refused."""
    if not np.isfinite(raw.inputs).all():
        row = int(np.flatnonzero(~np.isfinite(raw.inputs).all(axis=(1, 2, 3)))[0])
        raise InvalidInputError(f"{raw.origin.place(row)}: the image holds values that are no numbers.")
    answers = understood(raw.answers, options, raw.origin)
    flat = raw.inputs.reshape(len(raw.inputs), -1)
    kept = firsts(np.column_stack([flat, answers.values]))
    cleaning = Cleaning(len(flat), 0, len(flat) - len(kept), ())
    typed, classes, metric = answers.values[kept], answers.classes, answers.metric
    return Dataset(raw.inputs[kept], typed_as(typed, classes), classes, raw.features, metric, cleaning)


def of_table(raw: Raw, options: OwnOptions) -> Dataset:
    """A table: cleaned, with the categories of its columns."""
    answers = understood(raw.answers, options, raw.origin)
    rows = raw.inputs.astype(np.float32).astype(np.float64)  # as they are learned from: what repeats, repeats in these
    inputs, kept_answers, kept, cleaning = clean(rows, answers.values, raw.features, filling=options.missing != "drop")
    if not len(kept_answers) or not kept:
        empty = "".join(f"{name!r} is empty in every row; " for name in nowhere(rows, raw.features)[:1])
        raise InvalidInputError(f"Nothing is left of {options.name} to learn from; {empty}{cleaning}.")
    categories = tuple(words for name, words in zip(raw.features, raw.categories, strict=True) if name in kept)
    encoded = tuple(name for name, words in zip(kept, categories, strict=True) if words)
    return Dataset(
        inputs.astype(np.float32),
        typed_as(kept_answers, answers.classes),
        answers.classes,
        kept,
        answers.metric,
        msgspec.structs.replace(cleaning, encoded=encoded),
        categories if encoded else (),
        options.missing,
    )


def nowhere(rows: Array, names: Sequence[str]) -> list[str]:
    """The columns of (N, columns) without a single value."""
    return [name for name, column in zip(names, rows.T, strict=True) if np.isnan(column).all()]


def typed_as(answers: Array, classes: Sequence[str]) -> Array:
    """Answers float64 (N,) as a data set has them."""
    return answers.astype(np.int64) if classes else answers.astype(np.float32)[:, None]
