"""The options of the data: a built-in data set or the user's own, its split, and the augmentation of images.

`data: {name: digits, ...}` is a built-in one. `data: {path: ..., ...}` is the user's own:

    path         a file, a folder, a pattern with * (one level) or ** (any), or a list of files. It begins at the folder
                 of the recipe file; or with / or file:///, with s3://bucket/, or with store:, the run's own store.
                 After an s3:// path, ?endpoint=http://host:9000 names another server with S3's API
    format       csv, parquet, jsonl (an object in each line), npz or images, where the extension does not determine it
    validation   a path like the one above, to the validation set of one's own; `fractions` then has none of it
    test         the same for the test set
    target       the column, or the NPZ's array, to predict; of images it is the first folder below `path`
    features     the columns to learn from, or the NPZ's array; all others unless given
    drop         columns to leave out
    delimiter    of a CSV, whose first line names the columns; `decimal` is what its numbers have for a point
    task         classes or number; where it is not given, text, truth values and at most 20 different whole numbers
                 are classes, also as 0.0 and 1.0 where each occurs twice on average. Everything else is a number, also
                 in the form of text, unless it is a code with leading zeros
    unlabelled   drop the rows without a target, or refuse them
    rare         what to do with classes of fewer than `minimum` examples, which is the number of sets unless given:
                 refuse them if a set would have none; keep them, in the training set at least; drop their examples; or
                 merge them into one class called `other`
    group        the column of which no value may occur in two sets, such as a patient, and which is not learned from.
                 Of images: `folder`, the folder below the class, or a pattern of file names such as {group}_*
    time         the column to split by: training examples are the earliest, test examples the latest. It is not learned
                 from
    classes      their names in the order of the outputs; sorted unless given, and then no other may occur
    metric       what the model is judged by: accuracy, balanced_accuracy, f1, auc, top_3, top_5, top_10 or log_loss;
                 for numbers r2, mae, rmse or mape
    missing      drop the rows with gaps, or fill them with the mean or median of the training set, in the graph too. A
                 column of text is filled with its most frequent category
    unknown      of a column of text, a category that no row of training had, when the model is asked: missing (the
                 default) treats it as a gap, and as none of the categories where gaps are not filled; zeros treats it
                 as none of the categories; refuse answers 400
    image        size, one number or [height, width], and mode, grey or rgb; as the files are, unless given
    streaming    read shards of Parquet, CSV, JSON lines or NPZ, or images, anew in each pass, because they do not fit
                 in memory; images are streamed by themselves where they would take a quarter of the memory that is free
    buffer       of a stream: how many examples are shuffled among each other
    held         of a stream: how many examples of validation and of test may be in memory, each

A column of text enters the graph as the index of its category, and is one-hot encoded there; the manifest lists the
categories. What cleaning leaves out is counted and reported.
"""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Proportion = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Layers = Annotated[int, Field(ge=1, le=32)]
Dropout = Annotated[float, Field(ge=0, lt=1)]


class Options(BaseModel):
    """A part of a recipe: frozen, without unknown keys, with strict types and finite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def get_union_tag(value: object) -> str:
    """Return the tag of a union's member, so that an error names that member alone."""
    return "word" if isinstance(value, str) else "value"


UnknownCategory = Literal["missing", "zeros", "refuse"]
ClassMetric = Literal["accuracy", "balanced_accuracy", "f1", "auc", "top_3", "top_5", "top_10", "log_loss"]
NumberMetric = Literal["r2", "mae", "rmse", "mape"]
FileFormat = Literal["csv", "parquet", "jsonl", "npz", "images"]
Paths = Annotated[
    Annotated[Annotated[tuple[str, ...], Field(min_length=1)], Tag("value")]
    | Annotated[Annotated[str, Field(min_length=1)], Tag("word")],
    Discriminator(get_union_tag),
]
Pixels = Annotated[int, Field(ge=1, le=4096)]  # pixels
ImageSize = Annotated[
    Annotated[tuple[Pixels, Pixels], Tag("pair")] | Annotated[Pixels, Tag("side")],
    Discriminator(lambda value: "pair" if isinstance(value, list | tuple) else "side"),
]
FORMAT_BY_ENDING: dict[str, FileFormat] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".csv.gz": "csv",
    ".tsv.gz": "csv",
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".jsonl.gz": "jsonl",
    ".ndjson.gz": "jsonl",
    ".npz": "npz",
}
SPREADSHEET_ENDINGS = {".xlsx", ".xls", ".xlsm", ".ods"}
MAX_STARS = 3  # in a pattern of file names, since each multiplies the ways to match
SetName = Literal["train", "validation", "test"]


class SplitFractions(Options):
    """The fractions of the examples in each set; they sum to one. A set with files of its own has none."""

    train: Annotated[float, Field(gt=0, le=1)]
    validation: Share = 0.0
    test: Share = 0.0

    @model_validator(mode="after")
    def _check_sum(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train, validation and test must sum to 1, not to {total:.6g}")
        return self


class TextOptions(Options):
    """The tokenizer's size, and the windows that are learned from.

    The 256 bytes are tokens by themselves, and so is the end of a document: a vocabulary is larger than these.
    """

    vocabulary: Annotated[int, Field(gt=257, le=2**17)]  # tokens, at most
    window: Annotated[int, Field(ge=2)]  # tokens
    stride: Count | None = None  # tokens from one training window to the next; null: a window's length

    @model_validator(mode="after")
    def _check_stride(self) -> Self:
        if self.effective_stride > self.window:
            raise ValueError(f"stride must be at most the window's {self.window} tokens, else some are never learned")
        return self

    @property
    def effective_stride(self) -> int:
        """Tokens from one training window to the next."""
        return self.stride or self.window


class BuiltinDataOptions(Options):
    """A built-in data set. The split has its own seed, so that runs of other seeds are compared on one test set."""

    name: Literal["digits", "breast-cancer", "wine", "diabetes", "topics"]
    seed: Seed = 0
    fractions: SplitFractions
    calibration: Count = 256  # examples of the training set that the quantizer sees
    text: Annotated[TextOptions | None, Field(validate_default=True)] = None  # how a text becomes tokens

    @field_validator("fractions")
    @classmethod
    def _check_fractions(cls, fractions: SplitFractions) -> SplitFractions:
        return check_fractions(fractions)

    @field_validator("text")
    @classmethod
    def _check_text(cls, text: TextOptions | None, info: ValidationInfo) -> TextOptions | None:
        if (info.data.get("name") == "topics") != (text is not None):
            raise ValueError("it must be given for topics, with a vocabulary and a window, and for nothing else")
        return text


class ImageOptions(Options):
    """The size and mode of images from files; null leaves them as they are, if they are all alike."""

    size: ImageSize | None = None  # one side of a square, or height and width
    mode: Literal["grey", "rgb"] | None = None


class UserDataOptions(Options):
    """A data set of the user's own, and its split; the top of this module describes the keys."""

    path: Paths
    validation: Paths | None = None
    test: Paths | None = None
    format: Annotated[FileFormat | None, Field(validate_default=True)] = None
    target: Annotated[str | None, Field(validate_default=True)] = None
    features: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    drop: tuple[str, ...] = ()
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    decimal: Annotated[Literal[".", ","], Field(validate_default=True)] = "."
    task: Literal["classes", "number"] | None = None
    classes: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    metric: Literal[ClassMetric, NumberMetric] | None = None
    missing: Literal["drop", "mean", "median"] = "drop"
    unknown: UnknownCategory = "missing"
    unlabelled: Literal["refuse", "drop"] = "refuse"
    rare: Literal["refuse", "keep", "drop", "merge"] = "refuse"
    minimum: Annotated[int, Field(ge=2)] | None = None
    other: Annotated[str, Field(min_length=1)] = "other"
    group: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    time: Annotated[str, Field(min_length=1)] | None = None
    image: ImageOptions = ImageOptions()
    streaming: bool = False
    buffer: Count = 10_000
    held: Count = 50_000
    seed: Seed = 0
    fractions: Annotated[SplitFractions, Field(validate_default=True)] = None  # type: ignore[assignment]  # see below
    calibration: Count | None = None  # as many of the training set as the quantizer sees; 256 where there are so many

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path that is named."""
        return list_paths(self.path)

    @property
    def own_paths(self) -> dict[SetName, tuple[str, ...]]:
        """Every path of the sets that have files of their own."""
        given: dict[SetName, Paths | None] = {"validation": self.validation, "test": self.test}
        return {name: list_paths(path) for name, path in given.items() if path is not None}

    @property
    def all_paths(self) -> tuple[tuple[str, str], ...]:
        """Every path that is named, with its key."""
        own = ((name, path) for name, paths in self.own_paths.items() for path in paths)
        return (*(("path", path) for path in self.paths), *own)

    @property
    def name(self) -> str:
        """The name of the data set: the last part of its path."""
        return PurePosixPath(self.paths[0].partition("?endpoint=")[0]).name or self.paths[0]

    @property
    def file_format(self) -> FileFormat:
        """The format that is named, or else that of the extension; a path without one is a folder of images."""
        return self.format or infer_file_format(self.path)

    @field_validator("format")
    @classmethod
    def _check_format(cls, value: FileFormat | None, info: ValidationInfo) -> FileFormat | None:
        found = get_file_endings(info.data.get("path", ()))
        if value is None and (len(found) > 1 or found - {"", *FORMAT_BY_ENDING}):
            way_out = "; save the sheet as CSV in UTF-8" if found & SPREADSHEET_ENDINGS else ""
            raise ValueError(
                f"files that end in {', '.join(sorted(found))} are no one format; csv, parquet, jsonl and npz "
                f"are{way_out}"
            )
        return value

    @field_validator("target")
    @classmethod
    def _check_target(cls, target: str | None, info: ValidationInfo) -> str | None:
        images = (info.data.get("format") or infer_file_format(info.data.get("path", ()))) == "images"
        if images == (target is not None):
            raise ValueError("it must name what is to be answered; of images that is the sub-folder, and not named")
        return target

    @field_validator("features", "drop", "classes")
    @classmethod
    def _check_distinct(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if twice := sorted({name for name in names or () if (names or ()).count(name) > 1}):
            raise ValueError(f"it names {twice[0]!r} twice")
        return names

    @field_validator("classes")
    @classmethod
    def _check_classes(cls, classes: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        if classes and info.data.get("task") == "number":
            raise ValueError("data.task is number, which has none")
        return classes

    @field_validator("metric")
    @classmethod
    def _check_metric(cls, metric: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("task") == "number" and metric not in (None, *get_args(NumberMetric)):
            raise ValueError(f"data.task is number, whose metric is {format_alternatives(get_args(NumberMetric))}")
        if info.data.get("task") == "classes" and metric not in (None, *get_args(ClassMetric)):
            raise ValueError(f"data.task is classes, whose metric is {format_alternatives(get_args(ClassMetric))}")
        return metric

    @field_validator("streaming")
    @classmethod
    def _check_streaming(cls, streaming: bool, info: ValidationInfo) -> bool:
        values = info.data
        images = (values.get("format") or infer_file_format(values.get("path", ()))) == "images"
        if not streaming or images:
            return streaming
        if values.get("missing") == "median":
            raise ValueError("a stream of tables takes no median, for which all must be in memory")
        whole = [key for key in ("group", "time", "validation", "test") if values.get(key) is not None]
        whole += ["rare"] if values.get("rare") in ("drop", "merge") else []
        whole += ["unlabelled"] if values.get("unlabelled") == "drop" else []
        if whole:
            raise ValueError(
                f"a stream of tables takes no data.{whole[0]}, for which all must be in memory; images do, and tables "
                "that fit in memory"
            )
        return streaming

    @field_validator("decimal")
    @classmethod
    def _check_decimal(cls, decimal: str, info: ValidationInfo) -> str:
        if decimal == info.data.get("delimiter") == ",":
            raise ValueError("data.delimiter is ',' too; where numbers have a comma, columns need another, such as ';'")
        return decimal

    @field_validator("minimum")
    @classmethod
    def _check_minimum(cls, minimum: int | None, info: ValidationInfo) -> int | None:
        if minimum is not None and info.data.get("rare") not in ("drop", "merge"):
            raise ValueError("it is for data.rare: drop or merge, which leave fewer examples out or together")
        return minimum

    @field_validator("time")
    @classmethod
    def _check_time(cls, time: str | None, info: ValidationInfo) -> str | None:
        values = info.data
        if time is not None and (values.get("format") or infer_file_format(values.get("path", ()))) in (
            "images",
            "npz",
        ):
            raise ValueError("it is a column of csv, parquet or jsonl")
        if time is not None and time == values.get("target"):
            raise ValueError("it is data.target too, which is not known when the model is asked; name another column")
        if time is not None and values.get("group") is not None:
            raise ValueError("data.group is given, and a group may reach over any point of time; keep one of both")
        return time

    @field_validator("group")
    @classmethod
    def _check_group(cls, group: str | None, info: ValidationInfo) -> str | None:
        found = info.data.get("format") or infer_file_format(info.data.get("path", ()))
        if group is not None and group == info.data.get("target"):
            raise ValueError("it is data.target too, so that no class would be in two sets; name another column")
        if group is not None and found == "npz":
            raise ValueError("it is a column of csv, parquet or jsonl, or of images folder or a pattern")
        if group is not None and found == "images" and group != "folder" and group.count("{group}") != 1:
            raise ValueError("of images it is folder, or a pattern of file names with {group} in it, such as {group}_*")
        if group is not None and found == "images" and group.count("*") > MAX_STARS:
            raise ValueError(f"it must have {MAX_STARS} stars at most")
        return group

    @field_validator("fractions", mode="before")
    @classmethod
    def _fill_fractions(cls, fractions: object, info: ValidationInfo) -> object:
        own = [name for name in ("validation", "test") if info.data.get(name) is not None]
        if fractions is None and len(own) == 2:
            return SplitFractions(train=1.0)
        if fractions is None:
            raise PydanticCustomError("missing", "it must say which part of the examples is for each set")
        return fractions

    @field_validator("fractions")
    @classmethod
    def _check_fractions(cls, fractions: SplitFractions, info: ValidationInfo) -> SplitFractions:
        return check_fractions(fractions, [name for name in ("validation", "test") if info.data.get(name) is not None])


def check_fractions(fractions: SplitFractions, own: Sequence[str] = ()) -> SplitFractions:
    """Return fractions in which the sets with files of their own, and only they, have no part."""
    for name in ("validation", "test"):
        share = getattr(fractions, name)
        if name in own and share:
            raise ValueError(f"{name} is {share:g}, and data.{name} names its files; leave it out here")
        if name not in own and not share:
            raise ValueError(f"{name} must be greater than 0")
    return fractions


def format_alternatives(names: Sequence[str]) -> str:
    """Format names of which one may be given: `a, b or c`."""
    return " or ".join([", ".join(names[:-1]), names[-1]])


def list_paths(path: str | tuple[str, ...]) -> tuple[str, ...]:
    """List every path that is named."""
    return (path,) if isinstance(path, str) else path


def get_file_endings(path: str | tuple[str, ...]) -> set[str]:
    """Return the extensions of the named files, in lower case."""
    return {get_file_ending(each.partition("?endpoint=")[0]) for each in list_paths(path)}


def get_file_ending(path: str) -> str:
    """Return the extension of a file in lower case, both of a compressed one."""
    ending = PurePosixPath(path).suffix.lower()
    return PurePosixPath(path).with_suffix("").suffix.lower() + ending if ending == ".gz" else ending


def infer_file_format(path: str | tuple[str, ...]) -> FileFormat:
    """Infer the format from the extension; a path without one is a folder of images."""
    found = get_file_endings(path)
    return FORMAT_BY_ENDING.get(found.pop() if len(found) == 1 else "", "images")


def get_keys(part: object) -> tuple[str, ...]:
    """Return the keys of a part of a recipe, if it has any."""
    return tuple(part) if isinstance(part, dict) else ()


Data = Annotated[
    Annotated[BuiltinDataOptions, Tag("known")] | Annotated[UserDataOptions, Tag("own")],
    Discriminator(lambda data: "own" if isinstance(data, UserDataOptions) or "path" in get_keys(data) else "known"),
]


class AugmentationOptions(Options):
    """Random changes of images, drawn for each image in each pass, evenly up to a bound; of the training set only."""

    shift: Annotated[int, Field(ge=0)] = 0  # largest shift in pixels, in each direction; zeros fill the gap
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0  # largest rotation in degrees, in either direction
    flip: bool = False  # mirror every second image, left to right
    noise: NotNegative = 0.0  # the standard deviation of what is added to each value, in the data's own unit
