from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pilotlight.errors import ModelRefusedError
from pilotlight.generation.key_value_cache import FloatArray
from pilotlight.generation.request import SamplingOptions
from pilotlight.generation.sampling import Sampler, compute_top_logprobs, find_nucleus, find_place, truncate

LOGITS = arrays(np.float32, st.integers(1, 600), elements=st.floats(-20, 20, width=32))
FLAT = np.zeros(5000, np.float32)


def draw(logits: Sequence[float], count: int = 1, prompt: Sequence[int] = (), **options: object) -> list[int]:
    sampler = Sampler(SamplingOptions(**options), prompt)  # type: ignore[arg-type]  # the caller names its fields
    tokens = []
    for _ in range(count):
        tokens.append(sampler.draw(np.array(logits, np.float32)))
        sampler.accept(tokens[-1])
    return tokens


def softmax(logits: FloatArray) -> FloatArray:
    weights = np.exp(logits - logits.max())
    return np.asarray(weights / weights.sum(), np.float32)


@given(LOGITS)
def test_at_temperature_0_the_first_of_the_greatest_is_taken(logits: FloatArray) -> None:
    assert draw(list(logits), temperature=0.0) == [logits.tolist().index(max(logits.tolist()))]


@pytest.mark.parametrize("temperature", [0.01, 0.7, 1.0, 2.0])
def test_a_seed_holds_at_every_temperature(temperature: float) -> None:
    logits = FLAT + np.linspace(0, 0.001, FLAT.size, dtype=np.float32)
    first, again, other = (draw(list(logits), 5, temperature=temperature, seed=seed) for seed in (42, 42, 43))
    assert first == again
    assert first != other


def test_choices_draw_by_seeds_of_their_own_and_no_seed_by_another_each_time() -> None:
    options = SamplingOptions(seed=7)
    drawn = [[sampler.draw(FLAT) for _ in range(4)] for sampler in (Sampler(options, (), place) for place in range(3))]
    assert len({tuple(each) for each in drawn}) == 3
    assert drawn[1] == draw(list(FLAT), 4, seed=8)
    assert draw(list(FLAT), 4) != draw(list(FLAT), 4)
    assert draw(list(FLAT), 2, seed=-1) == draw(list(FLAT), 2, seed=-1)


def test_tokens_come_as_often_as_their_probability_says() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.2], np.float32))
    counts = Counter(draw(list(logits), 4000, seed=1))
    assert [counts[token] / 4000 for token in range(3)] == pytest.approx([0.5, 0.3, 0.2], abs=0.04)


def test_temperature_flattens() -> None:
    logits = np.log(np.array([0.8, 0.2], np.float32))
    counts = Counter(draw(list(logits), 4000, seed=1, temperature=2.0))
    assert counts[0] / 4000 == pytest.approx(2 / 3, abs=0.04)  # sqrt(0.8) : sqrt(0.2) is 2 : 1


@given(LOGITS, st.floats(0.01, 0.99), st.integers(0, 40), st.floats(0, 1))
def test_truncation_leaves_what_its_definitions_say(logits: FloatArray, top_p: float, top_k: int, min_p: float) -> None:
    tokens, weights = truncate(logits, SamplingOptions(top_p=top_p, top_k=top_k, min_p=min_p))
    assert tokens is not None
    kept = np.sort(softmax(logits[np.argsort(-logits, kind="stable")[: top_k or None]]))[::-1]

    def count(tolerance: float) -> int:
        """As many tokens as the definitions leave, where the limits are a little lower, or higher."""
        nucleus = kept[: int(np.searchsorted(kept.cumsum(dtype=np.float64), top_p * (1 + tolerance))) + 1]
        return int((nucleus >= min_p * kept[0] * (1 - tolerance)).sum())

    assert count(-1e-4) <= len(tokens) <= count(1e-4)
    assert len(set(tokens.tolist())) == len(tokens) == len(weights)
    others = np.delete(logits, tokens)
    assert not others.size or logits[tokens].min() >= others.max() - 1e-5


def test_a_nucleus_is_found_in_a_flat_distribution() -> None:
    assert len(find_nucleus(np.ones(50_000, np.float32), 0.5)) == 25_000
    assert len(find_nucleus(np.ones(10, np.float32), 1.0)) == 10
    assert find_nucleus(np.array([1, 5, 5, 5], np.float32), 0.4).tolist() == [1, 2]


@given(st.lists(st.floats(0, 10, width=32), min_size=1, max_size=2000).filter(any), st.floats(0, 1, exclude_max=True))
def test_a_share_of_the_weights_is_reached_at_a_place_that_has_some(values: list[float], share: float) -> None:
    weights = np.array(values, np.float32)
    place = find_place(weights, share)
    total = weights.sum(dtype=np.float64)
    assert weights[place] > 0
    assert weights[:place].sum(dtype=np.float64) <= share * total + 1e-4 * total
    assert weights[: place + 1].sum(dtype=np.float64) >= share * total - 1e-4 * total


def test_a_share_that_is_rounded_to_all_of_it_is_no_place_without_weight() -> None:
    weights = np.zeros(3000, np.float32)
    weights[[3, 700]] = 1.0
    assert [find_place(weights, share) for share in (0.0, 0.499, 0.5, 0.999, 1.0)] == [3, 3, 700, 700, 700]


def test_bias_moves_a_logit() -> None:
    assert draw([0, 1, 2], temperature=0.0, logit_bias={0: 3.0, 2: -100.0}) == [0]


def test_presence_and_frequency_count_generated_tokens_only() -> None:
    logits = [1.0, 0.9, 0.0]
    assert draw(logits, 4, [0, 0, 0], temperature=0.0) == [0, 0, 0, 0]
    assert draw(logits, 3, [0, 0, 0], temperature=0.0, presence_penalty=0.2) == [0, 1, 0]
    assert draw(logits, 4, [0, 0, 0], temperature=0.0, frequency_penalty=0.2) == [0, 1, 0, 1]


def test_repetition_counts_prompt_and_answer() -> None:
    assert draw([1.0, 0.9, 0.5], 3, [0], temperature=0.0, repetition_penalty=2.0) == [1, 0, 0]
    assert draw([-1.0, -1.5, -9.0], 1, [0], temperature=0.0, repetition_penalty=2.0) == [1]


def test_logits_are_not_changed() -> None:
    logits = np.array([1, 2, 3], np.float32)
    sampler = Sampler(SamplingOptions(presence_penalty=1.0, repetition_penalty=1.5, logit_bias={1: 5.0}), [1])
    for token in range(3):
        sampler.accept(token)
        sampler.draw(logits, np.array([True, True, False]), [0])
    assert logits.tolist() == [1, 2, 3]


def test_what_is_forbidden_is_not_drawn() -> None:
    sampler = Sampler(SamplingOptions(seed=1), ())
    mask = np.array([True, True, False])
    logits = np.zeros(5, np.float32)  # two columns more than the tokenizer has tokens
    assert {sampler.draw(logits, mask) for _ in range(100)} == {0, 1}
    assert {sampler.draw(logits, mask, [0]) for _ in range(20)} == {1}


@given(LOGITS, st.integers(0, 20))
def test_log_probabilities_are_those_of_the_raw_logits(logits: FloatArray, top: int) -> None:
    logprob, alternatives = compute_top_logprobs(logits, 0, top)
    expected = np.log(softmax(logits.astype(np.float64)).astype(np.float64) + 1e-300)
    assert logprob == pytest.approx(float(expected[0]), abs=1e-3)
    assert [value for _, value in alternatives] == pytest.approx(sorted(expected, reverse=True)[:top], abs=1e-3)
    assert len(alternatives) == min(top, len(logits))


@pytest.mark.parametrize("temperature", [1e-5, 1e-30, 1e-300])
@pytest.mark.parametrize("options", [{}, {"top_p": 0.9}, {"top_k": 2}, {"min_p": 0.1}])
def test_the_smallest_temperatures_take_the_greatest(temperature: float, options: dict[str, Any]) -> None:
    assert draw([1.0, 5.0, -60.0, 4.9], 5, temperature=temperature, **options) == [1] * 5


def test_the_smallest_repetition_penalty_is_a_number_too() -> None:
    assert draw([1.0, 0.0, -1.0], 1, prompt=[0, 1, 2], repetition_penalty=1e-300, temperature=0.0) == [0]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("options", [{}, {"top_p": 0.9}, {"top_k": 2}])
@pytest.mark.parametrize("logits", [[1.0, np.nan], [np.inf, 1.0], [-np.inf, -np.inf]])
def test_logits_that_are_no_numbers_are_the_models_fault(
    logits: list[float], options: dict[str, Any], temperature: float
) -> None:
    with pytest.raises(ModelRefusedError, match=r"scores its next token with (nan|-?inf)"):
        draw(logits, temperature=temperature, **options)


@pytest.mark.parametrize(("bias", "drawn"), [(100.0, 1), (-100.0, 0)])
def test_a_bias_of_100_forces_a_token_or_forbids_it(bias: float, drawn: int) -> None:
    logits = [0.0, 20.0 if bias < 0 else -20.0]
    assert set(draw(logits, 50, temperature=2.0, logit_bias={1: bias})) == {drawn}
