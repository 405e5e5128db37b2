"""The n-gram baseline is a distribution, the one of the paper, and knows nothing of what it is scored on."""

from collections import Counter

import numpy as np
import pytest

from functions.train.data.load import load_splits
from functions.train.evaluation.quantization_report import load_recorded_baseline
from pilotlight.recipes.schema import load_recipe
from tests.benchmarks.ngram_baseline import KneserNey, compute_discounts, count_ngrams, measure_baseline

STREAM = np.random.default_rng(0).choice(6, size=400, p=[0.4, 0.25, 0.15, 0.1, 0.07, 0.03])


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("context", [(), (0,), (1, 2), (5, 5), (0, 1, 0, 1), (6, 7)])
def test_chances_sum_to_one_after_any_context(order: int, context: tuple[int, ...]) -> None:
    model = KneserNey(STREAM, 9, order)
    chances = [model.compute_probability((*context, token)[-order:]) for token in range(9)]
    assert sum(chances) == pytest.approx(1)
    assert min(chances) > 0


def test_bigram_is_the_papers() -> None:
    """Chen and Goodman's p(w | h) = (c(h w) - D) / c(h) + gamma(h) p(w), with p(w) by how many tokens w follows."""
    pairs = Counter(zip(STREAM[:-1].tolist(), STREAM[1:].tolist(), strict=True))
    follows = Counter(second for _, second in pairs)
    high, low = compute_discounts(pairs.values()), compute_discounts(follows.values())
    given = sum(low[min(count, 3)] for count in follows.values()) / len(pairs)
    model = KneserNey(STREAM, 9, 2)
    for before, after in [(0, 1), (2, 5), (5, 5), (4, 0)]:
        after_all = sum(count for (first, _), count in pairs.items() if first == before)
        spared = sum(high[min(count, 3)] for (first, _), count in pairs.items() if first == before) / after_all
        unigram = (follows[after] - low[min(follows[after], 3)]) / len(pairs) + given / 9
        count = pairs[before, after]
        expected = (count - high[min(count, 3)]) / after_all + spared * unigram
        assert model.compute_probability((before, after)) == pytest.approx(expected)


def test_discounts_are_the_papers() -> None:
    y = 10 / (10 + 2 * 6)
    assert compute_discounts([1] * 10 + [2] * 6 + [3] * 4 + [4] * 3) == pytest.approx(
        (0, 1 - 2 * y * 6 / 10, 2 - 3 * y * 4 / 6, 3 - 4 * y * 3 / 4)
    )


def test_short_texts_have_discounts_too() -> None:
    assert all(0 < found <= times for times, found in enumerate(compute_discounts([1]), 0) if times)


def test_shorter_grams_are_counted_by_what_they_follow() -> None:
    unigrams, bigrams = count_ngrams([0, 1, 0, 1, 2, 1], 2)
    assert bigrams == {(0, 1): 2, (1, 0): 1, (1, 2): 1, (2, 1): 1}
    assert unigrams == {(1,): 2, (0,): 1, (2,): 1}


def test_losses_are_of_every_token_but_the_first() -> None:
    model = KneserNey(STREAM, 9, 3)
    losses = model.compute_losses(STREAM[:5])
    first, *_, last = losses
    assert len(losses) == 4
    assert first == pytest.approx(-np.log(model.compute_probability(tuple(STREAM[:2].tolist()))))
    assert last == pytest.approx(-np.log(model.compute_probability(tuple(STREAM[2:5].tolist()))))


def test_order_is_learned() -> None:
    turns = np.tile([0, 1, 2, 3], 50)
    unigram, bigram = (KneserNey(turns, 4, order).compute_losses(turns).mean() for order in (1, 2))
    assert bigram < 0.1 < 1 < unigram


def test_recorded_baseline_is_the_measured_one() -> None:
    recipe = load_recipe("topics-lm")
    recorded, measured = load_recorded_baseline(recipe.data), measure_baseline(load_splits(recipe.data))
    assert recorded is not None
    assert recorded.name.startswith(measured.name)
    for part in ("validation", "test"):  # the help texts differ from one Python to the next
        assert getattr(recorded, part).loss == pytest.approx(getattr(measured, part).loss, rel=0.05)
        assert getattr(recorded, part).bits_per_byte == pytest.approx(getattr(measured, part).bits_per_byte, rel=0.05)


@pytest.mark.parametrize("override", ["data.text.vocabulary=512", "data.seed=1"])
def test_other_data_has_no_recorded_baseline(override: str) -> None:
    assert load_recorded_baseline(load_recipe("topics-lm", [override]).data) is None
    assert load_recorded_baseline(load_recipe("digits").data) is None
