"""The recipe: the one file that describes a training run, checked before anything heavy is imported.

The options of the data are in `data_schema`; all others, `Recipe` itself and the reading of files are here. The schema
has the names and limits of options, not what they do: the training job maps each name to a function. Where a part has
several kinds, its field is a discriminated union, and the discriminator is the first field of each kind.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import msgspec
import yaml
from pydantic import Discriminator, Field, Tag, ValidationError, ValidationInfo, field_validator, model_validator

from pilotlight.contracts.capture_policy import CaptureExtent, CapturePolicy, Treatment
from pilotlight.contracts.home_folder import expand_home
from pilotlight.contracts.names import NAME_PATTERN, RESERVED_NAMES
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.data_schema import (
    AugmentationOptions,
    BelowOne,
    ClassMetric,
    Count,
    Data,
    Dropout,
    Layers,
    NotNegative,
    NumberMetric,
    Options,
    Positive,
    Proportion,
    Seed,
    get_union_tag,
)
from pilotlight.recipes.errors import format_validation_error

BUILTIN_FOLDER = Path(__file__).with_name("builtin")  # the built-in recipes, by their bare names


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
    hidden: Count  # hidden width of each block's feed-forward part
    pooling: Literal["mean", "cls"] = "mean"
    dropout: Dropout = 0.0

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, and {self.width} is none of {self.heads}")
        return self


class CustomOptions(Options):
    """A model of the user's own: `module:factory`, and its arguments by name. See `factory`, also about trust."""

    architecture: Literal["custom"]
    factory: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")]
    arguments: dict[str, Any] = Field(default_factory=dict)


class DecoderOptions(Options):
    """A language model of Llama's shape. The tokenizer determines the number of tokens."""

    architecture: Literal["decoder"]
    layers: Layers
    width: Count
    heads: Count
    kv_heads: Count  # of keys and values; as many as heads: multi-head attention, one: multi-query attention
    hidden: Count  # hidden width of each block's feed-forward part
    context: Count  # tokens that the model sees at once, not counting the one it predicts
    tied: bool = True  # the embedding and the output layer share one matrix
    dropout: Dropout = 0.0
    base: Positive = 1e4  # of the rotary positions' wavelengths
    epsilon: Positive = 1e-5  # added to the mean square that RMSNorm divides by

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.width % (2 * self.heads):
            raise ValueError(
                f"width must be an even multiple of heads, and {self.width} is none of {self.heads}: "
                "rotary positions turn pairs of a head's values"
            )
        if self.heads % self.kv_heads:
            raise ValueError(f"heads must be a multiple of kv_heads, and {self.heads} is none of {self.kv_heads}")
        return self


ModelOptions = Annotated[
    CnnOptions | MlpOptions | RnnOptions | TransformerOptions | DecoderOptions | CustomOptions,
    Field(discriminator="architecture"),
]


class BaseOptimiserOptions(Options):
    """The options of every optimiser, but for `weight_decay`, which each declares after its own options.

    Stored recipes have this order, by which a run that resumes recognises its own. The kind of the decay is in
    functions/train/training/optimiser.py.
    """

    name: str
    learning_rate: Positive


class DescentOptions(BaseOptimiserOptions):
    """Plain gradient steps: `gd` on the whole training set at once, `sgd` on batches."""

    name: Literal["gd", "sgd"]
    weight_decay: NotNegative = 0.0


class MomentumOptions(BaseOptimiserOptions):
    """Steps along an average of gradients that starts at zero."""

    name: Literal["momentum"]
    beta: BelowOne = 0.9
    weight_decay: NotNegative = 0.0


class AdagradOptions(BaseOptimiserOptions):
    """Steps divided by the root of the sum of all squared gradients."""

    name: Literal["adagrad"]
    weight_decay: NotNegative = 0.0


class RmspropOptions(BaseOptimiserOptions):
    """Steps divided by the root of an average of squared gradients, with the lecture's default."""

    name: Literal["rmsprop"]
    rho: BelowOne = 0.9
    weight_decay: NotNegative = 0.0


class AdamOptions(BaseOptimiserOptions):
    """Adam, with the paper's defaults."""

    name: Literal["adam"]
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    weight_decay: NotNegative = 0.0


class AdamwOptions(BaseOptimiserOptions):
    """Adam with decoupled weight decay, with torch's defaults."""

    name: Literal["adamw"]
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    weight_decay: NotNegative = 0.01


OptimiserOptions = Annotated[
    DescentOptions | MomentumOptions | AdagradOptions | RmspropOptions | AdamOptions | AdamwOptions,
    Field(discriminator="name"),
]


class BaseScheduleOptions(Options):
    """The options of every schedule: the learning rate rises linearly over the first share of all steps."""

    name: str
    warmup: BelowOne = 0.0


class ConstantOptions(BaseScheduleOptions):
    """The learning rate as it is."""

    name: Literal["constant"]


class StepOptions(BaseScheduleOptions):
    """The learning rate times `gamma` after each share `every` of all steps."""

    name: Literal["step"]
    every: Proportion
    gamma: Proportion


class ExponentialOptions(BaseScheduleOptions):
    """The learning rate falls by the same ratio at every step, down to `floor` times itself."""

    name: Literal["exponential"]
    floor: Annotated[float, Field(gt=0, le=1)]


class CosineOptions(BaseScheduleOptions):
    """Half a cosine down to `floor` times the learning rate."""

    name: Literal["cosine"]
    floor: Annotated[float, Field(ge=0, le=1)] = 0.0


ScheduleOptions = Annotated[
    ConstantOptions | StepOptions | ExponentialOptions | CosineOptions, Field(discriminator="name")
]


ClassWeights = Annotated[
    Annotated[tuple[Positive, ...], Tag("value")] | Annotated[Literal["balanced"], Tag("word")],
    Discriminator(get_union_tag),
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
    """Stop after `patience` epochs in which `metric` was not better by more than `min_delta`; keep the best.

    `loss` is the validation loss, all others are metrics on the validation set: of classes, or of numbers and then in
    the target's unit. Whether higher is better is known by name.
    """

    patience: Count
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    metric: Literal["loss", ClassMetric, NumberMetric] = "loss"


class CheckpointOptions(Options):
    """How often to save a checkpoint; either may be null. The end of a time budget always saves one."""

    seconds: Positive | None = 300.0
    steps: Count | None = None


class DistributedOptions(Options):
    """A copy of the model in each process (`ddp`), or a slice of each weight (`fsdp`); `auto` slices what is too large.

    The recipe does not have the number of processes: a run may resume with more or fewer.
    """

    strategy: Literal["auto", "ddp", "fsdp"] = "auto"


class ExportOptions(Options):
    """The ONNX opset, and the tolerance for the |difference| between graph and model.

    The tolerance is a share of the largest |output|, or of 1 where that is less.
    """

    opset: Annotated[int, Field(ge=18, le=23)] = 20
    tolerance: Annotated[float, Field(gt=0)] = 1e-4


class QuantizationOptions(Options):
    """The ladder on which the smaller variant is made, and how much it may lose and still be served.

    `weight-only` is for language models: 4-bit weights first and, where that loses too much, `dynamic`.
    """

    scheme: Literal["static", "dynamic", "weight-only"]
    budget: Annotated[float, Field(ge=0, le=100)] | None = None  # in the metric's unit; null: its usual one
    block: Literal[16, 32, 64, 128, 256] = 32  # weights that share a scale where the weights alone are quantized


class CaptureOptions(Options):
    """How much is kept of a sampled request, and which fields are dropped or hashed."""

    keep: CaptureExtent = "summary"
    mask: Mapping[str, Treatment] = Field(default_factory=dict)  # by column, input or output
    others: Literal["keep", "drop"] = "keep"  # fields that mask does not name

    @property
    def policy(self) -> CapturePolicy:
        """The capture policy for the manifest."""
        return msgspec.convert(self.model_dump(), CapturePolicy)


BatchSize = Annotated[
    Annotated[int, Field(ge=2), Tag("value")] | Annotated[Literal["full"], Tag("word")], Discriminator(get_union_tag)
]  # examples; 1 is refused, since batch normalisation has no variance over one example


class Recipe(Options):
    """A training run, complete: on the same kind of CPU, the same recipe gives the same weights bit for bit."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    licence: str | None = None
    seed: Seed = 0
    threads: Annotated[int, Field(ge=1, le=1024)] = 1  # of the CPU; another number sums in another order
    data: Data
    augmentation: AugmentationOptions | None = None  # of images, on the training set alone
    model: ModelOptions
    optimiser: OptimiserOptions
    schedule: ScheduleOptions
    loss: LossOptions | None = None  # cross-entropy for classes, the mean squared error for numbers
    batch_size: BatchSize
    # Parts in which a batch is processed, for less memory and the same step; but for batch normalisation (`cnn`), which
    # sees one part at a time, so that its steps differ from those of the whole batch.
    accumulation: Count = 1
    clip_norm: Positive | None = None  # largest norm of the gradient, over all weights together
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None  # decay of the weights' moving average, which is published
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False  # by torch.compile: pays off when training takes many minutes
    distributed: DistributedOptions = DistributedOptions()
    epochs: Count
    early_stopping: StoppingOptions
    folds: Annotated[int, Field(ge=2)] | None = None  # of a cross-validation before the training
    checkpoint: CheckpointOptions = CheckpointOptions()
    export: ExportOptions = ExportOptions()
    quantization: QuantizationOptions
    capture: CaptureOptions | None = None  # what may be kept of requests; null for summaries

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if name in RESERVED_NAMES:
            raise ValueError(f"it must not be one of {', '.join(sorted(RESERVED_NAMES))}")
        return name

    @field_validator("batch_size")
    @classmethod
    def _check_batch_size(cls, size: int | str, info: ValidationInfo) -> int | str:
        if getattr(info.data.get("optimiser"), "name", "") == "gd" and size != "full":
            raise ValueError("it must be full for the optimiser gd; take sgd for batches")
        if getattr(info.data.get("data"), "streaming", False) and size == "full":
            raise ValueError("it must be a number where data.streaming is true")
        return size

    @field_validator("folds")
    @classmethod
    def _check_folds(cls, folds: int | None, info: ValidationInfo) -> int | None:
        if getattr(info.data.get("data"), "streaming", False) and folds:
            raise ValueError("it must be null where data.streaming is true, since the folds are held in memory")
        return folds


class RecipeYamlLoader(yaml.SafeLoader):
    """YAML in which `1e-4` is a number, as in YAML 1.2, and duplicate keys are errors, since one would be lost."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:  # noqa: ANN401 - a name or None, mistyped in PyYAML
        """Compose the mapping as it is written, before other mappings are merged into it."""
        node = super().compose_mapping_node(anchor)
        seen = set[str]()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:str" and key.value in seen:
                message = f"the key {key.value!r} stands there twice"
                raise yaml.constructor.ConstructorError(problem=message, problem_mark=key.start_mark)
            seen.add(str(key.value))
        return node


RecipeYamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def load_recipe(path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe from a YAML file, or a built-in one by its bare name, and apply `key.path=value` to it.

    `InvalidInputError` has one sentence: what is wrong, where, and what is allowed.
    """
    return build_recipe(parse_yaml(read_recipe_text(find_recipe_file(path)), path), overrides, path)


def build_recipe(tree: object, overrides: Sequence[str], source: str) -> Recipe:
    """Build a recipe from what YAML or JSON held, with overrides; errors begin with `source`."""
    if not isinstance(tree, dict):
        raise InvalidInputError(f"{source} is not a recipe: it must map keys to values.")
    for override in overrides:
        apply_override(tree, override)
    return validate_recipe(tree, source)


def dump_recipe(recipe: Recipe) -> str:
    """Format the recipe as YAML, defaults included; `load_recipe` reads it back as the same recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)


def find_recipe_file(path: str) -> Path:
    """Find the file of a recipe: a built-in one when `path` is its bare name, `path` itself otherwise."""
    builtin = list_builtin_recipes()
    file = builtin.get(path, Path(expand_home(path)))
    if not file.is_file():
        raise InvalidInputError(f"There is no recipe {path!r}: give a YAML file, or one of {', '.join(builtin)}.")
    return file


def list_builtin_recipes() -> dict[str, Path]:
    """List the built-in recipes by their bare names."""
    return {file.stem: file for file in sorted(BUILTIN_FOLDER.glob("*.yaml"))}


def find_differing_keys(one: Recipe, other: Recipe) -> list[str]:
    """Find the keys at which two recipes differ."""
    return [key for key in Recipe.model_fields if getattr(one, key) != getattr(other, key)]


def read_recipe_text(file: Path) -> str:
    """Read the file's text."""
    try:
        return file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidInputError(f"{file} cannot be read as text: {exc}.") from exc


def parse_yaml(text: str, source: str) -> Any:  # noqa: ANN401 - YAML is anything until it is checked
    """Parse the text as YAML."""
    try:
        return yaml.load(text, RecipeYamlLoader)  # noqa: S506 - Loader is a SafeLoader
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else 1
        raise InvalidInputError(f"{source} is not YAML: {exc.problem} in line {line}.") from exc
    except (yaml.YAMLError, ValueError) as exc:  # for a date that does not exist, or a number with too many digits
        raise InvalidInputError(f"{source} is not YAML: {' '.join(str(exc).split())}.") from exc
    except RecursionError as exc:
        raise InvalidInputError(f"{source} is not YAML: it is nested too deeply.") from exc


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Set one value deep in the tree; keys that do not exist are added, for `validate_recipe` to refuse."""
    path, mark, text = override.partition("=")
    if not (path and mark):
        raise InvalidInputError(f"--set {override!r} is not KEY=VALUE, as in optimiser.learning_rate=0.01.")
    *parents, last = path.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise InvalidInputError(f"--set {override!r} reaches below {parent!r}, which has no keys.")
    tree[last] = parse_yaml(text, f"--set {override!r}")


def validate_recipe(tree: dict[str, Any], source: str) -> Recipe:
    """Validate the tree as a recipe, by way of JSON: its strict mode takes lists and numbers, but no `yes` for a 1."""
    try:
        text = json.dumps(tree, default=str)
    except (TypeError, ValueError) as exc:
        raise InvalidInputError(
            f"{source} is not a recipe: its keys must be words, and nothing may hold itself."
        ) from exc
    try:
        return Recipe.model_validate_json(text, strict=True)
    except ValidationError as exc:
        raise InvalidInputError(f"{source}: {format_validation_error(exc, Recipe)}.") from exc
