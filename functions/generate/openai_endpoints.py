"""Endpoints of OpenAI's chats, completions and models, and of vLLM's tokenize and detokenize.

All that can fail is settled before an answer begins: the body, the model, the prompt and the first token. What fails
later in a stream is a frame with the error.
"""

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote

from functions.generate.opened_model import answer_with_model
from pilotlight.api import chat_answers, chat_completions, language_models, text_completions
from pilotlight.api.chat_answers import AnswerHead, AnswerOptions
from pilotlight.api.chat_generation import prepare_chat
from pilotlight.api.conversation import Conversation
from pilotlight.api.generation_fields import check_token_ids
from pilotlight.api.http import Request, Response
from pilotlight.api.json_bodies import decode_json_body
from pilotlight.api.openai_errors import to_model_error
from pilotlight.api.router import Answer, Endpoint, Routes, get_status_code, retry_headers
from pilotlight.api.schemas.chat import ChatCompletionBody, CompletionBody, DetokenizeBody, TokenizeBody
from pilotlight.api.server_sent_events import stream_events
from pilotlight.contracts.manifest import Manifest
from pilotlight.contracts.names import ModelReference
from pilotlight.errors import PilotlightError
from pilotlight.runtime.model_cache import VersionKey

if TYPE_CHECKING:
    from pilotlight.text_generation import GenerationService, OpenedLanguageModel

LOG = logging.getLogger("pilotlight.generate")
Result = TypeVar("Result")


class OpenAIEndpoints:
    """The endpoints; models are named in bodies as name, name:3 or name@alias."""

    def __init__(self, service: "GenerationService") -> None:
        self._service = service

    def routes(self) -> Routes:
        """Return the endpoints by route and verb."""
        routes: dict[str, dict[str, Endpoint]] = {
            "/v1/models": {"GET": self.list_models},
            "/v1/models/{model}": {"GET": self.show_model},
            "/v1/chat/completions": {"POST": self.complete_chat},
            "/v1/completions": {"POST": self.complete_text},
            "/tokenize": {"POST": self.tokenize},
            "/detokenize": {"POST": self.detokenize},
        }
        return {path: {verb: with_codes(one) for verb, one in verbs.items()} for path, verbs in routes.items()}

    def list_models(self, request: Request) -> Response:
        """List the models with a champion; one whose documents cannot be read does not hide the others."""
        return Response.json(language_models.list_language_models(self._iterate_manifests(request)))

    def show_model(self, request: Request) -> Response:
        """Describe one model, whatever it is for."""
        name = unquote(request.parameters["model"])
        manifest = self._service.model_manager.resolve_manifest(ModelReference.parse(name), request.trace.deadline)
        return Response.json(language_models.describe_language_model(name, manifest))

    def complete_chat(self, request: Request) -> Answer:
        """Answer a chat, at once or as a stream."""
        body = chat_completions.decode_chat_body(request.body)
        conversation = chat_completions.build_conversation(body)
        return self._answer(request, body.model, lambda opened: begin_chat(opened, request, body, conversation))

    def complete_text(self, request: Request) -> Answer:
        """Continue texts, at once or as a stream."""
        body = text_completions.decode_completion_body(request.body)
        return self._answer(request, body.model, lambda opened: begin_completion(opened, request, body))

    def tokenize(self, request: Request) -> Response:
        """Split a text or a chat into tokens."""
        body = decode_json_body(request.body, TokenizeBody)
        return self._answer(
            request,
            body.model,
            lambda opened: Response.json(language_models.tokenize(body, opened.language_model)),
        )

    def detokenize(self, request: Request) -> Response:
        """Join tokens to a text."""
        body = decode_json_body(request.body, DetokenizeBody)
        return self._answer(
            request,
            body.model,
            lambda opened: Response.json(language_models.detokenize(body, opened.language_model)),
        )

    def _answer(self, request: Request, model: str, answer: Callable[["OpenedLanguageModel"], Result]) -> Result:
        """Answer with the version that a body's model means."""
        return answer_with_model(self._service, model, request, answer)

    def _iterate_manifests(self, request: Request) -> Iterator[Manifest]:
        for name in self._service.model_manager.registry.list_models():
            try:
                yield self._service.model_manager.resolve_manifest(ModelReference(name), request.trace.deadline)
            except PilotlightError as exc:
                LOG.info("%s is not listed: %s", name, exc)


def with_codes(endpoint: Endpoint) -> Endpoint:
    """Let an endpoint answer errors with OpenAI's `param` and `code`, which a router's formatter does not see."""

    def answer(request: Request) -> Answer:
        try:
            return endpoint(request)
        except PilotlightError as exc:
            return to_model_error(exc, get_status_code(exc), **retry_headers(exc))

    return answer


def begin_chat(
    opened: "OpenedLanguageModel", request: Request, body: ChatCompletionBody, conversation: Conversation
) -> Answer:
    """Generate up to the first event, and answer with the whole or with a stream."""
    check_token_ids(body, opened.language_model)
    generation = prepare_chat(opened.language_model, conversation, request.trace, opened.generate)
    head = AnswerHead.create("chatcmpl", body.model, build_fingerprint(opened.key))
    options = AnswerOptions(
        choices=conversation.choices,
        echo=chat_completions.get_echo(body, conversation),
        has_logprobs=bool(body.logprobs),
        has_token_ids=bool(body.return_token_ids),
        has_usage=body.stream_options is not None and bool(body.stream_options.include_usage),
    )
    if not body.stream:
        return Response.json(chat_answers.answer_chat(head, options, generation))
    frames = chat_answers.stream_chat(head, options, generation)
    return stream_events(frames, generation.close)


def begin_completion(opened: "OpenedLanguageModel", request: Request, body: CompletionBody) -> Answer:
    """Generate up to the first event, and answer with the whole or with a stream."""
    plans = text_completions.plan_prompts(body, opened.language_model, request.trace)
    head = AnswerHead.create("cmpl", body.model, build_fingerprint(opened.key))
    writer = text_completions.CompletionWriter(head, body, plans, opened.generate)
    writer.begin()
    if not body.stream:
        return Response.json(writer.answer())
    return stream_events(writer.stream(), writer.close)


def build_fingerprint(key: VersionKey) -> str:
    """Build OpenAI's name for what answers: it changes with the version, and with nothing else."""
    return f"fp_{key[0]}_{key[1]}"
