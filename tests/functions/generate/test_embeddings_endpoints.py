"""/v1/embeddings by the unmodified openai client, and /v1/rerank: vectors of a text are means of its words' vectors."""

import base64
import json
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tokenizers import Tokenizer

from functions.generate.embeddings_endpoints import EmbeddingsEndpoints
from pilotlight.api.embeddings import compute_relevance, encode_vector
from pilotlight.api.model_statistics import ModelStatistics
from pilotlight.api.openai_errors import to_openai_error
from pilotlight.contracts.manifest import TensorSpec
from pilotlight.contracts.processing import EmbeddingPostprocessing, TextPreprocessing
from pilotlight.inference import InferenceService
from pilotlight.registry.registry import Registry
from pilotlight.runtime.datatypes import Array
from pilotlight.runtime.inference_deadline import DeadlineRunner
from pilotlight.runtime.model_cache import ModelCache
from pilotlight.runtime.model_manager import ModelManager
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.endpoint_transport import build_transport
from tests.graph_writer import FLOAT, INT64, model, node, tensor, value

TOKENIZER = (fakes.MODELS / "minilm" / "tokenizer.json").read_bytes()
TOKENS = Tokenizer.from_buffer(TOKENIZER)
WIDTH = 8
TABLE = np.random.default_rng(7).normal(size=(TOKENS.get_vocab_size(), WIDTH)).astype(np.float32)
TEXTS = ["A cat sits on the mat.", "Shares lost value today, and nobody knows why.", "A kitten rests on a rug."]


def publish_vectors(registry: Registry, name: str, **steps: Any) -> None:  # noqa: ANN401 - of the steps
    """Publish a model whose state of a token is its row in the table."""
    names = ("input_ids", "attention_mask")
    graph = model(
        [node("Gather", ["table", "input_ids"], ["last_hidden_state"])],
        [value(one, INT64, ["batch", "tokens"]) for one in names],
        [value("last_hidden_state", FLOAT, ["batch", "tokens", WIDTH])],
        [tensor("table", TABLE)],
    )
    draft = replace(
        fakes.draft(
            name,
            tuple(TensorSpec(one, "INT64", ("batch", "tokens")) for one in names),
            (TensorSpec("last_hidden_state", "FP32", ("batch", "tokens", WIDTH)),),
        ),
        task="text",
        preprocess=TextPreprocessing(max_length=16),
        postprocess=EmbeddingPostprocessing(output="last_hidden_state", **steps),
    )
    registry.publish_version(draft, {"model.onnx": graph, "tokenizer.json": TOKENIZER})


@pytest.fixture(scope="module")
def transport() -> httpx2.MockTransport:
    registry = Registry(open_store("memory://"))
    publish_vectors(registry, "vectors")
    publish_vectors(registry, "nested", dimensions=(4,))
    fakes.publish(registry)
    manager = ModelManager(registry, ModelCache(100_000_000), memory_mb=1769, alias_seconds=10)
    service = InferenceService(manager, ModelStatistics(), DeadlineRunner())
    return build_transport(EmbeddingsEndpoints(service).routes(), error_formatter=to_openai_error)


def connect(transport: httpx2.MockTransport, *, strict: bool) -> openai.OpenAI:
    return openai.OpenAI(
        base_url="http://pilotlight/v1",
        api_key="none",
        http_client=httpx2.Client(transport=transport),
        max_retries=0,
        _strict_response_validation=strict,
    )


@pytest.fixture
def client(transport: httpx2.MockTransport) -> openai.OpenAI:
    """The client as it is by default: its type of a vector is numbers, so the base64 that it asks for is not strict."""
    return connect(transport, strict=False)


@pytest.fixture
def strict_client(transport: httpx2.MockTransport) -> openai.OpenAI:
    return connect(transport, strict=True)


def encode(text: str) -> list[int]:
    """A text's tokens, at most as many as the model reads."""
    ids: list[int] = TOKENS.encode(text).ids
    return [one for one in ids if one != 0][:16]


def expect(text: str, width: int = WIDTH) -> Array:
    """The mean of the tokens' rows, at length 1."""
    vector = TABLE[encode(text)].mean(axis=0)[:width]
    return np.asarray(vector / np.linalg.norm(vector))


def test_vectors_are_the_models_in_the_order_of_the_texts(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="vectors", input=TEXTS)  # in base64, which the client asks for by itself
    assert [one.index for one in answer.data] == [0, 1, 2]
    for one, text in zip(answer.data, TEXTS, strict=True):
        np.testing.assert_allclose(one.embedding, expect(text), atol=1e-6)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(len(encode(text)) for text in TEXTS)
    assert answer.model == "vectors"


def test_numbers_are_those_of_base64(client: openai.OpenAI, strict_client: openai.OpenAI) -> None:
    numbers = strict_client.embeddings.create(model="vectors@champion", input=TEXTS[0], encoding_format="float")
    packed = client.embeddings.create(model="vectors:1", input=[TEXTS[0]], encoding_format="base64")
    text: Any = packed.data[0].embedding  # the client decodes it only if it chose base64 itself
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(text), "<f4"), numbers.data[0].embedding)


def test_a_model_that_was_trained_for_it_has_shorter_vectors(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="nested", input=TEXTS[0], dimensions=4)
    np.testing.assert_allclose(answer.data[0].embedding, expect(TEXTS[0], 4), atol=1e-6)


def test_the_models_own_length_may_be_asked_for(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="vectors", input=TEXTS[0], dimensions=WIDTH)
    assert len(answer.data[0].embedding) == WIDTH


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"dimensions": 4}, "dimensions is 4, .* have 8"),
        ({"input": []}, "empty list"),
        ({"input": ""}, r"input\[0\]"),
        ({"input": ["one", "  "]}, r"input\[1\]"),
        ({"input": ["one", None]}, r"input\[1\]"),
        ({"input": [1, 2, 3]}, "check_embedding_ctx_length=False"),
        ({"input": [[1, 2], [3]]}, "check_embedding_ctx_length=False"),
        ({"input": ["a"] * 3000}, "3,000 texts"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"model": "double"}, "makes no vectors"),
    ],
)
def test_what_has_no_vector_is_refused_with_a_sentence(
    client: openai.OpenAI, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=words):
        client.embeddings.create(**{"model": "vectors", "input": "Hi", **fields})


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="absent") as refused:
        client.embeddings.create(model="absent", input="Hi")
    assert refused.value.code == "model_not_found"


def rerank(transport: httpx2.MockTransport, **fields: Any) -> httpx2.Response:  # noqa: ANN401 - of the body
    with httpx2.Client(transport=transport) as client:
        return client.post("http://pilotlight/v1/rerank", content=json.dumps({"model": "vectors", **fields}))


def test_documents_are_ordered_by_their_likeness_to_the_query(transport: httpx2.MockTransport) -> None:
    answer = rerank(
        transport, query=TEXTS[0], documents=[TEXTS[1], {"text": TEXTS[2]}, TEXTS[0]], return_documents=True
    )
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    expected = [(1 + float(expect(text) @ expect(TEXTS[0]))) / 2 for text in (TEXTS[1], TEXTS[2], TEXTS[0])]
    assert [one["index"] for one in results] == np.argsort(expected)[::-1].tolist()
    assert results[0] == {
        "index": 2, "relevance_score": pytest.approx(1.0), "document": {"text": TEXTS[0]},
    }  # fmt: skip
    for one in results:
        assert one["relevance_score"] == pytest.approx(expected[one["index"]], abs=1e-6)
    assert answer.json()["usage"]["total_tokens"] == sum(map(len, map(encode, [*TEXTS, TEXTS[0]])))


def test_fewer_documents_may_be_asked_for_and_more_are_all(transport: httpx2.MockTransport) -> None:
    assert len(rerank(transport, query="cat", documents=TEXTS, top_n=2).json()["results"]) == 2
    results = rerank(transport, query="cat", documents=TEXTS, top_n=9).json()["results"]
    assert len(results) == 3
    assert "document" not in results[0]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"documents": []}, "documents"),
        ({"documents": None}, "documents"),
        ({"documents": ["a", None]}, "documents[1]"),
        ({"documents": ["a", 3]}, "documents[1]"),
        ({"documents": ["a", ""]}, "documents[1]"),
        ({"query": " "}, "query"),
        ({"top_n": 0}, "top_n"),
    ],
)
def test_documents_that_cannot_be_ranked_are_refused(
    transport: httpx2.MockTransport, fields: dict[str, Any], words: str
) -> None:
    answer = rerank(transport, **{"query": "cat", "documents": TEXTS, **fields})
    assert answer.status_code == 400, answer.text
    assert words in answer.json()["error"]["message"]


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=20))
def test_base64_holds_float32_in_little_endian_order(numbers: list[float]) -> None:
    text = encode_vector(np.array(numbers, "<f4"), is_base64=True)
    assert isinstance(text, str)
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(text), "<f4"), np.array(numbers, np.float32))


@given(st.lists(st.lists(st.floats(-1e3, 1e3, width=32), min_size=3, max_size=3), min_size=2, max_size=6))
def test_relevance_is_from_0_to_1(vectors: list[list[float]]) -> None:
    relevance = compute_relevance(np.array(vectors, np.float32))
    assert relevance.shape == (len(vectors) - 1,)
    assert ((relevance >= 0) & (relevance <= 1)).all()
