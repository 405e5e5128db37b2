"""The events of a chat's generation as OpenAI's answers: one document, or the chunks of a stream.

The order of a stream: for each choice a chunk with its role, then its content and calls, then its finish reason; after
all choices a chunk with the usage, if it was asked for, and [DONE]. A failure on the way is a frame with the error, and
never a silent end, which clients would take for success.
"""

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

from msgspec import UNSET, Struct, UnsetType

from pilotlight.api.chat_generation import ChatGeneration
from pilotlight.api.conversation import ChatEvent, ContentDelta, MessageEnd, ToolCallDelta
from pilotlight.api.openai_errors import describe_error
from pilotlight.api.router import get_status_code
from pilotlight.api.schemas import chat as schemas
from pilotlight.api.schemas.openai import ErrorDetails, OpenAIErrorBody
from pilotlight.api.server_sent_events import DONE, encode_event
from pilotlight.api.stream_failures import tell_failure
from pilotlight.api.token_logprobs import build_chat_logprobs
from pilotlight.errors import PilotlightError
from pilotlight.generation.request import ScoredToken, TokenUsage


class AnswerHead(Struct, frozen=True):
    """What all parts of an answer have in common."""

    model: str  # as the caller has named it
    system_fingerprint: str  # of the version that answers
    id: str
    created: int  # Unix seconds

    @classmethod
    def create(cls, prefix: str, model: str, system_fingerprint: str) -> "AnswerHead":
        """Create the head of a new answer; its id begins with `prefix`."""
        return cls(model, system_fingerprint, f"{prefix}-{uuid.uuid4().hex}", int(time.time()))


class AnswerOptions(Struct, frozen=True, kw_only=True):
    """What the caller wants to see beside the text."""

    choices: int = 1
    echo: str = ""  # what every answer begins with
    has_logprobs: bool = False
    has_token_ids: bool = False
    has_usage: bool = False  # in a stream


@dataclass
class CollectedCall:
    """A call of a tool, as far as it has come."""

    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


@dataclass
class CollectedChoice:
    """A choice, as far as it has come."""

    texts: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    scores: list[ScoredToken] = field(default_factory=list)
    calls: dict[int, CollectedCall] = field(default_factory=dict)
    end: MessageEnd | None = None

    def add(self, event: ChatEvent) -> None:
        """Add an event of this choice."""
        if isinstance(event, MessageEnd):
            self.end = event
        elif isinstance(event, ToolCallDelta):
            call = self.calls.setdefault(event.index, CollectedCall())
            call.id, call.name = event.id or call.id, event.name or call.name
            call.arguments.append(event.arguments)
        else:
            self.texts.append(event.text)
            self.tokens += event.tokens
            self.scores += event.scores


def build_usage(usage: TokenUsage) -> schemas.Usage:
    """Build OpenAI's usage."""
    return schemas.Usage(
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.prompt_tokens + usage.completion_tokens,
        schemas.PromptTokensDetails(usage.cached_tokens),
    )


def answer_chat(head: AnswerHead, options: AnswerOptions, generation: ChatGeneration) -> schemas.ChatCompletion:
    """Wait for all choices, and build the whole answer."""
    choices = [CollectedChoice() for _ in range(options.choices)]
    try:
        for event in generation:
            choices[event.choice].add(event)
    finally:
        generation.close()
    return schemas.ChatCompletion(
        id=head.id,
        created=head.created,
        model=head.model,
        choices=[build_choice(index, options, choice) for index, choice in enumerate(choices)],
        usage=build_usage(generation.usage),
        system_fingerprint=head.system_fingerprint,
        prompt_token_ids=list(generation.prompt) if options.has_token_ids else UNSET,
    )


def build_choice(index: int, options: AnswerOptions, choice: CollectedChoice) -> schemas.ChatChoice:
    """Build one choice of a whole answer."""
    assert choice.end is not None  # noqa: S101 - for the type checker: `ChatGeneration` ends all choices
    text = options.echo + "".join(choice.texts)
    calls: list[schemas.AnsweredToolCall] | UnsetType = [
        schemas.AnsweredToolCall(call.id, schemas.AnsweredFunction(call.name, "".join(call.arguments)))
        for _, call in sorted(choice.calls.items())
    ] or UNSET
    return schemas.ChatChoice(
        index=index,
        message=schemas.AnswerMessage(content=None if calls is not UNSET and not text else text, tool_calls=calls),
        logprobs=build_chat_logprobs(choice.scores) if options.has_logprobs else None,
        finish_reason=choice.end.reason,
        stop_reason=choice.end.stop,
        token_ids=choice.tokens if options.has_token_ids else UNSET,
    )


def stream_chat(head: AnswerHead, options: AnswerOptions, generation: ChatGeneration) -> Iterator[bytes]:
    """Yield the frames of a stream; a failure is a frame too."""
    yield from tell_failure(write_chunks(ChunkWriter(head, options, generation.prompt), generation), write_error)
    yield DONE


def write_chunks(chunks: "ChunkWriter", generation: ChatGeneration) -> Iterator[bytes]:
    """Yield the chunks of all choices, and of the usage."""
    for index in range(chunks.options.choices):
        yield from chunks.begin_choice(index)
    for event in generation:
        yield from chunks.write(event)
    if chunks.options.has_usage:
        yield chunks.encode([], build_usage(generation.usage))


def write_error(message: str, error: PilotlightError | None) -> list[bytes]:
    """Write the frame of a failure."""
    if error is None:
        return [encode_event(OpenAIErrorBody(ErrorDetails(message, "server_error")))]
    status = get_status_code(error)
    return [encode_event(describe_error(error, status))]


class ChunkWriter:
    """Writes the chunks of a stream."""

    def __init__(self, head: AnswerHead, options: AnswerOptions, prompt: tuple[int, ...]) -> None:
        self._head = head
        self._prompt = prompt
        self.options = options
        self._is_first = True

    def encode(self, choices: list[schemas.ChunkChoice], usage: schemas.Usage | None = None) -> bytes:
        """Encode a chunk; if usage was asked for, it is null in all chunks but the last."""
        options, head = self.options, self._head
        prompt = list(self._prompt) if options.has_token_ids and self._is_first else UNSET
        self._is_first = False
        return encode_event(
            schemas.ChatChunk(
                id=head.id,
                created=head.created,
                model=head.model,
                system_fingerprint=head.system_fingerprint,
                choices=choices,
                usage=usage if options.has_usage else UNSET,
                prompt_token_ids=prompt,
            )
        )

    def begin_choice(self, index: int) -> Iterator[bytes]:
        """Write the role of a choice, and the echo if there is one."""
        yield self._encode_delta(index, schemas.ChatDelta(role="assistant", content=""))
        if self.options.echo:
            yield self._encode_delta(index, schemas.ChatDelta(content=self.options.echo))

    def write(self, event: ChatEvent) -> Iterator[bytes]:
        """Write an event; one without text, logprobs and tokens that anybody wants has no chunk."""
        if isinstance(event, MessageEnd):
            yield self.encode(
                [
                    schemas.ChunkChoice(
                        index=event.choice,
                        delta=schemas.ChatDelta(),
                        finish_reason=event.reason,
                        stop_reason=event.stop,
                    )
                ]
            )
        elif isinstance(event, ToolCallDelta):
            yield self._encode_delta(event.choice, schemas.ChatDelta(tool_calls=[build_call_delta(event)]))
        elif event.text or (self.options.has_logprobs and event.scores) or self.options.has_token_ids:
            yield self._encode_content(event)

    def _encode_content(self, event: ContentDelta) -> bytes:
        options = self.options
        return self.encode(
            [
                schemas.ChunkChoice(
                    index=event.choice,
                    delta=schemas.ChatDelta(content=event.text),
                    logprobs=build_chat_logprobs(event.scores) if options.has_logprobs else None,
                    token_ids=list(event.tokens) if options.has_token_ids else UNSET,
                )
            ]
        )

    def _encode_delta(self, index: int, delta: schemas.ChatDelta) -> bytes:
        return self.encode([schemas.ChunkChoice(index=index, delta=delta)])


def build_call_delta(event: ToolCallDelta) -> schemas.ChatToolCallDelta:
    """Build more of a call: its id, type and name in the first piece only."""
    is_first = event.id is not None
    return schemas.ChatToolCallDelta(
        event.index,
        schemas.FunctionDelta(event.arguments, event.name if event.name is not None else UNSET),
        event.id if event.id is not None else UNSET,
        "function" if is_first else UNSET,
    )
