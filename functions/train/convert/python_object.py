"""Convert the result of a publisher's function: a torch module with example inputs, or a scikit-learn estimator.

This runs the publisher's code, by design and with the publisher's rights: a user who may publish from this machine may
run code on it. Nothing of the code is kept in the version.
"""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import sklearn.base

from functions.train.convert import boosters, sklearn_pipeline
from functions.train.convert.converted_model import ConvertedModel
from pilotlight.errors import InvalidInputError

if TYPE_CHECKING:
    from torch import Tensor, nn


def convert_python_object(location: str, name: str, target: Path) -> ConvertedModel:
    """Import `location`, a file or a module, and convert the object `name` or what it returns."""
    source_name = f"{location}:{name}"
    try:
        module = import_source_module(location)
        attribute = getattr(module, name, None)
        estimator = isinstance(attribute, sklearn.base.BaseEstimator)
        result = attribute if estimator or is_torch_module(attribute) or not callable(attribute) else attribute()
    except InvalidInputError:
        raise
    except SystemExit as exc:
        raise InvalidInputError(
            f"{source_name} ended the program by SystemExit({exc.code!r}). Put what only a command needs below "
            'if __name__ == "__main__".'
        ) from exc
    except Exception as exc:
        message = " ".join(str(exc).split())[:300].rstrip(".")
        raise InvalidInputError(f"{source_name} raised {type(exc).__name__}: {message}.") from exc
    booster = boosters.find_booster(result, source_name)
    if booster is not None:
        return boosters.convert_loaded(booster, source_name, target)
    if isinstance(result, sklearn.base.BaseEstimator):
        return sklearn_pipeline.convert_estimator(result, source_name, target)
    torch_model, inputs = parse_module_and_inputs(result, source_name)
    from functions.train.convert import torch_module

    return torch_module.convert_module(torch_model, inputs, source_name, target)


def is_torch_module(candidate: object) -> "TypeGuard[nn.Module]":
    """Return whether this is a module of torch, without importing it: whoever has made one has."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(candidate, torch.nn.Module)


def parse_module_and_inputs(result: Any, source_name: str) -> "tuple[nn.Module, tuple[Tensor, ...]]":  # noqa: ANN401 - whatever came back
    """Return the module and its example inputs; a single tensor counts as one input."""
    if isinstance(result, tuple) and len(result) == 2 and is_torch_module(result[0]):
        from torch import Tensor

        inputs = (result[1],) if isinstance(result[1], Tensor) else result[1]
        if isinstance(inputs, Sequence) and inputs and all(isinstance(one, Tensor) for one in inputs):
            return result[0], tuple(inputs)
    raise InvalidInputError(
        f"{source_name} gives a {type(result).__name__}; it must give (torch.nn.Module, example inputs as tensors), "
        "or a fitted estimator of scikit-learn, XGBoost, LightGBM or CatBoost."
    )


def import_source_module(location: str) -> Any:  # noqa: ANN401 - a module
    """Import the module of a file, whose folder is importable too; or an installed one."""
    if not location.endswith(".py"):
        sys.path.insert(0, str(Path.cwd()))
        try:
            return importlib.import_module(location)
        except ModuleNotFoundError as exc:
            raise InvalidInputError(f"There is no module {location!r} here: {exc}.") from exc
    file = Path(location).resolve()
    spec = importlib.util.spec_from_file_location(f"pilotlight_brought_{file.stem}", file)
    if spec is None or spec.loader is None or not file.is_file():
        raise InvalidInputError(f"Cannot read {location}: there is no such file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    sys.path.insert(0, str(file.parent))
    spec.loader.exec_module(module)
    return module
