"""The OpenAPI 3.1 document of the whole HTTP surface, made from the table of operations below and msgspec's schemas.

    python -m pilotlight.openapi      writes functions/registry_api/openapi.json in the working folder

A test holds the table to the routes that the functions answer, and the committed document to what this makes. No
handler imports this: they serve the file.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

import pilotlight
from pilotlight.api.routes import SCOPES
from pilotlight.api.schemas import openai, registry
from pilotlight.api.schemas.training import (
    CancelTrainingBody,
    StartTrainingBody,
    TrainingDetail,
    TrainingList,
    TrainingLog,
)
from pilotlight.client.client import InferResponse, ModelMetadata, ModelNames, Tensor
from pilotlight.contracts.alias import AliasDocument
from pilotlight.contracts.manifest import Manifest, ManifestFile
from pilotlight.contracts.names import NAME_PATTERN
from pilotlight.contracts.promotion import PromotionRequest
from pilotlight.gate.verdict import Verdict
from pilotlight.registry.approval import Approval

OPENAPI_FILE = Path("functions/registry_api/openapi.json")
JSON, TEXT, HTML = "application/json", "text/plain", "text/html"
MULTIPART, BINARY = "multipart/form-data", "application/octet-stream"
DESCRIPTION = (
    "Pilotlight serves large models from serverless functions: the Open Inference Protocol (V2) with Triton's "
    "extensions, MLflow's scoring protocol, OpenAI's files and batches, the registry of versions and aliases, and "
    "trainings. On AWS the routes lie below the stage. Routes of the scopes admin, batch and train ask for the stack's "
    "API key. A wrong verb is answered with 405 and the right one."
)
TAGS = {
    "V2": "The Open Inference Protocol, as JSON or with binary tensors (Inference-Header-Content-Length).",
    "MLflow": "MLflow's scoring protocol.",
    "Batches": "Work that nobody waits for, in the shapes of OpenAI's Files, Uploads and Batch APIs.",
    "Registry": "Versions, what is known of them, and the aliases that decide which of them answer.",
    "Trainings": "Recipes that are trained, by AWS Batch or beside the local gateway, and how that goes.",
    "About": "This description.",
}
PATH_PARAMETERS = {
    "model": ("A model's name.", {"type": "string", "pattern": NAME_PATTERN}),
    "version": ("A version, or an alias where one only reads.", {"type": "string"}),
    "alias": ("An alias: champion serves by default.", {"type": "string", "pattern": NAME_PATTERN}),
    "file": ("A file's id.", {"type": "string"}),
    "upload": ("An upload's id.", {"type": "string"}),
    "batch": ("A batch's id.", {"type": "string"}),
    "run": ("A training's name.", {"type": "string", "pattern": NAME_PATTERN}),
    "promotion": ("The id that POST .../promote gave.", {"type": "string"}),
}


class InferRequest(msgspec.Struct):
    """An inference in JSON form."""

    inputs: list[Tensor]
    outputs: list[dict[str, Any]] = []
    parameters: dict[str, Any] = {}
    id: str | None = None


@dataclass(frozen=True)
class Operation:
    """A verb of a route: what it does, the forms of what it is sent and answers, and what can go wrong on purpose."""

    verb: str
    path: str
    summary: str
    response: Any = Any  # a type that msgspec knows, or a media type's name
    body: Any = None
    uses_etag: bool = False  # takes If-Match, gives an ETag
    status: str = "200"
    other_statuses: tuple[str, ...] = ()  # other statuses with an answer of the same form


V2, V2_MODEL, V2_VERSION = "/v2", "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
REGISTRY, REGISTRY_MODEL, REGISTRY_VERSION = (
    "/registry/models",
    "/registry/models/{model}",
    "/registry/models/{model}/versions/{version}",
)
REGISTRY_ALIAS = "/registry/models/{model}/aliases/{alias}"
TRAININGS, TRAINING = "/v1/trainings", "/v1/trainings/{run}"
ANYTHING = dict[str, Any]

OPERATIONS = (
    Operation("get", V2, "Name, version and extensions of the server."),
    Operation("get", f"{V2}/health/live", "Whether the process answers."),
    Operation("get", f"{V2}/health/ready", "Whether the store answers too."),
    Operation("get", f"{V2}/models", "The names of all models.", ModelNames),
    Operation("get", f"{V2}/models/stats", "What this environment has answered."),
    *(Operation("get", of, "Metadata: inputs, outputs and versions.", ModelMetadata) for of in (V2_MODEL, V2_VERSION)),
    *(
        Operation("get", f"{of}/ready", "Whether the next inference will be answered; opens the model.")
        for of in (V2_MODEL, V2_VERSION)
    ),
    *(Operation("get", f"{of}/config", "The configuration in Triton's words.") for of in (V2_MODEL, V2_VERSION)),
    *(Operation("get", f"{of}/stats", "What this environment has answered for it.") for of in (V2_MODEL, V2_VERSION)),
    *(Operation("post", f"{of}/infer", "One inference.", InferResponse, InferRequest) for of in (V2_MODEL, V2_VERSION)),
    Operation("post", f"{V2}/repository/index", "Every version with its state.", list[dict[str, str]], ANYTHING),
    Operation("post", f"{V2}/repository/models/{{model}}/load", "Put the champion back into service.", body=ANYTHING),
    Operation("post", f"{V2}/repository/models/{{model}}/unload", "Take the champion out of service.", body=ANYTHING),
    Operation("post", "/invocations", "One call of MLflow's scoring protocol.", body=ANYTHING),
    Operation("get", "/ping", "Whether the store answers.", TEXT),
    Operation("get", "/health", "Whether the store answers.", TEXT),
    Operation("get", "/version", "The version of the server.", TEXT),
    Operation("get", REGISTRY, "Every model.", registry.ModelList),
    Operation(
        "get",
        REGISTRY_MODEL,
        "A model with its aliases and its newest versions; ?newest=200 shows more.",
        registry.ModelDetail,
    ),
    Operation(
        "post",
        f"{REGISTRY_MODEL}/prune",
        "Remove old versions that no alias needs, or say which.",
        registry.PruneResult,
        registry.PruneBody,
    ),
    Operation("get", REGISTRY_VERSION, "A version in a few words.", registry.VersionSummary),
    Operation(
        "delete", REGISTRY_VERSION, "Remove a version for good; 409 while an alias needs it.", registry.DeletedVersion
    ),
    Operation("get", f"{REGISTRY_VERSION}/manifest", "The commit record of a version.", Manifest),
    Operation("get", f"{REGISTRY_VERSION}/report", "What was measured of a version's variants."),
    Operation("get", f"{REGISTRY_VERSION}/verdict", "What the gate found when it last examined a version.", Verdict),
    Operation("get", f"{REGISTRY_VERSION}/files", "The files of a version, with size and sha256.", list[ManifestFile]),
    Operation("get", f"{REGISTRY_VERSION}/approval", "Whether people want a version.", Approval),
    Operation("put", f"{REGISTRY_VERSION}/approval", "Approve or reject a version.", Approval, registry.ApprovalBody),
    Operation("get", f"{REGISTRY_MODEL}/aliases", "Every alias of a model.", dict[str, AliasDocument]),
    Operation("get", REGISTRY_ALIAS, "Where an alias points.", AliasDocument),
    Operation(
        "get", f"{REGISTRY_ALIAS}/history", "Every document that an alias has had, oldest first.", list[AliasDocument]
    ),
    Operation(
        "post",
        f"{REGISTRY_ALIAS}/promote",
        "Bring a version to the alias through the gate: 202, and GET .../promotions/{promotion} tells how it ended.",
        PromotionRequest,
        registry.PromoteBody,
        uses_etag=True,
        status="202",
        other_statuses=("200",),
    ),
    Operation("get", f"{REGISTRY_MODEL}/promotions/{{promotion}}", "How a promotion goes.", PromotionRequest),
    Operation(
        "post",
        f"{REGISTRY_ALIAS}/rollback",
        "End the trial, or go back one move.",
        AliasDocument,
        registry.RollbackBody,
        uses_etag=True,
    ),
    Operation(
        "post",
        f"{REGISTRY_ALIAS}/canary",
        "Try a version on some requests.",
        AliasDocument,
        registry.CanaryBody,
        uses_etag=True,
    ),
    Operation(
        "post",
        f"{REGISTRY_ALIAS}/split",
        "Share requests out among versions.",
        AliasDocument,
        registry.TrafficSplitBody,
        uses_etag=True,
    ),
    Operation(
        "post",
        f"{REGISTRY_ALIAS}/shadow",
        "Send copies to another version too.",
        AliasDocument,
        registry.ShadowBody,
        uses_etag=True,
    ),
    Operation("post", "/v1/files", "A file in one request.", openai.FileObject, MULTIPART),
    Operation("get", "/v1/files", "Files, the newest first; ?purpose, ?limit, ?after.", openai.ObjectPage),
    Operation("get", "/v1/files/{file}", "One file.", openai.FileObject),
    Operation("delete", "/v1/files/{file}", "Remove an uploaded file.", openai.DeletedFile),
    Operation("get", "/v1/files/{file}/content", "Its bytes; 302 to a presigned URL beyond 4 MB.", BINARY),
    Operation(
        "post",
        "/v1/uploads",
        "Announce a file that is too large for one request.",
        openai.UploadObject,
        openai.CreateUploadBody,
    ),
    Operation("post", "/v1/uploads/{upload}/parts", "A part of at most 4 MB.", openai.UploadPart, MULTIPART),
    Operation(
        "post",
        "/v1/uploads/{upload}/complete",
        "Make the file of its parts.",
        openai.UploadObject,
        openai.CompleteUploadBody,
    ),
    Operation("post", "/v1/uploads/{upload}/cancel", "Forget an upload.", openai.UploadObject, ANYTHING),
    Operation(
        "post", "/v1/batches", "Order a batch of requests to one endpoint.", openai.BatchObject, openai.CreateBatchBody
    ),
    Operation("get", "/v1/batches", "Batches, the newest first; ?limit, ?after.", openai.ObjectPage),
    Operation("get", "/v1/batches/{batch}", "A batch and how far it is.", openai.BatchObject),
    Operation("post", "/v1/batches/{batch}/cancel", "Stop a batch.", openai.BatchObject, ANYTHING),
    Operation("get", TRAININGS, "Every training, those first that changed last; ?skip=50&limit=50.", TrainingList),
    Operation(
        "post",
        TRAININGS,
        "Train a recipe: 202 while it is under way, 200 where the run has ended before. The body is this order or, in "
        "JSON or YAML, the recipe itself with ?run=, ?nodes= and ?resume=.",
        TrainingDetail,
        StartTrainingBody,
        status="202",
        other_statuses=("200",),
    ),
    Operation(
        "get", TRAINING, "A training: state, attempts, epochs, metrics, the version that came out.", TrainingDetail
    ),
    Operation(
        "get", f"{TRAINING}/log", "The next lines of its log; ?token= goes on where an answer ended.", TrainingLog
    ),
    Operation(
        "post",
        f"{TRAINING}/cancel",
        "Stop a training: by SIGTERM, upon which it saves a checkpoint and ends; resume goes on from there.",
        TrainingDetail,
        CancelTrainingBody,
        status="202",
        other_statuses=("200",),
    ),
    Operation("get", "/openapi.json", "The OpenAPI document."),
    Operation("get", "/docs", "The same to read.", HTML),
)
STATUS_DESCRIPTIONS = {
    "400": "What was sent is wrong; the sentence says what.",
    "404": "There is nothing under that name.",
    "409": "Somebody else was faster, or something still needs it.",
    "412": "If-Match names another document than the alias has now.",
}
SCHEMA_REFERENCE = "#/components/schemas/{name}"


def build_openapi_document() -> dict[str, Any]:
    """The whole document."""
    kinds = [kind for operation in OPERATIONS for kind in (operation.response, operation.body) if has_schema(kind)]
    kind_schemas, components = msgspec.json.schema_components(
        [*kinds, registry.ErrorBody], ref_template=SCHEMA_REFERENCE
    )
    schemas = dict(zip(map(repr, (*kinds, registry.ErrorBody)), kind_schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        item = paths.setdefault(operation.path, {"parameters": build_path_parameters(operation.path)})
        item[operation.verb] = build_operation(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Pilotlight", "version": pilotlight.__version__, "description": DESCRIPTION},
        "servers": [{"url": "/"}, {"url": "/prod"}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(components.items())),
            "securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "x-api-key"}},
        },
    }


def build_operation(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    """An operation in OpenAPI's words."""
    scope = SCOPES[operation.path]
    error_response = {"content": {JSON: {"schema": schemas[repr(registry.ErrorBody)]}}}
    error_statuses = [
        "400",
        "404",
        *(["409"] if operation.verb != "get" else []),
        *(["412"] if operation.uses_etag else []),
    ]
    responses = {
        status: build_success_response(operation, schemas) for status in (operation.status, *operation.other_statuses)
    }
    content: dict[str, Any] = {
        "operationId": build_operation_id(operation),
        "summary": operation.summary,
        "tags": [get_tag(operation.path)],
        "x-scope": scope,
        "responses": responses
        | {status: {"description": STATUS_DESCRIPTIONS[status], **error_response} for status in error_statuses},
    }
    if scope != "infer":
        content["security"] = [{"key": []}]
    if operation.body is not None:
        is_schema = has_schema(operation.body)
        schema = schemas[repr(operation.body)] if is_schema else {"type": "object"}
        content["requestBody"] = {"content": {JSON if is_schema else operation.body: {"schema": schema}}}
    if operation.uses_etag:
        content["parameters"] = [
            {"name": "If-Match", "in": "header", "description": "The ETag that was seen.", "schema": {"type": "string"}}
        ]
    return content


def build_success_response(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    """A right answer."""
    if not has_schema(operation.response):
        return {"description": "As asked.", "content": {operation.response: {"schema": {"type": "string"}}}}
    response: dict[str, Any] = {
        "description": "As asked.",
        "content": {JSON: {"schema": schemas[repr(operation.response)]}},
    }
    if operation.response is AliasDocument:
        response["headers"] = {"ETag": {"description": "The document's number.", "schema": {"type": "string"}}}
    return response


def build_path_parameters(path: str) -> list[dict[str, Any]]:
    """The parameters of a path."""
    names = re.findall(r"{(\w+)}", path)
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": PATH_PARAMETERS[name][0],
            "schema": PATH_PARAMETERS[name][1],
        }
        for name in names
    ]


def build_operation_id(operation: Operation) -> str:
    """An identifier for generated clients: `post_registry_models_model_aliases_alias_promote`."""
    return f"{operation.verb}{re.sub(r'[^A-Za-z0-9]+', '_', operation.path)}".rstrip("_")


def get_tag(path: str) -> str:
    """The part of the surface that a path belongs to."""
    heads = {
        "/v2": "V2",
        "/registry": "Registry",
        "/v1/trainings": "Trainings",
        "/v1": "Batches",
        "/openapi.json": "About",
        "/docs": "About",
    }
    return next((tag for head, tag in heads.items() if path.startswith(head)), "MLflow")


def has_schema(kind: Any) -> bool:  # noqa: ANN401 - a type or a media type
    """Whether msgspec knows a schema of it, which it does not of media types."""
    return kind is not None and not isinstance(kind, str)


def encode_openapi_document() -> bytes:
    """The document as it is committed."""
    return msgspec.json.format(msgspec.json.encode(build_openapi_document()), indent=1) + b"\n"


if __name__ == "__main__":
    OPENAPI_FILE.write_bytes(encode_openapi_document())
