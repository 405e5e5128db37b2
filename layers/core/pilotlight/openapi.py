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
from pilotlight.api.schemas.training import Cancel, Course, Log, Start, Trainings
from pilotlight.client.client import Inference, ModelMetadata, ModelNames, Tensor
from pilotlight.contracts.manifest import NAME_PATTERN, AliasDocument, Errand, File, Manifest
from pilotlight.gate.verdict import Verdict
from pilotlight.registry.approval import Approval

FILE = Path("functions/registry_api/openapi.json")
JSON, TEXT, HTML = "application/json", "text/plain", "text/html"
MULTIPART, BYTES = "multipart/form-data", "application/octet-stream"
ABOUT = (
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
PARAMETERS = {
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
    answer: Any = Any  # a type that msgspec knows, or a media type's name
    body: Any = None
    moves: bool = False  # takes If-Match, gives an ETag
    status: str = "200"
    also: tuple[str, ...] = ()  # other statuses with an answer of the same form


V2, M, V = "/v2", "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
R, RM, RV = "/registry/models", "/registry/models/{model}", "/registry/models/{model}/versions/{version}"
RA = "/registry/models/{model}/aliases/{alias}"
T, TR = "/v1/trainings", "/v1/trainings/{run}"
ANYTHING = dict[str, Any]

OPERATIONS = (
    Operation("get", V2, "Name, version and extensions of the server."),
    Operation("get", f"{V2}/health/live", "Whether the process answers."),
    Operation("get", f"{V2}/health/ready", "Whether the store answers too."),
    Operation("get", f"{V2}/models", "The names of all models.", ModelNames),
    Operation("get", f"{V2}/models/stats", "What this environment has answered."),
    *(Operation("get", of, "Metadata: inputs, outputs and versions.", ModelMetadata) for of in (M, V)),
    *(
        Operation("get", f"{of}/ready", "Whether the next inference will be answered; opens the model.")
        for of in (M, V)
    ),
    *(Operation("get", f"{of}/config", "The configuration in Triton's words.") for of in (M, V)),
    *(Operation("get", f"{of}/stats", "What this environment has answered for it.") for of in (M, V)),
    *(Operation("post", f"{of}/infer", "One inference.", Inference, InferRequest) for of in (M, V)),
    Operation("post", f"{V2}/repository/index", "Every version with its state.", list[dict[str, str]], ANYTHING),
    Operation("post", f"{V2}/repository/models/{{model}}/load", "Put the champion back into service.", body=ANYTHING),
    Operation("post", f"{V2}/repository/models/{{model}}/unload", "Take the champion out of service.", body=ANYTHING),
    Operation("post", "/invocations", "One call of MLflow's scoring protocol.", body=ANYTHING),
    Operation("get", "/ping", "Whether the store answers.", TEXT),
    Operation("get", "/health", "Whether the store answers.", TEXT),
    Operation("get", "/version", "The version of the server.", TEXT),
    Operation("get", R, "Every model.", registry.Models),
    Operation("get", RM, "A model with its aliases and its newest versions; ?newest=200 shows more.", registry.Model),
    Operation(
        "post", f"{RM}/prune", "Remove old versions that no alias needs, or say which.", registry.Pruned, registry.Prune
    ),
    Operation("get", RV, "A version in a few words.", registry.Summary),
    Operation("delete", RV, "Remove a version for good; 409 while an alias needs it.", registry.Removed),
    Operation("get", f"{RV}/manifest", "The commit record of a version.", Manifest),
    Operation("get", f"{RV}/report", "What was measured of a version's variants."),
    Operation("get", f"{RV}/verdict", "What the gate found when it last examined a version.", Verdict),
    Operation("get", f"{RV}/files", "The files of a version, with size and sha256.", list[File]),
    Operation("get", f"{RV}/approval", "Whether people want a version.", Approval),
    Operation("put", f"{RV}/approval", "Approve or reject a version.", Approval, registry.Decision),
    Operation("get", f"{RM}/aliases", "Every alias of a model.", dict[str, AliasDocument]),
    Operation("get", RA, "Where an alias points.", AliasDocument),
    Operation("get", f"{RA}/history", "Every document that an alias has had, oldest first.", list[AliasDocument]),
    Operation(
        "post",
        f"{RA}/promote",
        "Bring a version to the alias through the gate: 202, and GET .../promotions/{promotion} tells how it ended.",
        Errand,
        registry.Promote,
        moves=True,
        status="202",
        also=("200",),
    ),
    Operation("get", f"{RM}/promotions/{{promotion}}", "How a promotion goes.", Errand),
    Operation(
        "post", f"{RA}/rollback", "End the trial, or go back one move.", AliasDocument, registry.Rollback, moves=True
    ),
    Operation("post", f"{RA}/canary", "Try a version on some requests.", AliasDocument, registry.Try, moves=True),
    Operation("post", f"{RA}/split", "Share requests out among versions.", AliasDocument, registry.Split, moves=True),
    Operation(
        "post", f"{RA}/shadow", "Send copies to another version too.", AliasDocument, registry.Shadow, moves=True
    ),
    Operation("post", "/v1/files", "A file in one request.", openai.FileObject, MULTIPART),
    Operation("get", "/v1/files", "Files, the newest first; ?purpose, ?limit, ?after.", openai.Page),
    Operation("get", "/v1/files/{file}", "One file.", openai.FileObject),
    Operation("delete", "/v1/files/{file}", "Remove an uploaded file.", openai.Deleted),
    Operation("get", "/v1/files/{file}/content", "Its bytes; 302 to a presigned URL beyond 4 MB.", BYTES),
    Operation(
        "post",
        "/v1/uploads",
        "Announce a file that is too large for one request.",
        openai.UploadObject,
        openai.NewUpload,
    ),
    Operation("post", "/v1/uploads/{upload}/parts", "A part of at most 4 MB.", openai.UploadPart, MULTIPART),
    Operation(
        "post", "/v1/uploads/{upload}/complete", "Make the file of its parts.", openai.UploadObject, openai.Complete
    ),
    Operation("post", "/v1/uploads/{upload}/cancel", "Forget an upload.", openai.UploadObject, ANYTHING),
    Operation("post", "/v1/batches", "Order a batch of requests to one endpoint.", openai.Batch, openai.NewBatch),
    Operation("get", "/v1/batches", "Batches, the newest first; ?limit, ?after.", openai.Page),
    Operation("get", "/v1/batches/{batch}", "A batch and how far it is.", openai.Batch),
    Operation("post", "/v1/batches/{batch}/cancel", "Stop a batch.", openai.Batch, ANYTHING),
    Operation("get", T, "Every training, those first that changed last; ?skip=50&limit=50.", Trainings),
    Operation(
        "post",
        T,
        "Train a recipe: 202 while it is under way, 200 where the run has ended before. The body is this order or, in "
        "JSON or YAML, the recipe itself with ?run=, ?nodes= and ?resume=.",
        Course,
        Start,
        status="202",
        also=("200",),
    ),
    Operation("get", TR, "A training: state, attempts, epochs, metrics, the version that came out.", Course),
    Operation("get", f"{TR}/log", "The next lines of its log; ?token= goes on where an answer ended.", Log),
    Operation(
        "post",
        f"{TR}/cancel",
        "Stop a training: by SIGTERM, upon which it saves a checkpoint and ends; resume goes on from there.",
        Course,
        Cancel,
        status="202",
        also=("200",),
    ),
    Operation("get", "/openapi.json", "The OpenAPI document."),
    Operation("get", "/docs", "The same to read.", HTML),
)
WORDS = {
    "400": "What was sent is wrong; the sentence says what.",
    "404": "There is nothing under that name.",
    "409": "Somebody else was faster, or something still needs it.",
    "412": "If-Match names another document than the alias has now.",
}
REFERENCE = "#/components/schemas/{name}"


def document() -> dict[str, Any]:
    """The whole document."""
    kinds = [kind for operation in OPERATIONS for kind in (operation.answer, operation.body) if is_form(kind)]
    found, forms = msgspec.json.schema_components([*kinds, registry.Complaint], ref_template=REFERENCE)
    schemas = dict(zip(map(repr, (*kinds, registry.Complaint)), found, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        item = paths.setdefault(operation.path, {"parameters": parameters(operation.path)})
        item[operation.verb] = described(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Pilotlight", "version": pilotlight.__version__, "description": ABOUT},
        "servers": [{"url": "/"}, {"url": "/prod"}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(forms.items())),
            "securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "x-api-key"}},
        },
    }


def described(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    """An operation in OpenAPI's words."""
    scope = SCOPES[operation.path]
    complaint = {"content": {JSON: {"schema": schemas[repr(registry.Complaint)]}}}
    wrong = ["400", "404", *(["409"] if operation.verb != "get" else []), *(["412"] if operation.moves else [])]
    answers = {status: answered(operation, schemas) for status in (operation.status, *operation.also)}
    content: dict[str, Any] = {
        "operationId": name(operation),
        "summary": operation.summary,
        "tags": [tag(operation.path)],
        "x-scope": scope,
        "responses": answers | {status: {"description": WORDS[status], **complaint} for status in wrong},
    }
    if scope != "infer":
        content["security"] = [{"key": []}]
    if operation.body is not None:
        form = is_form(operation.body)
        schema = schemas[repr(operation.body)] if form else {"type": "object"}
        content["requestBody"] = {"content": {JSON if form else operation.body: {"schema": schema}}}
    if operation.moves:
        content["parameters"] = [
            {"name": "If-Match", "in": "header", "description": "The ETag that was seen.", "schema": {"type": "string"}}
        ]
    return content


def answered(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    """A right answer."""
    if not is_form(operation.answer):
        return {"description": "As asked.", "content": {operation.answer: {"schema": {"type": "string"}}}}
    answer: dict[str, Any] = {
        "description": "As asked.",
        "content": {JSON: {"schema": schemas[repr(operation.answer)]}},
    }
    if operation.answer is AliasDocument:
        answer["headers"] = {"ETag": {"description": "The document's number.", "schema": {"type": "string"}}}
    return answer


def parameters(path: str) -> list[dict[str, Any]]:
    """The parameters of a path."""
    found = re.findall(r"{(\w+)}", path)
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": PARAMETERS[name][0],
            "schema": PARAMETERS[name][1],
        }
        for name in found
    ]


def name(operation: Operation) -> str:
    """An identifier for generated clients: `post_registry_models_model_aliases_alias_promote`."""
    return f"{operation.verb}{re.sub(r'[^A-Za-z0-9]+', '_', operation.path)}".rstrip("_")


def tag(path: str) -> str:
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


def is_form(kind: Any) -> bool:  # noqa: ANN401 - a type or a media type
    """Whether msgspec knows a schema of it, which it does not of media types."""
    return kind is not None and not isinstance(kind, str)


def encoded() -> bytes:
    """The document as it is committed."""
    return msgspec.json.format(msgspec.json.encode(document()), indent=1) + b"\n"


if __name__ == "__main__":
    FILE.write_bytes(encoded())
