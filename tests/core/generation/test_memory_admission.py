"""Requests are weighed against the memory that is left: refused before they are run, or bounded by it."""

from collections.abc import Generator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight.contracts.decoder import DecoderSpec
from pilotlight.errors import TooLargeError
from pilotlight.generation.key_value_cache import CAPACITY_STEP, KeyValueCache
from pilotlight.generation.language_model import LanguageModel
from pilotlight.generation.memory_admission import UNLIMITED_BYTES, WORKING_BYTES, bound_answers
from pilotlight.generation.request import ChoiceEnd, FinishReason, GenerationRequest, SamplingOptions
from tests.scripted_model import ScriptedModel

PROMPT = tuple(b"Say something, please.")
SPEC = DecoderSpec(
    family="llama",
    context_length=10_000,
    vocabulary_size=300,
    layers=4,
    kv_heads=2,
    head_size=64,
    end_tokens=(0,),
)


class Memory:
    """The memory that is left beside the caches."""

    def __init__(self, free_bytes: int = UNLIMITED_BYTES) -> None:
        self.free_bytes = free_bytes

    def count_free_bytes(self) -> int:
        return self.free_bytes


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def model(memory: Memory) -> LanguageModel:
    scripted = ScriptedModel.build(["a"] * 2000, context_length=2000)
    return scripted.open(count_free_bytes=memory.count_free_bytes)


def find_least_bytes(model: LanguageModel, prompt_tokens: int, rows: int, answer: int) -> int:
    """Find in how many bytes such a request just fits."""
    low, high = 0, 10**9
    while low < high:
        middle = (low + high) // 2
        try:
            fits = bound_answers(model.spec, prompt_tokens, rows, answer, middle) == answer
        except TooLargeError:
            fits = False
        low, high = (low, middle) if fits else (middle + 1, high)
    return low


def run(model: LanguageModel, **fields: object) -> Generator[ChoiceEnd, None, None]:
    given = {"prompt": PROMPT, "max_tokens": 1000, "sampling": SamplingOptions(seed=1), **fields}
    for event in model.generate(GenerationRequest(**given)):  # type: ignore[arg-type]  # the caller names its fields
        if isinstance(event, ChoiceEnd):
            yield event


@given(st.integers(1, 9_000), st.integers(1, 8), st.integers(1, 1_000), st.integers(0, 10**9))
def test_what_is_let_through_fits_while_it_grows(prompt: int, rows: int, limit: int, free_bytes: int) -> None:
    try:
        answer = bound_answers(SPEC, prompt, rows, limit, free_bytes)
    except TooLargeError:
        answer = min(limit, CAPACITY_STEP)
        has_failed = True
    else:
        assert min(limit, CAPACITY_STEP) <= answer <= limit
        has_failed = False
    cache_bytes = -(-(prompt + answer) // CAPACITY_STEP) * CAPACITY_STEP * rows * SPEC.cache_bytes_per_token
    prompt_bytes = prompt * SPEC.cache_bytes_per_token if rows > 1 else 0
    if has_failed:  # not without need: an eighth is one array that is there twice, and the rest is for the run
        assert free_bytes < 1.2 * (cache_bytes + prompt_bytes) + 2 * WORKING_BYTES
    else:
        assert cache_bytes + prompt_bytes <= free_bytes or prompt + answer > SPEC.context_length - CAPACITY_STEP


def test_a_request_without_memory_is_refused_with_numbers_before_its_prompt_is_run(
    model: LanguageModel, memory: Memory
) -> None:
    memory.free_bytes = find_least_bytes(model, len(PROMPT), 1, 1000)
    generation = model.generate(
        GenerationRequest(prompt=PROMPT, max_tokens=1000, choices=8, sampling=SamplingOptions(seed=1))
    )
    sentence = r"A prompt of 22 tokens and 8 answers of 256 take about \d+ MB; \d+ MB are left, enough for 0 tokens"
    with pytest.raises(TooLargeError, match=sentence):
        next(generation)
    assert generation.usage.completion_tokens == 0
    assert [end.completion_tokens for end in run(model)] == [1000]  # and the model is free


def test_greedy_choices_are_one_and_need_no_more_than_that(model: LanguageModel, memory: Memory) -> None:
    memory.free_bytes = find_least_bytes(model, len(PROMPT), 1, 1000)
    ends = list(run(model, choices=8, sampling=SamplingOptions(temperature=0.0)))
    assert [end.completion_tokens for end in ends] == [1000] * 8


@pytest.mark.parametrize("choices", [1, 3])
def test_an_answer_ends_where_the_memory_does(model: LanguageModel, memory: Memory, choices: int) -> None:
    memory.free_bytes = find_least_bytes(model, len(PROMPT), choices, CAPACITY_STEP)
    ends = list(run(model, choices=choices))
    assert {(end.reason, end.completion_tokens) for end in ends} == {
        (FinishReason.LENGTH, 2 * CAPACITY_STEP - len(PROMPT))
    }


def test_earlier_sequences_make_room(model: LanguageModel, memory: Memory) -> None:
    for beginning in b"123":
        list(run(model, prompt=(beginning, *PROMPT), max_tokens=10))
    kept = model.cached_bytes
    assert kept == 3 * CAPACITY_STEP * model.spec.cache_bytes_per_token
    memory.free_bytes = find_least_bytes(model, len(PROMPT), 1, 1000) - kept
    ends = run(model, choices=2, sampling=SamplingOptions(temperature=0.0))
    assert next(ends).completion_tokens == 1000
    assert model.cached_bytes == kept  # there is no need yet
    ends.close()
    memory.free_bytes = UNLIMITED_BYTES
    generation = model.generate(GenerationRequest(prompt=(*PROMPT, 1), max_tokens=1000))
    next(generation)
    memory.free_bytes = 0  # of which the cache now needs more
    assert len(list(generation)) > CAPACITY_STEP
    assert model.cached_bytes == KeyValueCache(model.spec, 1, len(PROMPT) + 1000).byte_count


def test_a_sequence_that_goes_on_stays_where_it_is(model: LanguageModel, memory: Memory) -> None:
    list(run(model, max_tokens=10))
    memory.free_bytes = WORKING_BYTES
    with pytest.raises(TooLargeError):
        list(run(model, prompt=(*PROMPT, *PROMPT)))
    memory.free_bytes = UNLIMITED_BYTES
    generation = model.generate(GenerationRequest(prompt=(*PROMPT, *PROMPT), max_tokens=1))
    list(generation)
    assert generation.usage.cached_tokens == len(PROMPT)


def test_a_batch_of_few_requests_needs_no_rows_for_more(model: LanguageModel, memory: Memory) -> None:
    memory.free_bytes = find_least_bytes(model, len(PROMPT), 1, 1000)
    request = GenerationRequest(prompt=PROMPT, max_tokens=1000, sampling=SamplingOptions(temperature=0.0))
    events = [event for _, event in model.generate_batch([request], rows=8)]
    assert events[-1] == ChoiceEnd(0, FinishReason.LENGTH, None, 1000)


def test_scores_are_weighed_too(model: LanguageModel, memory: Memory) -> None:
    memory.free_bytes = WORKING_BYTES
    with pytest.raises(TooLargeError, match="A prompt of 22 tokens"):
        model.score(PROMPT)
    with pytest.raises(TooLargeError, match="A prompt of 22 tokens"):
        model.score_next(PROMPT, [1])
    memory.free_bytes = find_least_bytes(model, len(PROMPT), 1, 1)
    assert len(model.score(PROMPT)) == len(PROMPT) - 1
