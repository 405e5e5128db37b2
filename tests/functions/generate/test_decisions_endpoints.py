"""/v1/decisions by the unmodified openai client: a scripted model's next letter, and a classifier's labels."""

import math
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
from msgspec.structs import replace
from tokenizers import Tokenizer

from functions.generate.decisions_endpoints import DecisionsEndpoints
from pilotlight.api.model_statistics import ModelStatistics
from pilotlight.api.openai_errors import to_openai_error
from pilotlight.contracts.manifest import TensorSpec
from pilotlight.contracts.processing import ClassificationPostprocessing, TextPreprocessing
from pilotlight.generation.chat_template import ChatTemplate
from pilotlight.inference import InferenceService
from pilotlight.registry.registry import Registry
from pilotlight.runtime.inference_deadline import DeadlineRunner
from pilotlight.runtime.model_cache import ModelCache
from pilotlight.runtime.model_manager import ModelManager
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.endpoint_transport import FakeGenerationService, build_transport
from tests.graph_writer import FLOAT, INT64, model, node, tensor, value
from tests.language_model_versions import publish_scripted
from tests.scripted_model import CHAT_TEMPLATE, ScriptedModel

TOKENIZER = (fakes.MODELS / "minilm" / "tokenizer.json").read_bytes()
LABELS = ("bad", "fine", "good")
TABLE = np.random.default_rng(3).normal(size=(Tokenizer.from_buffer(TOKENIZER).get_vocab_size(), 3)).astype(np.float32)
FEELING = {"type": "choice", "name": "feeling", "instructions": "How is it?", "choices": [{"value": x} for x in LABELS]}
LIKELY = math.e / (math.e + 1)  # of the scripted letter, whose logit is 1 above those of all others


def publish_classifier(registry: Registry, name: str) -> None:
    """Publish a model whose scores are those of the first token, which is the same for all texts."""
    graph = model(
        [
            node("Gather", ["table", "input_ids"], ["states"]),
            node("ReduceSum", ["states", "axis"], ["scores"], keepdims=0),
        ],
        [value("input_ids", INT64, ["batch", "tokens"])],
        [value("scores", FLOAT, ["batch", 3])],
        [tensor("table", TABLE), tensor("axis", np.array([1]))],
    )
    draft = replace(
        fakes.draft(
            name,
            (TensorSpec("input_ids", "INT64", ("batch", "tokens")),),
            (TensorSpec("scores", "FP32", ("batch", 3)),),
        ),
        task="text",
        preprocess=TextPreprocessing(max_length=16),
        postprocess=ClassificationPostprocessing(output="scores"),
        labels=LABELS,
    )
    registry.publish_version(draft, {"model.onnx": graph, "tokenizer.json": TOKENIZER})


@pytest.fixture(scope="module")
def manager() -> ModelManager:
    registry = Registry(open_store("memory://"))
    publish_classifier(registry, "feelings")
    publish_scripted(registry)
    fakes.publish(registry)
    return ModelManager(registry, ModelCache(100_000_000), memory_mb=1769, alias_seconds=10)


def connect(manager: ModelManager, letter: str = "B") -> openai.OpenAI:
    """A client of a server on which `chat` writes a letter."""
    scripted = ScriptedModel.build([letter], margin=1.0, context_length=4096)
    service: Any = FakeGenerationService(scripted.open(chat_template=ChatTemplate(CHAT_TEMPLATE)))
    inference = InferenceService(manager, ModelStatistics(), DeadlineRunner())
    transport = build_transport(DecisionsEndpoints(service, inference).routes(), error_formatter=to_openai_error)
    return openai.OpenAI(
        base_url="http://pilotlight/v1",
        api_key="none",
        http_client=httpx2.Client(transport=transport),
        max_retries=0,
        _strict_response_validation=True,
    )


def decide(client: openai.OpenAI, *questions: Any, **fields: Any) -> Any:  # noqa: ANN401 - of the client
    return client.decisions.create(**{"model": "chat", "input": "It is raining.", "questions": questions, **fields})


def test_a_predicate_is_the_probability_of_yes(manager: ModelManager) -> None:
    question = {"type": "predicate", "name": "wet", "instructions": "Is it wet?"}
    (answer,) = decide(connect(manager, "A"), question).answers
    assert (answer.type, answer.name) == ("predicate", "wet")
    assert answer.probability == pytest.approx(LIKELY, abs=1e-6)
    assert decide(connect(manager, "B"), question).answers[0].probability == pytest.approx(1 - LIKELY, abs=1e-6)


def test_a_choice_has_the_probabilities_of_all_values(manager: ModelManager) -> None:
    choices = [{"value": True, "description": "it is"}, {"value": False}, {"value": "unknown"}]
    question = {"type": "choice", "instructions": "Is it wet?", "choices": choices}
    result = decide(connect(manager, "B"), question)
    (answer,) = result.answers
    assert answer.choice is False
    assert answer.confidence == pytest.approx(math.e / (math.e + 2), abs=1e-6)
    assert [one.value for one in answer.probabilities] == [True, False, "unknown"]
    assert sum(one.probability for one in answer.probabilities) == pytest.approx(1)
    assert result.usage.total_tokens == result.usage.input_tokens > 0


def test_a_score_is_the_mean_of_the_levels(manager: ModelManager) -> None:
    question = {"type": "score", "instructions": "How wet?", "levels": [{"label": "dry"}, {"label": "wet"}]}
    (answer,) = decide(connect(manager, "B"), question).answers
    assert answer.score == pytest.approx(LIKELY, abs=1e-6)
    assert [(one.value, one.label) for one in answer.probabilities] == [(0, "dry"), (1, "wet")]


def test_questions_are_answered_in_their_order(manager: ModelManager) -> None:
    questions = [{"type": "predicate", "name": name, "instructions": name} for name in ("one", "two", "three")]
    answers = decide(connect(manager), *questions, input=[{"role": "user", "content": "x"}]).answers
    assert [answer.name for answer in answers] == ["one", "two", "three"]


def test_a_classifier_answers_if_its_labels_are_the_choices(manager: ModelManager) -> None:
    text = "It is raining."
    tokens = [one for one in Tokenizer.from_buffer(TOKENIZER).encode(text).ids if one]
    scores = TABLE[tokens].sum(axis=0).astype(np.float64)
    expected = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    result = decide(connect(manager), FEELING, model="feelings", input=text)
    (answer,) = result.answers
    assert [one.value for one in answer.probabilities] == list(LABELS)
    np.testing.assert_allclose([one.probability for one in answer.probabilities], expected, atol=1e-5)
    assert answer.choice == LABELS[int(expected.argmax())]
    assert result.usage.input_tokens == len(tokens)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"questions": []}, "questions"),
        ({"questions": [{"type": "choice", "instructions": "x"}]}, "without choices"),
        ({"questions": [{"type": "score", "instructions": "x"}]}, "without levels"),
        ({"questions": [{"type": "score", "instructions": "x", "levels": [{"label": "a"}] * 11}]}, "levels"),
        ({"questions": [{"type": "choice", "instructions": "x", "choices": [{"value": "a"}] * 27}]}, "choices"),
        ({"questions": [{"type": "poem", "instructions": "x"}]}, "poem"),
        ({"questions": [{"type": "predicate", "instructions": "x"}], "model": "feelings"}, "the labels of feelings:1"),
        ({"input": []}, "input has no message"),
    ],
)
def test_what_cannot_be_decided_is_refused(manager: ModelManager, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(openai.BadRequestError, match=words):
        decide(connect(manager), FEELING, **fields)


def test_an_unknown_model_is_not_found(manager: ModelManager) -> None:
    with pytest.raises(openai.NotFoundError, match="absent"):
        decide(connect(manager), FEELING, model="absent")
