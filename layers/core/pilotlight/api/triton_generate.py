"""Continue a text in the form of Triton's generate extension."""

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import UNSET

from pilotlight.api.chat_generation import ChatGeneration
from pilotlight.api.conversation import ContentDelta, Conversation, MessageEnd
from pilotlight.api.schemas.triton_generate import GenerateBody, GenerateParameters, GenerateResult
from pilotlight.api.text_completions import DEFAULT_MAX_TOKENS
from pilotlight.generation.request import SamplingOptions
from pilotlight.runtime.model_cache import VersionKey

SAMPLING_FIELDS = ("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty")


def merge_parameters(body: GenerateBody) -> GenerateParameters:
    """Merge the parameters: those in `parameters` win over those beside the text."""
    found = {}
    for name in GenerateParameters.__struct_fields__:
        inner, outer = getattr(body.parameters, name, None), getattr(body, name)
        found[name] = outer if inner is None else inner
    return GenerateParameters(**found)


def build_conversation(parameters: GenerateParameters) -> Conversation:
    """Build how a text is continued; there are no messages."""
    stop = parameters.stop if parameters.stop is not None else parameters.stop_words
    return Conversation(
        messages=(),
        sampling=build_sampling(parameters),
        max_tokens=DEFAULT_MAX_TOKENS if parameters.max_tokens is None else parameters.max_tokens,
        stop_strings=(stop,) if isinstance(stop, str) else tuple(stop or ()),
    )


def build_sampling(parameters: GenerateParameters) -> SamplingOptions:
    """Build how tokens are drawn; what is absent has its default."""
    asked: dict[str, Any] = {name: getattr(parameters, name) for name in (*SAMPLING_FIELDS, "repetition_penalty")}
    asked["seed"] = parameters.seed if parameters.seed is not None else parameters.random_seed
    if parameters.top_k is not None:
        asked["top_k"] = max(parameters.top_k, 0)
    return msgspec.convert({name: one for name, one in asked.items() if one is not None}, SamplingOptions)


class GenerateWriter:
    """Writes the continuation of one text."""

    def __init__(self, body: GenerateBody, parameters: GenerateParameters, key: VersionKey) -> None:
        self._body = body
        self._key = key
        self._tells_reason = bool(parameters.return_finish_reason)
        self._echo = body.text_input if parameters.exclude_input_in_output is False else ""

    def answer(self, generation: ChatGeneration) -> GenerateResult:
        """Write the whole continuation."""
        pieces, reason = [self._echo], None
        for event in generation:
            if isinstance(event, ContentDelta):
                pieces.append(event.text)
            elif isinstance(event, MessageEnd):
                reason = event.reason
        return self._build("".join(pieces), reason)

    def stream(self, generation: ChatGeneration) -> Iterator[GenerateResult]:
        """Yield the pieces; the last one, of no text, tells why the text ended, if that was asked for."""
        if self._echo:
            yield self._build(self._echo, None)
        for event in generation:
            if isinstance(event, ContentDelta) and event.text:
                yield self._build(event.text, None)
            elif isinstance(event, MessageEnd) and self._tells_reason:
                yield self._build("", event.reason)

    def _build(self, text: str, reason: str | None) -> GenerateResult:
        """Build a result."""
        name, version = self._key
        return GenerateResult(
            model_name=name,
            model_version=str(version),
            text_output=text,
            id=UNSET if self._body.id is None else self._body.id,
            finish_reason=reason if self._tells_reason else UNSET,
        )
