"""Where a request goes, and what each change makes of an alias."""

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight.contracts.alias import TOTAL_WEIGHT, AliasDocument, Canary, TrafficShare
from pilotlight.contracts.codec import decode_document, encode_document
from pilotlight.errors import InvalidInputError
from pilotlight.registry import alias_updates

CANARY = Canary(2, "2026-11-24T00:00:00+00:00")


def document(*shares: tuple[int, int]) -> AliasDocument:
    pointing = alias_updates.build_first_document(1, "ann", "first version")
    return (
        alias_updates.set_traffic_split(pointing, tuple(TrafficShare(*share) for share in shares), "ann", "try")
        if shares
        else pointing
    )


def test_every_change_takes_the_next_number_and_says_who_and_why() -> None:
    changed = alias_updates.point_to(document(), 2, "bob", "better")
    assert (changed.number, changed.version, changed.previous, changed.by, changed.reason) == (2, 2, 1, "bob", "better")


def test_a_move_ends_shares_and_shadow_which_were_measured_against_the_version_before() -> None:
    trying = alias_updates.set_shadow(
        alias_updates.start_canary(document(), CANARY, 1000, "ann", "try"), TrafficShare(3, 100), "ann", "look"
    )
    changed = alias_updates.point_to(trying, 2, "ann", "it held")
    assert (changed.shares, changed.canary, changed.shadow) == ((), None, None)


def test_a_rollback_ends_the_trial_first_and_then_goes_back() -> None:
    pointing = alias_updates.point_to(document(), 2, "ann", "better")
    trying = alias_updates.start_canary(pointing, Canary(3, CANARY.until), 1000, "ann", "try")
    ended = alias_updates.roll_back(trying, "ann", "no")
    assert (ended.version, ended.shares, ended.canary) == (2, (), None)
    assert alias_updates.roll_back(ended, "ann", "no").version == 1


def test_there_is_nothing_behind_the_first_version() -> None:
    with pytest.raises(InvalidInputError, match="Version 1 is the first"):
        alias_updates.roll_back(document(), "ann", "no")


def test_two_rollbacks_are_none() -> None:
    pointing = alias_updates.point_to(document(), 2, "ann", "better")
    assert alias_updates.roll_back(alias_updates.roll_back(pointing, "a", "b"), "a", "b").version == 2


@pytest.mark.parametrize(
    ("shares", "why"),
    [
        ([(1, 100)], "Version 1 is what the alias points to"),
        ([(2, 100), (2, 100)], "name a version twice"),
        ([(2, 5000), (3, 5000)], "100.00% together"),
    ],
)
def test_shares_that_make_no_sense_are_refused(shares: list[tuple[int, int]], why: str) -> None:
    with pytest.raises(InvalidInputError, match=why):
        document(*shares)


def test_a_stored_document_that_leaves_the_version_nothing_is_not_read() -> None:
    wrong = encode_document(document((2, 9999))).replace(b"9999", b"10000")
    with pytest.raises(InvalidInputError, match="leaves none for version 1"):
        decode_document(wrong, AliasDocument, "here")


def test_documents_of_before_shares_are_read() -> None:
    old = b'{"version": 3, "previous": null, "by": "ann", "at": "2026-11-23T00:00:00+00:00", "reason": "first"}'
    assert decode_document(old, AliasDocument, "here").number == 1


@given(st.text(), st.text())
def test_a_key_always_lies_at_the_same_place(salt: str, key: str) -> None:
    assert alias_updates.hash_to_slot(salt, key) == alias_updates.hash_to_slot(salt, key)
    assert 0 <= alias_updates.hash_to_slot(salt, key) < TOTAL_WEIGHT


def test_places_are_shared_out_by_weight_to_the_last_one() -> None:
    split = document((2, 1000), (3, 250))
    counted = Counter(alias_updates.choose_version(split, place) for place in range(TOTAL_WEIGHT))
    assert counted == {1: 8750, 2: 1000, 3: 250}


def test_whoever_is_in_a_small_share_is_in_a_larger_one() -> None:
    small = {place for place in range(TOTAL_WEIGHT) if alias_updates.choose_version(document((2, 500)), place) == 2}
    assert small < {
        place for place in range(TOTAL_WEIGHT) if alias_updates.choose_version(document((2, 1000)), place) == 2
    }


def test_keys_are_spread_evenly() -> None:
    """Chi-square over 20 bins of 20,000 keys; 43.8 is exceeded by chance once in a thousand times."""
    bins = Counter(
        alias_updates.hash_to_slot("salt", f"caller-{number}") * 20 // TOTAL_WEIGHT for number in range(20_000)
    )
    assert sum((count - 1000) ** 2 / 1000 for count in bins.values()) < 43.8


def test_splits_do_not_share_their_first_callers() -> None:
    first = {key for key in range(2000) if alias_updates.hash_to_slot("salt", str(key)) < 1000}
    again = {key for key in first if alias_updates.hash_to_slot("another", str(key)) < 1000}
    assert len(again) < len(first) / 5


def test_a_split_has_a_salt_of_its_own_which_it_keeps_while_it_is_changed() -> None:
    one, other = document((2, 500)), document((2, 500))
    assert len(one.split_salt) == len(other.split_salt) == 32
    assert one.split_salt != other.split_salt
    assert alias_updates.set_traffic_split(one, (TrafficShare(2, 900),), "ann", "more").split_salt == one.split_salt
    ended = [
        alias_updates.set_traffic_split(one, (), "ann", "enough"),
        alias_updates.clear_traffic_split(one, "ann", "enough"),
        alias_updates.start_canary(one, CANARY, 500, "ann", "try"),
        alias_updates.point_to(one, 2, "ann", "better"),
    ]
    assert {after.split_salt for after in ended} == {""}


def test_documents_of_before_salts_are_read() -> None:
    stored = encode_document(document((2, 500)))
    old = re.sub(rb',\s*"split_salt": "[0-9a-f]+"', b"", stored)
    assert old != stored
    assert decode_document(old, AliasDocument, "here").split_salt == ""
