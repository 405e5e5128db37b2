"""Which examples a run learns from, and how they are shared out: a data set that comes along, or the user's own.

`data: {name: digits, ...}` is one of those that come along. `data: {path: ..., ...}` is the user's own:

    path         a file, a folder, a pattern with * (one level) or ** (any), or a list of files. It begins at the folder
                 of the recipe file; or with / or file:///, with s3://bucket/, or with store:, the run's own store
    format       csv, parquet, npz or images, where the ending does not say it
    target       the column, or the NPZ's array, that is to be answered; of images it is the sub-folder
    features     the columns to learn from, or the NPZ's array; all others unless given
    drop         columns to leave out
    delimiter    of a CSV, whose first line names the columns
    task         classes or number; where it is not given, text, truth values and at most 20 different whole numbers
                 are classes, everything else is a number
    classes      their names in the order of the outputs; sorted unless given, and then no other may occur
    metric       what the model is judged by: accuracy or balanced_accuracy, and r2 for numbers
    missing      drop the rows with gaps, or fill them with the mean or median of the training set, in the graph too. A
                 column of text is filled with its most frequent category
    image        size, one number or [height, width], and mode, grey or rgb; as the files are, unless given
    streaming    read shards of Parquet, CSV or NPZ anew in each pass, because they do not fit in memory
    buffer       of a stream: how many examples are shuffled among each other
    held         of a stream: how many examples of validation and of test may lie in memory, each

A column of text comes into the graph as the index of its category, and is spread over one column for each in there; the
manifest lists the categories. What cleaning leaves out is counted and told, never silent.
"""

from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from functions.train.options.part import Count, Options, Seed, Share, branch

Format = Literal["csv", "parquet", "npz", "images"]
Paths = Annotated[
    Annotated[Annotated[tuple[str, ...], Field(min_length=1)], Tag("value")]
    | Annotated[Annotated[str, Field(min_length=1)], Tag("word")],
    Discriminator(branch),
]
Side = Annotated[int, Field(ge=1, le=4096)]  # pixels
Sides = Annotated[
    Annotated[tuple[Side, Side], Tag("pair")] | Annotated[Side, Tag("side")],
    Discriminator(lambda value: "pair" if isinstance(value, list | tuple) else "side"),
]
ENDINGS: dict[str, Format] = {".csv": "csv", ".parquet": "parquet", ".npz": "npz"}


class Fractions(Options):
    """How the examples are shared out; the three sum to one."""

    train: Share
    validation: Share
    test: Share

    @model_validator(mode="after")
    def _whole(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train, validation and test must sum to 1, not to {total:.6g}")
        return self


class DataOptions(Options):
    """A data set that comes along. The split has its own seed: runs of other seeds stay comparable on one test set."""

    name: Literal["digits", "breast-cancer", "wine", "diabetes"]
    seed: Seed = 0
    fractions: Fractions
    calibration: Count = 256  # examples of the training set that the quantizer sees


class ImageOptions(Options):
    """What files of images are made into; null leaves them as they are, if they are all alike."""

    size: Sides | None = None  # one side of a square, or height and width
    mode: Literal["grey", "rgb"] | None = None


class OwnOptions(Options):
    """A data set of the user's own, and its split; the words are told at the top of this module."""

    path: Paths
    format: Format | None = None
    target: str | None = None
    features: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    drop: tuple[str, ...] = ()
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    task: Literal["classes", "number"] | None = None
    classes: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    metric: Literal["accuracy", "balanced_accuracy", "r2"] | None = None
    missing: Literal["drop", "mean", "median"] = "drop"
    image: ImageOptions = ImageOptions()
    streaming: bool = False
    buffer: Count = 10_000
    held: Count = 50_000
    seed: Seed = 0
    fractions: Fractions
    calibration: Count | None = None  # as many of the training set as the quantizer sees; 256 where there are so many

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path that is named."""
        return (self.path,) if isinstance(self.path, str) else self.path

    @property
    def name(self) -> str:
        """The data set in a word: the last part of where it lies."""
        return PurePosixPath(self.paths[0]).name or self.paths[0]

    @property
    def kind(self) -> Format:
        """The format, by its word or by the ending; a path without one is a folder of images."""
        endings = {PurePosixPath(path).suffix.lower() for path in self.paths}
        return self.format or ENDINGS.get(endings.pop() if len(endings) == 1 else "?", "images")

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        endings = {PurePosixPath(path).suffix.lower() for path in self.paths}
        if self.format is None and (endings - {"", *ENDINGS} or len(endings) > 1):
            raise ValueError(f"files that end in {', '.join(sorted(endings))} are no one format; csv, parquet, npz are")
        if (self.kind == "images") == (self.target is not None):
            raise ValueError("target must name what is to be answered; of images it is the sub-folder, and not named")
        if self.streaming and (self.kind == "images" or self.missing == "median"):
            raise ValueError("a stream takes csv, parquet or npz, and no median, for which all must be in memory")
        if self.task == "number" and (self.classes or self.metric not in (None, "r2")):
            raise ValueError("a number has no classes, and its metric is r2")
        return self
