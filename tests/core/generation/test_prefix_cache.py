import pytest

from pilotlight.contracts.decoder import DecoderSpec
from pilotlight.generation.causal_model import MIN_PROMPT_RUN, CausalModel
from pilotlight.generation.key_value_cache import KeyValueCache
from pilotlight.generation.prefix_cache import PrefixCache, count_common

BUDGET = 10**9


@pytest.fixture
def model(spec: DecoderSpec) -> CausalModel:
    return CausalModel(None, spec)  # which creates caches, and runs nothing


def put(prefixes: PrefixCache, model: CausalModel, tokens: range) -> KeyValueCache:
    """Keep a sequence, in whose cache each token's keys and values are the token's number."""
    cache = model.create_cache(capacity=len(tokens))
    for place, token in enumerate(tokens):
        for array in cache.arrays:
            array[0, :, place] = token
    cache.lengths[0] = len(tokens)
    prefixes.put(tokens, cache)
    return cache


def read(cache: KeyValueCache) -> list[float]:
    """The tokens whose keys and values a cache holds."""
    length = int(cache.lengths[0])
    first: list[float] = cache.arrays[0][0, 0, :length, 0].tolist()
    assert all((array[0, :, :length] == cache.arrays[0][0, :, :length]).all() for array in cache.arrays)
    return first


def test_a_conversation_goes_on_in_its_own_cache(model: CausalModel) -> None:
    prefixes = PrefixCache(BUDGET)
    cache = put(prefixes, model, range(20))
    assert prefixes.take(range(30), model) is cache
    assert read(cache) == list(range(20))
    assert prefixes.byte_count == 0


def test_the_last_tokens_of_a_prompt_are_run_again(model: CausalModel) -> None:
    prefixes = PrefixCache(BUDGET)
    put(prefixes, model, range(20))
    assert read(prefixes.take(range(20), model)) == list(range(20 - MIN_PROMPT_RUN))


def test_what_two_sequences_share_is_copied_and_both_stay(model: CausalModel) -> None:
    prefixes = PrefixCache(BUDGET)
    cache = put(prefixes, model, range(50))
    other = prefixes.take([*range(30), *range(100, 120)], model)
    assert other is not cache
    assert read(other) == list(range(30))
    assert prefixes.take(range(60), model) is cache
    assert read(cache) == list(range(50))


def test_the_longest_one_is_found(model: CausalModel) -> None:
    prefixes = PrefixCache(BUDGET)
    put(prefixes, model, range(1, 50))
    put(prefixes, model, range(30))
    put(prefixes, model, range(40))
    assert read(prefixes.take([*range(35), *range(200, 210)], model)) == list(range(35))


@pytest.mark.parametrize("prompt", [[7], [7, 8], [1, 2, 3, 4, 5]])
def test_nothing_is_found_of_another_sequence_or_a_short_prompt(model: CausalModel, prompt: list[int]) -> None:
    prefixes = PrefixCache(BUDGET)
    put(prefixes, model, range(7, 20))
    assert read(prefixes.take(prompt, model)) == []


def test_the_least_recently_used_one_makes_room(model: CausalModel) -> None:
    one = model.create_cache().byte_count
    prefixes = PrefixCache(2 * one)
    put(prefixes, model, range(100, 110))
    put(prefixes, model, range(200, 210))
    prefixes.put(range(100, 110), prefixes.take(range(100, 120), model))  # now the other one is the older
    put(prefixes, model, range(300, 310))
    assert prefixes.byte_count == 2 * one
    assert [read(prefixes.take(range(start, start + 20), model)) for start in (100, 200, 300)] == [
        list(range(100, 110)),
        [],
        list(range(300, 310)),
    ]


def test_what_is_larger_than_the_budget_is_not_kept(model: CausalModel) -> None:
    prefixes = PrefixCache(model.create_cache().byte_count - 1)
    put(prefixes, model, range(20))
    assert prefixes.byte_count == 0


def test_the_beginning_of_another_sequence_is_not_kept_twice(model: CausalModel) -> None:
    prefixes = PrefixCache(BUDGET)
    one = put(prefixes, model, range(20)).byte_count
    put(prefixes, model, range(30))
    put(prefixes, model, range(25))
    assert prefixes.byte_count == one
    assert read(prefixes.take(range(40), model)) == list(range(30))


def test_only_tokens_that_were_run_are_kept(model: CausalModel) -> None:
    prefixes = PrefixCache(BUDGET)
    cache = model.create_cache()
    cache.lengths[0] = 10
    prefixes.put(range(12), cache)
    assert prefixes.take(range(12), model).lengths.tolist() == [12 - MIN_PROMPT_RUN]
    prefixes.put(range(12), model.create_cache())
    assert prefixes.byte_count == 0


def test_owners_share_nothing_and_displace_each_other_by_age_alone(model: CausalModel) -> None:
    prefixes = PrefixCache(BUDGET)
    caches = {owner: model.create_cache(capacity=20) for owner in ("", "acme", "zeta")}
    for owner, cache in caches.items():
        cache.lengths[0] = 20
        prefixes.put(range(20), cache, owner)
    assert read(prefixes.take(range(30), model, "other")) == []
    assert prefixes.byte_count == 3 * model.create_cache().byte_count
    assert {owner: prefixes.take(range(30), model, owner) is cache for owner, cache in caches.items()} == dict.fromkeys(
        caches, True
    )


def test_it_gives_its_memory_back(model: CausalModel) -> None:
    prefixes = PrefixCache(BUDGET)
    put(prefixes, model, range(20))
    prefixes.clear()
    assert prefixes.byte_count == 0


def test_common_tokens_are_counted() -> None:
    assert count_common([1, 2, 3], [1, 2, 4]) == 2
    assert count_common([1, 2, 3], [1, 2, 3, 4]) == 3
    assert count_common([], [1]) == count_common([2], [1]) == 0
