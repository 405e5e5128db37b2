"""A decoder with drawn weights, which by itself says nothing sensible, held to formats: each answer is valid or cut."""

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from pilotlight.generation.causal_model import CausalModel
from pilotlight.generation.language_model import LanguageModel
from pilotlight.generation.request import ChoiceEnd, FinishReason, GenerationRequest, SamplingOptions, TextDelta
from pilotlight.generation.text_tokenizer import TextTokenizer
from pilotlight.runtime.session import open_decoder_session

if TYPE_CHECKING:
    from tests.tiny_decoders import TinyDecoder

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "é", "😀"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def model(tiny_decoder: "TinyDecoder") -> LanguageModel:
    native = open_decoder_session(tiny_decoder.graphs["fp32"])
    tokenizer = TextTokenizer(tiny_decoder.tokenizer.read_bytes())
    return LanguageModel(CausalModel(native, tiny_decoder.spec), tokenizer, name="tiny")


def check_record(record: Any) -> None:  # noqa: ANN401 - JSON
    assert set(record) == {"name", "age", "tags"}
    assert len(record["name"]) <= 12
    assert isinstance(record["age"], int)
    assert 0 <= record["age"] <= 150
    assert set(record["tags"]) <= {"a", "é", "😀"}
    assert len(record["tags"]) <= 3


def run(model: LanguageModel, request: GenerationRequest) -> list[tuple[str, ChoiceEnd]]:
    """The text and end of each choice."""
    texts, ends = dict.fromkeys(range(request.choices), ""), {}
    for event in model.generate(request):
        if isinstance(event, TextDelta):
            texts[event.choice] += event.text
        else:
            ends[event.choice] = event
    return [(texts[choice], ends[choice]) for choice in texts]


@pytest.mark.parametrize("prompt_lookup", [False, True])
@pytest.mark.parametrize("choices", [1, 3])
def test_an_answer_fits_its_schema_or_is_cut(model: LanguageModel, choices: int, prompt_lookup: bool) -> None:
    constraint = model.constraint_compiler.compile_json_schema(SCHEMA)
    reasons = []
    for seed in range(12):
        request = GenerationRequest(
            prompt=tuple(model.tokenizer.encode('{"name": "text", "age": 12}')),
            max_tokens=150,
            sampling=SamplingOptions(seed=seed),
            choices=choices,
            constraint=constraint,
            prompt_lookup=prompt_lookup,
        )
        for text, end in run(model, request):
            reasons.append(end.reason)
            if end.reason == FinishReason.STOP:
                check_record(json.loads(text))
            else:
                assert end.completion_tokens == 150
    assert FinishReason.STOP in reasons


def test_a_greedy_answer_matches_its_expression_with_penalties_and_bias(model: LanguageModel) -> None:
    constraint = model.constraint_compiler.compile_regex(r"[ab]{3}-[0-9]{2,4}")
    sampling = SamplingOptions(
        temperature=0.0, presence_penalty=1.0, repetition_penalty=1.3, logit_bias={model.spec.end_tokens[0]: 100.0}
    )
    request = GenerationRequest(
        prompt=(5, 6, 7, 8, 9), max_tokens=50, min_tokens=30, sampling=sampling, constraint=constraint, top_logprobs=3
    )
    [(text, end)] = run(model, request)
    assert re.fullmatch(r"[ab]{3}-[0-9]{2,4}", text)
    assert end.reason == FinishReason.STOP
