"""Turn a chat's events into those of a message in Anthropic's form; the whole message is what they leave behind.

    message_start
    for each block:  content_block_start, content_block_delta ..., content_block_stop
    message_delta (why it ended), message_stop
    or an error, at any place behind message_start

Source: Anthropic's API reference, Streaming messages.
"""

import uuid
from collections.abc import Iterator
from typing import Any

import msgspec

from pilotlight.api.chat_generation import ChatGeneration
from pilotlight.api.conversation import ChatEvent, ContentDelta, MessageEnd, ToolCallDelta
from pilotlight.api.schemas.messages import (
    AnswerBlock,
    MessageObject,
    MessageUsage,
    StopReason,
    TextBlock,
    ToolUseBlock,
)
from pilotlight.generation.request import TokenUsage

Event = dict[str, Any]


class MessageWriter:
    """Writes one message: its events, and the message itself as far as it has come."""

    def __init__(self, model: str, usage: TokenUsage) -> None:
        """Begin a message; `usage` has the tokens of the prompt."""
        identifier = f"msg_{uuid.uuid4().hex}"
        self.message = MessageObject(id=identifier, model=model, usage=build_usage(usage))
        self._open_block: AnswerBlock | None = None
        self._open_call: int | None = None  # the index of the call that is open
        self._pieces: list[str] = []  # of the open block's text or input

    def begin(self) -> Iterator[Event]:
        """Yield the first events."""
        yield {"type": "message_start", "message": self.message}
        yield {"type": "ping"}

    def add(self, event: ChatEvent) -> Iterator[Event]:
        """Yield what an event of the chat adds."""
        if isinstance(event, ContentDelta):
            yield from self._add_text(event)
        elif isinstance(event, ToolCallDelta):
            yield from self._add_call(event)
        else:
            yield from self._close_block()
            self._change(stop_reason=name_stop_reason(event), stop_sequence=get_stop_sequence(event))

    def complete(self, usage: TokenUsage) -> Iterator[Event]:
        """Yield the last events: why the message ended, and the tokens that were used."""
        message = self._change(usage=build_usage(usage))
        delta = {"stop_reason": message.stop_reason, "stop_sequence": message.stop_sequence}
        yield {"type": "message_delta", "delta": delta, "usage": message.usage}
        yield {"type": "message_stop"}

    def _add_text(self, delta: ContentDelta) -> Iterator[Event]:
        """Yield more of a text, and the beginning of its block if none is open."""
        if not delta.text:
            return
        if not isinstance(self._open_block, TextBlock):
            yield from self._start_block(TextBlock())
        yield self._add_piece(delta.text, {"type": "text_delta", "text": delta.text})

    def _add_call(self, delta: ToolCallDelta) -> Iterator[Event]:
        """Yield more of a call's input, and the beginning of its block if it is another than the open one."""
        if self._open_call != delta.index:
            yield from self._start_block(
                ToolUseBlock(id=delta.id or f"toolu_{uuid.uuid4().hex}", name=delta.name or "")
            )
            self._open_call = delta.index
        if delta.arguments:
            yield self._add_piece(delta.arguments, {"type": "input_json_delta", "partial_json": delta.arguments})

    def _start_block(self, block: AnswerBlock) -> Iterator[Event]:
        """Yield the end of the open block, and the beginning of this one."""
        yield from self._close_block()
        self._open_block, self._pieces = block, []
        yield {"type": "content_block_start", "index": len(self.message.content), "content_block": block}

    def _add_piece(self, piece: str, delta: dict[str, str]) -> Event:
        """Keep a piece of the open block, and return its event."""
        self._pieces.append(piece)
        return {"type": "content_block_delta", "index": len(self.message.content), "delta": delta}

    def _close_block(self) -> Iterator[Event]:
        """Yield the end of the open block, if there is one."""
        block, text = self._open_block, "".join(self._pieces)
        if block is None:
            return
        yield {"type": "content_block_stop", "index": len(self.message.content)}
        filled = fill_block(block, text)
        self._change(content=[*self.message.content, filled])
        self._open_block = self._open_call = None

    def _change(self, **fields: Any) -> MessageObject:  # noqa: ANN401 - fields of the message
        self.message = msgspec.structs.replace(self.message, **fields)
        return self.message


def write_message(writer: MessageWriter, generation: ChatGeneration) -> Iterator[Event]:
    """Write a message: yield its events; it is whole in `writer.message` after the last."""
    yield from writer.begin()
    for event in generation:
        yield from writer.add(event)
    yield from writer.complete(generation.usage)


def fill_block(block: AnswerBlock, text: str) -> AnswerBlock:
    """Fill a block with its text, or with its input, which is empty where the limit of tokens has cut it off."""
    if isinstance(block, TextBlock):
        return msgspec.structs.replace(block, text=text)
    try:
        return msgspec.structs.replace(block, input=msgspec.json.decode(text or "{}", type=dict[str, Any]))
    except msgspec.DecodeError:
        return block  # the message's stop_reason is max_tokens, by which callers know it


def name_stop_reason(end: MessageEnd) -> StopReason:
    """Name why a message ended."""
    if end.reason == "length":
        return "max_tokens"
    if end.reason == "tool_calls":
        return "tool_use"
    return "stop_sequence" if get_stop_sequence(end) is not None else "end_turn"


def get_stop_sequence(end: MessageEnd) -> str | None:
    """Return the stop string that ended the message, if one did."""
    return end.stop if isinstance(end.stop, str) else None


def build_usage(usage: TokenUsage) -> MessageUsage:
    """Build the tokens of a message; Anthropic's input tokens are those that were not read from the cache."""
    return MessageUsage(
        input_tokens=usage.prompt_tokens - usage.cached_tokens,
        cache_read_input_tokens=usage.cached_tokens,
        output_tokens=usage.completion_tokens,
    )
