"""Bodies of /v1/responses: the part of OpenAI's Responses API that needs no memory of earlier responses.

Null is as if a field were absent, and unknown fields are ignored. What a response is made of has every field that
openai's client checks.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from pilotlight.api.schemas.chat import MAX_TOOLS, MAX_TOP_LOGPROBS, GenerationFields, JsonObject

ItemStatus = Literal["in_progress", "completed", "incomplete"]
ResponseStatus = Literal["in_progress", "completed", "incomplete", "failed"]


class InputPart(Struct, frozen=True):
    """A part of an item's content; only texts are taken."""

    type: str
    text: str | None = None
    refusal: str | None = None


class ResponseInputItem(Struct, frozen=True):
    """An item of the input: a message, a call of a function in an earlier answer, or that function's answer."""

    type: str | None = None  # message, if it has a role
    role: str | None = None
    content: str | list[InputPart] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[InputPart] | None = None


class FunctionToolBody(Struct, frozen=True):
    """A function that the model may call; tools of other types are refused."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class ToolReference(Struct, frozen=True):
    """A tool by its type and name."""

    type: str
    name: str | None = None


class ResponseToolChoice(Struct, frozen=True, omit_defaults=True):
    """A function that must be called, or the tools that may be."""

    type: str
    name: str | None = None
    mode: Literal["auto", "required"] | None = None
    tools: list[ToolReference] | None = None


class TextFormat(Struct, frozen=True, omit_defaults=True):
    """The form of the text: text, json_object or json_schema."""

    type: str
    name: str | None = None
    schema: JsonObject | None = None
    strict: bool | None = None
    description: str | None = None


class ResponseTextOptions(Struct, frozen=True):
    """What the text is to be."""

    format: TextFormat | None = None


class ResponsesBody(GenerationFields, frozen=True, kw_only=True):
    """A request for a response; sampling has the fields of chats, vLLM's among them."""

    input: str | list[ResponseInputItem]
    instructions: str | None = None
    tools: Annotated[list[FunctionToolBody], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: str | ResponseToolChoice | None = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    text: ResponseTextOptions | None = None
    metadata: dict[str, str] | None = None
    include: list[str] | None = None
    chat_template_kwargs: JsonObject | None = None
    # Refused if they ask for anything.
    previous_response_id: str | None = None
    conversation: Any = None
    background: bool | None = None
    truncation: str | None = None
    prompt: Any = None


class TopLogprob(Struct, frozen=True):
    """A likely token."""

    token: str
    bytes: list[int]
    logprob: float


class OutputLogprob(Struct, frozen=True):
    """A token of the text, with the likeliest in its place."""

    token: str
    bytes: list[int]
    logprob: float
    top_logprobs: list[TopLogprob]


class OutputText(Struct, frozen=True, kw_only=True):
    """The text of a message."""

    type: Literal["output_text"] = "output_text"
    text: str = ""
    annotations: list[Any] = []
    logprobs: list[OutputLogprob] = []


class OutputMessage(Struct, frozen=True, kw_only=True, tag_field="type", tag="message"):
    """A message of the answer."""

    id: str
    role: Literal["assistant"] = "assistant"
    status: ItemStatus
    content: list[OutputText]


class OutputFunctionCall(Struct, frozen=True, kw_only=True, tag_field="type", tag="function_call"):
    """A call of a function, with its arguments as the text of a JSON object."""

    id: str
    status: ItemStatus
    call_id: str
    name: str
    arguments: str


OutputItem = OutputMessage | OutputFunctionCall


class InputTokensDetails(Struct, frozen=True):
    """How many tokens of the input were computed for an earlier request."""

    cached_tokens: int
    cache_write_tokens: int = 0


class OutputTokensDetails(Struct, frozen=True):
    """How many tokens of the output are none of the answer's."""

    reasoning_tokens: int = 0


class ResponseUsage(Struct, frozen=True):
    """The tokens of a response."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ResponseError(Struct, frozen=True):
    """Why a response failed."""

    code: str
    message: str


class IncompleteDetails(Struct, frozen=True):
    """Why a response is not complete."""

    reason: Literal["max_output_tokens"] = "max_output_tokens"


class ResponseObject(Struct, frozen=True, kw_only=True):
    """A response."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: ResponseStatus
    background: bool = False
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    metadata: dict[str, str] = {}
    model: str
    output: list[OutputItem] = []
    parallel_tool_calls: bool = True
    previous_response_id: None = None
    service_tier: Literal["default"] = "default"
    store: bool = False
    temperature: float = 1.0
    text: ResponseTextOptions = ResponseTextOptions(TextFormat("text"))
    tool_choice: str | ResponseToolChoice = "auto"
    tools: list[FunctionToolBody] = []
    top_logprobs: int = 0
    top_p: float = 1.0
    truncation: Literal["disabled"] = "disabled"
    usage: ResponseUsage | None = None
    user: str | None = None
