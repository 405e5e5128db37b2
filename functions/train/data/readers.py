"""The user's own data set, from its files to arrays: cleaned, with classes or numbers as targets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from functions.train.data import Array, image_folders, npz, tabular_files
from functions.train.data.cleaning import CleaningReport, clean_table, find_unique_rows
from functions.train.data.dataset import Dataset
from functions.train.data.files import DataFile, DataRoot, find_files
from functions.train.data.target import parse_targets
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.data_schema import UserDataOptions

EXTENSIONS = {"csv": (".csv",), "parquet": (".parquet",), "npz": (".npz",), "images": image_folders.EXTENSIONS}
TABLE_READERS: Mapping[str, Callable[[Path, str, UserDataOptions], Any]] = {
    "csv": tabular_files.read_csv,
    "parquet": tabular_files.read_parquet,
}


@dataclass(frozen=True, eq=False)
class RawDataset:
    """A data set as it was read."""

    inputs: Array  # float64 (N, columns) with NaN for gaps, or float32 images (N, channels, height, width)
    targets: Array  # (N,) of text, truth values or numbers
    features: tuple[str, ...]
    categories: tuple[tuple[str, ...], ...]  # of each column
    origin: tabular_files.RowOrigins


def read_dataset(options: UserDataOptions, data_root: DataRoot) -> Dataset:
    """Read the data set; `InvalidInputError` names what is wrong with which file."""
    files = find_files(options.paths, data_root, EXTENSIONS[options.file_format])
    if options.file_format == "images":
        return read_image_dataset(files, options)
    raw = read_arrays(files, options) if options.file_format == "npz" else read_tables(files, options)
    return build_image_dataset(raw, options) if raw.inputs.ndim == 4 else build_table_dataset(raw, options)


def read_tables(files: Sequence[DataFile], options: UserDataOptions) -> RawDataset:
    """Read the tables of all files, and concatenate them."""
    parts = []
    for file in files:
        with file.local_path() as path:
            parts.append(TABLE_READERS[options.file_format](path, file.name, options))
    whole, origin = tabular_files.join_tables(parts, [file.name for file in files])
    features = tabular_files.select_feature_columns(whole.column_names, options, files[0].name)
    columns = [tabular_files.read_feature_column(whole, name, origin) for name in features]
    targets = tabular_files.read_target_column(whole, str(options.target), origin)
    inputs = np.stack([column for column, _ in columns], axis=1)
    return RawDataset(inputs, targets, features, tuple(words for _, words in columns), origin)


def read_arrays(files: Sequence[DataFile], options: UserDataOptions) -> RawDataset:
    """Read the arrays of all files, and concatenate them; their columns or channels are named by numbers."""
    parts = []
    for file in files:
        with file.local_path() as path:
            parts.append(npz.read_npz(path, file.name, options))
        if parts[-1][0].shape[1:] != parts[0][0].shape[1:]:
            shapes = f"{parts[-1][0].shape[1:]}, and those of {files[0].name} {parts[0][0].shape[1:]}"
            raise InvalidInputError(f"The examples of {file.name} are {shapes}.")
    inputs, targets = (np.concatenate(part) for part in zip(*parts, strict=True))
    features = tuple(f"x{number}" for number in range(inputs.shape[1]))
    origin = tabular_files.RowOrigins(tuple(file.name for file in files), tuple(len(part[1]) for part in parts))
    return RawDataset(inputs, targets, features, ((),) * len(features), origin)


def read_image_dataset(files: Sequence[DataFile], options: UserDataOptions) -> Dataset:
    """Read a folder of images as a data set."""
    inputs, targets, channels = image_folders.read_images(files, options.image)
    origin = tabular_files.RowOrigins(tuple(file.name for file in files), (1,) * len(files))
    return build_image_dataset(RawDataset(inputs, targets, channels, (), origin), options)


def build_image_dataset(raw: RawDataset, options: UserDataOptions) -> Dataset:
    """Build a data set of images: duplicates are left out, and a value that is not a number is refused."""
    if not np.isfinite(raw.inputs).all():
        row = int(np.flatnonzero(~np.isfinite(raw.inputs).all(axis=(1, 2, 3)))[0])
        raise InvalidInputError(f"{raw.origin.describe_row(row)}: the image holds values that are no numbers.")
    parsed = parse_targets(raw.targets, options, raw.origin)
    flat = raw.inputs.reshape(len(raw.inputs), -1)
    kept = find_unique_rows(np.column_stack([flat, parsed.values]))
    cleaning = CleaningReport(len(flat), 0, len(flat) - len(kept), ())
    typed, classes, metric = parsed.values[kept], parsed.classes, parsed.metric
    return Dataset(raw.inputs[kept], cast_targets(typed, classes), classes, raw.features, metric, cleaning)


def build_table_dataset(raw: RawDataset, options: UserDataOptions) -> Dataset:
    """Build a data set from a table: cleaned, with the categories of its columns."""
    parsed = parse_targets(raw.targets, options, raw.origin)
    rows = raw.inputs.astype(np.float32).astype(np.float64)  # as they are learned from: what repeats, repeats in these
    inputs, targets, kept, cleaning = clean_table(
        rows, parsed.values, raw.features, keep_missing=options.missing != "drop"
    )
    if not len(targets) or not kept:
        empty = "".join(f"{name!r} is empty in every row; " for name in find_empty_columns(rows, raw.features)[:1])
        raise InvalidInputError(f"Nothing is left of {options.name} to learn from; {empty}{cleaning}.")
    categories = tuple(words for name, words in zip(raw.features, raw.categories, strict=True) if name in kept)
    encoded = tuple(name for name, words in zip(kept, categories, strict=True) if words)
    return Dataset(
        inputs.astype(np.float32),
        cast_targets(targets, parsed.classes),
        parsed.classes,
        kept,
        parsed.metric,
        msgspec.structs.replace(cleaning, encoded=encoded),
        categories if encoded else (),
        options.missing,
    )


def find_empty_columns(rows: Array, names: Sequence[str]) -> list[str]:
    """Find the columns of (N, columns) without a single value."""
    return [name for name, column in zip(names, rows.T, strict=True) if np.isnan(column).all()]


def cast_targets(values: Array, classes: Sequence[str]) -> Array:
    """Cast targets float64 (N,) to the type that a data set has."""
    return values.astype(np.int64) if classes else values.astype(np.float32)[:, None]
