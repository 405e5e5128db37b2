"""The endpoint of /v1/decisions, a beta: probabilities by a language model's next token, or by a text classifier."""

from functools import partial
from typing import TYPE_CHECKING

from functions.generate.openai_endpoints import with_codes
from functions.generate.opened_model import answer_with_reference, parse_model
from pilotlight.api import decisions
from pilotlight.api.decisions import ClassifierRequest
from pilotlight.api.http import Request, Response
from pilotlight.api.json_bodies import decode_json_body
from pilotlight.api.router import Routes
from pilotlight.api.schemas.decisions import DecisionResult, DecisionsBody
from pilotlight.api.trial_caller import build_caller
from pilotlight.contracts.names import ModelReference
from pilotlight.inference import InferenceService, RoutedInference
from pilotlight.processing import text

if TYPE_CHECKING:
    from pilotlight.text_generation import GenerationService, OpenedLanguageModel


class DecisionsEndpoints:
    """The endpoint of decisions."""

    def __init__(self, service: "GenerationService", inference: InferenceService) -> None:
        self._service = service
        self._model_manager = inference.model_manager
        self._routed_inference = RoutedInference(inference)

    def routes(self) -> Routes:
        """Return the table of routes."""
        return {"/v1/decisions": {"POST": with_codes(self.decide)}}

    def decide(self, request: Request) -> Response:
        """Answer questions on an input."""
        body = decode_json_body(request.body, DecisionsBody)
        reference = parse_model(body.model)
        if decisions.is_classifier(self._model_manager.resolve_manifest(reference, request.trace.deadline)):
            return self._decide_by_classifier(body, reference, request)

        def answer(opened: "OpenedLanguageModel") -> Response:
            answers, tokens = decisions.decide(opened.language_model, body, request.trace)
            return Response.json(DecisionResult(body.model, answers, decisions.build_usage(tokens)))

        return answer_with_reference(self._service, reference, request, answer)

    def _decide_by_classifier(self, body: DecisionsBody, reference: ModelReference, request: Request) -> Response:
        """Answer by a classifier, whose labels are the options of every question."""
        read = "\n".join(message["content"] for message in decisions.read_messages(body))
        found = self._routed_inference.infer(
            reference, ClassifierRequest(read), request.trace, partial(build_caller, request)
        )
        answers = [
            decisions.decide_by_labels(question, f"questions[{place}]", found.probabilities, found.manifest)
            for place, question in enumerate(body.questions)
        ]
        version = ModelReference(found.manifest.name, found.manifest.version)
        model = self._model_manager.get_model(version, request.trace.deadline)
        prepare, _ = decisions.get_classifier_steps(found.manifest)
        tokens = text.count_tokens(prepare, found.manifest, [read], model.assets)
        return Response.json(DecisionResult(body.model, answers, decisions.build_usage(tokens)))
