"""Let the processes of one run agree on the following before its trainings, in this order.

    published     has the run published already? Then no process trains
    same_data     do all processes read the same data as the main process?
    folds_left    which folds of a cross-validation are not scored yet?

The main process (`pipeline`) and the others (`worker`) call the same functions, each of which waits for all of them.
"""

from functions.train.data import folds
from functions.train.data.dataset import Dataset
from functions.train.data.files import DataRoot
from functions.train.data.load import load_dataset
from functions.train.data.split import Splits
from functions.train.distributed.process_group import ProcessGroup
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.schema import Recipe


def is_run_published(process_group: ProcessGroup, *, published: bool = False) -> bool:
    """Return whether the main process knows that the run has published."""
    return bool(process_group.max_over_ranks(published))


def check_same_data(process_group: ProcessGroup, splits: Splits, name: str) -> None:
    """Raise `InvalidInputError` in a process that has read other data than the main process."""
    main_sha256 = process_group.broadcast_bytes(splits.sha256.encode()).decode()
    if main_sha256 != splits.sha256:
        raise InvalidInputError(
            f"The data {name} has the sha256 {splits.sha256} in process {process_group.rank} and {main_sha256} in the "
            "lead; all "
            "must read the same."
        )


def load_remaining_folds(
    process_group: ProcessGroup, recipe: Recipe, data_root: DataRoot, scored_count: int = 0
) -> tuple[Dataset, list[Splits]]:
    """Load the whole data set, and the splits of the folds that the main process has not scored yet."""
    dataset = load_dataset(recipe.data, data_root)
    agreed_count = process_group.max_over_ranks(scored_count)
    return dataset, folds.build_fold_splits(dataset, recipe.folds or 0, recipe.data.seed, recipe.data.fractions)[
        agreed_count:
    ]
