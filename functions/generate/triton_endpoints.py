"""Endpoints of Triton's generate extension: a text is continued, without a chat template."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from functions.generate.opened_model import answer_with_reference
from pilotlight.api.chat_generation import ChatGeneration, prepare_text
from pilotlight.api.http import Request, Response
from pilotlight.api.json_bodies import decode_json_body
from pilotlight.api.router import Answer, Routes
from pilotlight.api.schemas.triton_generate import GenerateBody
from pilotlight.api.server_sent_events import encode_event, stream_events
from pilotlight.api.stream_failures import tell_failure
from pilotlight.api.triton_generate import GenerateWriter, build_conversation, merge_parameters
from pilotlight.contracts.names import ModelReference
from pilotlight.errors import PilotlightError

if TYPE_CHECKING:
    from pilotlight.text_generation import GenerationService, OpenedLanguageModel

VERSION_HEADER = "x-pilotlight-version"  # the requested version or alias
MODEL_PATHS = ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")


class TritonEndpoints:
    """The endpoints of the generate extension."""

    def __init__(self, service: "GenerationService") -> None:
        self._service = service

    def routes(self) -> Routes:
        """Return the table of routes."""
        plain = {f"{path}/generate": {"POST": self.generate} for path in MODEL_PATHS}
        streamed = {f"{path}/generate_stream": {"POST": self.generate_stream} for path in MODEL_PATHS}
        return {**plain, **streamed}

    def generate(self, request: Request) -> Answer:
        """Continue a text, and answer with the whole."""
        return self._answer(request, is_streamed=False)

    def generate_stream(self, request: Request) -> Answer:
        """Continue a text, and answer with its pieces."""
        return self._answer(request, is_streamed=True)

    def _answer(self, request: Request, *, is_streamed: bool) -> Answer:
        body = decode_json_body(request.body, GenerateBody)
        selector = request.headers.get(VERSION_HEADER) or request.parameters.get("version")
        reference = ModelReference.from_selector(request.parameters["model"], selector)

        def answer(opened: "OpenedLanguageModel") -> Answer:
            return answer_text(body, request, opened, is_streamed=is_streamed)

        return answer_with_reference(self._service, reference, request, answer)


def answer_text(body: GenerateBody, request: Request, opened: "OpenedLanguageModel", *, is_streamed: bool) -> Answer:
    """Continue the text with an open model."""
    parameters = merge_parameters(body)
    conversation = build_conversation(parameters)
    generation = prepare_text(opened.language_model, body.text_input, conversation, request.trace, opened.generate)
    writer = GenerateWriter(body, parameters, opened.key)
    if is_streamed:
        return stream_events(encode_frames(writer, generation), generation.close)
    try:
        return Response.json(writer.answer(generation))
    finally:
        generation.close()


def encode_frames(writer: GenerateWriter, generation: ChatGeneration) -> Iterator[bytes]:
    """Encode the pieces as frames; a failure is a frame too, in Triton's form."""

    def write_failure(message: str, error: PilotlightError | None) -> Iterable[bytes]:
        yield encode_event({"error": message})

    return tell_failure(map(encode_event, writer.stream(generation)), write_failure)
