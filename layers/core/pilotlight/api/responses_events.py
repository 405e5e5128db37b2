"""Turn a chat's events into those of a response; the whole response is what they leave behind.

    response.created, response.in_progress
    for each item:  response.output_item.added
                    response.content_part.added, response.output_text.delta ..., .done, response.content_part.done
                    or response.function_call_arguments.delta ..., .done
                    response.output_item.done
    response.completed, response.incomplete or response.failed

Source: OpenAI's API reference, Responses, Streaming events. Each event has the next sequence number.
"""

import time
import uuid
from collections.abc import Iterator
from typing import Any

import msgspec

from pilotlight.api.chat_generation import ChatGeneration
from pilotlight.api.conversation import ChatEvent, ContentDelta, MessageEnd, ToolCallDelta
from pilotlight.api.schemas.responses import (
    IncompleteDetails,
    InputTokensDetails,
    OutputFunctionCall,
    OutputItem,
    OutputLogprob,
    OutputMessage,
    OutputText,
    OutputTokensDetails,
    ResponseError,
    ResponseObject,
    ResponsesBody,
    ResponseTextOptions,
    ResponseUsage,
    TextFormat,
    TopLogprob,
)
from pilotlight.api.token_logprobs import limit_logprob
from pilotlight.generation.request import ScoredToken, TokenUsage

Event = dict[str, Any]


def create_response(body: ResponsesBody, model: str) -> ResponseObject:
    """Create the response to a request, before anything is generated; it repeats what was asked for."""
    return ResponseObject(
        id=create_id("resp"),
        created_at=int(time.time()),
        status="in_progress",
        instructions=body.instructions,
        max_output_tokens=body.max_output_tokens,
        metadata=body.metadata or {},
        model=model,
        parallel_tool_calls=body.parallel_tool_calls is not False,
        temperature=1.0 if body.temperature is None else body.temperature,
        text=ResponseTextOptions((body.text.format if body.text else None) or TextFormat("text")),
        tool_choice=body.tool_choice or "auto",
        tools=body.tools or [],
        top_logprobs=body.top_logprobs or 0,
        top_p=1.0 if body.top_p is None else body.top_p,
        user=body.user,
    )


def create_id(kind: str) -> str:
    """Create an id that no other object has."""
    return f"{kind}_{uuid.uuid4().hex}"


class ResponseWriter:
    """Writes one response: its events, and the response itself as far as it has come."""

    def __init__(self, response: ResponseObject) -> None:
        self.response = response
        self._sequence_number = 0
        self._open_item: OutputItem | None = None
        self._open_call: int | None = None  # the index of the call that is open
        self._pieces: list[str] = []  # of the open item's text or arguments
        self._logprobs: list[OutputLogprob] = []
        self._held_logprobs: list[OutputLogprob] = []  # of tokens whose text has not come yet

    def begin(self) -> Iterator[Event]:
        """Yield the first events."""
        yield self._number({"type": "response.created", "response": self.response})
        yield self._number({"type": "response.in_progress", "response": self.response})

    def add(self, event: ChatEvent) -> Iterator[Event]:
        """Yield what an event of the chat adds."""
        if isinstance(event, ContentDelta):
            yield from self._add_text(event)
        elif isinstance(event, ToolCallDelta):
            yield from self._add_call(event)
        else:
            yield from self._end_message(event)

    def complete(self, usage: TokenUsage) -> Iterator[Event]:
        """Yield the last event, with the tokens that were used."""
        is_whole = self.response.incomplete_details is None
        status = "completed" if is_whole else "incomplete"
        self._change(status=status, usage=build_usage(usage))
        yield self._number({"type": f"response.{status}", "response": self.response})

    def fail(self, message: str, code: str = "server_error") -> Iterator[Event]:
        """Yield the last event of a response that failed after its beginning."""
        self._change(status="failed", error=ResponseError(code, message))
        yield self._number({"type": "response.failed", "response": self.response})

    @property
    def _output_index(self) -> int:
        """The index of the open item: those before it are closed."""
        return len(self.response.output)

    def _add_text(self, delta: ContentDelta) -> Iterator[Event]:
        """Yield more of a message's text, and the message's beginning if none is open."""
        if not isinstance(self._open_item, OutputFunctionCall) or delta.text:  # the tokens of calls are not told
            self._held_logprobs += map(build_logprob, delta.scores)
        if not delta.text:
            return
        if not isinstance(self._open_item, OutputMessage):
            yield from self._close_item("completed")
            yield from self._open_message()
        logprobs, self._held_logprobs = self._held_logprobs, []
        self._pieces.append(delta.text)
        self._logprobs.extend(logprobs)
        yield self._number_part({"type": "response.output_text.delta", "delta": delta.text, "logprobs": logprobs})

    def _add_call(self, delta: ToolCallDelta) -> Iterator[Event]:
        """Yield more of a call's arguments, and the call's beginning if it is another than the open one."""
        if self._open_call != delta.index:
            yield from self._close_item("completed")
            self._held_logprobs = []
            item = OutputFunctionCall(
                id=create_id("fc"),
                status="in_progress",
                call_id=delta.id or create_id("call"),
                name=delta.name or "",
                arguments="",
            )
            self._open_call = delta.index
            yield self._add_item(item)
        if delta.arguments:
            self._pieces.append(delta.arguments)
            yield self._number_item({"type": "response.function_call_arguments.delta", "delta": delta.arguments})

    def _end_message(self, end: MessageEnd) -> Iterator[Event]:
        """Yield the end of the open item; an answer without any text is an empty message."""
        is_cut = end.reason == "length"
        if self._open_item is None and not self.response.output:
            yield from self._open_message()
        yield from self._close_item("incomplete" if is_cut else "completed")
        if is_cut:
            self._change(incomplete_details=IncompleteDetails())

    def _open_message(self) -> Iterator[Event]:
        """Yield the beginning of a message and of its text."""
        yield self._add_item(OutputMessage(id=create_id("msg"), status="in_progress", content=[]))
        yield self._number_part({"type": "response.content_part.added", "part": OutputText()})

    def _add_item(self, item: OutputItem) -> Event:
        """Open an item, and return its event."""
        self._open_item, self._pieces, self._logprobs = item, [], []
        return self._number({"type": "response.output_item.added", "output_index": self._output_index, "item": item})

    def _close_item(self, status: str) -> Iterator[Event]:
        """Yield the end of the open item, if there is one."""
        item, text = self._open_item, "".join(self._pieces)
        if item is None:
            return
        if isinstance(item, OutputMessage):
            self._logprobs += self._held_logprobs
            self._held_logprobs = []
            part = OutputText(text=text, logprobs=self._logprobs)
            yield self._number_part({"type": "response.output_text.done", "text": text, "logprobs": self._logprobs})
            yield self._number_part({"type": "response.content_part.done", "part": part})
            closed: OutputItem = msgspec.structs.replace(item, status=status, content=[part])
        else:
            yield self._number_item(
                {"type": "response.function_call_arguments.done", "arguments": text, "name": item.name}
            )
            closed = msgspec.structs.replace(item, status=status, arguments=text)
        yield self._number({"type": "response.output_item.done", "output_index": self._output_index, "item": closed})
        self._change(output=[*self.response.output, closed])
        self._open_item = self._open_call = None

    def _number_part(self, event: Event) -> Event:
        """Add the place of the open message's text, and a sequence number, to an event."""
        return self._number_item({**event, "content_index": 0})

    def _number_item(self, event: Event) -> Event:
        """Add the place of the open item, and a sequence number, to an event."""
        item_id = self._open_item.id if self._open_item is not None else ""
        return self._number({**event, "item_id": item_id, "output_index": self._output_index})

    def _number(self, event: Event) -> Event:
        """Give an event the next sequence number."""
        numbered = {**event, "sequence_number": self._sequence_number}
        self._sequence_number += 1
        return numbered

    def _change(self, **fields: Any) -> None:  # noqa: ANN401 - fields of the response
        self.response = msgspec.structs.replace(self.response, **fields)


def write_response(writer: ResponseWriter, generation: ChatGeneration) -> Iterator[Event]:
    """Write a response: yield its events; it is whole in `writer.response` after the last."""
    yield from writer.begin()
    for event in generation:
        yield from writer.add(event)
    yield from writer.complete(generation.usage)


def build_usage(usage: TokenUsage) -> ResponseUsage:
    """Build the tokens of a response."""
    return ResponseUsage(
        usage.prompt_tokens,
        InputTokensDetails(usage.cached_tokens),
        usage.completion_tokens,
        OutputTokensDetails(),
        usage.prompt_tokens + usage.completion_tokens,
    )


def build_logprob(scored: ScoredToken) -> OutputLogprob:
    """Build a token of the text with its probability, and the likeliest in its place."""
    top = [TopLogprob(one.text, list(one.bytes), limit_logprob(one.logprob)) for one in scored.top]
    chosen = scored.chosen
    return OutputLogprob(chosen.text, list(chosen.bytes), limit_logprob(chosen.logprob), top)
