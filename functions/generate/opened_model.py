"""How endpoints reach the language model of a request."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from pilotlight.api.http import Request
from pilotlight.api.trial_caller import build_caller
from pilotlight.contracts.names import ModelReference
from pilotlight.errors import FieldError, InvalidInputError

if TYPE_CHECKING:
    from pilotlight.text_generation import GenerationService, OpenedLanguageModel

Answer = TypeVar("Answer")


def answer_with_model(
    service: "GenerationService", model: str, request: Request, answer: Callable[["OpenedLanguageModel"], Answer]
) -> Answer:
    """Answer a request with the model that its body names: name, name:3 or name@alias."""
    return answer_with_reference(service, parse_model(model), request, answer)


def answer_with_reference(
    service: "GenerationService",
    reference: ModelReference,
    request: Request,
    answer: Callable[["OpenedLanguageModel"], Answer],
) -> Answer:
    """Answer a request with the model of the reference."""
    return service.answer(reference, request.trace, build_caller(request), answer)


def parse_model(text: str) -> ModelReference:
    """Parse the model of a body; a `FieldError` shows the form of a reference."""
    try:
        return ModelReference.parse(text)
    except InvalidInputError as exc:
        raise FieldError(str(exc), param="model") from exc
