from hypothesis import given
from hypothesis import strategies as st

from pilotlight.generation.prompt_lookup import DRAFT_TOKENS, LONGEST_GRAM, PromptLookup


def find_plainly(tokens: list[int], limit: int) -> list[int]:
    """The same by looking at every place, the last one first."""
    for length in range(min(LONGEST_GRAM, len(tokens)), 0, -1):
        gram = tokens[-length:]
        for start in range(len(tokens) - length - 1, -1, -1):
            if tokens[start : start + length] == gram:
                return tokens[start + length : start + length + limit]
    return []


@given(st.lists(st.integers(0, 3), max_size=30), st.integers(0, DRAFT_TOKENS))
def test_a_draft_is_what_followed_the_longest_run_when_it_last_occurred(tokens: list[int], limit: int) -> None:
    assert PromptLookup(tokens).find_draft(limit) == find_plainly(tokens, limit)


def test_a_longer_run_counts_more_than_a_later_one() -> None:
    assert PromptLookup([1, 2, 9, 9, 2, 7, 1, 2]).find_draft(1) == [9]


def test_without_a_repetition_there_is_no_draft() -> None:
    assert PromptLookup([1, 2, 3]).find_draft() == []
    assert PromptLookup([]).find_draft() == []
