"""The user's own data set, from its files to arrays: cleaned, with classes or numbers as targets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from functions.train.data import Array, image_folders, npz, tabular_files
from functions.train.data.cleaning import CleaningReport, clean_table, find_clean_rows, find_unique_examples
from functions.train.data.column_notes import (
    describe_category,
    describe_columns,
    describe_identifier,
    describe_lost_digits,
)
from functions.train.data.dataset import Dataset
from functions.train.data.files import DataFile, DataRoot, find_files
from functions.train.data.pixels import Inputs, MemoryPixels
from functions.train.data.split_keys import OPEN, SETS, SplitKeys
from functions.train.data.target import parse_targets
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.data_schema import UserDataOptions

EXTENSIONS = {
    "csv": (".csv", ".tsv", ".csv.gz", ".tsv.gz"),
    "parquet": (".parquet",),
    "jsonl": (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz"),
    "npz": (".npz",),
    "images": image_folders.EXTENSIONS,
}
TABLE_READERS: Mapping[str, Callable[[Path, str, UserDataOptions], Any]] = {
    "csv": tabular_files.read_csv,
    "parquet": tabular_files.read_parquet,
    "jsonl": tabular_files.read_json_lines,
}


@dataclass(frozen=True, eq=False)
class RawDataset:
    """A data set as it was read."""

    inputs: Array  # float64 (N, columns) with NaN for gaps, or float32 or uint8 images (N, channels, height, width)
    targets: Array  # (N,) of text, truth values or numbers
    features: tuple[str, ...]
    categories: tuple[tuple[str, ...], ...]  # of each column
    origin: tabular_files.RowOrigins
    keys: SplitKeys = field(default_factory=SplitKeys)
    notes: tuple[str, ...] = ()  # what was decided, a sentence each


def read_dataset(options: UserDataOptions, data_root: DataRoot) -> Dataset:
    """Read the data set; `InvalidInputError` names what is wrong with which file."""
    if options.file_format == "images":
        return read_image_dataset(options, data_root)
    files, sets = find_set_files(options, data_root, EXTENSIONS[options.file_format])
    raw = (read_arrays if options.file_format == "npz" else read_tables)(files, sets, options)
    return build_image_dataset(raw, options) if raw.inputs.ndim == 4 else build_table_dataset(raw, options)


def find_set_files(
    options: UserDataOptions, data_root: DataRoot, extensions: Sequence[str]
) -> tuple[list[DataFile], list[int]]:
    """Find the files of all sets, and the set of each; those of `path` come first, and have none of their own."""
    files = find_files(options.paths, data_root, extensions)
    sets = [OPEN] * len(files)
    for name, paths in options.own_paths.items():
        own = find_files(paths, data_root, extensions, name)
        files, sets = [*files, *own], [*sets, *[SETS.index(name)] * len(own)]
    return files, sets


def read_tables(files: Sequence[DataFile], sets: Sequence[int], options: UserDataOptions) -> RawDataset:
    """Read the tables of all files, and concatenate them."""
    parts = []
    for file in files:
        with file.shared_path() as path:
            parts.append(TABLE_READERS[options.file_format](path, file.name, options))
    whole, origin = tabular_files.join_tables(parts, [file.name for file in files])
    whole, numbering = tabular_files.drop_row_numbers(whole, options, origin)
    features = tabular_files.select_feature_columns(whole.column_names, options, files[0].name)
    notes = [f"left out the index in column {name!r}" for name in numbering]
    known = np.repeat(sets, origin.row_counts)
    if options.unlabelled == "drop":
        kept = tabular_files.find_labelled_rows(whole, str(options.target))
        notes += [f"left out {len(known) - len(kept):,} rows without a target"] if len(kept) < len(known) else []
        whole, known, origin = whole.take(kept), known[kept], replace(origin, kept_rows=kept)
        if not len(kept):
            raise InvalidInputError(f"{options.name}: the target {options.target!r} is missing in every row.")
    columns = [tabular_files.read_feature_column(whole, name, origin) for name in features]
    notes += [describe_category(name, words) for name, (_, words) in zip(features, columns, strict=True) if words]
    notes += [
        describe_lost_digits(name, one) for name, (one, words) in zip(features, columns, strict=True) if not words
    ]
    notes += [describe_identifier(name, one) for name, (one, words) in zip(features, columns, strict=True) if not words]
    targets = tabular_files.read_target_column(whole, str(options.target), origin)
    inputs = np.stack([column for column, _ in columns], axis=1)
    keys = read_split_keys(whole, known, options, origin)
    words = tuple(words for _, words in columns)
    return RawDataset(inputs, targets, features, words, origin, keys, tuple(filter(None, notes)))


def read_split_keys(table: Any, sets: Array, options: UserDataOptions, origin: tabular_files.RowOrigins) -> SplitKeys:  # noqa: ANN401
    """Read what determines the sets of the rows besides chance."""
    groups = times = names = None
    if options.group is not None:
        groups = tabular_files.read_group_column(table, options.group, origin)
    if options.time is not None:
        times, names = tabular_files.read_time_column(table, options.time, origin)
    return SplitKeys(sets.astype(np.int8) if options.own_paths else None, groups, times, names)


def read_arrays(files: Sequence[DataFile], sets: Sequence[int], options: UserDataOptions) -> RawDataset:
    """Read the arrays of all files, and concatenate them; their columns or channels are named by numbers."""
    parts = []
    for file in files:
        with file.shared_path() as path:
            parts.append(npz.read_npz(path, file.name, options))
        if parts[-1][0].shape[1:] != parts[0][0].shape[1:]:
            shapes = f"{parts[-1][0].shape[1:]}, and those of {files[0].name} {parts[0][0].shape[1:]}"
            raise InvalidInputError(f"The examples of {file.name} are {shapes}.")
    inputs, targets = (part[0] if len(part) == 1 else np.concatenate(part) for part in zip(*parts, strict=True))
    features = tuple(f"x{number}" for number in range(inputs.shape[1]))
    origin = tabular_files.RowOrigins(tuple(file.name for file in files), tuple(len(part[1]) for part in parts))
    known = np.repeat(sets, origin.row_counts).astype(np.int8)
    notes: tuple[str, ...] = ()
    if options.unlabelled == "drop" and targets.dtype.kind == "f" and not np.isfinite(targets).all():
        kept = np.flatnonzero(np.isfinite(targets))
        notes = (f"left out {len(targets) - len(kept):,} examples without a target",)
        inputs, targets, known, origin = inputs[kept], targets[kept], known[kept], replace(origin, kept_rows=kept)
    keys = SplitKeys(known if options.own_paths else None)
    return RawDataset(inputs, targets, features, ((),) * len(features), origin, keys, notes)


def read_image_dataset(options: UserDataOptions, data_root: DataRoot) -> Dataset:
    """Read a folder of images as a data set."""
    known = (*image_folders.EXTENSIONS, *image_folders.OTHER_EXTENSIONS)
    found, sets = find_set_files(options, data_root, known)
    wanted = [place for place, file in enumerate(found) if file.name.lower().endswith(image_folders.EXTENSIONS)]
    others = [file.name for place, file in enumerate(found) if place not in set(wanted)]
    if not wanted:
        raise InvalidInputError(f"{options.name}: {image_folders.describe_other_files(others)}; there is no other.")
    files = [found[place] for place in wanted]
    labels = [image_folders.parse_class_label(file) for file in files]
    image_folders.check_class_folders(labels)
    origin = tabular_files.RowOrigins(tuple(file.name for file in files), (1,) * len(files))
    parsed = parse_targets(np.array(labels), options, origin)
    groups = None if options.group is None else image_folders.parse_groups(files, options.group)
    folder = image_folders.read_images(files, labels, options.image, streaming=options.streaming)
    keys = SplitKeys(np.array(sets, np.int8)[wanted] if options.own_paths else None, groups).select(folder.kept)
    notes = (parsed.note, folder.note, *([image_folders.describe_other_files(others)] if others else []))
    return Dataset(
        folder.inputs,
        cast_targets(parsed.values[folder.kept], parsed.classes),
        parsed.classes,
        folder.channels,
        parsed.metric,
        CleaningReport(len(files), 0, len(files) - len(folder.kept), ()),
        keys=keys,
        notes=notes,
        image_steps=folder.steps,
    )


def build_image_dataset(raw: RawDataset, options: UserDataOptions) -> Dataset:
    """Build a data set of images: duplicates are left out, and a value that is not a number is refused."""
    if raw.inputs.dtype.kind == "f" and not np.isfinite(raw.inputs).all():
        row = int(np.flatnonzero(~np.isfinite(raw.inputs).all(axis=(1, 2, 3)))[0])
        raise InvalidInputError(f"{raw.origin.describe_row(row)}: the image holds values that are no numbers.")
    parsed = parse_targets(raw.targets, options, raw.origin)
    kept = find_unique_examples(raw.inputs, parsed.values)
    cleaning = CleaningReport(len(raw.inputs), 0, len(raw.inputs) - len(kept), ())
    whole = len(kept) == len(raw.inputs)
    inputs: Inputs = raw.inputs if whole else raw.inputs[kept]
    if raw.inputs.dtype == np.uint8:
        inputs = MemoryPixels.hold(raw.inputs, kept)
    typed, classes, metric = parsed.values[kept], parsed.classes, parsed.metric
    keys, notes = raw.keys.select(kept), (parsed.note, *raw.notes)
    targets = cast_targets(typed, classes)
    return Dataset(inputs, targets, classes, raw.features, metric, cleaning, keys=keys, notes=notes)


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
    keys = raw.keys
    if not keys.is_random:
        keys = keys.select(
            find_clean_rows(
                np.where(np.isfinite(rows), rows, np.nan), parsed.values, keep_missing=options.missing != "drop"
            )[0]
        )
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
        keys=keys,
        notes=(parsed.note, describe_columns(kept, categories if encoded else ()), *raw.notes),
    )


def find_empty_columns(rows: Array, names: Sequence[str]) -> list[str]:
    """Find the columns of (N, columns) without a single value."""
    return [name for name, column in zip(names, rows.T, strict=True) if np.isnan(column).all()]


def cast_targets(values: Array, classes: Sequence[str]) -> Array:
    """Cast targets float64 (N,) to the type that a data set has."""
    return values.astype(np.int64) if classes else values.astype(np.float32)[:, None]
