"""On a tiny decoder of fp32, whose logits are the same whatever is run at once, but for rounding."""

from typing import TYPE_CHECKING

import numpy as np
import pytest

from pilotlight.errors import InvalidInputError
from pilotlight.generation.causal_model import CHUNK_TOKENS, MIN_PROMPT_RUN, CausalModel, find_chunk_end
from pilotlight.generation.key_value_cache import CAPACITY_STEP, FloatArray
from pilotlight.runtime.session import open_decoder_session

if TYPE_CHECKING:
    from tests.tiny_decoders import TinyDecoder

TOKENS = np.random.default_rng(1).integers(3, 300, 590).tolist()


@pytest.fixture
def model(tiny_decoder: "TinyDecoder") -> CausalModel:
    return CausalModel(open_decoder_session(tiny_decoder.graphs["fp32"]), tiny_decoder.spec)


def run_at_once(model: CausalModel, tokens: list[int]) -> FloatArray:
    """Logits behind each token, (tokens, vocabulary), from one run."""
    logits: FloatArray = model.forward(model.create_cache(), [tokens], len(tokens))[0].copy()
    return logits


def test_a_prompt_in_chunks_has_the_logits_of_one_run(model: CausalModel) -> None:
    expected = run_at_once(model, TOKENS)
    cache = model.create_cache()
    logits = model.prefill(cache, TOKENS)
    assert logits is not None
    np.testing.assert_allclose(logits, expected[-1], atol=1e-4)
    assert cache.lengths.tolist() == [len(TOKENS)]


def test_token_by_token_and_beyond_its_capacity_it_has_them_too(model: CausalModel) -> None:
    expected = run_at_once(model, TOKENS[:300])
    cache = model.create_cache(capacity=1)
    assert cache.capacity == CAPACITY_STEP
    for place, token in enumerate(TOKENS[:300]):
        np.testing.assert_allclose(model.forward(cache, [[token]])[0, 0], expected[place], atol=1e-4)
    assert cache.capacity == 2 * CAPACITY_STEP


def test_rows_of_different_lengths_are_as_if_each_were_alone(model: CausalModel) -> None:
    batch = model.create_cache(rows=4)
    batch.resize(3)
    for row, length in enumerate((5, 40, 17)):
        cache = model.create_cache()
        model.prefill(cache, TOKENS[:length])
        batch.copy_row(row, cache, 0, length)
    logits = model.forward(batch, [[TOKENS[5]], [TOKENS[40]], [TOKENS[17]]]).copy()
    for row, length in enumerate((5, 40, 17)):
        np.testing.assert_allclose(logits[row, 0], run_at_once(model, TOKENS[: length + 1])[-1], atol=1e-4)


def test_what_is_rewound_is_forgotten(model: CausalModel) -> None:
    cache = model.create_cache()
    model.prefill(cache, [*TOKENS[:20], 9, 9, 9])
    cache.rewind(0, 20)
    logits = model.prefill(cache, TOKENS[:40])
    assert logits is not None
    np.testing.assert_allclose(logits, run_at_once(model, TOKENS[:40])[-1], atol=1e-4)


def test_two_caches_take_turns(model: CausalModel) -> None:
    first, second = model.create_cache(), model.create_cache()
    model.prefill(first, TOKENS[:8])
    model.prefill(second, TOKENS[100:109])
    a = model.forward(first, [[TOKENS[8]]])[0, 0].copy()
    b = model.forward(second, [[TOKENS[109]]])[0, 0].copy()
    np.testing.assert_allclose(a, run_at_once(model, TOKENS[:9])[-1], atol=1e-4)
    np.testing.assert_allclose(b, run_at_once(model, TOKENS[100:110])[-1], atol=1e-4)


def test_it_runs_again_after_it_gave_its_memory_back(model: CausalModel) -> None:
    cache = model.create_cache()
    model.prefill(cache, TOKENS[:8])
    model.release()
    np.testing.assert_allclose(model.forward(cache, [[TOKENS[8]]])[0, 0], run_at_once(model, TOKENS[:9])[-1], atol=1e-4)


def test_scores_are_log_probabilities_of_the_tokens_that_came(
    model: CausalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pilotlight.generation.causal_model.MAX_LOGITS_BYTES", 30 * 320 * 4)  # chunks of 30
    logits = run_at_once(model, TOKENS[:100]).astype(np.float64)
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = logprobs[np.arange(99), TOKENS[1:100]]
    scores, none = model.score(TOKENS[:100]), model.score(TOKENS[:1])
    assert scores is not None
    assert none is not None
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert len(none) == 0


def test_a_prompt_is_left_between_two_chunks(model: CausalModel) -> None:
    answers = iter([False, True])
    cache = model.create_cache()
    assert model.prefill(cache, TOKENS, lambda: next(answers)) is None
    assert cache.lengths.tolist() == [CHUNK_TOKENS]


@pytest.mark.parametrize("length", [1, 4, 256, 257, 258, 260, 261, 512, 513, 1000])
@pytest.mark.parametrize("start", [0, 3])
def test_chunks_cover_a_prompt_and_the_last_one_is_not_too_short(start: int, length: int) -> None:
    ends = [start]
    while ends[-1] < start + length:
        ends.append(find_chunk_end(ends[-1], start + length))
    sizes = np.diff(ends)
    assert sizes.sum() == length
    assert sizes.max() <= CHUNK_TOKENS
    assert sizes[-1] >= min(MIN_PROMPT_RUN, length)


def test_a_run_that_fails_leaves_the_cache_as_it_was(model: CausalModel) -> None:
    cache = model.create_cache()
    model.prefill(cache, TOKENS[:8])
    with pytest.raises(InvalidInputError, match="The language model refused the tokens"):
        model.forward(cache, [[10**6]])
    assert cache.lengths.tolist() == [8]
    np.testing.assert_allclose(model.forward(cache, [[TOKENS[8]]])[0, 0], run_at_once(model, TOKENS[:9])[-1], atol=1e-4)
