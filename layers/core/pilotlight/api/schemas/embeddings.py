"""Bodies of /v1/embeddings and /v1/rerank. Null is as if a field were absent, and unknown fields are ignored."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

MAX_TEXTS = 2048  # of a request, as OpenAI has it


class EmbeddingsBody(Struct, frozen=True, kw_only=True):
    """A request for the vectors of texts, in OpenAI's form."""

    model: Annotated[str, Meta(min_length=1)]
    input: str | list[Any]  # a text, texts, or token ids, which are refused
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1)] | None = None


class EmbeddingObject(Struct, frozen=True, kw_only=True):
    """The vector of a text: numbers, or the base64 of float32 in little-endian order."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class TokenCounts(Struct, frozen=True):
    """The tokens that the model has read; none are written."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Struct, frozen=True, kw_only=True):
    """The vectors, in the order of the texts."""

    object: Literal["list"] = "list"
    data: list[EmbeddingObject]
    model: str
    usage: TokenCounts


class DocumentBody(Struct, frozen=True):
    """A document as an object."""

    text: str


class RerankBody(Struct, frozen=True, kw_only=True):
    """A request to order documents by their relevance to a query, in Jina's form, which is Cohere's with more."""

    model: Annotated[str, Meta(min_length=1)]
    query: str
    documents: Annotated[list[str | DocumentBody], Meta(min_length=1)]
    top_n: Annotated[int, Meta(ge=1)] | None = None
    return_documents: bool | None = None


class RankedDocument(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A document's place in the request, and its relevance from 0 to 1."""

    index: int
    relevance_score: float
    document: DocumentBody | None = None


class RerankResult(Struct, frozen=True):
    """The documents, the most relevant first."""

    id: str
    model: str
    results: list[RankedDocument]
    usage: TokenCounts
