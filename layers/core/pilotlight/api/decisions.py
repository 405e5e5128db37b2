"""Decisions: a question's options are letters, and a language model's next token tells how probable each of them is.

No text is generated: the probabilities of the letters' tokens are normalised over the options, as vLLM does. They are
what the model says, and not calibrated. A text classifier answers choices whose values are its labels, by its own
probabilities; it reads the input alone, not the instructions.
"""

import math
import string
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct

from pilotlight.api.chat_generation import render_prompt
from pilotlight.api.conversation import Conversation, Message
from pilotlight.api.request_context import RequestContext
from pilotlight.api.responses_request import join_parts, translate_items
from pilotlight.api.schemas.decisions import (
    ChoiceAnswer,
    ChoiceProbability,
    DecisionAnswer,
    DecisionsBody,
    DecisionUsage,
    LevelProbability,
    PredicateAnswer,
    QuestionBody,
    ScoreAnswer,
)
from pilotlight.api.schemas.responses import InputTokensDetails, OutputTokensDetails
from pilotlight.api.v2 import InferenceRequest, RequestedOutput
from pilotlight.contracts.manifest import Manifest
from pilotlight.contracts.processing import ClassificationPostprocessing, TextPreprocessing
from pilotlight.errors import FieldError
from pilotlight.generation.prompt_encoding import encode_fitting_prompt
from pilotlight.runtime.datatypes import Array
from pilotlight.runtime.traffic import InferenceResult

if TYPE_CHECKING:
    from pilotlight.generation.language_model import LanguageModel

PREDICATE_OPTIONS = ("yes", "no")


class ClassifierResult(Struct, frozen=True):
    """A text's probabilities by label, and the version that computed them."""

    manifest: Manifest
    probabilities: Mapping[str, float]


class ClassifierRequest(Struct, frozen=True):
    """A request for the probabilities of a text's labels, as the service runs it."""

    text: str

    def decode(self, manifest: Manifest) -> InferenceRequest:
        """Build the request for the version's text input and its probabilities."""
        prepare, finish = get_classifier_steps(manifest)
        texts = np.array([self.text], object)
        return InferenceRequest(None, {prepare.name: texts}, [RequestedOutput(finish.probabilities, binary=True)])

    def encode(
        self, manifest: Manifest, request: InferenceRequest, outputs: Mapping[str, Array]
    ) -> InferenceResult[ClassifierResult]:
        """Return the probabilities by label."""
        _, finish = get_classifier_steps(manifest)
        row = outputs[finish.probabilities][0].tolist()
        return InferenceResult(ClassifierResult(manifest, dict(zip(manifest.labels, row, strict=True))), outputs)


def is_classifier(manifest: Manifest) -> bool:
    """Return whether a version tells which one of its labels a text has."""
    prepare, finish = manifest.preprocess, manifest.postprocess
    is_single = isinstance(finish, ClassificationPostprocessing) and finish.threshold is None
    return isinstance(prepare, TextPreprocessing) and is_single and len(manifest.labels) > 1


def get_classifier_steps(manifest: Manifest) -> tuple[TextPreprocessing, ClassificationPostprocessing]:
    """Return the steps of a text classifier; refuse other versions."""
    prepare, finish = manifest.preprocess, manifest.postprocess
    if isinstance(prepare, TextPreprocessing) and isinstance(finish, ClassificationPostprocessing):
        return prepare, finish
    raise FieldError(
        f"{manifest.name}:{manifest.version} is a model for {manifest.task}; name a language model, or a classifier of "
        "texts.",
        param="model",
    )


def read_messages(body: DecisionsBody) -> list[Message]:
    """Read the input as messages."""
    if isinstance(body.input, str):
        return [{"role": "user", "content": body.input}]
    messages = list(translate_items(body.input))
    if not messages:
        raise FieldError("input has no message; send a text, or messages.", param="input")
    return messages


def list_options(question: QuestionBody, path: str) -> list[tuple[str, str | None]]:
    """List the options of a question, with their descriptions."""
    if question.type == "predicate":
        return [(option, None) for option in PREDICATE_OPTIONS]
    if question.type == "choice":
        if question.choices is None:
            raise FieldError(f"{path} is a choice without choices; send 2 to 26.", param=f"{path}.choices")
        return [(format_value(choice.value), choice.description) for choice in question.choices]
    if question.levels is None:
        raise FieldError(f"{path} is a score without levels; send 2 to 10.", param=f"{path}.levels")
    return [(level.label, level.description) for level in question.levels]


def format_value(value: str | bool) -> str:
    """Format a value as the model reads it."""
    return value if isinstance(value, str) else str(value).lower()


def write_question(question: QuestionBody, path: str) -> str:
    """Write a question with its options as letters."""
    lines = [join_parts(question.instructions, f"{path}.instructions"), ""]
    for letter, (option, description) in zip(string.ascii_uppercase, list_options(question, path), strict=False):
        lines.append(f"{letter}. {option}" + (f": {description}" if description else ""))
    return "\n".join([*lines, "", "Answer with the letter of the right option alone."])


def decide(model: "LanguageModel", body: DecisionsBody, context: RequestContext) -> tuple[list[DecisionAnswer], int]:
    """Answer the questions by a language model; return the answers and how many tokens it has read.

    Each question takes a run of the whole input, so that the time may be over before the last: `DeadlineError`.
    """
    messages, answers, tokens = read_messages(body), [], 0
    for place, question in enumerate(body.questions):
        context.check_deadline()
        path = f"questions[{place}]"
        asked = Conversation(messages=[*messages, {"role": "user", "content": write_question(question, path)}])
        prompt = encode_fitting_prompt(model, render_prompt(model, asked))
        letters = string.ascii_uppercase[: len(list_options(question, path))]
        answers.append(build_answer(question, compute_letter_probabilities(model, prompt, letters, context)))
        tokens += len(prompt)
    return answers, tokens


def compute_letter_probabilities(
    model: "LanguageModel", prompt: Sequence[int], letters: str, context: RequestContext
) -> list[float]:
    """Compute how probable each letter is as the next token, of these letters alone; they sum to 1."""
    tokens = [find_letter_token(model, letter) for letter in letters]
    logprobs = model.score_next(prompt, tokens, context.deadline, context.tenant)
    weights = np.exp(logprobs - logprobs.max())
    return [float(weight) for weight in weights / weights.sum()]


def find_letter_token(model: "LanguageModel", letter: str) -> int:
    """Find the token of a letter at the beginning of an answer."""
    tokens = model.tokenizer.encode(letter)
    if len(tokens) != 1:
        raise FieldError(f"{model.name!r} has no token for the letter {letter}, so it cannot decide.", param="model")
    return tokens[0]


def decide_by_labels(
    question: QuestionBody, path: str, probabilities: Mapping[str, float], manifest: Manifest
) -> DecisionAnswer:
    """Answer a question by a classifier's probabilities; its labels are the question's options."""
    options = [option for option, _ in list_options(question, path)]
    if sorted(options) != sorted(probabilities):
        raise FieldError(
            f"The options of {path} are {options}, and the labels of {manifest.name}:{manifest.version} are "
            f"{list(probabilities)}; a classifier answers questions whose options are its labels.",
            param=path,
        )
    return build_answer(question, [probabilities[option] for option in options])


def build_answer(question: QuestionBody, probabilities: Sequence[float]) -> DecisionAnswer:
    """Build the answer to a question from the probabilities of its options, in their order."""
    if question.type == "predicate":
        return PredicateAnswer(name=question.name, probability=probabilities[0])
    best = max(range(len(probabilities)), key=probabilities.__getitem__)
    if question.type == "choice":
        values = [choice.value for choice in question.choices or ()]
        return ChoiceAnswer(
            name=question.name,
            choice=values[best],
            confidence=probabilities[best],
            probabilities=[ChoiceProbability(*pair) for pair in zip(values, probabilities, strict=True)],
        )
    labels = [level.label for level in question.levels or ()]
    return ScoreAnswer(
        name=question.name,
        score=math.fsum(index * probability for index, probability in enumerate(probabilities)),
        confidence=probabilities[best],
        probabilities=[
            LevelProbability(index, label, probability)
            for index, (label, probability) in enumerate(zip(labels, probabilities, strict=True))
        ],
    )


def build_usage(tokens: int) -> DecisionUsage:
    """Build the tokens of a decision."""
    return DecisionUsage(tokens, InputTokensDetails(0), 0, OutputTokensDetails(), tokens)
