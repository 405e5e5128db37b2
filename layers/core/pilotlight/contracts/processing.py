"""The steps before and after a graph, as documents in a manifest; `pilotlight.processing` runs them.

Frozen msgspec structs as in the manifest, distinguished by their `kind`. They depend on no graph and no array.
"""

from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct

PositiveInt = Annotated[int, Meta(ge=1)]
Deviation = Annotated[float, Meta(gt=0)]
NonEmptyString = Annotated[str, Meta(min_length=1)]


class ImagePreprocessing(Struct, frozen=True, kw_only=True, tag="image", tag_field="kind"):
    """A PNG or JPEG becomes an example of the graph's image input, step by step in the order of the fields.

    `shortest` and `resize` are two fields because msgspec 0.22 crashes on a type like `int | tuple[int, int]`.
    """

    max_rows: ClassVar[int] = 12_000  # images of a request; the smallest takes 50 us and 3 kB of memory

    input: NonEmptyString  # of the graph
    name: NonEmptyString = "image"  # of the caller's input, BYTES
    max_pixels: PositiveInt = 25_000_000  # of all images of a request, before any is decoded, at 4 bytes each
    background: Annotated[int, Meta(ge=0, le=255)] | None = 255  # grey laid under transparency; None drops alpha
    colour: Literal["RGB", "BGR", "L"] = "RGB"  # L is grey
    shortest: PositiveInt | None = None  # pixels that the shorter side is resized to, the longer one in proportion
    resize: tuple[PositiveInt, PositiveInt] | None = None  # or exactly (height, width)
    filter: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] = "bilinear"  # Pillow's, antialiased
    # (height, width) from the centre; black where the image is smaller.
    crop: tuple[PositiveInt, PositiveInt] | None = None
    scale: float = 1 / 255  # times the pixel of 0 to 255
    mean: tuple[float, ...] = ()  # then minus this and over the deviation, by channel or one for all
    deviation: tuple[Deviation, ...] = ()
    layout: Literal["NCHW", "NHWC"] = "NCHW"

    def __post_init__(self) -> None:
        """Refuse constants that are not one for each channel, and two ways to resize."""
        if self.shortest is not None and self.resize is not None:
            raise ValueError("has both 'shortest' and 'resize'; keep one")
        for name, constants in (("mean", self.mean), ("deviation", self.deviation)):
            if len(constants) not in {0, 1, self.channels}:
                raise ValueError(f"has {len(constants)} values in {name!r}, but {self.colour} has {self.channels}")

    @property
    def channels(self) -> int:
        """The number of values in a pixel."""
        return 1 if self.colour == "L" else 3


class TextPreprocessing(Struct, frozen=True, kw_only=True, tag="text", tag_field="kind"):
    """A text becomes what the graph has of `input_ids`, `attention_mask` and `token_type_ids`."""

    max_rows: ClassVar[int] = 50_000  # texts of a request; the shortest takes 6 us until it is answered

    tokenizer: str = "tokenizer.json"  # path among the version's files, as the `tokenizers` library writes it
    name: NonEmptyString = "text"  # of the caller's input, BYTES
    max_length: PositiveInt = 512  # in tokens, with the special ones
    truncate: bool = True  # what is longer; else it is refused
    max_characters: PositiveInt = 1_000_000  # of all texts of a request


class TableColumn(Struct, frozen=True, kw_only=True):
    """One column of a table: a number that is standardised, or a category that becomes one number for each value."""

    name: NonEmptyString
    categories: tuple[str, ...] = ()  # makes the column categorical
    encoding: Literal["onehot", "index"] = "onehot"  # of a category: 0 and 1 for each value, or the value's index
    mean: float = 0.0
    deviation: Deviation = 1.0
    missing: float | str | None = None  # replaces a missing value; None refuses it, "nan" leaves it to the graph

    def __post_init__(self) -> None:
        """Refuse a replacement for missing values that would itself be refused."""
        number = self.missing == "nan" or not isinstance(self.missing, str)
        stands = self.missing in self.categories if self.categories else number
        if self.missing is not None and not stands:
            raise ValueError(f"column {self.name!r} cannot have {self.missing!r} for what is missing")

    @property
    def width(self) -> int:
        """How many of the graph's columns it fills."""
        return len(self.categories) if self.categories and self.encoding == "onehot" else 1


class TablePreprocessing(Struct, frozen=True, kw_only=True, tag="tabular", tag_field="kind"):
    """Records become rows of the graph's one table input, [batch, width]."""

    input: NonEmptyString  # of the graph
    columns: Annotated[tuple[TableColumn, ...], Meta(min_length=1)]  # in the graph's order
    name: NonEmptyString = "table"  # of the caller's input that brings all columns at once

    def __post_init__(self) -> None:
        """Refuse two columns of one name."""
        names = [column.name for column in self.columns]
        if len(set(names)) < len(names):
            raise ValueError(f"has columns of the same name among {names}")


class ClassificationPostprocessing(Struct, frozen=True, kw_only=True, tag="classification", tag_field="kind"):
    """Scores become labels and probabilities, the best `top` of them, best first."""

    output: NonEmptyString  # of the graph; its last dimension holds the classes
    # exp: the graph gives logarithms of probabilities; none: it gives probabilities.
    activation: Literal["softmax", "sigmoid", "exp", "none"] = "softmax"
    top: PositiveInt = 1
    label: NonEmptyString = "label"  # names of the caller's outputs
    probability: NonEmptyString = "probability"
    probabilities: NonEmptyString = "probabilities"  # of all classes in order, if asked for

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the caller's outputs."""
        return self.label, self.probability, self.probabilities


class RegressionPostprocessing(Struct, frozen=True, kw_only=True, tag="regression", tag_field="kind"):
    """Standardised answers become numbers in their own unit: x * deviation + mean, by column or one for all."""

    output: NonEmptyString  # of the graph
    mean: tuple[float, ...] = (0.0,)
    deviation: tuple[Deviation, ...] = (1.0,)
    name: NonEmptyString = "prediction"  # of the caller's output

    @property
    def output_names(self) -> tuple[str, ...]:
        """The name of the caller's output."""
        return (self.name,)


class EmbeddingPostprocessing(Struct, frozen=True, kw_only=True, tag="embedding", tag_field="kind"):
    """Vectors of tokens, [batch, tokens, width], become one vector of each text; [batch, width] is one already."""

    output: NonEmptyString  # of the graph
    pooling: Literal["mean", "cls", "max"] = "mean"  # over the tokens that the attention mask includes
    normalise: bool = True  # to length 1
    name: NonEmptyString = "embedding"  # of the caller's output

    @property
    def output_names(self) -> tuple[str, ...]:
        """The name of the caller's output."""
        return (self.name,)


Preprocessing = ImagePreprocessing | TextPreprocessing | TablePreprocessing  # from a request to the graph
Postprocessing = (
    ClassificationPostprocessing | RegressionPostprocessing | EmbeddingPostprocessing
)  # from the graph to the answer
