"""The engine on decoders that compute: a tiny one with drawn weights, and SmolLM2 where slow tests run.

The answer to a prompt is the same whether it is streamed, begins in the prefix cache, is one of several choices, or was
computed without a cache of keys and values. Quantized weights make an exception: their kernels for one row and for
several give other logits, so there the runs must have several rows on both sides.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pilotlight.generation.causal_model import MIN_PROMPT_RUN, CausalModel
from pilotlight.generation.language_model import LanguageModel
from pilotlight.generation.prompt_lookup import PromptLookup
from pilotlight.generation.request import GenerationRequest, SamplingOptions, TextDelta, TokenUsage
from pilotlight.generation.text_tokenizer import TextTokenizer
from pilotlight.runtime.session import open_decoder_session

if TYPE_CHECKING:
    from tests.tiny_decoders import TinyDecoder

GREEDY = SamplingOptions(temperature=0.0)
Tokens = tuple[int, ...]
OpenModel = Callable[..., LanguageModel]
PROMPT = tuple(np.random.default_rng(5).integers(3, 290, 40).tolist())
REPEATING = (*PROMPT[:9], *PROMPT[:9], *PROMPT[:5])


@pytest.fixture(params=["fp32", "int8"])
def open_model(tiny_decoder: "TinyDecoder", request: pytest.FixtureRequest) -> OpenModel:
    native = open_decoder_session(tiny_decoder.graphs[request.param])
    tokenizer = TextTokenizer(tiny_decoder.tokenizer.read_bytes())
    return lambda **options: LanguageModel(CausalModel(native, tiny_decoder.spec), tokenizer, name="tiny", **options)


def answer(model: LanguageModel, prompt: Tokens, max_tokens: int = 40, **fields: object) -> list[Tokens]:
    """The tokens of each choice, greedily drawn by default, whatever they are."""
    given: dict[str, object] = {"sampling": GREEDY, "ignore_end": True, "max_tokens": max_tokens, **fields}
    request = GenerationRequest(prompt=prompt, **given)  # type: ignore[arg-type]  # fields of it
    tokens: dict[int, list[int]] = {choice: [] for choice in range(request.choices)}
    for event in model.generate(request):
        if isinstance(event, TextDelta):
            tokens[event.choice] += event.tokens
    return [tuple(each) for each in tokens.values()]


def answer_without_cache(model: CausalModel, prompt: Tokens, count: int) -> tuple[Tokens, float]:
    """The tokens that are the likeliest ones when each is computed from all before it; the least lead of one."""
    tokens, leads = list(prompt), []
    for _ in range(count):
        logits = model.forward(model.create_cache(capacity=len(tokens)), [tokens])[0, 0]
        tokens.append(int(logits.argmax()))
        second, first = np.partition(logits, -2)[-2:]
        leads.append(float(first - second))
    return tuple(tokens[len(prompt) :]), min(leads)


def test_the_prefix_cache_changes_no_answer(open_model: OpenModel) -> None:
    with_cache, without = open_model(), open_model(prefix_cache_bytes=0)
    prompts = [PROMPT[:30], PROMPT[:30], PROMPT, (*PROMPT[:20], *PROMPT[5:20]), PROMPT[:22]]
    generations = [answer(with_cache, prompt) for prompt in prompts]
    assert generations == [answer(without, prompt) for prompt in prompts]
    assert with_cache.cached_bytes > 0 == without.cached_bytes


def test_cached_tokens_are_counted(open_model: OpenModel) -> None:
    model = open_model()

    def count(prompt: Tokens, choices: int = 1) -> TokenUsage:
        sampling = SamplingOptions(seed=1)
        request = GenerationRequest(prompt=prompt, max_tokens=5, ignore_end=True, choices=choices, sampling=sampling)
        generation = model.generate(request)
        assert list(generation)
        return generation.usage

    assert count(PROMPT[:30]) == TokenUsage(30, 5, 0)
    assert count(PROMPT, choices=2) == TokenUsage(40, 10, 30)
    assert count(PROMPT, choices=3) == TokenUsage(40, 15, 40 - MIN_PROMPT_RUN)


def test_greedy_choices_are_the_answer_alone(open_model: OpenModel) -> None:
    model = open_model()
    alone = answer(model, PROMPT)
    assert answer(model, PROMPT, choices=3) == alone * 3
    assert len(set(answer(model, PROMPT, choices=3, sampling=SamplingOptions(seed=1)))) == 3


def test_drafts_change_no_answer_where_other_runs_have_two_rows(
    open_model: OpenModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_model()
    runs: list[int] = []
    forward = CausalModel.forward

    def count(*args: object, **options: object) -> object:
        runs.append(1)
        return forward(*args, **options)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(CausalModel, "forward", count)
    with_drafts = answer(model, REPEATING, 60, prompt_lookup=True)
    runs_with_drafts = len(runs)
    monkeypatch.setattr(PromptLookup, "find_draft", lambda *_: [])
    assert answer(model, REPEATING, 60, prompt_lookup=True) == with_drafts
    assert runs_with_drafts < len(runs) - runs_with_drafts
    assert answer(model, REPEATING, 60, prompt_lookup=True, sampling=SamplingOptions(seed=4)) != with_drafts


def test_drafts_draw_what_a_seed_draws_without_them(open_model: OpenModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_model()
    sampling = SamplingOptions(seed=4, temperature=0.4, presence_penalty=0.2, repetition_penalty=1.1)
    drafted = answer(model, REPEATING, 60, prompt_lookup=True, sampling=sampling)
    monkeypatch.setattr(PromptLookup, "find_draft", lambda *_: [])
    assert answer(model, REPEATING, 60, prompt_lookup=True, sampling=sampling) == drafted


def test_drafts_leave_a_consistent_prefix_cache(open_model: OpenModel) -> None:
    model, fresh = open_model(), open_model(prefix_cache_bytes=0)
    said = answer(model, REPEATING, 30, prompt_lookup=True)[0]
    prompt = (*REPEATING, *said, *PROMPT[:6])
    expected = answer(fresh, prompt, 20, top_logprobs=0)
    assert answer(model, prompt, 20) == expected


@pytest.mark.parametrize("choices", [1, 3])
@pytest.mark.parametrize("prompt_lookup", [False, True])
def test_answers_that_were_left_change_none_after_them(
    open_model: OpenModel, choices: int, prompt_lookup: bool
) -> None:
    model, fresh = open_model(), open_model(prefix_cache_bytes=0)
    expected = [answer(fresh, prompt) for prompt in (REPEATING, PROMPT)]
    for left_after in (0, 1, 2, 5, 9):
        request = GenerationRequest(
            prompt=REPEATING,
            max_tokens=50,
            sampling=SamplingOptions(seed=left_after),
            choices=choices,
            ignore_end=True,
            prompt_lookup=prompt_lookup,
        )
        with model.generate(request) as generation:
            for _ in range(left_after):
                next(generation)
        assert [answer(model, prompt) for prompt in (REPEATING, PROMPT)] == expected


def test_an_answer_up_to_the_end_of_the_context_has_all_its_tokens(open_model: OpenModel) -> None:
    model = open_model()
    prompt = (PROMPT * 20)[: model.spec.context_length - 7]
    for lookup in (False, True):
        assert len(answer(model, prompt, 500, prompt_lookup=lookup)[0]) == 7


def test_it_is_what_is_computed_without_a_cache(tiny_decoder: "TinyDecoder") -> None:
    native = open_decoder_session(tiny_decoder.graphs["fp32"])
    causal_model = CausalModel(native, tiny_decoder.spec)
    expected, lead = answer_without_cache(causal_model, PROMPT, 40)
    assert lead > 1e-4
    model = LanguageModel(causal_model, TextTokenizer(tiny_decoder.tokenizer.read_bytes()), name="tiny")
    assert answer(model, PROMPT) == [expected]


def test_batches_answer_as_requests_do_one_by_one(tiny_decoder: "TinyDecoder") -> None:
    native = open_decoder_session(tiny_decoder.graphs["fp32"])
    tokenizer = TextTokenizer(tiny_decoder.tokenizer.read_bytes())
    model = LanguageModel(CausalModel(native, tiny_decoder.spec), tokenizer, name="tiny")
    prompts = [PROMPT[:length] for length in (40, 3, 17, 1, 29, 8)]
    requests = [
        GenerationRequest(prompt=prompt, max_tokens=10 + 5 * place, sampling=GREEDY, ignore_end=True)
        for place, prompt in enumerate(prompts)
    ]
    tokens: list[list[int]] = [[] for _ in requests]
    for index, event in model.generate_batch(requests, rows=3):
        tokens[index] += event.tokens if isinstance(event, TextDelta) else ()
    alone = [answer(model, request.prompt, request.max_tokens)[0] for request in requests]
    assert [tuple(each) for each in tokens] == alone
