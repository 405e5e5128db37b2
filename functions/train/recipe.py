"""The recipe: the one file that describes a training run, checked before anything heavy is imported.

It knows the words of a recipe and their limits, not what they do: `data`, `model`, `optimiser`, `schedule` and `loss`
each keep a registry of functions under these words. Where a part comes in several kinds, its field is a union whose
members are told apart by a word, and that word is the first field of each.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from functions.train.complaint import sentence
from pilotlight.contracts import NAME_PATTERN, RESERVED_NAMES
from pilotlight.errors import InvalidInputError

FOLDER = Path(__file__).with_name("recipes")  # the recipes of record, known by their bare names

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Share = Annotated[float, Field(gt=0, lt=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Layers = Annotated[int, Field(ge=1, le=32)]
Dropout = Annotated[float, Field(ge=0, lt=1)]


class Options(BaseModel):
    """A part of a recipe: frozen, every key known, `yes` is no number and `.inf` no learning rate."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


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
    """The data set and its split. The split has its own seed: runs of other seeds stay comparable on one test set."""

    name: Literal["digits", "breast-cancer", "wine", "diabetes"]
    seed: Seed = 0
    fractions: Fractions
    calibration: Count = 256  # examples of the training set that the quantizer sees


class CnnOptions(Options):
    """Blocks of 3x3 convolution, batch normalisation and ReLU, one per entry of `channels`, then two dense layers."""

    architecture: Literal["cnn"]
    channels: Annotated[tuple[Count, ...], Field(min_length=1, max_length=8)]
    hidden: Count
    dropout: Dropout = 0.0


class MlpOptions(Options):
    """Dense layers with ReLU, one per entry of `hidden`, over all the values of an example, table or image."""

    architecture: Literal["mlp"]
    hidden: Annotated[tuple[Count, ...], Field(min_length=1, max_length=8)]
    dropout: Dropout = 0.0


class RnnOptions(Options):
    """Recurrent layers that read an image from its first row to its last, and with `bidirectional` back again too."""

    architecture: Literal["rnn"]
    cell: Literal["lstm", "gru"]
    hidden: Count
    layers: Layers = 1
    bidirectional: bool = False
    dropout: Dropout = 0.0


class TransformerOptions(Options):
    """An encoder over the square patches of an image, which must divide its sides."""

    architecture: Literal["transformer"]
    patch: Count  # pixels
    width: Count
    heads: Count
    layers: Layers
    hidden: Count  # width of the two dense layers' middle in each block
    pooling: Literal["mean", "cls"] = "mean"
    dropout: Dropout = 0.0

    @model_validator(mode="after")
    def _even(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, and {self.width} is none of {self.heads}")
        return self


ModelOptions = Annotated[CnnOptions | MlpOptions | RnnOptions | TransformerOptions, Field(discriminator="architecture")]


class Stepping(Options):
    """What every optimiser is told. They all take `weight_decay` too; of which kind it is, `optimiser` says."""

    name: str
    learning_rate: Positive


class DescentOptions(Stepping):
    """Plain gradient steps: `gd` on the whole training set at once, `sgd` on batches."""

    name: Literal["gd", "sgd"]
    weight_decay: NotNegative = 0.0


class MomentumOptions(Stepping):
    """Steps along an average of gradients that starts at zero."""

    name: Literal["momentum"]
    beta: BelowOne = 0.9
    weight_decay: NotNegative = 0.0


class AdagradOptions(Stepping):
    """Steps divided by the root of the sum of all squared gradients."""

    name: Literal["adagrad"]
    weight_decay: NotNegative = 0.0


class RmspropOptions(Stepping):
    """Steps divided by the root of an average of squared gradients, with the lecture's default."""

    name: Literal["rmsprop"]
    rho: BelowOne = 0.9
    weight_decay: NotNegative = 0.0


class AdamOptions(Stepping):
    """Adam, with the paper's defaults."""

    name: Literal["adam"]
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    weight_decay: NotNegative = 0.0


class AdamwOptions(Stepping):
    """Adam with decoupled weight decay, with torch's defaults."""

    name: Literal["adamw"]
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    weight_decay: NotNegative = 0.01


OptimiserOptions = Annotated[
    DescentOptions | MomentumOptions | AdagradOptions | RmspropOptions | AdamOptions | AdamwOptions,
    Field(discriminator="name"),
]


class Warming(Options):
    """What every schedule is told: the learning rate rises linearly over the first share of all steps."""

    name: str
    warmup: BelowOne = 0.0


class ConstantOptions(Warming):
    """The learning rate as it is."""

    name: Literal["constant"]


class StepOptions(Warming):
    """The learning rate times `gamma` after each share `every` of all steps."""

    name: Literal["step"]
    every: Share
    gamma: Share


class ExponentialOptions(Warming):
    """By the same ratio at every step, down to `floor` times the learning rate."""

    name: Literal["exponential"]
    floor: Annotated[float, Field(gt=0, le=1)]


class CosineOptions(Warming):
    """Half a cosine down to `floor` times the learning rate."""

    name: Literal["cosine"]
    floor: Annotated[float, Field(ge=0, le=1)] = 0.0


ScheduleOptions = Annotated[
    ConstantOptions | StepOptions | ExponentialOptions | CosineOptions, Field(discriminator="name")
]


def branch(value: object) -> str:
    """Which part of a union of a word and something else is meant, so that a mistake is told of that part alone."""
    return "word" if isinstance(value, str) else "value"


BatchSize = Annotated[
    Annotated[int, Field(ge=2), Tag("value")] | Annotated[Literal["full"], Tag("word")], Discriminator(branch)
]  # examples; one at a time is refused, for batch normalisation has no variance over one
ClassWeights = Annotated[
    Annotated[tuple[Positive, ...], Tag("value")] | Annotated[Literal["balanced"], Tag("word")], Discriminator(branch)
]


class CrossEntropyOptions(Options):
    """For classes. `balanced` weighs each class as if all were equally frequent; a list has one weight per class."""

    name: Literal["cross_entropy"]
    label_smoothing: BelowOne = 0.0
    class_weights: ClassWeights | None = None


class MseOptions(Options):
    """The mean squared error, for numbers."""

    name: Literal["mse"]


LossOptions = Annotated[CrossEntropyOptions | MseOptions, Field(discriminator="name")]


class StoppingOptions(Options):
    """Stop after `patience` epochs in which the validation loss fell by no more than `min_delta`; keep the best."""

    patience: Count
    min_delta: Annotated[float, Field(ge=0)] = 0.0


class CheckpointOptions(Options):
    """How often to save what a killed run goes on from; either may be null. The end of a time budget always saves."""

    seconds: Positive | None = 300.0
    steps: Count | None = None


class ExportOptions(Options):
    """The ONNX opset, and the largest |difference| of a logit between graph and model that is let through."""

    opset: Annotated[int, Field(ge=18, le=23)] = 20
    tolerance: Annotated[float, Field(gt=0)] = 1e-4


class QuantizationOptions(Options):
    """On which ladder the int8 variant is made, and how much it may lose and still be served."""

    scheme: Literal["static", "dynamic"]
    budget: Annotated[float, Field(ge=0, le=100)] = 0.5  # percentage points of accuracy, or of R2


class Recipe(Options):
    """A training run, complete: on the same kind of CPU, the same recipe gives the same weights bit for bit."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    licence: str | None = None
    seed: Seed = 0
    threads: Annotated[int, Field(ge=1, le=1024)] = 1  # of the CPU; another number sums in another order
    data: DataOptions
    model: ModelOptions
    optimiser: OptimiserOptions
    schedule: ScheduleOptions
    loss: LossOptions | None = None  # cross-entropy for classes, the mean squared error for numbers
    batch_size: BatchSize
    accumulation: Count = 1  # parts that a batch is worked through in, for less memory and the same step
    clip_norm: Positive | None = None  # longest gradient, over all weights together
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None  # publish an average of the weights that decays like this
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False  # by torch.compile: pays off when training takes many minutes
    epochs: Count
    early_stopping: StoppingOptions
    folds: Annotated[int, Field(ge=2)] | None = None  # of a cross-validation before the training
    checkpoint: CheckpointOptions = CheckpointOptions()
    export: ExportOptions = ExportOptions()
    quantization: QuantizationOptions

    @field_validator("name")
    @classmethod
    def _free(cls, name: str) -> str:
        if name in RESERVED_NAMES:
            raise ValueError(f"it must not be one of {', '.join(sorted(RESERVED_NAMES))}")
        return name

    @field_validator("batch_size")
    @classmethod
    def _whole(cls, size: int | str, info: ValidationInfo) -> int | str:
        if getattr(info.data.get("optimiser"), "name", "") == "gd" and size != "full":
            raise ValueError("it must be full for the optimiser gd; take sgd for batches")
        return size


class Loader(yaml.SafeLoader):
    """YAML in which `1e-4` is a number, as in YAML 1.2 and to everybody who writes a learning rate."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def load(path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe from a YAML file, or by the bare name of a recipe of record, and apply `key.path=value` to it.

    `InvalidInputError` says in one sentence what is wrong, where, and what is allowed.
    """
    tree = parse(read(find(path)), path)
    if not isinstance(tree, dict):
        raise InvalidInputError(f"{path} is not a recipe: it must map keys to values.")
    for override in overrides:
        assign(tree, override)
    return check(tree, path)


def dump(recipe: Recipe) -> str:
    """The recipe as YAML, defaults written out; `load` reads it back as the same recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)


def find(path: str) -> Path:
    """The file that is meant: a recipe of record when `path` is its bare name, `path` itself otherwise."""
    known = {file.stem: file for file in sorted(FOLDER.glob("*.yaml"))}
    file = known.get(path, Path(path))
    if not file.is_file():
        raise InvalidInputError(f"There is no recipe {path!r}: give a YAML file, or one of {', '.join(known)}.")
    return file


def read(file: Path) -> str:
    """The file's text."""
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidInputError(f"{file} cannot be read as text: {exc}.") from exc


def parse(text: str, source: str) -> Any:  # noqa: ANN401 - YAML is anything until it is checked
    """The text as YAML."""
    try:
        return yaml.load(text, Loader)  # noqa: S506 - Loader is a SafeLoader
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else 1
        raise InvalidInputError(f"{source} is not YAML: {exc.problem} in line {line}.") from exc
    except yaml.YAMLError as exc:
        raise InvalidInputError(f"{source} is not YAML: {' '.join(str(exc).split())}.") from exc


def assign(tree: dict[str, Any], override: str) -> None:
    """Set one value deep in the tree; keys that do not exist are made, for `check` to refuse by their full path."""
    path, mark, text = override.partition("=")
    if not (path and mark):
        raise InvalidInputError(f"--set {override!r} is not KEY=VALUE, as in optimiser.learning_rate=0.01.")
    *parents, last = path.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise InvalidInputError(f"--set {override!r} reaches below {parent!r}, which has no keys.")
    tree[last] = parse(text, f"--set {override!r}")


def check(tree: dict[str, Any], source: str) -> Recipe:
    """The tree as a recipe. Checked as JSON, whose strict mode knows lists and numbers but takes no `yes` for a 1."""
    try:
        text = json.dumps(tree, default=str)
    except (TypeError, ValueError) as exc:
        raise InvalidInputError(
            f"{source} is not a recipe: its keys must be words, and nothing may hold itself."
        ) from exc
    try:
        return Recipe.model_validate_json(text, strict=True)
    except ValidationError as exc:
        raise InvalidInputError(f"{source}: {sentence(exc, Recipe)}.") from exc
