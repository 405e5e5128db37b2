"""One shard: a file of a data set that is streamed, read, compared with its hash, and split."""

import hashlib
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from functions.train.data import Array, npz, tabular_files
from functions.train.data.files import ATTEMPTS, PAUSE_S, DataFile
from functions.train.data.readers import TABLE_READERS
from pilotlight.errors import InvalidInputError, StoreError
from pilotlight.recipes.data_schema import UserDataOptions


@dataclass(frozen=True)
class Shard:
    """A file as the first pass found it."""

    file: DataFile
    sha256: str
    first_example: int  # the number of its first example in the whole data set
    training_count: int  # examples of the training set


@dataclass(frozen=True, eq=False)
class ShardRows:
    """The examples of a shard."""

    inputs: Array  # float32 (kept, ...), NaN for gaps
    targets: Array  # (kept,) as they came
    kept_rows: Array  # indices of these rows in the shard; the others lack a value that is not filled
    row_count: int
    features: tuple[str, ...]
    sha256: str
    notes: tuple[str, ...] = ()  # what was decided without being asked


@dataclass(frozen=True, eq=False)
class TargetEncoding:
    """What the targets mean, once the first pass has read all of them."""

    classes: tuple[str, ...]
    distinct: Array  # every answer that occurs, sorted; empty for numbers
    codes: Array  # the class of each

    def encode_targets(self, raw_targets: Array) -> Array:
        """Encode targets (N,) as float64: indices into classes, or the numbers themselves."""
        return (
            self.codes[np.searchsorted(self.distinct, raw_targets)] if self.classes else raw_targets.astype(np.float64)
        )


def load_shard(shard: Shard, options: UserDataOptions) -> ShardRows:
    """Load a shard again; `StoreError` when it is gone or its hash differs, also in the third attempt."""
    for attempt in range(ATTEMPTS):
        time.sleep(PAUSE_S * attempt)
        with suppress(OSError), shard.file.shared_path() as path:
            if compute_file_sha256(path) == shard.sha256:
                return parse_shard(path, shard.file.name, options, shard.sha256)
    raise StoreError(f"The shard {shard.file.name} is not what it was when this run first read it; start a new run.")


def read_new_shard(file: DataFile, options: UserDataOptions) -> ShardRows:
    """Read a shard for the first time."""
    with file.shared_path() as path:
        return parse_shard(path, file.name, options, compute_file_sha256(path))


def compute_file_sha256(path: Path) -> str:
    """Compute the sha256 of a file, in hex."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def parse_shard(path: Path, file_name: str, options: UserDataOptions, sha256: str) -> ShardRows:
    """Parse the examples of a file on disk."""
    notes: tuple[str, ...] = ()
    if options.file_format == "npz":
        inputs, targets = npz.read_npz(path, file_name, options)
        inputs = inputs.astype(np.float32, copy=False)
        features = tuple(f"x{number}" for number in range(inputs.shape[1]))
    else:
        inputs, targets, features, notes = read_table_rows(path, file_name, options)
    finite = np.isfinite(inputs)
    inputs = inputs if finite.all() else np.where(finite, inputs, np.float32(np.nan))
    whole = finite.reshape(len(inputs), -1).all(axis=1)
    if inputs.ndim == 4 and not whole.all():
        raise InvalidInputError(f"{file_name}, row {int(np.flatnonzero(~whole)[0]) + 1}: the image holds no numbers.")
    kept = np.arange(len(inputs)) if options.missing != "drop" else np.flatnonzero(whole)
    if len(kept) < len(inputs):
        inputs, targets = inputs[kept], targets[kept]
    return ShardRows(inputs, targets, kept, len(finite), features, sha256, notes)


def read_table_rows(
    path: Path, file_name: str, options: UserDataOptions
) -> tuple[Array, Array, tuple[str, ...], tuple[str, ...]]:
    """Read the columns, targets, column names and notes of a table.

    Columns of text are refused, since their categories span all files.
    """
    whole, origin = tabular_files.join_tables(
        [TABLE_READERS[options.file_format](path, file_name, options)], [file_name]
    )
    whole, numbering = tabular_files.drop_row_numbers(whole, options, origin)
    features = tabular_files.select_feature_columns(whole.column_names, options, file_name)
    columns = [tabular_files.read_feature_column(whole, word, origin) for word in features]
    for word, (_, categories) in zip(features, columns, strict=True):
        if categories:
            raise InvalidInputError(
                f"{file_name}: column {word!r} holds text, such as {categories[0]!r}, which a stream does not encode; "
                "name it under data.drop, or encode it as numbers."
            )
    inputs = np.stack([column.astype(np.float32) for column, _ in columns], axis=1)
    targets = tabular_files.read_target_column(whole, str(options.target), origin)
    return inputs, targets, features, tuple(f"left out the index in column {name!r}" for name in numbering)


def assign_splits(first_example: int, count: int, options: UserDataOptions) -> Array:
    """Assign each of `count` examples from number `first_example` on to a set: an index into SETS."""
    edges = np.cumsum([options.fractions.train, options.fractions.validation])
    return np.digitize(generate_uniform(options.seed, first_example, count), edges)


def generate_uniform(seed: int, first_example: int, count: int, salt: int = 0) -> Array:
    """Draw a number in [0, 1) for each example from `first_example` on, by seed, salt and its number alone.

    SplitMix64: Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, 2014.
    """
    with np.errstate(over="ignore"):
        mixed = np.arange(first_example, first_example + count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        mixed += mix_bits(np.array([seed * 2 + salt], np.uint64))
        return (mix_bits(mixed) >> np.uint64(11)).astype(np.float64) / 2**53


def mix_bits(values: Array) -> Array:
    """Mix the bits by SplitMix64's finaliser, over uint64."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: Array = values ^ (values >> np.uint64(31))
        return mixed


def check_same_columns(
    features: Sequence[str], shape: tuple[int, ...], rows: ShardRows, file_name: str, first_file_name: str
) -> None:
    """Refuse a shard whose columns or shape differ from the first one's."""
    if tuple(features) != rows.features or shape != rows.inputs.shape[1:]:
        raise InvalidInputError(
            f"The shard {file_name} has other columns, or examples of another shape, than {first_file_name}."
        )
