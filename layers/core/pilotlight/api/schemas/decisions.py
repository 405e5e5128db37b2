"""Bodies of /v1/decisions, which is a beta of OpenAI's: typed questions on one input, answered by probabilities."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from pilotlight.api.schemas.responses import InputPart, InputTokensDetails, OutputTokensDetails, ResponseInputItem

MAX_QUESTIONS, MAX_CHOICES, MAX_LEVELS = 64, 26, 10  # vLLM's; a question's options are the letters A to Z


class ChoiceBody(Struct, frozen=True):
    """One of the values of a choice."""

    value: str | bool
    description: str | None = None


class LevelBody(Struct, frozen=True):
    """A step of a scale."""

    label: str
    description: str | None = None


class QuestionBody(Struct, frozen=True):
    """A question: whether something is so, which of several values, or how much on a scale."""

    type: Literal["predicate", "choice", "score"]
    instructions: str | list[InputPart]
    name: str | None = None
    choices: Annotated[list[ChoiceBody], Meta(min_length=2, max_length=MAX_CHOICES)] | None = None
    levels: Annotated[list[LevelBody], Meta(min_length=2, max_length=MAX_LEVELS)] | None = None


class DecisionsBody(Struct, frozen=True, kw_only=True):
    """A request for decisions."""

    model: Annotated[str, Meta(min_length=1)]
    input: str | list[ResponseInputItem]
    questions: Annotated[list[QuestionBody], Meta(min_length=1, max_length=MAX_QUESTIONS)]


class PredicateAnswer(Struct, frozen=True, kw_only=True, tag_field="type", tag="predicate"):
    """How probably it is so."""

    name: str | None
    probability: float


class ChoiceProbability(Struct, frozen=True):
    """How probable a value is."""

    value: str | bool
    probability: float


class ChoiceAnswer(Struct, frozen=True, kw_only=True, tag_field="type", tag="choice"):
    """The likeliest value."""

    name: str | None
    choice: str | bool
    confidence: float
    probabilities: list[ChoiceProbability]


class LevelProbability(Struct, frozen=True):
    """How probable a step of the scale is."""

    value: int
    label: str
    probability: float


class ScoreAnswer(Struct, frozen=True, kw_only=True, tag_field="type", tag="score"):
    """The mean of the steps' indices by their probabilities."""

    name: str | None
    score: float
    confidence: float
    probabilities: list[LevelProbability]


DecisionAnswer = PredicateAnswer | ChoiceAnswer | ScoreAnswer


class DecisionUsage(Struct, frozen=True):
    """The tokens that were read; none are written."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class DecisionResult(Struct, frozen=True):
    """The answers, in the order of the questions."""

    model: str
    answers: list[DecisionAnswer]
    usage: DecisionUsage
