"""The recipe: the one file that describes a training run, checked before anything heavy is imported.

`options` has its parts; this module puts them together and reads them from files. It knows the words of a recipe and
their limits, not what they do: in the training job `data`, `model`, `optimiser`, `schedule` and `loss` each keep a
registry of functions under these words. Where a part comes in several kinds, its field is a union whose members are
told apart by a word, and that word is the first field of each.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Discriminator, Field, Tag, ValidationError, ValidationInfo, field_validator

from pilotlight.contracts.names import NAME_PATTERN, RESERVED_NAMES
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.errors import format_validation_error
from pilotlight.recipes.options.augmentation import AugmentationOptions
from pilotlight.recipes.options.capture import CaptureOptions
from pilotlight.recipes.options.data import BuiltinDataOptions, UserDataOptions
from pilotlight.recipes.options.distributed import DistributedOptions
from pilotlight.recipes.options.graph import ExportOptions, QuantizationOptions
from pilotlight.recipes.options.life import CheckpointOptions, StoppingOptions
from pilotlight.recipes.options.loss import LossOptions
from pilotlight.recipes.options.model import ModelOptions
from pilotlight.recipes.options.optimiser import OptimiserOptions
from pilotlight.recipes.options.part import Count, Options, Positive, Seed, get_union_tag
from pilotlight.recipes.options.schedule import ScheduleOptions

BUILTIN_FOLDER = Path(__file__).with_name("builtin")  # the recipes of record, known by their bare names

BatchSize = Annotated[
    Annotated[int, Field(ge=2), Tag("value")] | Annotated[Literal["full"], Tag("word")], Discriminator(get_union_tag)
]  # examples; one at a time is refused, for batch normalisation has no variance over one


def get_keys(part: object) -> tuple[str, ...]:
    """The keys of a part of a recipe, as far as it has any."""
    return tuple(part) if isinstance(part, dict) else ()


Data = Annotated[
    Annotated[BuiltinDataOptions, Tag("known")] | Annotated[UserDataOptions, Tag("own")],
    Discriminator(lambda data: "own" if isinstance(data, UserDataOptions) or "path" in get_keys(data) else "known"),
]


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
    accumulation: Count = 1  # parts that a batch is worked through in, for less memory and the same step
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
    """YAML in which `1e-4` is a number, as in YAML 1.2, and no key stands twice, for the first would be lost."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:  # noqa: ANN401 - a name or None, mistyped in PyYAML
        """The mapping as it is written, before other mappings are merged into it."""
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
    """Read a recipe from a YAML file, or by the bare name of a recipe of record, and apply `key.path=value` to it.

    `InvalidInputError` says in one sentence what is wrong, where, and what is allowed.
    """
    return build_recipe(parse_yaml(read_recipe_text(find_recipe_file(path)), path), overrides, path)


def build_recipe(tree: object, overrides: Sequence[str], source: str) -> Recipe:
    """A recipe from what YAML or JSON held, with overrides; `source` stands before what is wrong with it."""
    if not isinstance(tree, dict):
        raise InvalidInputError(f"{source} is not a recipe: it must map keys to values.")
    for override in overrides:
        apply_override(tree, override)
    return validate_recipe(tree, source)


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, defaults written out; `load` reads it back as the same recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)


def find_recipe_file(path: str) -> Path:
    """The file that is meant: a recipe of record when `path` is its bare name, `path` itself otherwise."""
    builtin = list_builtin_recipes()
    file = builtin.get(path, Path(path))
    if not file.is_file():
        raise InvalidInputError(f"There is no recipe {path!r}: give a YAML file, or one of {', '.join(builtin)}.")
    return file


def list_builtin_recipes() -> dict[str, Path]:
    """The recipes of record by their bare names."""
    return {file.stem: file for file in sorted(BUILTIN_FOLDER.glob("*.yaml"))}


def find_differing_keys(one: Recipe, other: Recipe) -> list[str]:
    """The keys at which two recipes differ."""
    return [key for key in Recipe.model_fields if getattr(one, key) != getattr(other, key)]


def read_recipe_text(file: Path) -> str:
    """The file's text."""
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidInputError(f"{file} cannot be read as text: {exc}.") from exc


def parse_yaml(text: str, source: str) -> Any:  # noqa: ANN401 - YAML is anything until it is checked
    """The text as YAML."""
    try:
        return yaml.load(text, RecipeYamlLoader)  # noqa: S506 - Loader is a SafeLoader
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else 1
        raise InvalidInputError(f"{source} is not YAML: {exc.problem} in line {line}.") from exc
    except (yaml.YAMLError, ValueError) as exc:  # of a day that no month has, or a number of too many digits
        raise InvalidInputError(f"{source} is not YAML: {' '.join(str(exc).split())}.") from exc
    except RecursionError as exc:
        raise InvalidInputError(f"{source} is not YAML: it is nested too deeply.") from exc


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Set one value deep in the tree; keys that do not exist are made, for `check` to refuse by their full path."""
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
        raise InvalidInputError(f"{source}: {format_validation_error(exc, Recipe)}.") from exc
