"""The steps before and after a graph, as documents in a manifest; `pilotlight.processing` runs them.

Frozen msgspec structs as in the manifest, distinguished by their `kind`. They depend on no graph and no array.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct

PositiveInt = Annotated[int, Meta(ge=1)]
Deviation = Annotated[float, Meta(gt=0)]
NonEmptyString = Annotated[str, Meta(min_length=1)]


Filter = Literal[
    "nearest", "box", "bilinear", "hamming", "bicubic", "lanczos",  # Pillow's, antialiased
    "opencv-linear", "opencv-area",  # OpenCV's INTER_LINEAR, which has no antialiasing, and INTER_AREA
]  # fmt: skip


class ImagePreprocessing(Struct, frozen=True, kw_only=True, tag="image", tag_field="kind"):
    """A photograph becomes an example of the graph's image input, step by step in the order of the fields.

    `shortest` and `resize` are two fields because msgspec 0.22 crashes on a type like `int | tuple[int, int]`.
    """

    max_rows: ClassVar[int] = 12_000  # images of a request; the smallest takes 50 us and 3 kB of memory
    media_types: ClassVar[tuple[str, ...]] = ("image/*",)  # of bodies that are one example
    is_text: ClassVar[bool] = False  # whether an example is text, rather than the bytes of a file
    sizings: ClassVar[tuple[str, ...]] = ("shortest", "resize", "letterbox", "height", "at_least", "at_most")

    input: NonEmptyString  # of the graph
    name: NonEmptyString = "image"  # of the caller's input, BYTES
    max_pixels: PositiveInt = 25_000_000  # of all images of a request, before any is decoded, at 4 bytes each
    background: Annotated[int, Meta(ge=0, le=255)] | None = 255  # grey laid under transparency; None drops alpha
    colour: Literal["RGB", "BGR", "L"] = "RGB"  # L is grey
    shortest: PositiveInt | None = None  # pixels that the shorter side is resized to, the longer one in proportion
    resize: tuple[PositiveInt, PositiveInt] | None = None  # or exactly (height, width)
    # Or in proportion to fit into (height, width), then padded to it; the other way round if `pad_first`.
    letterbox: tuple[PositiveInt, PositiveInt] | None = None
    pad_first: bool = False
    # Or to this height, the width in proportion and at most `max_width`; padded on the right to `min_width`, and to the
    # widest image of the request. So readers of lines of text take them.
    height: PositiveInt | None = None
    min_width: PositiveInt = 1
    max_width: PositiveInt | None = None
    at_least: PositiveInt | None = None  # or only if the shorter side has fewer pixels, to so many
    at_most: PositiveInt | None = None  # or only if the longer side has more pixels, to so many
    rounding: Literal["floor", "nearest", "ceiling"] = "floor"  # of a side that is resized in proportion
    multiple: PositiveInt = 1  # both sides are resized to the nearest multiple of it, such as 32
    padding: Annotated[float, Meta(ge=0, le=255)] = 0.0  # the value of padded pixels, as those of 0 to 255
    pad_position: Literal["corner", "centre"] = "corner"  # where the image lies in a letterbox: top left, or centred
    filter: Filter = "bilinear"
    # (height, width) from the centre; black where the image is smaller.
    crop: tuple[PositiveInt, PositiveInt] | None = None
    scale: float = 1 / 255  # times the pixel of 0 to 255
    mean: tuple[float, ...] = ()  # then minus this and over the deviation, by channel or one for all
    deviation: tuple[Deviation, ...] = ()
    layout: Literal["NCHW", "NHWC"] = "NCHW"

    def __post_init__(self) -> None:
        """Refuse constants that are not one for each channel, and two ways to resize."""
        given = [name for name in self.sizings if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"has both {given[0]!r} and {given[1]!r}; keep one")
        if self.crop is not None and (self.letterbox or self.height):
            raise ValueError(f"has both {given[0]!r} and 'crop'; keep one")
        for name, constants in (("mean", self.mean), ("deviation", self.deviation)):
            if len(constants) not in {0, 1, self.channels}:
                raise ValueError(f"has {len(constants)} values in {name!r}, but {self.colour} has {self.channels}")

    @property
    def channels(self) -> int:
        """The number of values in a pixel."""
        return 1 if self.colour == "L" else 3


class ConstantInput(Struct, frozen=True, kw_only=True):
    """A further input of the graph that has one value in all requests.

    Of its free dimensions, the first, and those named as the first of the prepared input, have the number of rows; the
    others are 1.
    """

    input: NonEmptyString  # of the graph
    value: float | Literal["length"] = 0.0  # length: of each row before it was padded, in samples or frames


class StateInput(Struct, frozen=True, kw_only=True):
    """An input that carries what the graph remembers: zeros for the first window, then an output of the one before."""

    input: NonEmptyString  # of the graph
    output: NonEmptyString  # of the graph


class LogMelSpectrogram(Struct, frozen=True, kw_only=True):
    """Samples become the energies of bands of pitch over time, as librosa and Whisper compute them."""

    n_fft: PositiveInt = 400  # samples of a frame
    hop: PositiveInt = 160  # samples from one frame to the next
    n_mels: PositiveInt = 80  # bands
    fmin: Annotated[float, Meta(ge=0)] = 0.0  # Hz
    fmax: Deviation | None = None  # Hz; None is half the rate
    window: Literal["hann", "hamming", "rectangular"] = "hann"  # periodic
    centre: bool = True  # frames lie around their sample, with the sound mirrored at both ends
    power: Literal[1, 2] = 2  # of the magnitudes: amplitude or energy
    mel_scale: Literal["slaney", "htk"] = "slaney"
    equal_area: bool = True  # Slaney's normalisation of the bands; else each has a peak of 1
    log: Literal["log10", "ln", "none"] = "log10"
    floor: Deviation = 1e-10  # the least energy before the logarithm
    # whisper: the last frame is dropped, what is 8 below the row's largest value is raised, and then (x + 4) / 4.
    normalisation: Literal["none", "whisper"] = "none"
    layout: Literal["NMT", "NTM", "N1MT", "N1TM"] = "NMT"  # rows, mels, time


class AudioPreprocessing(Struct, frozen=True, kw_only=True, tag="audio", tag_field="kind"):
    """A WAV, FLAC, OGG or MP3 file becomes samples of one channel, step by step in the order of the fields.

    With windows, the rows are the windows of one file; else each file of a request is a row.
    """

    max_rows: ClassVar[int] = 1_000  # files of a request
    media_types: ClassVar[tuple[str, ...]] = ("audio/*",)  # of bodies that are one example
    is_text: ClassVar[bool] = False  # whether an example is text, rather than the bytes of a file
    max_values: ClassVar[int] = 30_000_000  # decoded samples, and values of rows and frames: 120 MB each

    input: NonEmptyString  # of the graph
    name: NonEmptyString = "audio"  # of the caller's input, BYTES
    rate: Annotated[int, Meta(ge=1_000, le=768_000)]  # samples a second that the graph takes
    max_seconds: Deviation = 300.0  # of all files of a request, before any is decoded
    scale: float = 1.0  # times the sample of -1 to 1
    length: PositiveInt | None = None  # samples: longer files are cut, shorter ones filled with silence
    keep: Literal["start", "end"] = "start"  # which part of a longer file; silence goes to the other side
    window: PositiveInt | None = None  # samples of a row
    hop: PositiveInt | None = None  # samples from one window to the next; None is `window`
    lead: Annotated[int, Meta(ge=0)] = 0  # samples of silence before the first sound
    # The end: a last window filled with silence, or none, or one that starts at every hop within the sound.
    tail: Literal["pad", "drop", "start"] = "pad"
    standardise: bool = False  # each row to mean 0 and deviation 1, its silence included
    layout: Literal["NS", "N1S", "NS1", "S"] = "NS"  # rows, samples
    spectrogram: LogMelSpectrogram | None = None  # then `layout` is the spectrogram's
    constants: tuple[ConstantInput, ...] = ()
    states: tuple[StateInput, ...] = ()  # the windows are run one after another

    def __post_init__(self) -> None:
        """Refuse steps that contradict each other."""
        names = self.input_names
        if self.length is not None and self.window is not None:
            raise ValueError("has both 'length' and 'window'; keep one")
        if self.window is None and (self.hop or self.lead or self.tail != "pad" or self.states):
            raise ValueError("has 'hop', 'lead', 'tail' or 'states', which are for windows, but no 'window'")
        if len(set(names)) < len(names):
            raise ValueError(f"gives an input twice among {names}")

    @property
    def input_names(self) -> list[str]:
        """The graph's inputs that these steps give."""
        return [self.input, *[each.input for each in self.constants], *[each.input for each in self.states]]

    def check_graph(self, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """Refuse a graph whose inputs are not these, or that has no such outputs to carry."""
        if set(self.input_names) != set(inputs):
            raise ValueError(
                f"prepares the inputs {self.input_names}, but the graph has {list(inputs)}; see constants and states"
            )
        if missing := [each.output for each in self.states if each.output not in outputs]:
            raise ValueError(f"carries the outputs {missing}, but the graph has {list(outputs)}")


class TextPreprocessing(Struct, frozen=True, kw_only=True, tag="text", tag_field="kind"):
    """A text becomes what the graph has of `input_ids`, `attention_mask` and `token_type_ids`."""

    max_rows: ClassVar[int] = 50_000  # texts of a request; the shortest takes 6 us until it is answered
    media_types: ClassVar[tuple[str, ...]] = ("text/plain",)  # of bodies that are one example
    is_text: ClassVar[bool] = True

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
    # A category that training did not know: as a missing value is treated, and zeros if those are refused and the
    # encoding is onehot; or zeros in any case, -1 as an index; or refused.
    unknown: Literal["missing", "zeros", "refuse"] = "missing"

    def __post_init__(self) -> None:
        """Refuse a replacement for missing values that would itself be refused."""
        number = self.missing == "nan" or not isinstance(self.missing, str)
        is_index = self.encoding == "index" and self.missing == "nan"  # a gap among indices, for graphs that take it
        stands = self.missing in self.categories or is_index if self.categories else number
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


class OutputStep(Struct, frozen=True, kw_only=True):
    """A step that reads one output of the graph."""

    output: NonEmptyString

    @property
    def sources(self) -> tuple[str, ...]:
        """The graph's outputs that it reads."""
        return (self.output,)


class ClassificationPostprocessing(OutputStep, frozen=True, kw_only=True, tag="classification", tag_field="kind"):
    """Scores become labels and probabilities, the best `top` of them, best first.

    With a `threshold`, they are all classes that reach it, which may be none or several, and `count` says how many of
    each example's are meant: the shorter lists are padded.
    """

    output: NonEmptyString  # of the graph; its last dimension holds the classes
    # exp: the graph gives logarithms of probabilities; none: it gives probabilities.
    activation: Literal["softmax", "sigmoid", "exp", "none"] = "softmax"
    top: PositiveInt = 1
    threshold: Annotated[float, Meta(ge=0, le=1)] | None = None  # the least probability of several labels
    label: NonEmptyString = "label"  # names of the caller's outputs
    probability: NonEmptyString = "probability"
    probabilities: NonEmptyString = "probabilities"  # of all classes in order, if asked for
    count: NonEmptyString = "count"  # with a threshold

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the caller's outputs."""
        names = (self.label, self.probability, self.probabilities)
        return names if self.threshold is None else (*names, self.count)


class RegressionPostprocessing(OutputStep, frozen=True, kw_only=True, tag="regression", tag_field="kind"):
    """Standardised answers become numbers in their own unit: x * deviation + mean, by column or one for all."""

    output: NonEmptyString  # of the graph
    mean: tuple[float, ...] = (0.0,)
    deviation: tuple[Deviation, ...] = (1.0,)
    name: NonEmptyString = "prediction"  # of the caller's output

    @property
    def output_names(self) -> tuple[str, ...]:
        """The name of the caller's output."""
        return (self.name,)


class EmbeddingPostprocessing(OutputStep, frozen=True, kw_only=True, tag="embedding", tag_field="kind"):
    """Vectors of tokens or of places in an image become one vector of each text or image.

    [batch, tokens, width] and [batch, width, height, width of the map] are pooled; [batch, width] is one already.
    """

    output: NonEmptyString  # of the graph
    # Over places, or the tokens that the attention mask includes; cls is the first of them.
    pooling: Literal["mean", "cls", "max"] = "mean"
    normalise: bool = True  # to length 1
    name: NonEmptyString = "embedding"  # of the caller's output
    # To which a caller may shorten the vectors of a model that was trained for it (Matryoshka, arXiv 2205.13147).
    dimensions: tuple[PositiveInt, ...] = ()

    @property
    def output_names(self) -> tuple[str, ...]:
        """The name of the caller's output."""
        return (self.name,)


class DetectionPostprocessing(Struct, frozen=True, kw_only=True, tag="detection", tag_field="kind"):
    """Boxes with scores become the objects of each image, in the pixels of the caller's image.

        yolov8    output [batch, 4 + classes, boxes], or transposed: a box and the score of each class
        yolov5    output [batch, boxes, 5 + classes], or transposed: a box, its objectness, the score of each class
        rows      output [batch, boxes, 6]: a box, score and class of objects; the graph has removed doubles.
                  Or [boxes, 7], as YOLOv7 has it: image, box, class, score
        separate  output [batch, boxes, 4] beside `scores_output`: [batch, boxes, classes], or [batch, boxes] with
                  `classes_output`

    The best comes first. An image has as many as there are; with several, the shorter lists are padded.
    """

    adjustable: ClassVar[tuple[str, ...]] = ("threshold", "iou", "max_detections")  # by a request's parameters

    output: NonEmptyString  # of the graph: the head, or its boxes
    head: Literal["yolov8", "yolov5", "rows", "separate"] = "yolov8"
    scores_output: str = ""
    classes_output: str = ""  # indices, where the scores are of one class each
    count_output: str = ""  # how many of the boxes are meant, where the graph says so
    box: Literal["xywh", "xyxy", "yxyx", "ltwh"] = "xywh"  # xywh: of the centre; ltwh: of the left top corner
    normalised: bool = False  # whether boxes are shares of the graph's input, rather than its pixels
    strides: tuple[PositiveInt, ...] = ()  # of a head without its grid, as YOLOX has it: (x + place) * stride, exp(w)
    activation: Literal["none", "sigmoid", "softmax"] = "none"  # of the scores
    background: int | None = None  # index of the class that is no object, which is dropped; -1 is the last
    first_class: int = 0  # the index that the graph gives the first label
    threshold: Annotated[float, Meta(ge=0, le=1)] = 0.25  # the least score
    # Of two boxes of a class that overlap more, the better stays. By default 0.45, and 1, which keeps all, for `rows`.
    iou: Annotated[float, Meta(ge=0, le=1)] | None = None
    per_class: bool = True  # whether a box of another class may overlap
    max_detections: Annotated[int, Meta(ge=1, le=1000)] = 300  # of an image
    label: NonEmptyString = "label"  # names of the caller's outputs
    score: NonEmptyString = "score"
    boxes: NonEmptyString = "box"  # left, top, right, bottom
    count: NonEmptyString = "count"  # of the objects in each image; further rows are padding
    class_index: NonEmptyString = "class"  # on request

    def __post_init__(self) -> None:
        """Refuse scores that are missing or in the way."""
        if (self.head == "separate") != bool(self.scores_output):
            raise ValueError("needs 'scores_output' for the head 'separate', and for no other")
        if (self.classes_output or self.count_output) and self.head != "separate":
            raise ValueError("has 'classes_output' or 'count_output', which only the head 'separate' reads")

    def list_label_counts(self, shape: Sequence[int | str]) -> tuple[int, ...]:
        """List how many labels fit a head of this shape; nothing where any may, as with masks beside the classes."""
        before = {"yolov8": 4, "yolov5": 5}.get(self.head, 0)
        sides = [side for side in shape[1:] if isinstance(side, int)]
        if not before or len(sides) < 2 or min(sides) <= before:
            return ()
        return tuple(range(1, min(sides) - before + 1))

    @property
    def least_overlap(self) -> float:
        """The overlap beyond which the lesser of two boxes is dropped."""
        return (1.0 if self.head == "rows" else 0.45) if self.iou is None else self.iou

    @property
    def sources(self) -> tuple[str, ...]:
        """The graph's outputs that it reads."""
        return tuple(filter(None, (self.output, self.scores_output, self.classes_output, self.count_output)))

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the caller's outputs."""
        return self.label, self.score, self.boxes, self.count, self.class_index


class CtcPostprocessing(OutputStep, frozen=True, kw_only=True, tag="ctc", tag_field="kind"):
    """Scores of a character at each step become a text: the best of each step, repeats and blanks left out."""

    output: NonEmptyString  # of the graph, [batch, steps, characters]
    layout: Literal["NTC", "TNC"] = "NTC"  # TNC: steps come first, as recurrent networks give them
    characters: tuple[str, ...] = ()  # in the graph's order, without the blank; by default, the version's labels
    blank: int = 0  # its index; -1 is the last
    activation: Literal["softmax", "none"] = "none"  # none: the graph gives probabilities
    space: str = ""  # a character that stands for a space, such as "|"
    text: NonEmptyString = "text"  # names of the caller's outputs
    confidence: NonEmptyString = "confidence"  # the mean of the characters' probabilities; 0 for no text

    def list_label_counts(self, shape: Sequence[int | str]) -> tuple[int, ...]:
        """List how many labels fit an output of this shape, with or without the blank; nothing where any may."""
        classes = shape[-1] if len(shape) == 3 else ""
        return (classes - 1, classes) if isinstance(classes, int) and not self.characters else ()

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the caller's outputs."""
        return self.text, self.confidence


class SegmentationPostprocessing(OutputStep, frozen=True, kw_only=True, tag="segmentation", tag_field="kind"):
    """Scores of classes at each place become a mask of the caller's image, and the share that each class has of it.

    With one channel, or `sigmoid`, a place belongs to the best class whose score is at least the threshold, and to none
    otherwise: then the mask's 0 is no class, and 1 is the first label.
    """

    adjustable: ClassVar[tuple[str, ...]] = ("threshold",)

    output: NonEmptyString  # of the graph: [batch, classes, height, width], or indices of classes without the dimension
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    activation: Literal["softmax", "sigmoid", "none"] = "none"  # none: the scores are compared as they are
    threshold: Annotated[float, Meta(ge=0, le=1)] = 0.5
    # To the image's size before they are compared, which is smoother; else classes are, as those of very large images.
    resize_scores: bool = True
    mask: NonEmptyString = "mask"  # names of the caller's outputs; a PNG of each image whose grey is the class
    label: NonEmptyString = "label"  # of the classes that are present, the largest first
    area: NonEmptyString = "area"  # the share of the image
    count: NonEmptyString = "count"  # of the classes in each image; further columns are padding

    def list_label_counts(self, shape: Sequence[int | str]) -> tuple[int, ...]:
        """List how many labels fit an output of this shape; nothing where any may."""
        classes = "" if len(shape) != 4 else shape[1] if self.layout == "NCHW" else shape[-1]
        return (classes,) if isinstance(classes, int) and classes > 1 else ()

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the caller's outputs."""
        return self.mask, self.label, self.area, self.count


# From a request to the graph.
Preprocessing = ImagePreprocessing | AudioPreprocessing | TextPreprocessing | TablePreprocessing
Postprocessing = (
    ClassificationPostprocessing
    | RegressionPostprocessing
    | EmbeddingPostprocessing
    | DetectionPostprocessing
    | CtcPostprocessing
    | SegmentationPostprocessing
)  # from the graph to the answer
