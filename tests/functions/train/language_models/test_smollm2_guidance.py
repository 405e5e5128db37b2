"""The real SmolLM2 held to schemas and calls of tools, at temperature 1."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from functions.train.language_models.checkpoint_source import read_decoder_checkpoint
from functions.train.language_models.decoder_graph import write_decoder_graph
from functions.train.language_models.version_files import build_spec
from pilotlight.generation.causal_model import CausalModel
from pilotlight.generation.chat_template import ChatTemplate
from pilotlight.generation.language_model import LanguageModel
from pilotlight.generation.request import (
    ChoiceEnd,
    ConstraintFactory,
    FinishReason,
    GenerationRequest,
    SamplingOptions,
    TextDelta,
)
from pilotlight.generation.text_tokenizer import TextTokenizer
from pilotlight.generation.tool_calls import prepare_tool_use
from pilotlight.generation.tools import Tool, ToolChoice
from pilotlight.runtime.session import open_session

SCHEMAS: list[dict[str, Any]] = [
    {"properties": {"city": {"type": "string", "maxLength": 20}, "people": {"type": "integer"}}},
    {"properties": {"colours": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "maxItems": 3}}},
    {"properties": {"person": {"$ref": "#/$defs/person"}},
     "$defs": {"person": {"type": "object", "properties": {"name": {"type": "string", "pattern": "^[A-Z][a-z]+$"}},
                          "required": ["name"], "additionalProperties": False}}},
    {"properties": {"day": {"type": "string", "format": "date"}, "done": {"type": ["boolean", "null"]}}},
]  # fmt: skip
WEATHER = Tool(
    "get_weather",
    "Look up the weather of a city",
    {"type": "object", "properties": {"city": {"type": "string", "maxLength": 30}}, "required": ["city"]},
)


@pytest.fixture(scope="module")
def model(smollm2_file: Path, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    checkpoint = read_decoder_checkpoint(smollm2_file)
    assert checkpoint.chat_template is not None
    spec = build_spec(checkpoint, 1024)
    files = write_decoder_graph(checkpoint.config, checkpoint.weights, "int8", tmp_path_factory.mktemp("int8"), 1024)
    return LanguageModel(
        CausalModel(open_session(str(files.graph), 4096).get_native(), spec),
        TextTokenizer(checkpoint.tokenizer_json),
        name="smollm2",
        chat_template=ChatTemplate(checkpoint.chat_template, spec.special_tokens),
    )


def answer(
    model: LanguageModel, prompt: str, constraint: ConstraintFactory | None, seed: int
) -> tuple[str, FinishReason]:
    request = GenerationRequest(
        prompt=tuple(model.tokenizer.encode(prompt)),
        max_tokens=80,
        sampling=SamplingOptions(temperature=1.0, seed=seed),
        constraint=constraint,
    )
    events = list(model.generate(request))
    (end,) = (event for event in events if isinstance(event, ChoiceEnd))
    return "".join(event.text for event in events if isinstance(event, TextDelta)), end.reason


def close(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", **schema, "required": list(schema["properties"]), "additionalProperties": False}


@pytest.mark.slow
def test_200_answers_in_json_are_valid_or_end_at_the_length(model: LanguageModel) -> None:
    assert model.chat_template is not None
    ended = 0
    for seed in range(200):
        schema = close(SCHEMAS[seed % len(SCHEMAS)])
        prompt = model.chat_template.render([{"role": "user", "content": "Answer in JSON: tell me of a town."}])
        text, reason = answer(model, prompt, model.constraint_compiler.compile_json_schema(schema), seed)
        if reason is FinishReason.STOP:
            Draft202012Validator(schema).validate(json.loads(text))
            ended += 1
    assert ended > 150


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["required", "auto"])
def test_calls_of_tools_are_valid(model: LanguageModel, mode: Any) -> None:  # noqa: ANN401 - one of the modes
    assert model.chat_template is not None
    plan = prepare_tool_use(model.chat_template, [WEATHER], ToolChoice(mode), compiler=model.constraint_compiler)
    messages = plan.prepare_messages([{"role": "user", "content": "What is the weather in Paris?"}])
    prompt = model.chat_template.render(messages, tools=plan.template_tools)
    for seed in range(10):
        text, reason = answer(model, prompt, plan.constraint, seed)
        stream = plan.create_stream()
        stream.read(text)
        stream.finish()
        assert "<tool_call>" not in stream.content
        assert mode == "auto" or stream.content == ""
        if reason is FinishReason.STOP:
            assert len(stream.tool_calls) == 1 if mode == "required" else len(stream.tool_calls) <= 1
            for call in stream.tool_calls:
                Draft202012Validator(WEATHER.parameters).validate(json.loads(call.arguments))
