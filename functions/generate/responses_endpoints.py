"""The endpoint of /v1/responses, OpenAI's Responses API without memory."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from functions.generate.openai_endpoints import with_codes
from functions.generate.opened_model import answer_with_model
from pilotlight.api.chat_generation import ChatGeneration, prepare_chat
from pilotlight.api.conversation import Conversation
from pilotlight.api.http import Request, Response, StreamedResponse
from pilotlight.api.json_bodies import decode_json_body
from pilotlight.api.responses_events import ResponseWriter, create_response, write_response
from pilotlight.api.responses_request import build_conversation
from pilotlight.api.router import Routes
from pilotlight.api.schemas.responses import ResponsesBody
from pilotlight.api.server_sent_events import encode_named_event, stream_events
from pilotlight.api.stream_failures import tell_failure
from pilotlight.errors import PilotlightError

if TYPE_CHECKING:
    from pilotlight.text_generation import GenerationService, OpenedLanguageModel


class ResponsesEndpoints:
    """The endpoint of responses."""

    def __init__(self, service: "GenerationService") -> None:
        self._service = service

    def routes(self) -> Routes:
        """Return the table of routes."""
        return {"/v1/responses": {"POST": with_codes(self.create_response)}}

    def create_response(self, request: Request) -> Response | StreamedResponse:
        """Create a response, whole or as events."""
        body = decode_json_body(request.body, ResponsesBody)
        conversation = build_conversation(body)

        def answer(opened: "OpenedLanguageModel") -> Response | StreamedResponse:
            return answer_response(body, conversation, request, opened)

        return answer_with_model(self._service, body.model, request, answer)


def answer_response(
    body: ResponsesBody, conversation: Conversation, request: Request, opened: "OpenedLanguageModel"
) -> Response | StreamedResponse:
    """Generate the response with an open model."""
    generation = prepare_chat(opened.language_model, conversation, request.trace, opened.generate)
    writer = ResponseWriter(create_response(body, body.model))
    if body.stream:
        return stream_events(encode_frames(writer, generation), generation.close)
    try:
        for _ in write_response(writer, generation):
            pass
    finally:
        generation.close()
    return Response.json(writer.response)


def encode_frames(writer: ResponseWriter, generation: ChatGeneration) -> Iterator[bytes]:
    """Encode the events as frames; a failure is an event too."""

    def write_failure(message: str, error: PilotlightError | None) -> Iterable[bytes]:
        return map(encode_named_event, writer.fail(message))

    return tell_failure(map(encode_named_event, write_response(writer, generation)), write_failure)
