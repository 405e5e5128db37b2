"""What a function of the publisher's gives: a torch module with example inputs, or a fitted scikit-learn estimator.

This runs the publisher's code, by design and with his rights: whoever may publish from this machine may run code on it.
Nothing of it is kept in the version.
"""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sklearn.base
from torch import Tensor, nn

from functions.train.convert import pt2_program, sklearn_pipeline
from functions.train.convert.converted_model import Model
from pilotlight.errors import InvalidInputError


def read(where: str, name: str, target: Path) -> Model:
    """Import `where`, a file or a module, and take what `name` is or gives."""
    word = f"{where}:{name}"
    try:
        module = imported(where)
        found = getattr(module, name, None)
        estimator = isinstance(found, sklearn.base.BaseEstimator)
        made = found if estimator or isinstance(found, nn.Module) or not callable(found) else found()
    except InvalidInputError:
        raise
    except Exception as exc:
        said = " ".join(str(exc).split())[:300].rstrip(".")
        raise InvalidInputError(f"{word} raised {type(exc).__name__}: {said}.") from exc
    if isinstance(made, sklearn.base.BaseEstimator):
        return sklearn_pipeline.read(made, word, target)
    return pt2_program.export(*pair(made, word), word, target)


def pair(made: Any, word: str) -> tuple[nn.Module, tuple[Tensor, ...]]:  # noqa: ANN401 - whatever came back
    """The module and its example inputs; a single tensor counts as one input."""
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module):
        inputs = (made[1],) if isinstance(made[1], Tensor) else made[1]
        if isinstance(inputs, Sequence) and inputs and all(isinstance(one, Tensor) for one in inputs):
            return made[0], tuple(inputs)
    raise InvalidInputError(
        f"{word} gives a {type(made).__name__}; it must give (torch.nn.Module, example inputs as tensors), or a fitted "
        "scikit-learn estimator."
    )


def imported(where: str) -> Any:  # noqa: ANN401 - a module
    """The module of a file, beside which others are found; or an installed one."""
    if not where.endswith(".py"):
        sys.path.insert(0, str(Path.cwd()))
        try:
            return importlib.import_module(where)
        except ModuleNotFoundError as exc:
            raise InvalidInputError(f"There is no module {where!r} here: {exc}.") from exc
    file = Path(where).resolve()
    spec = importlib.util.spec_from_file_location(f"pilotlight_brought_{file.stem}", file)
    if spec is None or spec.loader is None or not file.is_file():
        raise InvalidInputError(f"Cannot read {where}: there is no such file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    sys.path.insert(0, str(file.parent))
    spec.loader.exec_module(module)
    return module
