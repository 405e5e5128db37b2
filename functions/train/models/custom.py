"""A custom model: a function that the recipe names as `module:factory`, and that returns a torch.nn.Module.

    def factory(input_shape: tuple[int, ...], outputs: int, **arguments) -> torch.nn.Module

`input_shape` is that of one example without the batch, as it enters the network: standardised, with gaps filled and
categories one-hot encoded. The module returns (N, outputs). The file `module.py` is beside the recipe, whose folder is
on sys.path only during the import, or the module is installed.

This runs the user's code, by design and with the user's rights: a caller who can name a recipe can run code. The code
is never taken from a store: the copy in a version or a run, `factory.py`, is there for people, and nothing here reads
it.
"""

import contextlib
import hashlib
import importlib
import importlib.util
import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import torch
from torch import nn

from functions.train.data.dataset import Dataset
from functions.train.errors import ExportError
from functions.train.export.onnx_export import export_onnx
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.schema import CustomOptions, ExportOptions

FACTORY_FILE = "factory.py"  # file name of its source, in a run's folder and in a version


@dataclass(frozen=True, eq=False)
class ModelFactory:
    """The user's function, with its options and source."""

    options: CustomOptions
    function: Callable[..., object]
    source: str  # text of the file that defines it

    def build_layers(self, input_shape: tuple[int, ...], output_size: int) -> list[nn.Module]:
        """Build the layers for examples of this shape; `InvalidInputError` when they cannot be trained."""
        word = self.options.factory
        with report_user_errors(f"{word} raised"):
            module = self.function(input_shape, output_size, **self.options.arguments)
        if not isinstance(module, nn.Module):
            raise InvalidInputError(f"{word} returned a {type(module).__name__}; it must return a torch.nn.Module.")
        if not any(weight.requires_grad for weight in module.parameters()):
            raise InvalidInputError(
                f"{word} returned a {type(module).__name__} without weights; there is nothing to train."
            )
        return [module]


def load_factory(options: CustomOptions, recipe_folder: Path) -> ModelFactory:
    """Load the function that a recipe in `recipe_folder` names; `InvalidInputError` when there is none."""
    name, _, attribute = options.factory.partition(":")
    module = import_factory_module(name, recipe_folder)
    function = getattr(module, attribute, None)
    if not callable(function):
        said = "is no function" if hasattr(module, attribute) else "is not there"
        raise InvalidInputError(f"model.factory is {options.factory!r}; {attribute!r} {said} in {name}.")
    path = Path(module.__file__ or "")
    return ModelFactory(options, function, path.read_text("utf-8") if path.suffix == ".py" else "")


def import_factory_module(name: str, recipe_folder: Path) -> ModuleType:
    """Import the module beside the recipe, or else the installed one."""
    file = (recipe_folder / f"{name}.py").absolute()
    with report_user_errors(f"The module {name!r} of model.factory raised"), extend_import_path(file.parent):
        if file.is_file():
            return execute_module_file(file)
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as exc:
            if exc.name is None or not f"{name}.".startswith(f"{exc.name}."):
                raise
            said = f"there is no module {name!r} beside the recipe in {recipe_folder.absolute()}, and none is installed"
            raise InvalidInputError(f"model.factory names it, but {said}.") from exc


def execute_module_file(file: Path) -> ModuleType:
    """Execute the module in a file, once; under a name of its own, so that it hides no other module of its name."""
    name = f"pilotlight_factory_{hashlib.sha256(str(file).encode() + file.read_bytes()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no module")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextlib.contextmanager
def extend_import_path(folder: Path) -> Iterator[None]:
    """Let modules import from a folder, inside."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


@contextlib.contextmanager
def report_user_errors(context: str) -> Iterator[None]:
    """Convert any error of the user's code into an `InvalidInputError` of one sentence."""
    try:
        yield
    except InvalidInputError:
        raise
    except Exception as exc:
        said = " ".join(str(exc).split())[:200].rstrip(".")
        raise InvalidInputError(f"{context} {type(exc).__name__}: {said or 'it says no more'}.") from exc


def check_custom_network(network: nn.Module, train: Dataset, factory_name: str, options: ExportOptions) -> None:
    """Refuse a model, before it is trained, that does not take a batch, gives another shape, or cannot be exported."""
    examples = torch.from_numpy(train.inputs[:2])
    for training in (True, False):
        with (
            report_user_errors(f"The model of {factory_name} raised, for a batch of {len(examples)},"),
            torch.no_grad(),
        ):
            answer: Any = network.train(training)(examples)
        shape = tuple(answer.shape) if isinstance(answer, torch.Tensor) else type(answer).__name__
        if shape != (len(examples), train.output_size):
            raise InvalidInputError(
                f"The model of {factory_name} gives {shape} for {len(examples)} examples; it must give "
                f"{(len(examples), train.output_size)}."
            )
    with TemporaryDirectory(prefix="pilotlight-factory-") as folder:
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # torch prints what it has of a graph when it gives up
                export_onnx(network, train, options, Path(folder, "model.onnx"))
        except ExportError as exc:
            raise InvalidInputError(
                f"The model of {factory_name} cannot be exported, and so not be served: {exc}"
            ) from exc
