"""One tool call, one stream and one structured answer by langchain, by responses or by chats; prints them as JSON."""

import json
import sys

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


class City(BaseModel):
    """The structured answer."""

    name: str
    country: str


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return "rain"


def open_chat(model: str) -> ChatOpenAI:
    uses_responses = sys.argv[2] == "responses"
    return ChatOpenAI(
        model=model, base_url=f"{sys.argv[1]}/v1", api_key="none", temperature=0, use_responses_api=uses_responses
    )


call = (
    open_chat("caller").bind_tools([get_weather], tool_choice="required").invoke("The weather in Bern?").tool_calls[0]
)
pieces = [chunk.text for chunk in open_chat("talker").stream("Hello.")]
structured = open_chat("city").with_structured_output(City).invoke("A city?")
answers = {"cities": [call["args"]["city"]], "tool": get_weather.invoke(call["args"]), "stream": "".join(pieces)}
sys.stdout.write(json.dumps({**answers, "structured": structured.model_dump()}))
