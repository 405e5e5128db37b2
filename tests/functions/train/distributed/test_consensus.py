"""What processes settle before they train; with real processes, test_parallel and test_launcher do."""

from pathlib import Path

import pytest

from functions.train.data.files import DataRoot
from functions.train.data.split import Splits
from functions.train.distributed import consensus
from functions.train.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from pilotlight.errors import InvalidInputError
from pilotlight.storage.object_store import open_store
from tests.functions.train.conftest import tiny_recipe

PLACE = DataRoot(Path(), open_store("memory://"))


class Follower(ProcessGroup):
    """The second of two processes, whose lead has scored one fold and read certain data."""

    def max_over_ranks(self, wish: int) -> int:
        return max(wish, 1)

    def broadcast_bytes(self, said: bytes) -> bytes:
        return b"the lead's"


FOLLOWER = Follower(rank=1, size=2)


def test_a_follower_believes_the_lead_that_it_has_published() -> None:
    assert consensus.is_run_published(FOLLOWER)
    assert not consensus.is_run_published(SINGLE_PROCESS)
    assert consensus.is_run_published(SINGLE_PROCESS, published=True)


def test_other_data_than_the_leads_is_refused(splits: Splits) -> None:
    consensus.check_same_data(SINGLE_PROCESS, splits, "digits")
    with pytest.raises(
        InvalidInputError, match=r"The data digits has the sha256 .* in process 1 and the lead's in the"
    ):
        consensus.check_same_data(FOLLOWER, splits, "digits")


def test_scored_folds_are_not_trained_again() -> None:
    recipe = tiny_recipe("folds=3")
    whole, every = consensus.load_remaining_folds(SINGLE_PROCESS, recipe, PLACE)
    _, left = consensus.load_remaining_folds(FOLLOWER, recipe, PLACE)
    assert (len(every), len(left)) == (3, 2)
    assert left[0].test.sha256 == every[1].test.sha256
    assert sum(len(parts.test) for parts in every) == len(whole)
