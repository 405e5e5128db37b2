"""Endpoints of Anthropic's Messages API: /v1/messages, and /v1/messages/count_tokens."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from functions.generate.opened_model import answer_with_model
from pilotlight.api.chat_generation import ChatGeneration, count_prompt_tokens, prepare_chat
from pilotlight.api.conversation import Conversation
from pilotlight.api.generation_errors import describe_anthropic_error
from pilotlight.api.http import Request, Response
from pilotlight.api.json_bodies import decode_json_body
from pilotlight.api.messages_events import MessageWriter, write_message
from pilotlight.api.messages_request import build_conversation, build_prompt
from pilotlight.api.router import SERVER_ERROR, Answer, Routes, get_status_code
from pilotlight.api.schemas.messages import CountTokensBody, MessagesBody, TokenCount
from pilotlight.api.server_sent_events import encode_named_event, stream_events
from pilotlight.api.stream_failures import tell_failure
from pilotlight.errors import PilotlightError

if TYPE_CHECKING:
    from pilotlight.text_generation import GenerationService, OpenedLanguageModel


class MessagesEndpoints:
    """The endpoints of messages."""

    def __init__(self, service: "GenerationService") -> None:
        self._service = service

    def routes(self) -> Routes:
        """Return the table of routes."""
        return {
            "/v1/messages": {"POST": self.create_message},
            "/v1/messages/count_tokens": {"POST": self.count_tokens},
        }

    def create_message(self, request: Request) -> Answer:
        """Create the next message, whole or as events."""
        body = decode_json_body(request.body, MessagesBody)
        conversation = build_conversation(body)

        def answer(opened: "OpenedLanguageModel") -> Answer:
            return answer_message(body, conversation, request, opened)

        return answer_with_model(self._service, body.model, request, answer)

    def count_tokens(self, request: Request) -> Response:
        """Count the tokens of a conversation."""
        body = decode_json_body(request.body, CountTokensBody)
        prompt = build_prompt(body)

        def answer(opened: "OpenedLanguageModel") -> Response:
            return Response.json(TokenCount(count_prompt_tokens(opened.language_model, prompt)))

        return answer_with_model(self._service, body.model, request, answer)


def answer_message(
    body: MessagesBody, conversation: Conversation, request: Request, opened: "OpenedLanguageModel"
) -> Answer:
    """Generate the message with an open model."""
    generation = prepare_chat(opened.language_model, conversation, request.trace, opened.generate)
    writer = MessageWriter(body.model, generation.usage)
    if body.stream:
        return stream_events(encode_frames(writer, generation), generation.close)
    try:
        for _ in write_message(writer, generation):
            pass
    finally:
        generation.close()
    return Response.json(writer.message)


def encode_frames(writer: MessageWriter, generation: ChatGeneration) -> Iterator[bytes]:
    """Encode the events as frames; a failure is an event too."""

    def write_failure(message: str, error: PilotlightError | None) -> Iterable[bytes]:
        status = SERVER_ERROR if error is None else get_status_code(error)
        yield encode_named_event(describe_anthropic_error(status, message))

    return tell_failure(map(encode_named_event, write_message(writer, generation)), write_failure)
