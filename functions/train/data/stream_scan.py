"""The first pass over a data set that is streamed: what has to be known before the training, and the sets it holds.

Its memory is bounded by one shard and the next, the held sets and the sample, whatever the number of shards.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from functions.train.data.cleaning import Cleaning
from functions.train.data.dataset import CALIBRATION, Dataset, Splits, left_out
from functions.train.data.files import File, Place, find
from functions.train.data.readers import ENDINGS, typed_as
from functions.train.data.running import Running, Sample
from functions.train.data.shards import SETS, Answers, Read, Shard, first_read, parts, same, uniform
from functions.train.data.statistics import Moments, Profile
from functions.train.data.streaming import Stream, joined
from functions.train.data.target import means_classes, understood
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.options.data import OwnOptions

Array = np.ndarray[Any, Any]
MOST = 1000  # different answers that are counted; with more than that, they are taken for numbers
SAMPLED = 1  # the salt of the calibration's random numbers, so that they are not those of the split


@dataclass
class Survey:
    """What is known so far."""

    options: OwnOptions
    shards: list[Shard] = field(default_factory=list)
    features: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    rows: int = 0
    missing: int = 0  # rows that lack a value and are left out
    filled: int = 0
    inputs: Running = field(default_factory=Running)
    numbers: Running = field(default_factory=Running)  # the answers, where they are numbers
    counts: Counter[Any] = field(default_factory=Counter)  # training examples of each answer
    places: dict[Any, str] = field(default_factory=dict)  # where an answer was first seen, at most MOST
    held: dict[str, list[tuple[Array, Array]]] = field(default_factory=lambda: {"validation": [], "test": []})
    sample: Sample = field(default_factory=lambda: Sample(CALIBRATION))

    def add(self, file: File, read: Read) -> None:
        """Take note of the next shard."""
        if not self.shards:
            self.features, self.shape = read.features, read.inputs.shape[1:]
            self.sample = Sample(self.options.calibration or CALIBRATION)
        same(self.features, self.shape, read, file.name, self.shards[0].file.name if self.shards else file.name)
        sets = parts(self.rows, read.rows, self.options)[read.kept]
        for number, name in enumerate(SETS[1:], 1):
            self._hold(name, read.inputs[sets == number], read.answers[sets == number])
        chosen = np.flatnonzero(sets == 0)
        inputs, answers = read.inputs[chosen], read.answers[chosen]
        self._answers(file, read, answers)
        self.inputs.add(inputs)
        keys = uniform(self.options.seed, self.rows, read.rows, SAMPLED)[read.kept][chosen]
        self.sample.add(keys, inputs, answers)
        self.shards.append(Shard(file, read.sha256, self.rows, len(chosen)))
        self.filled += int(np.isnan(read.inputs).sum())
        self.rows, self.missing = self.rows + read.rows, self.missing + read.rows - len(read.kept)

    def _hold(self, name: str, inputs: Array, answers: Array) -> None:
        self.held[name].append((inputs, answers))
        count = sum(len(held) for _, held in self.held[name])
        if count > self.options.held:
            share = getattr(self.options.fractions, name)
            raise InvalidInputError(
                f"data.fractions.{name} is {share:g}, which is {count:,} examples or more; data.held lets only "
                f"{self.options.held:,} lie in memory: make that share smaller, or data.held larger."
            )

    def _answers(self, file: File, read: Read, training: Array) -> None:
        """Count the answers, as long as they are few; numbers are summed up as well."""
        if read.answers.dtype.kind != "U":
            self.numbers.add(training.astype(np.float64)[:, None])
        if len(self.places) > MOST:
            return
        for answer, row in zip(*np.unique(read.answers, return_index=True), strict=True):
            self.places.setdefault(answer.item(), f"{file.name}, row {read.kept[row] + 1}")
        self.counts.update(dict(zip(*(part.tolist() for part in np.unique(training, return_counts=True)), strict=True)))

    @property
    def answers(self) -> tuple[Answers, str]:
        """What the answers mean, and the metric that goes with it."""
        distinct = sorted(self.places) if len({isinstance(word, str) for word in self.places}) == 1 else []
        values = np.array(distinct)
        if not distinct:
            raise InvalidInputError(f"The target {self.options.target!r} is text in some shards and numbers in others.")
        if len(distinct) > MOST and means_classes(values, self.options):
            raise InvalidInputError(f"The target {self.options.target!r} has more than {MOST} different values.")
        found = understood(values, self.options, Places([self.places[word] for word in distinct]))
        return Answers(found.classes, values if found.classes else np.zeros(0), found.values), found.metric

    def splits(self) -> Splits:
        """The sets, the training set as a stream."""
        answers, metric = self.answers
        table = len(self.shape) == 1
        columns = np.flatnonzero(self.inputs.varies) if table else np.arange(self.shape[0])
        if not len(columns):
            raise InvalidInputError(f"No column of {self.options.name} varies; there is nothing to learn from.")
        features = tuple(self.features[column] for column in columns)
        constant = tuple(name for name in self.features if name not in features)
        cleaning = Cleaning(self.rows, self.missing, None, constant, self.filled)
        stream = Stream(tuple(self.shards), self.options, columns, answers, self.profile(columns, answers))

        def made(inputs: Array, known: Array, passes: Stream | None = None) -> Dataset:
            targets = typed_as(answers.understood(known), answers.classes)
            picked = np.ascontiguousarray(inputs[:, columns])
            return Dataset(
                picked, targets, answers.classes, features, metric, cleaning, (), self.options.missing, passes
            )

        if self.sample.inputs is None or self.sample.answers is None:
            raise ValueError("There is no shard yet.")
        if len(stream) < (self.options.calibration or 1):
            wanted = self.options.calibration or 1
            raise InvalidInputError(f"data.calibration is {wanted}; there are {len(stream)} training examples.")
        train = made(self.sample.inputs, self.sample.answers, stream)
        validation, test = (made(*joined(held)) for held in self.held.values())
        counts = {"train": stream.profile.counts, "validation": counted(validation), "test": counted(test)}
        check(counts, answers.classes)
        calibration = made(self.sample.inputs, self.sample.answers)
        sha256 = hashlib.sha256("".join(shard.sha256 for shard in self.shards).encode()).hexdigest()
        return Splits(train, validation, test, calibration, sha256)

    def profile(self, columns: Array, answers: Answers) -> Profile:
        """What a model is told of the training set."""
        known = self.inputs.moments
        inputs = Moments(known.mean[columns], known.deviation[columns])
        fill = None if self.options.missing == "drop" else inputs.mean
        if not answers.classes:
            return Profile(inputs, self.numbers.moments, np.array([self.inputs.rows]), fill)
        counts = np.zeros(len(answers.classes), np.int64)
        for answer, code in zip(answers.distinct.tolist(), answers.codes.astype(int), strict=True):
            counts[code] += self.counts[answer]
        return Profile(inputs, inputs, counts, fill)


@dataclass(frozen=True)
class Places:
    """Where each of a list of answers was first seen."""

    known: Sequence[str]

    def place(self, row: int) -> str:
        """Where, in words."""
        return self.known[row]


def counted(part: Dataset) -> Array:
    """The examples of each class; of numbers, of all."""
    return np.bincount(part.targets, minlength=len(part.classes)) if part.classes else np.array([len(part)])


def check(counts: dict[str, Array], classes: Sequence[str]) -> None:
    """Refuse a split that leaves one of its sets empty, or a class out of one."""
    for name, count in counts.items():
        if not count.all():
            rare = int(count.argmin())
            if classes:
                left_out(name, classes[rare], int(sum(each[rare] for each in counts.values())))
            raise InvalidInputError(f"data.fractions.{name} is too small: that set has no example left.")


def splits(options: OwnOptions, place: Place) -> Splits:
    """Read every shard once, and give the sets of a stream."""
    survey = Survey(options)
    for file, read in ahead(find(options.paths, place, ENDINGS[options.kind]), options):
        survey.add(file, read)
    return survey.splits()


def ahead(files: Sequence[File], options: OwnOptions) -> Iterator[tuple[File, Read]]:
    """Every file, read while the one before it is used."""
    with ThreadPoolExecutor(1, thread_name_prefix="pilotlight-survey") as pool:
        waiting = pool.submit(first_read, files[0], options)
        for file, following in zip(files, [*files[1:], None], strict=True):
            read = waiting.result()
            if following is not None:
                waiting = pool.submit(first_read, following, options)
            yield file, read
            del read
