"""Check before the training that the metrics of a recipe can be measured on its data."""

import numpy as np

from functions.train.data.dataset import Dataset
from functions.train.data.split import Splits
from pilotlight.contracts.metric import CLASS_METRICS, NUMBER_METRICS, TOP_COUNTS
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.data_schema import UserDataOptions, format_alternatives
from pilotlight.recipes.schema import Recipe

TEXT_METRICS = ("accuracy",)  # of the next token; early stopping takes these or the loss


def check_metrics(recipe: Recipe, splits: Splits) -> None:
    """Raise `InvalidInputError` for `early_stopping.metric` or `data.metric` that the held sets do not have."""
    monitored = recipe.early_stopping.metric
    if monitored != "loss":
        check_metric("early_stopping.metric", monitored, splits.validation, "validation")
    if isinstance(recipe.data, UserDataOptions):
        check_metric("data.metric", splits.test.metric, splits.validation, "validation")
        check_metric("data.metric", splits.test.metric, splits.test, "test")


def check_metric(key: str, name: str, data: Dataset, set_name: str) -> None:
    """Raise `InvalidInputError` where a set of the data has no such metric."""
    known = TEXT_METRICS if data.text else tuple(CLASS_METRICS if data.classes else NUMBER_METRICS)
    if name not in known:
        kind = "tokens" if data.text else "classes" if data.classes else "numbers"
        raise InvalidInputError(f"{key} is {name!r}, and the targets are {kind}; it must be {list_choices(known)}.")
    tops = {f"top_{count}": count for count in TOP_COUNTS}
    if name in tops and tops[name] >= len(data.classes):
        raise InvalidInputError(
            f"{key} is {name!r}, and there are {len(data.classes)} classes, so that it is always 1; name another one."
        )
    if name == "auc" and len(np.unique(data.targets)) < 2:
        raise InvalidInputError(
            f"{key} is 'auc', and the {set_name} set has examples of one class alone, so that there is no curve; name "
            "another metric, or enlarge that set."
        )
    if name == "mape" and not np.all(data.targets):
        raise InvalidInputError(
            f"{key} is 'mape', and the {set_name} set has {int((data.targets == 0).sum()):,} targets of 0, of which an "
            "error is no share; name mae or rmse."
        )
    if name == "r2" and not np.ptp(data.targets):
        raise InvalidInputError(
            f"{key} is 'r2', and the {set_name} set has the target {data.targets.flat[0]:g} alone, so that there is "
            "nothing to explain; name mae or rmse, or enlarge that set."
        )


def list_choices(known: tuple[str, ...]) -> str:
    """List what a key may be."""
    return format_alternatives(known) if len(known) > 1 else known[0]
