"""What processes settle before they train; with real processes, test_parallel and test_launcher do."""

from pathlib import Path

import pytest

from functions.train.data.dataset import Splits
from functions.train.data.files import Place
from functions.train.distributed import consensus
from functions.train.distributed.process_group import ALONE, World
from pilotlight.errors import InvalidInputError
from pilotlight.storage.object_store import open_store
from tests.functions.train.conftest import tiny_recipe

PLACE = Place(Path(), open_store("memory://"))


class Follower(World):
    """The second of two processes, whose lead has scored one fold and read certain data."""

    def agree(self, wish: int) -> int:
        return max(wish, 1)

    def tell(self, said: bytes) -> bytes:
        return b"the lead's"


FOLLOWER = Follower(rank=1, size=2)


def test_a_follower_believes_the_lead_that_it_has_published() -> None:
    assert consensus.published(FOLLOWER)
    assert not consensus.published(ALONE)
    assert consensus.published(ALONE, known=True)


def test_other_data_than_the_leads_is_refused(splits: Splits) -> None:
    consensus.same_data(ALONE, splits, "digits")
    with pytest.raises(
        InvalidInputError, match=r"The data digits has the sha256 .* in process 1 and the lead's in the"
    ):
        consensus.same_data(FOLLOWER, splits, "digits")


def test_scored_folds_are_not_trained_again() -> None:
    recipe = tiny_recipe("folds=3")
    whole, every = consensus.folds_left(ALONE, recipe, PLACE)
    _, left = consensus.folds_left(FOLLOWER, recipe, PLACE)
    assert (len(every), len(left)) == (3, 2)
    assert left[0].test.sha256 == every[1].test.sha256
    assert sum(len(parts.test) for parts in every) == len(whole)
