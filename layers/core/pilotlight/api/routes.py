"""The table of routes: verb, path, function, scope, and the bodies of request and response.

`make routes` generates infra/api.yaml, which API Gateway reads, and openapi.json, which callers read, from it. The
authorizer checks the scopes: `infer` calls models, `batch` creates files and batches, `admin` changes versions and
aliases, `train` starts trainings. Schemas are named here and resolved in pilotlight.openapi, since
the authorizer, which must start fast, reads this table too.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from pilotlight.contracts.scopes import Scope

Verb = Literal["GET", "POST", "PUT", "DELETE"]

TEXT, HTML = "text/plain", "text/html"
EVENT_STREAM = "text/event-stream"
MULTIPART, BINARY = "multipart/form-data", "application/octet-stream"
FILES = ("image/*", "audio/*", TEXT, BINARY, MULTIPART)  # bodies that are one example of a model, or a form of several

# Functions, by their logical ids in template.yaml.
PREDICT, REGISTRY = "PredictFunction", "ModelsFunction"
BATCHES, TRAININGS = "BatchesFunction", "StartTrainingFunction"
GENERATE = "GenerateFunction"  # alone streams its answers; its errors too, so that no other function shares its routes

V2_MODEL_PATH, V2_VERSION_PATH = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
V2_PATHS = (V2_MODEL_PATH, V2_VERSION_PATH)
REGISTRY_MODEL_PATH, REGISTRY_VERSION_PATH = "/registry/models/{model}", "/registry/models/{model}/versions/{version}"
REGISTRY_ALIAS_PATH = "/registry/models/{model}/aliases/{alias}"


class Route(NamedTuple):
    """A verb of a path: the function that answers it, its scope and summary, and its bodies."""

    verb: Verb
    path: str
    function: str  # logical id in template.yaml
    scope: Scope
    summary: str
    response: str = "Anything"  # the name of a schema, or a media type
    body: str | None = None  # as `response`; None for a verb without a body
    uses_etag: bool = False  # whether it accepts If-Match and returns an ETag
    status: str = "200"
    other_statuses: tuple[str, ...] = ()  # other statuses with a response of the same form
    other_bodies: tuple[str, ...] = ()  # other media types of the body

    @property
    def streams(self) -> bool:
        """Whether the gateway passes the answer on while the function makes it."""
        return self.function == GENERATE


ROUTES: tuple[Route, ...] = (
    # The Open Inference Protocol.
    Route("GET", "/v2", PREDICT, "infer", "Name, version and extensions of the server."),
    Route("GET", "/v2/health/live", PREDICT, "infer", "Whether the process answers."),
    Route("GET", "/v2/health/ready", PREDICT, "infer", "Whether the store answers too."),
    Route("GET", "/v2/models", PREDICT, "infer", "The names of all models.", "ModelNames"),
    Route("GET", "/v2/models/stats", PREDICT, "infer", "What this environment has answered."),
    *(
        Route("GET", path, PREDICT, "infer", "Metadata: inputs, outputs and versions.", "ModelMetadata")
        for path in V2_PATHS
    ),
    *(
        Route(
            "GET",
            f"{path}/ready",
            PREDICT,
            "infer",
            "Whether the next inference will be answered; opens the model.",
        )
        for path in V2_PATHS
    ),
    *(Route("GET", f"{path}/config", PREDICT, "infer", "The configuration in Triton's words.") for path in V2_PATHS),
    *(
        Route("GET", f"{path}/stats", PREDICT, "infer", "What this environment has answered for it.")
        for path in V2_PATHS
    ),
    *(
        Route(
            "POST",
            f"{path}/infer",
            PREDICT,
            "infer",
            "One inference: tensors in JSON, or a file such as a photograph.",
            "InferResponse",
            "InferRequest",
            other_bodies=FILES,
        )
        for path in V2_PATHS
    ),
    *(
        Route(
            "POST",
            f"{path}/generate",
            GENERATE,
            "infer",
            "A text that a language model writes.",
            "GenerateResult",
            "GenerateBody",
        )
        for path in V2_PATHS
    ),
    *(
        Route(
            "POST",
            f"{path}/generate_stream",
            GENERATE,
            "infer",
            "The same, sent as events while it is written.",
            EVENT_STREAM,
            "GenerateBody",
        )
        for path in V2_PATHS
    ),
    Route("POST", "/v2/repository/index", REGISTRY, "infer", "Every version with its state.", "Index", "Object"),
    Route(
        "POST",
        "/v2/repository/models/{model}/load",
        REGISTRY,
        "admin",
        "Put the champion back into service.",
        body="Object",
    ),
    Route(
        "POST",
        "/v2/repository/models/{model}/unload",
        REGISTRY,
        "admin",
        "Take the champion out of service.",
        body="Object",
    ),
    # MLflow's scoring protocol.
    Route(
        "POST",
        "/invocations",
        PREDICT,
        "infer",
        "One call of MLflow's scoring protocol, or a file such as a photograph.",
        body="Object",
        other_bodies=("text/csv", *FILES),
    ),
    Route("GET", "/ping", PREDICT, "infer", "Whether the store answers.", TEXT),
    Route("GET", "/health", PREDICT, "infer", "Whether the store answers.", TEXT),
    Route("GET", "/version", PREDICT, "infer", "The version of the server.", TEXT),
    # Language models, in the shapes of OpenAI's and Anthropic's APIs.
    Route("GET", "/v1/models", GENERATE, "infer", "The models that these routes may name.", "LanguageModelList"),
    Route("GET", "/v1/models/{model}", GENERATE, "infer", "One model, with its context length.", "LanguageModelObject"),
    Route(
        "POST",
        "/v1/chat/completions",
        GENERATE,
        "infer",
        "The next message of a conversation; with stream: true, as events while it is written.",
        "ChatCompletion",
        "ChatCompletionBody",
    ),
    Route("POST", "/v1/completions", GENERATE, "infer", "The continuation of a text.", "Completion", "CompletionBody"),
    Route(
        "POST",
        "/v1/responses",
        GENERATE,
        "infer",
        "A response to a conversation, stateless.",
        "ResponseObject",
        "ResponsesBody",
    ),
    Route(
        "POST",
        "/v1/messages",
        GENERATE,
        "infer",
        "The next message, in Anthropic's shape.",
        "MessageObject",
        "MessagesBody",
    ),
    Route(
        "POST",
        "/v1/messages/count_tokens",
        GENERATE,
        "infer",
        "How many tokens a conversation has, in Anthropic's shape.",
        "TokenCount",
        "CountTokensBody",
    ),
    Route("POST", "/v1/embeddings", GENERATE, "infer", "The vectors of texts.", "EmbeddingList", "EmbeddingsBody"),
    Route(
        "POST",
        "/v1/rerank",
        GENERATE,
        "infer",
        "Documents by their relevance to a query.",
        "RerankResult",
        "RerankBody",
    ),
    Route(
        "POST",
        "/v1/decisions",
        GENERATE,
        "infer",
        "Probabilities of typed questions on one input; beta, as OpenAI's own is.",
        "DecisionResult",
        "DecisionsBody",
    ),
    Route(
        "POST",
        "/tokenize",
        GENERATE,
        "infer",
        "The tokens of a text or a conversation.",
        "TokenizeResult",
        "TokenizeBody",
    ),
    Route("POST", "/detokenize", GENERATE, "infer", "The text of tokens.", "DetokenizeResult", "DetokenizeBody"),
    # Versions, and the aliases that decide which of them answer.
    Route("GET", "/registry/models", REGISTRY, "admin", "Every model.", "ModelList"),
    Route(
        "GET",
        REGISTRY_MODEL_PATH,
        REGISTRY,
        "admin",
        "A model with its aliases and its newest versions; ?newest=200 shows more.",
        "ModelDetail",
    ),
    Route(
        "POST",
        f"{REGISTRY_MODEL_PATH}/prune",
        REGISTRY,
        "admin",
        "Remove old versions that no alias needs, or say which.",
        "PruneResult",
        "PruneBody",
    ),
    Route(
        "POST",
        f"{REGISTRY_MODEL_PATH}/versions",
        REGISTRY,
        "admin",
        "Announce a version with the hashes of its files: 202 with a presigned URL for each.",
        "VersionUpload",
        "NewVersionBody",
        status="202",
    ),
    Route("GET", REGISTRY_VERSION_PATH, REGISTRY, "admin", "A version in a few words.", "VersionSummary"),
    Route(
        "GET",
        f"{REGISTRY_VERSION_PATH}/upload",
        REGISTRY,
        "admin",
        "What has arrived of an announced version, with new URLs for the rest.",
        "VersionUpload",
    ),
    Route(
        "POST",
        f"{REGISTRY_VERSION_PATH}/commit",
        REGISTRY,
        "admin",
        "Make an announced version visible, if every file is there with its size and hash; may be repeated.",
        "Manifest",
        "Object",
    ),
    Route(
        "DELETE",
        REGISTRY_VERSION_PATH,
        REGISTRY,
        "admin",
        "Remove a version for good; 409 while an alias needs it.",
        "DeletedVersion",
    ),
    Route("GET", f"{REGISTRY_VERSION_PATH}/manifest", REGISTRY, "admin", "The commit record of a version.", "Manifest"),
    Route("GET", f"{REGISTRY_VERSION_PATH}/report", REGISTRY, "admin", "What was measured of a version's variants."),
    Route(
        "GET",
        f"{REGISTRY_VERSION_PATH}/verdict",
        REGISTRY,
        "admin",
        "What the gate found when it last examined a version.",
        "Verdict",
    ),
    Route(
        "GET",
        f"{REGISTRY_VERSION_PATH}/files",
        REGISTRY,
        "admin",
        "The files of a version, with size and sha256.",
        "ManifestFiles",
    ),
    Route("GET", f"{REGISTRY_VERSION_PATH}/approval", REGISTRY, "admin", "Whether people want a version.", "Approval"),
    Route(
        "PUT",
        f"{REGISTRY_VERSION_PATH}/approval",
        REGISTRY,
        "admin",
        "Approve or reject a version.",
        "Approval",
        "ApprovalBody",
    ),
    Route("GET", f"{REGISTRY_MODEL_PATH}/aliases", REGISTRY, "admin", "Every alias of a model.", "Aliases"),
    Route("GET", REGISTRY_ALIAS_PATH, REGISTRY, "admin", "Where an alias points.", "AliasDocument"),
    Route(
        "GET",
        f"{REGISTRY_ALIAS_PATH}/history",
        REGISTRY,
        "admin",
        "Every document that an alias has had, oldest first.",
        "AliasHistory",
    ),
    Route(
        "POST",
        f"{REGISTRY_ALIAS_PATH}/promote",
        REGISTRY,
        "admin",
        "Bring a version to the alias through the gate: 202, and GET .../promotions/{promotion} tells how it ended.",
        "PromotionRequest",
        "PromoteBody",
        uses_etag=True,
        status="202",
        other_statuses=("200",),
    ),
    Route(
        "GET",
        f"{REGISTRY_MODEL_PATH}/promotions/{{promotion}}",
        REGISTRY,
        "admin",
        "How a promotion goes.",
        "PromotionRequest",
    ),
    *(
        Route(
            "POST", f"{REGISTRY_ALIAS_PATH}/{what}", REGISTRY, "admin", summary, "AliasDocument", body, uses_etag=True
        )
        for what, summary, body in (
            ("rollback", "End the trial, or go back one move.", "RollbackBody"),
            ("canary", "Try a version on some requests.", "CanaryBody"),
            ("split", "Share requests out among versions.", "TrafficSplitBody"),
            ("shadow", "Send copies to another version too.", "ShadowBody"),
        )
    ),
    # OpenAI's files, uploads and batches.
    Route("POST", "/v1/files", BATCHES, "batch", "A file in one request.", "FileObject", MULTIPART),
    Route("GET", "/v1/files", BATCHES, "batch", "Files, the newest first; ?purpose, ?limit, ?after.", "ObjectPage"),
    Route("GET", "/v1/files/{file}", BATCHES, "batch", "One file.", "FileObject"),
    Route("DELETE", "/v1/files/{file}", BATCHES, "batch", "Remove an uploaded file.", "DeletedFile"),
    Route(
        "GET", "/v1/files/{file}/content", BATCHES, "batch", "Its bytes; 302 to a presigned URL beyond 4 MB.", BINARY
    ),
    Route(
        "POST",
        "/v1/uploads",
        BATCHES,
        "batch",
        "Announce a file that is too large for one request.",
        "UploadObject",
        "CreateUploadBody",
    ),
    Route(
        "POST",
        "/v1/uploads/{upload}/parts",
        BATCHES,
        "batch",
        "A part of at most 4 MB.",
        "UploadPart",
        MULTIPART,
    ),
    Route(
        "POST",
        "/v1/uploads/{upload}/complete",
        BATCHES,
        "batch",
        "Make the file of its parts.",
        "UploadObject",
        "CompleteUploadBody",
    ),
    Route("POST", "/v1/uploads/{upload}/cancel", BATCHES, "batch", "Forget an upload.", "UploadObject", "Object"),
    Route(
        "POST",
        "/v1/batches",
        BATCHES,
        "batch",
        "Order a batch of requests to one endpoint.",
        "BatchObject",
        "CreateBatchBody",
    ),
    Route("GET", "/v1/batches", BATCHES, "batch", "Batches, the newest first; ?limit, ?after.", "ObjectPage"),
    Route("GET", "/v1/batches/{batch}", BATCHES, "batch", "A batch and how far it is.", "BatchObject"),
    Route("POST", "/v1/batches/{batch}/cancel", BATCHES, "batch", "Stop a batch.", "BatchObject", "Object"),
    # Trainings of recipes.
    Route(
        "GET",
        "/v1/trainings",
        TRAININGS,
        "train",
        "Every training, those first that changed last; ?skip=50&limit=50.",
        "TrainingList",
    ),
    Route(
        "POST",
        "/v1/trainings",
        TRAININGS,
        "train",
        "Train a recipe: 202 while it is under way, 200 where the run has ended before. The body is this order or, in "
        "JSON or YAML, the recipe itself with ?run=, ?nodes= and ?resume=.",
        "TrainingDetail",
        "StartTrainingBody",
        status="202",
        other_statuses=("200",),
    ),
    Route(
        "GET",
        "/v1/trainings/{run}",
        TRAININGS,
        "train",
        "A training: state, attempts, epochs, metrics, the version that came out.",
        "TrainingDetail",
    ),
    Route(
        "GET",
        "/v1/trainings/{run}/log",
        TRAININGS,
        "train",
        "The next lines of its log; ?token= goes on where an answer ended.",
        "TrainingLog",
    ),
    Route(
        "POST",
        "/v1/trainings/{run}/cancel",
        TRAININGS,
        "train",
        "Stop a training: by SIGTERM, upon which it saves a checkpoint and ends; resume goes on from there.",
        "TrainingDetail",
        "CancelTrainingBody",
        status="202",
        other_statuses=("200",),
    ),
    # The description of the API.
    Route("GET", "/openapi.json", REGISTRY, "infer", "The OpenAPI document."),
    Route("GET", "/docs", REGISTRY, "infer", "The same to read.", HTML),
)

SCOPES: Mapping[str, Scope] = {route.path: route.scope for route in ROUTES}

VERBS: Mapping[Scope, tuple[str, ...]] = {  # that a token of a scope allows
    "infer": ("GET", "HEAD", "POST"),
    "batch": ("DELETE", "GET", "HEAD", "POST"),
    "admin": ("DELETE", "GET", "HEAD", "POST", "PUT"),
    "train": ("DELETE", "GET", "HEAD", "POST"),
}
