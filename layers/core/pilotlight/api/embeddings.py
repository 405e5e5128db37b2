"""Vectors of texts in the form of OpenAI's embeddings, and documents in the order of their relevance by them.

The texts go through a text model's own steps: its tokenizer, its pooling, its normalisation. Token ids are refused:
those that clients make are OpenAI's, and mean other words to any other model.
"""

import uuid
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import pybase64
from msgspec import Struct

from pilotlight.api.schemas.embeddings import (
    MAX_TEXTS,
    DocumentBody,
    EmbeddingList,
    EmbeddingObject,
    EmbeddingsBody,
    RankedDocument,
    RerankBody,
    RerankResult,
    TokenCounts,
)
from pilotlight.api.v2 import InferenceRequest, RequestedOutput
from pilotlight.contracts.manifest import Manifest
from pilotlight.contracts.processing import EmbeddingPostprocessing, TextPreprocessing
from pilotlight.errors import FieldError
from pilotlight.processing.embedding import normalise, shorten_embeddings
from pilotlight.runtime.datatypes import Array
from pilotlight.runtime.traffic import InferenceResult


class TextVectors(Struct, frozen=True):
    """The vectors of texts, (texts, width), and the version that made them."""

    manifest: Manifest
    vectors: Array


class TextVectorsRequest(Struct, frozen=True):
    """A request for the vectors of texts, as the service runs it."""

    texts: Sequence[str]
    dimensions: int | None = None

    def decode(self, manifest: Manifest) -> InferenceRequest:
        """Build the request for the version's text input and its vectors."""
        prepare, finish = get_embedding_steps(manifest)
        check_dimensions(manifest, finish, self.dimensions)
        return InferenceRequest(
            None, {prepare.name: np.array(self.texts, object)}, [RequestedOutput(finish.name, binary=True)]
        )

    def encode(
        self, manifest: Manifest, request: InferenceRequest, outputs: Mapping[str, Array]
    ) -> InferenceResult[TextVectors]:
        """Return the vectors, shortened if that was asked for."""
        _, finish = get_embedding_steps(manifest)
        vectors = outputs[finish.name]
        if self.dimensions is not None and self.dimensions != vectors.shape[-1]:
            vectors = shorten_embeddings(finish, vectors, self.dimensions)
        return InferenceResult(TextVectors(manifest, vectors), outputs, request.row_count)


def get_embedding_steps(manifest: Manifest) -> tuple[TextPreprocessing, EmbeddingPostprocessing]:
    """Return the steps of a version that turns texts into vectors; refuse other versions."""
    prepare, finish = manifest.preprocess, manifest.postprocess
    if isinstance(prepare, TextPreprocessing) and isinstance(finish, EmbeddingPostprocessing):
        return prepare, finish
    raise FieldError(
        f"{manifest.name}:{manifest.version} is a model for {manifest.task} that makes no vectors of texts; name one "
        "that does.",
        param="model",
    )


def check_dimensions(manifest: Manifest, finish: EmbeddingPostprocessing, asked: int | None) -> None:
    """Refuse a length of vectors for which the model was not trained."""
    width = next(spec.shape[-1] for spec in manifest.outputs if spec.name == finish.output)
    if asked is None or asked == width or asked in finish.dimensions:
        return
    lengths = ", ".join(str(length) for length in sorted({*finish.dimensions, width}, key=str))
    raise FieldError(
        f"dimensions is {asked}, and vectors of {manifest.name}:{manifest.version} have {lengths}: its first numbers "
        "alone mean nothing unless the model was trained so, which its manifest must say.",
        param="dimensions",
    )


def read_texts(body: EmbeddingsBody) -> list[str]:
    """Read the texts of a request; refuse token ids, empty texts and too many."""
    texts = [body.input] if isinstance(body.input, str) else body.input
    if not texts:
        raise FieldError("input is an empty list; send a text, or a list of at least one.", param="input")
    if len(texts) > MAX_TEXTS:
        raise FieldError(f"input has {len(texts):,} texts, more than {MAX_TEXTS:,}; send fewer.", param="input")
    for place, text in enumerate(texts):
        if isinstance(text, int | list):
            raise FieldError(
                "input has token ids, which mean other words to this model than to the tokenizer that made them; send "
                "texts (langchain's OpenAIEmbeddings does so with check_embedding_ctx_length=False).",
                param="input",
            )
        if not isinstance(text, str) or not text.strip():
            raise FieldError(f"input[{place}] is {text!r}; send a text with at least one word.", param="input")
    return cast("list[str]", texts)


def build_embedding_list(body: EmbeddingsBody, vectors: Array, tokens: int) -> EmbeddingList:
    """Build the answer, in the order of the texts."""
    rows = np.ascontiguousarray(vectors, dtype="<f4")
    data = [
        EmbeddingObject(index=index, embedding=encode_vector(row, is_base64=body.encoding_format == "base64"))
        for index, row in enumerate(rows)
    ]
    return EmbeddingList(data=data, model=body.model, usage=TokenCounts(tokens, tokens))


def encode_vector(row: Array, *, is_base64: bool) -> list[float] | str:
    """Encode a vector of float32."""
    if is_base64:
        return pybase64.b64encode_as_string(row.tobytes())
    return cast("list[float]", row.tolist())


def read_documents(body: RerankBody) -> list[str]:
    """Read the texts to compare: the query, then the documents."""
    documents = [one if isinstance(one, str) else one.text for one in body.documents]
    if not body.query.strip():
        raise FieldError("query is empty; send what the documents are to be relevant to.", param="query")
    if len(documents) > MAX_TEXTS:
        raise FieldError(f"There are {len(documents):,} documents, more than {MAX_TEXTS:,}.", param="documents")
    for place, document in enumerate(documents):
        if not document.strip():
            raise FieldError(f"documents[{place}] is empty; leave it out.", param=f"documents[{place}]")
    return [body.query, *documents]


def compute_relevance(vectors: Array) -> Array:
    """Compute the relevance of each document to the query, which is the first vector: (1 + cosine) / 2, from 0 to 1."""
    unit = normalise(vectors.astype(np.float64))
    return np.asarray(np.clip((1 + unit[1:] @ unit[0]) / 2, 0.0, 1.0))


def build_rerank_result(body: RerankBody, relevance: Array, tokens: int) -> RerankResult:
    """Build the answer: the most relevant first; equal ones in the order of the request."""
    order = np.argsort(-relevance, kind="stable")[: body.top_n]
    texts = [one if isinstance(one, str) else one.text for one in body.documents]
    results = [
        RankedDocument(
            index=int(index),
            relevance_score=float(relevance[index]),
            document=DocumentBody(texts[index]) if body.return_documents else None,
        )
        for index in order
    ]
    return RerankResult(f"rerank-{uuid.uuid4().hex}", body.model, results, TokenCounts(tokens, tokens))
