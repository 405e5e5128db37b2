"""One tool call with its result, one stream and one structured answer by anthropic; prints them as JSON."""

import json
import sys

import anthropic

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "country": {"type": "string"}},
    "required": ["name", "country"],
    "additionalProperties": False,
}
WEATHER = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CLIENT = anthropic.Anthropic(base_url=sys.argv[1], api_key="none", _strict_response_validation=True)


def ask(model: str, *messages: object, **fields: object) -> anthropic.types.Message:
    return CLIENT.messages.create(model=model, max_tokens=200, messages=messages, **fields)


question = {"role": "user", "content": "The weather in Bern?"}
called = ask("caller", question, tools=[WEATHER], tool_choice={"type": "any"})
(call,) = called.content
result = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
turns = (question, {"role": "assistant", "content": called.content}, {"role": "user", "content": [result]})
after = ask("talker", *turns, tools=[WEATHER], tool_choice={"type": "none"})
with CLIENT.messages.stream(model="talker", max_tokens=200, messages=[question], system="Be kind.") as stream:
    text = "".join(stream.text_stream)
structured = ask("city", question, output_config={"format": {"type": "json_schema", "schema": SCHEMA}})
counted = CLIENT.messages.count_tokens(model="talker", messages=[question]).input_tokens
assert after.content[0].text == text
assert counted > 0
answers = {"cities": [call.input["city"]], "tool": "rain", "stream": text}
sys.stdout.write(json.dumps({**answers, "structured": json.loads(structured.content[0].text)}))
