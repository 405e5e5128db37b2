"""What the processes of one run settle among themselves before its trainings, in this order.

    published     has the run published already? Then nobody trains
    same_data     do all processes read the data that the lead reads?
    folds_left    which folds of a cross-validation are still to be scored?

The lead (`run`) and the others (`follow`) call the same functions, each of which waits for all of them.
"""

from functions.train.data import dataset as data
from functions.train.data import folds
from functions.train.data.dataset import Dataset, Splits
from functions.train.data.files import Place
from functions.train.distributed.process_group import World
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.schema import Recipe


def published(world: World, *, known: bool = False) -> bool:
    """Whether the run has published, which the lead knows."""
    return bool(world.agree(known))


def same_data(world: World, splits: Splits, name: str) -> None:
    """`InvalidInputError` in a process that has read other data than the lead."""
    theirs = world.tell(splits.sha256.encode()).decode()
    if theirs != splits.sha256:
        raise InvalidInputError(
            f"The data {name} has the sha256 {splits.sha256} in process {world.rank} and {theirs} in the lead; all "
            "must read the same."
        )


def folds_left(world: World, recipe: Recipe, place: Place, scored: int = 0) -> tuple[Dataset, list[Splits]]:
    """The whole data set, and the splits of the folds after those that the lead says are scored."""
    dataset = data.load(recipe.data, place)
    known = world.agree(scored)
    return dataset, folds.splits(dataset, recipe.folds or 0, recipe.data.seed, recipe.data.fractions)[known:]
