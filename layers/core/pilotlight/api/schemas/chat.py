"""Bodies of /v1/chat/completions, /v1/completions, /v1/models, /tokenize and /detokenize.

Source: OpenAI's specification 2.3.0 for the fields of its own, vLLM's protocol.py for what its users send beside them
(`extra_body` of openai's client). Null is as if a field were absent, and unknown fields are ignored.
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

MAX_CHOICES = 8  # of one request: each has a key-value cache of its own
MAX_STOPS = 16  # stop strings; OpenAI takes 4
MAX_TOP_LOGPROBS = 20
MAX_TOOLS = 128
TokenId = Annotated[int, Meta(ge=0)]
StopText = Annotated[str, Meta(min_length=1, max_length=1_000)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
LogitBias = Annotated[float, Meta(ge=-100, le=100)]
JsonObject = dict[str, Any]
ChatFinishReason = Literal["stop", "length", "tool_calls"]


class StreamOptions(Struct, frozen=True):
    """What a stream has beside its text."""

    include_usage: bool | None = None


class StructuredOutputs(Struct, frozen=True):
    """What the text must be, in vLLM's words: one of these."""

    json: JsonObject | str | bool | None = None  # a JSON schema
    regex: str | None = None
    choice: Annotated[list[str], Meta(min_length=1)] | None = None
    grammar: str | None = None
    json_object: bool | None = None


class JsonSchemaFormat(Struct, frozen=True):
    """A JSON schema with its name, as OpenAI's clients send it."""

    name: str | None = None
    schema: JsonObject | bool | None = None
    strict: bool | None = None
    description: str | None = None


class ResponseFormat(Struct, frozen=True):
    """The form of the text: text, json_object or json_schema."""

    type: str
    json_schema: JsonSchemaFormat | None = None


class GenerationFields(Struct, frozen=True, kw_only=True):
    """The fields that chats and completions have in common."""

    model: Annotated[str, Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None
    stop: StopText | Annotated[list[StopText], Meta(max_length=MAX_STOPS)] | None = None
    seed: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logit_bias: dict[int, LogitBias] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    user: str | None = None
    # vLLM's and llama.cpp's.
    top_k: Annotated[int, Meta(ge=-1)] | None = None  # 0 and -1: all tokens
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    stop_token_ids: Annotated[list[TokenId], Meta(max_length=1_000)] | None = None
    min_tokens: Annotated[int, Meta(ge=0)] | None = None
    ignore_eos: bool | None = None
    include_stop_str_in_output: bool | None = None
    echo: bool | None = None
    return_token_ids: bool | None = None
    prompt_lookup: bool | None = None  # ours: drafts from the prompt, faster where the answer repeats it
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: JsonObject | str | bool | None = None  # older names of structured_outputs
    guided_regex: str | None = None
    guided_choice: Annotated[list[str], Meta(min_length=1)] | None = None
    guided_grammar: str | None = None


class ContentPart(Struct, frozen=True):
    """A part of a message; only those of text are taken."""

    type: str
    text: str | None = None
    refusal: str | None = None


class FunctionCall(Struct, frozen=True):
    """The function that a model has called, with its arguments as the text of a JSON object."""

    name: str
    arguments: str | JsonObject | None = None


class ChatToolCall(Struct, frozen=True):
    """A call of a tool in an earlier answer."""

    function: FunctionCall
    id: str | None = None
    type: str | None = None


class ChatMessage(Struct, frozen=True):
    """A message of a chat."""

    role: str
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[ChatToolCall] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None


class FunctionDefinition(Struct, frozen=True, omit_defaults=True):
    """A function that the model may call, with its parameters as a JSON schema."""

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    description: str | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class ToolDefinition(Struct, frozen=True):
    """A tool; only functions are taken."""

    type: str
    function: FunctionDefinition | None = None


class NamedFunction(Struct, frozen=True):
    """A function by its name."""

    name: str


class NamedToolChoice(Struct, frozen=True):
    """The choice of one tool, which the model must call."""

    type: str | None = None  # function, if it is absent
    function: NamedFunction | None = None


class ChatCompletionBody(GenerationFields, frozen=True, kw_only=True):
    """A request to continue a chat."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    tools: Annotated[list[ToolDefinition], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: str | NamedToolChoice | None = None
    parallel_tool_calls: bool | None = None
    metadata: dict[str, Any] | None = None
    chat_template_kwargs: JsonObject | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    reasoning_effort: str | None = None  # for templates that know it
    # Refused if they ask for anything.
    modalities: list[str] | None = None
    audio: Any = None
    web_search_options: Any = None
    functions: Any = None
    function_call: Any = None


class CompletionBody(GenerationFields, frozen=True, kw_only=True):
    """A request to continue texts."""

    prompt: str | list[str | int | list[TokenId]]
    max_tokens: Annotated[int, Meta(ge=0)] | None = None  # 0 with an echo: only the prompt's probabilities
    logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    best_of: Annotated[int, Meta(ge=1)] | None = None
    suffix: str | None = None
    add_special_tokens: bool | None = None


class PromptTokensDetails(Struct, frozen=True):
    """What is known of the tokens of a prompt: how many were computed for an earlier request."""

    cached_tokens: int = 0


class CompletionTokensDetails(Struct, frozen=True):
    """What is known of the tokens of an answer."""

    reasoning_tokens: int = 0


class Usage(Struct, frozen=True):
    """The tokens of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails = PromptTokensDetails()
    completion_tokens_details: CompletionTokensDetails = CompletionTokensDetails()


class TokenAlternative(Struct, frozen=True):
    """A likely token: its text, the natural logarithm of its probability, and its true bytes."""

    token: str
    logprob: float
    bytes: list[int]


class ChatTokenLogprob(Struct, frozen=True):
    """A token of an answer, with the likeliest in its place."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TokenAlternative]


class ChatLogprobs(Struct, frozen=True):
    """The tokens of an answer with their probabilities."""

    content: list[ChatTokenLogprob] | None
    refusal: None = None


class AnsweredFunction(Struct, frozen=True):
    """A called function, with its arguments as the text of a JSON object."""

    name: str
    arguments: str


class AnsweredToolCall(Struct, frozen=True):
    """A call of a tool in an answer."""

    id: str
    function: AnsweredFunction
    type: Literal["function"] = "function"


class AnswerMessage(Struct, frozen=True, kw_only=True):
    """The message of an answer."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    tool_calls: list[AnsweredToolCall] | UnsetType = UNSET


class ChatChoice(Struct, frozen=True, kw_only=True):
    """One of the answers."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: ChatFinishReason
    stop_reason: str | int | None = None  # vLLM's: the stop string or token that ended it
    token_ids: list[int] | UnsetType = UNSET  # if they were asked for


class ChatCompletion(Struct, frozen=True, kw_only=True):
    """A chat's answers."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    service_tier: Literal["default"] = "default"
    system_fingerprint: str
    prompt_token_ids: list[int] | UnsetType = UNSET


class FunctionDelta(Struct, frozen=True):
    """More of a called function: first its name, then its arguments piece by piece."""

    arguments: str
    name: str | UnsetType = UNSET


class ChatToolCallDelta(Struct, frozen=True):
    """More of a call: its id, type and name in the first piece only."""

    index: int
    function: FunctionDelta
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET


class ChatDelta(Struct, frozen=True):
    """What a chunk adds to the message."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    tool_calls: list[ChatToolCallDelta] | UnsetType = UNSET


class ChunkChoice(Struct, frozen=True, kw_only=True):
    """What a chunk adds to a choice."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: ChatFinishReason | None = None
    stop_reason: str | int | UnsetType | None = UNSET  # at the end
    token_ids: list[int] | UnsetType = UNSET  # if they were asked for


class ChatChunk(Struct, frozen=True, kw_only=True):
    """A frame of a streamed chat; if usage is asked for, it is null in all frames but the last."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChunkChoice]
    usage: Usage | UnsetType | None = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET


class CompletionLogprobs(Struct, frozen=True):
    """The tokens of a text with their probabilities, in the form of OpenAI's first API."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]  # characters from the beginning of the text


class CompletionChoice(Struct, frozen=True, kw_only=True):
    """One of the texts, or more of it in a frame of a stream."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None
    stop_reason: str | int | None = None
    token_ids: list[int] | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET


class Completion(Struct, frozen=True, kw_only=True):
    """The continuation of texts, whole or a frame of a stream."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage | UnsetType | None = UNSET


class LanguageModelObject(Struct, frozen=True, kw_only=True):
    """A model that OpenAI's routes answer for; the lengths are tokens, and null for models without a fixed limit."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    task: str
    version: int
    max_model_len: int | None = None
    context_length: int | None = None
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None


class LanguageModelList(Struct, frozen=True):
    """The models that OpenAI's routes answer for."""

    data: list[LanguageModelObject]
    object: Literal["list"] = "list"


class TokenizeBody(Struct, frozen=True, kw_only=True):
    """A text or a chat to be split into tokens, in vLLM's form."""

    model: Annotated[str, Meta(min_length=1)]
    prompt: str | None = None
    messages: Annotated[list[ChatMessage], Meta(min_length=1)] | None = None
    add_special_tokens: bool | None = None  # by default, before prompts alone: templates write their own
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: JsonObject | None = None
    tools: list[ToolDefinition] | None = None
    return_token_strs: bool | None = None


class TokenizeResult(Struct, frozen=True):
    """The tokens of a text."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None  # if they were asked for


class DetokenizeBody(Struct, frozen=True, kw_only=True):
    """Tokens to be joined to a text, in vLLM's form."""

    model: Annotated[str, Meta(min_length=1)]
    tokens: list[TokenId]


class DetokenizeResult(Struct, frozen=True):
    """The text of tokens."""

    prompt: str
