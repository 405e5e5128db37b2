"""One tool call, one stream and one structured answer by pydantic-ai, by responses or by chats; prints them as JSON."""

import asyncio
import json
import sys
from contextlib import suppress

from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, UsageLimitExceeded, UsageLimits
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider


class City(BaseModel):
    """The structured answer."""

    name: str
    country: str


async def main() -> None:
    client = AsyncOpenAI(base_url=f"{sys.argv[1]}/v1", api_key="none", _strict_response_validation=True)
    model_class = {"responses": OpenAIResponsesModel, "chat": OpenAIChatModel}[sys.argv[2]]

    def create_agent(model: str, **options: object) -> Agent:
        served = model_class(model, provider=OpenAIProvider(openai_client=client))
        return Agent(served, model_settings={"temperature": 0}, **options)

    cities = []
    caller = create_agent("caller")

    @caller.tool_plain
    def get_weather(city: str) -> str:
        """The weather of a city."""
        cities.append(city)
        return "rain"

    with suppress(UsageLimitExceeded):  # a script calls again and again
        await caller.run("The weather in Bern?", usage_limits=UsageLimits(request_limit=1))
    async with create_agent("talker").run_stream("Hello.") as stream:
        deltas = [delta async for delta in stream.stream_text(delta=True)]
    structured = await create_agent("city", output_type=NativeOutput(City)).run("A city?")
    final = await create_agent("final", output_type=City).run("A city?")  # by a tool that must be called
    answers = {
        "cities": cities,
        "tool": "rain",
        "stream": "".join(deltas),
        "structured": structured.output.model_dump(),
    }
    sys.stdout.write(json.dumps({**answers, "final": final.output.model_dump()}))


asyncio.run(main())
