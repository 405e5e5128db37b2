"""One tool call, one stream and one structured answer by openai-agents; prints what came as JSON."""

import asyncio
import json
import sys

from agents import Agent, ModelSettings, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI
from pydantic import BaseModel


class City(BaseModel):
    """The structured answer."""

    name: str
    country: str


async def main() -> None:
    set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=f"{sys.argv[1]}/v1", api_key="none", _strict_response_validation=True)
    cities = []

    @function_tool
    def get_weather(city: str) -> str:
        """The weather of a city."""
        cities.append(city)
        return "rain"

    def create_agent(model: str, **options: object) -> Agent:
        settings = ModelSettings(temperature=0, tool_choice="required" if "tools" in options else None)
        return Agent(name=model, model=OpenAIResponsesModel(model, client), model_settings=settings, **options)

    caller = create_agent("caller", tools=[get_weather], tool_use_behavior="stop_on_first_tool")
    called = await Runner.run(caller, "The weather in Bern?")
    stream = Runner.run_streamed(create_agent("talker"), "Hello.")
    deltas = [
        event.data.delta
        async for event in stream.stream_events()
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
    ]
    structured = await Runner.run(create_agent("city", output_type=City), "A city?")
    answers = {"cities": cities, "tool": called.final_output, "stream": "".join(deltas)}
    sys.stdout.write(json.dumps({**answers, "structured": structured.final_output.model_dump()}))


asyncio.run(main())
