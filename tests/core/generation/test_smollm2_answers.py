"""The engine on SmolLM2-135M-Instruct, a real model: its greedy answers are the same on all ways to them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pilotlight.contracts.decoder import DecoderSpec
from pilotlight.contracts.manifest import Precision
from pilotlight.generation.causal_model import CausalModel
from pilotlight.generation.chat_template import ChatTemplate
from pilotlight.generation.language_model import LanguageModel
from pilotlight.generation.prompt_lookup import PromptLookup
from pilotlight.generation.request import GenerationRequest, SamplingOptions, TextDelta
from pilotlight.generation.text_tokenizer import TextTokenizer
from pilotlight.runtime.session import open_decoder_session

pytestmark = pytest.mark.slow
GREEDY = SamplingOptions(temperature=0.0)
QUESTIONS = ("What is the capital of France?", "Write a short poem about the sea.", "Count from one to ten.")
COPY = (
    "Repeat this text: The quick brown fox jumps over the lazy dog. The dog was not amused, and the fox ran away. "
    "Repeat: The quick brown fox"
)
# Logits of a run of one row and of one of several lie 0.2 apart on average in int8, so that they may order two tokens
# differently whose logits are nearly the same.
GREATEST_LEAD = {"fp32": 0.01, "int8": 0.5}
LEAST_AGREEMENT = {"fp32": 1.0, "int8": 0.8}
Open = Callable[[Precision], tuple[CausalModel, TextTokenizer, ChatTemplate]]


@pytest.fixture(scope="module")
def open_parts(smollm2_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Open:
    pytest.importorskip("onnx")
    from functions.train.language_models.checkpoint_source import read_decoder_checkpoint
    from functions.train.language_models.decoder_graph import write_decoder_graph

    checkpoint = read_decoder_checkpoint(smollm2_file)
    folder = tmp_path_factory.mktemp("smollm2")
    config = checkpoint.config
    spec = DecoderSpec(
        family=config.family,
        context_length=config.context_length,
        vocabulary_size=config.vocabulary_size,
        layers=config.layers,
        kv_heads=config.kv_heads,
        head_size=config.head_size,
        end_tokens=checkpoint.end_tokens,
    )
    assert checkpoint.chat_template is not None
    parts = (
        TextTokenizer(checkpoint.tokenizer_json),
        ChatTemplate(checkpoint.chat_template, checkpoint.special_tokens),
    )

    def open_parts(precision: Precision) -> tuple[CausalModel, TextTokenizer, ChatTemplate]:
        files = write_decoder_graph(config, checkpoint.weights, precision, folder)
        return CausalModel(open_decoder_session(files.graph, 3538), spec), *parts

    return open_parts


@pytest.fixture(scope="module", params=["fp32", "int8"])
def precision(request: pytest.FixtureRequest) -> Precision:
    value: Precision = request.param
    return value


@pytest.fixture(scope="module")
def parts(open_parts: Open, precision: Precision) -> tuple[CausalModel, TextTokenizer, ChatTemplate]:
    return open_parts(precision)


@pytest.fixture
def open_model(parts: tuple[CausalModel, TextTokenizer, ChatTemplate]) -> Callable[[int], LanguageModel]:
    model, tokenizer, template = parts
    return lambda cache_bytes: LanguageModel(
        model, tokenizer, name="chat", chat_template=template, prefix_cache_bytes=cache_bytes
    )


def ask(model: LanguageModel, *turns: str, **fields: object) -> list[str]:
    """The texts of all choices in a conversation, of which every second turn is the model's."""
    assert model.chat_template is not None
    messages = [{"role": ("user", "assistant")[place % 2], "content": turn} for place, turn in enumerate(turns)]
    prompt = tuple(model.tokenizer.encode(model.chat_template.render(messages)))
    given: dict[str, object] = {"max_tokens": 40, "sampling": GREEDY, **fields}
    request = GenerationRequest(prompt=prompt, **given)  # type: ignore[arg-type]  # fields of it
    texts = dict.fromkeys(range(request.choices), "")
    for event in model.generate(request):
        if isinstance(event, TextDelta):
            texts[event.choice] += event.text
    return list(texts.values())


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_greedy_answer_is_the_same_with_prefix_cache_and_by_choices(
    open_model: Callable[[int], LanguageModel], question: str
) -> None:
    without, cached = open_model(0), open_model(10**9)
    answer = ask(without, question)
    assert [ask(cached, question) for _ in range(2)] == [answer] * 2
    assert ask(cached, question, choices=3) == answer * 3
    assert answer[0].strip()


def test_a_second_turn_starts_where_the_first_ended(open_model: Callable[[int], LanguageModel]) -> None:
    model = open_model(10**9)
    assert model.chat_template is not None
    first = ask(model, QUESTIONS[0])[0]
    messages = [
        {"role": "user", "content": QUESTIONS[0]},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "Why?"},
    ]
    prompt = tuple(model.tokenizer.encode(model.chat_template.render(messages)))
    generation = model.generate(GenerationRequest(prompt=prompt, max_tokens=1))
    assert list(generation)
    assert generation.usage.cached_tokens > len(prompt) - 20


def test_an_answer_is_what_the_graph_says_without_a_cache(
    parts: tuple[CausalModel, TextTokenizer, ChatTemplate],
    open_model: Callable[[int], LanguageModel],
    precision: Precision,
) -> None:
    causal_model, tokenizer, template = parts
    model = open_model(0)
    for question in QUESTIONS:
        prompt = tokenizer.encode(template.render([{"role": "user", "content": question}]))
        request = GenerationRequest(prompt=tuple(prompt), max_tokens=40, sampling=GREEDY)
        said = [token for event in model.generate(request) if isinstance(event, TextDelta) for token in event.tokens]
        run = [*prompt, *said][:-1]
        logits = causal_model.forward(causal_model.create_cache(), [run], len(said))[0]
        leads = logits.max(axis=1) - logits[np.arange(len(said)), said]
        assert leads.max() < GREATEST_LEAD[precision]
        assert (leads == 0).mean() >= LEAST_AGREEMENT[precision]


def test_drafts_of_the_prompt_change_no_answer_of_two_rows(
    open_model: Callable[[int], LanguageModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_model(0)
    drafted = ask(model, COPY, prompt_lookup=True)
    monkeypatch.setattr(PromptLookup, "find_draft", lambda *_: [])
    assert ask(model, COPY, prompt_lookup=True) == drafted
