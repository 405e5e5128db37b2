"""Bodies of Triton's generate extension: /v2/models/{model}/generate and generate_stream.

Source: Triton's protocol/extension_generate.md, and the parameters of its vLLM backend.
"""

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from pilotlight.api.schemas.chat import MAX_STOPS, Penalty, StopText

MaxTokens = Annotated[int, Meta(ge=1)]


class GenerateParameters(Struct, frozen=True, kw_only=True):
    """How the text is continued."""

    max_tokens: MaxTokens | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1)] | None = None  # 0 and -1: all tokens
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    seed: int | None = None
    random_seed: int | None = None  # TensorRT-LLM's name
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    stop: StopText | Annotated[list[StopText], Meta(max_length=MAX_STOPS)] | None = None
    stop_words: StopText | Annotated[list[StopText], Meta(max_length=MAX_STOPS)] | None = None  # TensorRT-LLM's name
    exclude_input_in_output: bool | None = None  # false: the input stands before the output
    return_finish_reason: bool | None = None


class GenerateBody(GenerateParameters, frozen=True, kw_only=True):
    """A text to be continued; parameters stand in `parameters`, or beside the text as TensorRT-LLM's clients do."""

    text_input: str
    id: str | None = None
    parameters: GenerateParameters | None = None


class GenerateResult(Struct, frozen=True, kw_only=True):
    """The continuation, whole or a piece of it."""

    model_name: str
    model_version: str
    text_output: str
    id: str | UnsetType = UNSET
    finish_reason: str | None | UnsetType = UNSET  # noqa: RUF036 - null until the end
