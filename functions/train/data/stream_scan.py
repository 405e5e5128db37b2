"""The first pass over a data set that is streamed: it computes the statistics, and holds validation and test.

Its memory is limited by two shards, the held sets and the sample, whatever the number of shards.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import numpy as np

from functions.train.data import Array
from functions.train.data.cleaning import CleaningReport
from functions.train.data.column_notes import describe_columns
from functions.train.data.dataset import Dataset
from functions.train.data.files import DataFile, DataRoot, find_files
from functions.train.data.readers import EXTENSIONS, cast_targets
from functions.train.data.shards import (
    Shard,
    ShardRows,
    TargetEncoding,
    assign_splits,
    check_same_columns,
    generate_uniform,
    read_new_shard,
)
from functions.train.data.split import DEFAULT_CALIBRATION_EXAMPLES, Splits, refuse_missing_class
from functions.train.data.split_keys import SETS
from functions.train.data.statistics import DatasetStatistics, Moments, RandomSample, RunningMoments
from functions.train.data.streaming import StreamedDataset, join_blocks
from functions.train.data.target import ParsedTargets, is_class_target, is_numeric_text, parse_targets
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.data_schema import UserDataOptions

MAX_DISTINCT_TARGETS = 1000  # different answers that are counted; with more than that, they are taken for numbers
CALIBRATION_SALT = 1  # the salt of the calibration's random numbers, so that they are not those of the split


@dataclass
class StreamScan:
    """The state of the first pass after some shards."""

    options: UserDataOptions
    shards: list[Shard] = field(default_factory=list)
    features: tuple[str, ...] = ()
    example_shape: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()  # of the first shard, which all are like
    row_count: int = 0
    missing_rows: int = 0  # rows that lack a value and are left out
    filled_values: int = 0
    input_moments: RunningMoments = field(default_factory=RunningMoments)
    target_moments: RunningMoments = field(default_factory=RunningMoments)  # the answers, where they are numbers
    target_counts: Counter[Any] = field(default_factory=Counter)  # training examples of each answer
    first_word: str = ""  # where a target first was a text that is no number, and which one
    first_places: dict[Any, str] = field(default_factory=dict)  # where an answer was first seen, at most MOST
    held_out: dict[str, list[tuple[Array, Array]]] = field(default_factory=lambda: {"validation": [], "test": []})
    sample: RandomSample = field(default_factory=lambda: RandomSample(DEFAULT_CALIBRATION_EXAMPLES))

    def add_shard(self, file: DataFile, shard_rows: ShardRows) -> None:
        """Add the next shard."""
        if not self.shards:
            self.notes = shard_rows.notes
            self.features, self.example_shape = shard_rows.features, shard_rows.inputs.shape[1:]
            self.sample = RandomSample(self.options.calibration or DEFAULT_CALIBRATION_EXAMPLES)
        check_same_columns(
            self.features,
            self.example_shape,
            shard_rows,
            file.name,
            self.shards[0].file.name if self.shards else file.name,
        )
        sets = assign_splits(self.row_count, shard_rows.row_count, self.options)[shard_rows.kept_rows]
        for number, name in enumerate(SETS[1:], 1):
            self._hold_out(name, shard_rows.inputs[sets == number], shard_rows.targets[sets == number])
        chosen = np.flatnonzero(sets == 0)
        inputs, answers = shard_rows.inputs[chosen], shard_rows.targets[chosen]
        self._count_targets(file, shard_rows, answers)
        self.input_moments.add_part(inputs)
        keys = generate_uniform(self.options.seed, self.row_count, shard_rows.row_count, CALIBRATION_SALT)[
            shard_rows.kept_rows
        ][chosen]
        self.sample.add_part(keys, inputs, answers)
        self.shards.append(Shard(file, shard_rows.sha256, self.row_count, len(chosen)))
        self.filled_values += int(np.isnan(shard_rows.inputs).sum())
        self.row_count, self.missing_rows = (
            self.row_count + shard_rows.row_count,
            self.missing_rows + shard_rows.row_count - len(shard_rows.kept_rows),
        )

    def _hold_out(self, set_name: str, inputs: Array, answers: Array) -> None:
        self.held_out[set_name].append((inputs, answers))
        count = sum(len(held) for _, held in self.held_out[set_name])
        if count > self.options.held:
            share = getattr(self.options.fractions, set_name)
            raise InvalidInputError(
                f"data.fractions.{set_name} is {share:g}, which is {count:,} examples or more; data.held lets only "
                f"{self.options.held:,} lie in memory: make that share smaller, or data.held larger."
            )

    def _count_targets(self, file: DataFile, shard_rows: ShardRows, training: Array) -> None:
        """Count the targets while there are few different ones; numbers are summed as well."""
        self._sum_numbers(file, shard_rows, training)
        if len(self.first_places) > MAX_DISTINCT_TARGETS:
            return
        for answer, row in zip(*np.unique(shard_rows.targets, return_index=True), strict=True):
            self.first_places.setdefault(answer.item(), f"{file.name}, row {shard_rows.kept_rows[row] + 1}")
        self.target_counts.update(
            dict(zip(*(part.tolist() for part in np.unique(training, return_counts=True)), strict=True))
        )

    def _sum_numbers(self, file: DataFile, shard_rows: ShardRows, training: Array) -> None:
        """Sum up targets that are numbers, also as texts; note the first that is none."""
        if shard_rows.targets.dtype.kind == "U" and not self.first_word:
            words = shard_rows.targets.tolist()
            wrong = next((row for row, word in enumerate(words) if not is_finite_text(word)), None)
            if wrong is not None:
                self.first_word = f"{file.name}, row {shard_rows.kept_rows[wrong] + 1}: the target is {words[wrong]!r}"
        if not self.first_word:
            self.target_moments.add_part(training.astype(np.float64)[:, None])

    @property
    def target_encoding(self) -> tuple[TargetEncoding, ParsedTargets]:
        """What the targets mean, and what they were taken for."""
        distinct = sorted(self.first_places) if len({isinstance(word, str) for word in self.first_places}) == 1 else []
        values = np.array(distinct)
        if not distinct:
            raise InvalidInputError(f"The target {self.options.target!r} is text in some shards and numbers in others.")
        if len(distinct) > MAX_DISTINCT_TARGETS and is_class_target(values, self.options):
            raise InvalidInputError(
                f"The target {self.options.target!r} has more than {MAX_DISTINCT_TARGETS:,} different values, such as "
                f"{distinct[0]!r}, which are too many classes for a stream; name another column under data.target."
            )
        places = FirstSeenPlaces([self.first_places[word] for word in distinct])
        found = parse_targets(values, self.options, places, self.row_count)
        if self.first_word and not found.classes:
            raise InvalidInputError(f"{self.first_word}, and others are numbers; mend it, or leave its row out.")
        return TargetEncoding(found.classes, values if found.classes else np.zeros(0), found.values), found

    def build_splits(self) -> Splits:
        """Build the sets; the training set is a stream."""
        answers, parsed = self.target_encoding
        columns = self.choose_columns()
        features = tuple(self.features[column] for column in columns)
        constant = tuple(name for name in self.features if name not in features)
        cleaning = CleaningReport(self.row_count, self.missing_rows, None, constant, self.filled_values)
        stream = StreamedDataset(
            tuple(self.shards), self.options, columns, answers, self.build_statistics(columns, answers)
        )

        columns_note = (describe_columns(features, ()),) if len(self.example_shape) == 1 else ()

        def build_part(inputs: Array, known: Array, passes: StreamedDataset | None = None) -> Dataset:
            targets = cast_targets(answers.encode_targets(known), answers.classes)
            picked = np.ascontiguousarray(inputs[:, columns])
            return Dataset(
                picked,
                targets,
                answers.classes,
                features,
                parsed.metric,
                cleaning,
                (),
                self.options.missing,
                passes,
                notes=(parsed.note, *columns_note, *self.notes),
            )

        if self.sample.inputs is None or self.sample.targets is None:
            raise ValueError("There is no shard yet.")
        if len(stream) < (self.options.calibration or 1):
            wanted = self.options.calibration or 1
            raise InvalidInputError(f"data.calibration is {wanted}; there are {len(stream)} training examples.")
        train = build_part(self.sample.inputs, self.sample.targets, stream)
        validation, test = (build_part(*join_blocks(held)) for held in self.held_out.values())
        counts = {
            "train": stream.statistics.class_counts,
            "validation": count_classes(validation),
            "test": count_classes(test),
        }
        check_split_counts(counts, answers.classes, SETS[:1] if self.options.rare == "keep" else SETS)
        calibration = build_part(self.sample.inputs, self.sample.targets)
        sha256 = hashlib.sha256("".join(shard.sha256 for shard in self.shards).encode()).hexdigest()
        return Splits(train, validation, test, calibration, sha256)

    def choose_columns(self) -> Array:
        """Choose the columns of a table that vary, or all channels of larger examples."""
        is_table = len(self.example_shape) == 1
        columns = np.flatnonzero(self.input_moments.varying_mask) if is_table else np.arange(self.example_shape[0])
        if not len(columns):
            raise InvalidInputError(f"No column of {self.options.name} varies; there is nothing to learn from.")
        return columns

    def build_statistics(self, columns: Array, target_encoding: TargetEncoding) -> DatasetStatistics:
        """Build the statistics of the training set that a model needs."""
        known = self.input_moments.moments
        inputs = Moments(known.mean[columns], known.deviation[columns])
        fill = None if self.options.missing == "drop" else inputs.mean
        if not target_encoding.classes:
            return DatasetStatistics(inputs, self.target_moments.moments, np.array([self.input_moments.rows]), fill)
        counts = np.zeros(len(target_encoding.classes), np.int64)
        for answer, code in zip(target_encoding.distinct.tolist(), target_encoding.codes.astype(int), strict=True):
            counts[code] += self.target_counts[answer]
        return DatasetStatistics(inputs, inputs, counts, fill)


@dataclass(frozen=True)
class FirstSeenPlaces:
    """Where each of a list of targets was first seen."""

    places: Sequence[str]

    def describe_row(self, row: int) -> str:
        """Describe where a target was first seen."""
        return self.places[row]


def is_finite_text(text: str) -> bool:
    """Return whether a text is a number, neither infinite nor NaN."""
    return is_numeric_text(text) and isfinite(float(text))


def count_classes(part: Dataset) -> Array:
    """Count the examples of each class; of numbers, all of them."""
    return np.bincount(part.targets, minlength=len(part.classes)) if part.classes else np.array([len(part)])


def check_split_counts(counts: dict[str, Array], classes: Sequence[str], complete_sets: Sequence[str] = SETS) -> None:
    """Refuse a split that leaves one of its sets empty, or a class out of one that must be complete."""
    for name, count in counts.items():
        if not (count.all() if name in complete_sets else count.any()):
            rare = int(count.argmin())
            if classes:
                refuse_missing_class(name, classes[rare], int(sum(each[rare] for each in counts.values())))
            raise InvalidInputError(f"data.fractions.{name} is too small: that set has no example left.")


def scan_splits(options: UserDataOptions, data_root: DataRoot) -> Splits:
    """Read every shard once, and return the sets of a stream."""
    scan = StreamScan(options)
    for file, read in prefetch_files(find_files(options.paths, data_root, EXTENSIONS[options.file_format]), options):
        scan.add_shard(file, read)
    return scan.build_splits()


def prefetch_files(files: Sequence[DataFile], options: UserDataOptions) -> Iterator[tuple[DataFile, ShardRows]]:
    """Read every file in the background while the previous one is used."""
    with ThreadPoolExecutor(1, thread_name_prefix="pilotlight-survey") as pool:
        waiting = pool.submit(read_new_shard, files[0], options)
        for file, following in zip(files, [*files[1:], None], strict=True):
            read = waiting.result()
            if following is not None:
                waiting = pool.submit(read_new_shard, following, options)
            yield file, read
            del read
