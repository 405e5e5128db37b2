"""Endpoints of text models that make vectors: /v1/embeddings, and /v1/rerank by them."""

from functools import partial

from functions.generate.openai_endpoints import with_codes
from functions.generate.opened_model import parse_model
from pilotlight.api import embeddings
from pilotlight.api.embeddings import TextVectors, TextVectorsRequest
from pilotlight.api.http import Request, Response
from pilotlight.api.json_bodies import decode_json_body
from pilotlight.api.router import Routes
from pilotlight.api.schemas.embeddings import EmbeddingsBody, RerankBody
from pilotlight.api.trial_caller import build_caller
from pilotlight.contracts.names import ModelReference
from pilotlight.inference import InferenceService, RoutedInference
from pilotlight.processing import text


class EmbeddingsEndpoints:
    """The endpoints of vectors."""

    def __init__(self, service: InferenceService) -> None:
        self._model_manager = service.model_manager
        self._routed_inference = RoutedInference(service)

    def routes(self) -> Routes:
        """Return the table of routes."""
        return {
            "/v1/embeddings": {"POST": with_codes(self.create_embeddings)},
            "/v1/rerank": {"POST": with_codes(self.rank_documents)},
        }

    def create_embeddings(self, request: Request) -> Response:
        """Create the vectors of texts."""
        body = decode_json_body(request.body, EmbeddingsBody)
        texts = embeddings.read_texts(body)
        found = self._compute_vectors(request, body.model, TextVectorsRequest(texts, body.dimensions))
        tokens = self._count_tokens(request, found, texts)
        return Response.json(embeddings.build_embedding_list(body, found.vectors, tokens))

    def rank_documents(self, request: Request) -> Response:
        """Order documents by the likeness of their vectors to the query's."""
        body = decode_json_body(request.body, RerankBody)
        texts = embeddings.read_documents(body)
        found = self._compute_vectors(request, body.model, TextVectorsRequest(texts))
        tokens = self._count_tokens(request, found, texts)
        return Response.json(embeddings.build_rerank_result(body, embeddings.compute_relevance(found.vectors), tokens))

    def _compute_vectors(self, request: Request, model: str, vectors_request: TextVectorsRequest) -> TextVectors:
        """Compute vectors with the version that the alias's split selects."""
        reference = parse_model(model)
        return self._routed_inference.infer(reference, vectors_request, request.trace, partial(build_caller, request))

    def _count_tokens(self, request: Request, found: TextVectors, texts: list[str]) -> int:
        """Count the tokens by the tokenizer of the version that answered, which is open."""
        manifest = found.manifest
        reference = ModelReference(manifest.name, manifest.version)
        model = self._model_manager.get_model(reference, request.trace.deadline)
        prepare, _ = embeddings.get_embedding_steps(manifest)
        return text.count_tokens(prepare, manifest, texts, model.assets)
