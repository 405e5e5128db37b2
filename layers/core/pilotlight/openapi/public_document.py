"""Generate the OpenAPI 3.1 document of all routes, with schemas by msgspec and pydantic."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any, Literal

import msgspec
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

import pilotlight
from pilotlight.api.generation_errors import ANTHROPIC_PATH
from pilotlight.api.router import MLFLOW_RESOURCES
from pilotlight.api.routes import EVENT_STREAM, GENERATE, MULTIPART, ROUTES, Route
from pilotlight.api.schemas import (
    chat,
    decisions,
    embeddings,
    messages,
    openai,
    registry,
    responses,
    training,
    triton_generate,
)
from pilotlight.client.client import InferResponse, ModelMetadata, ModelNames, Tensor
from pilotlight.contracts.alias import AliasDocument, UnreadableDocument
from pilotlight.contracts.manifest import Manifest, ManifestFile
from pilotlight.contracts.names import NAME_PATTERN
from pilotlight.contracts.promotion import PromotionRequest
from pilotlight.gate.verdict import Verdict
from pilotlight.openapi.body_examples import BODY_EXAMPLES
from pilotlight.registry.approval import Approval

JSON = "application/json"
DESCRIPTION = (
    "Pilotlight serves large models from serverless functions: the Open Inference Protocol (V2) with Triton's "
    "extensions, MLflow's scoring protocol, OpenAI's files and batches, the registry of versions and aliases, and "
    "trainings. On AWS the routes lie below the stage, and ask for a key with the scope of the route. A wrong verb is "
    "answered with 405 and the right one."
)
TAGS = {
    "V2": "The Open Inference Protocol, as JSON or with binary tensors (Inference-Header-Content-Length).",
    "MLflow": "MLflow's scoring protocol.",
    "Generation": "Language models, in the shapes of OpenAI's and Anthropic's APIs; answers are streamed where asked.",
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


class MlflowErrorBody(msgspec.Struct):
    """Any error on MLflow's routes."""

    error_code: str
    message: str


class AnthropicErrorDetails(msgspec.Struct):
    """What was wrong, and what to do."""

    type: str
    message: str


class AnthropicErrorBody(msgspec.Struct, tag_field="type", tag="error"):
    """Any error on Anthropic's routes."""

    error: AnthropicErrorDetails


OPENAI_PATHS = ("/v1/", "/tokenize", "/detokenize")  # whose errors have OpenAI's form
ERROR_BODIES = (registry.ErrorBody, openai.OpenAIErrorBody, AnthropicErrorBody, MlflowErrorBody)


class InferRequest(msgspec.Struct):
    """An inference in JSON form."""

    inputs: list[Tensor]
    outputs: list[dict[str, Any]] = []
    parameters: dict[str, Any] = {}
    id: str | None = None


@dataclass(frozen=True)
class MixedCollection:
    """A list, or an object by names, of values of several types, which msgspec cannot describe."""

    container: Literal["array", "object"]
    members: tuple[type, ...]

    def build_schema(self, schemas: Mapping[str, Any]) -> dict[str, Any]:
        """Build the schema from those of the members."""
        items = {"anyOf": [schemas[repr(member)] for member in self.members]}
        return {"type": self.container, "items" if self.container == "array" else "additionalProperties": items}


SCHEMAS: Mapping[str, Any] = {  # names in routes that are not media types
    "Anything": Any,
    "Object": dict[str, Any],
    "ModelNames": ModelNames,
    "ModelMetadata": ModelMetadata,
    "InferRequest": InferRequest,
    "InferResponse": InferResponse,
    "Index": list[dict[str, str]],
    "ModelList": registry.ModelList,
    "ModelDetail": registry.ModelDetail,
    "PruneBody": registry.PruneBody,
    "PruneResult": registry.PruneResult,
    "VersionSummary": registry.VersionSummary,
    "NewVersionBody": registry.NewVersionBody,
    "VersionUpload": registry.VersionUpload,
    "DeletedVersion": registry.DeletedVersion,
    "Manifest": Manifest,
    "ManifestFiles": list[ManifestFile],
    "Verdict": Verdict,
    "Approval": Approval,
    "ApprovalBody": registry.ApprovalBody,
    "AliasDocument": AliasDocument,
    "Aliases": MixedCollection("object", (AliasDocument, registry.BrokenAlias)),
    "AliasHistory": MixedCollection("array", (AliasDocument, UnreadableDocument)),
    "PromotionRequest": PromotionRequest,
    "PromoteBody": registry.PromoteBody,
    "RollbackBody": registry.RollbackBody,
    "CanaryBody": registry.CanaryBody,
    "TrafficSplitBody": registry.TrafficSplitBody,
    "ShadowBody": registry.ShadowBody,
    "LanguageModelList": chat.LanguageModelList,
    "LanguageModelObject": chat.LanguageModelObject,
    "ChatCompletionBody": chat.ChatCompletionBody,
    "ChatCompletion": chat.ChatCompletion,
    "CompletionBody": chat.CompletionBody,
    "Completion": chat.Completion,
    "TokenizeBody": chat.TokenizeBody,
    "TokenizeResult": chat.TokenizeResult,
    "DetokenizeBody": chat.DetokenizeBody,
    "DetokenizeResult": chat.DetokenizeResult,
    "ResponsesBody": responses.ResponsesBody,
    "ResponseObject": responses.ResponseObject,
    "MessagesBody": messages.MessagesBody,
    "MessageObject": messages.MessageObject,
    "CountTokensBody": messages.CountTokensBody,
    "TokenCount": messages.TokenCount,
    "EmbeddingsBody": embeddings.EmbeddingsBody,
    "EmbeddingList": embeddings.EmbeddingList,
    "RerankBody": embeddings.RerankBody,
    "RerankResult": embeddings.RerankResult,
    "DecisionsBody": decisions.DecisionsBody,
    "DecisionResult": decisions.DecisionResult,
    "GenerateBody": triton_generate.GenerateBody,
    "GenerateResult": triton_generate.GenerateResult,
    "FileObject": openai.FileObject,
    "DeletedFile": openai.DeletedFile,
    "ObjectPage": openai.ObjectPage,
    "UploadObject": openai.UploadObject,
    "UploadPart": openai.UploadPart,
    "CreateUploadBody": openai.CreateUploadBody,
    "CompleteUploadBody": openai.CompleteUploadBody,
    "BatchObject": openai.BatchObject,
    "CreateBatchBody": openai.CreateBatchBody,
    "TrainingList": training.TrainingList,
    "TrainingDetail": training.TrainingDetail,
    "TrainingLog": training.TrainingLog,
    "StartTrainingBody": training.StartTrainingBody,
    "CancelTrainingBody": training.CancelTrainingBody,
}
STATUS_DESCRIPTIONS = {
    "400": "What was sent is wrong; the sentence says what.",
    "404": "There is nothing under that name.",
    "409": "Somebody else was faster, or something still needs it.",
    "412": "If-Match names another document than the alias has now.",
    "503": "The model is being opened, or is busy; Retry-After says when to ask again.",
}
SCHEMA_REFERENCE = "#/components/schemas/{model}"


def build_openapi_document() -> dict[str, Any]:
    """Build the whole document."""
    kinds = [SCHEMAS[name] for route in ROUTES for name in (route.response, route.body or "") if name in SCHEMAS]
    schemas, components = build_schemas([*kinds, *ERROR_BODIES])
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        item = paths.setdefault(route.path, {"parameters": build_path_parameters(route.path)})
        item[route.verb.lower()] = build_operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Pilotlight", "version": pilotlight.__version__, "description": DESCRIPTION},
        "servers": [{"url": "/"}, {"url": "/prod"}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(add_body_examples(components).items())),
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


class UntitledFields(GenerateJsonSchema):
    """pydantic's schemas without a title for each field, which would repeat its name."""

    def field_title_should_be_set(self, schema: object) -> bool:
        """Return False: no field gets a title."""
        return False


def build_schemas(kinds: Sequence[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Build the schemas of types by their repr, and the components that they refer to.

    Dataclasses are bodies that the resolver validates by pydantic, which knows their constraints; msgspec has the rest.
    """
    bodies: list[Any] = []
    others: list[Any] = []
    mixed = [kind for kind in kinds if isinstance(kind, MixedCollection)]
    members = [member for collection in mixed for member in collection.members]
    for kind in [*(one for one in kinds if one not in mixed), *members]:
        (bodies if is_dataclass(kind) else others).append(kind)
    other_schemas, components = msgspec.json.schema_components(
        others, ref_template=SCHEMA_REFERENCE.format(model="{name}")
    )
    body_schemas, definitions = TypeAdapter.json_schemas(
        [(repr(body), "validation", TypeAdapter(body)) for body in bodies],
        ref_template=SCHEMA_REFERENCE,
        schema_generator=UntitledFields,
    )
    schemas = dict(zip(map(repr, others), other_schemas, strict=True))
    schemas |= {name: schema for (name, _), schema in body_schemas.items()}
    schemas |= {repr(kind): kind.build_schema(schemas) for kind in mixed}
    return schemas, {**components, **definitions.get("$defs", {})}


def add_body_examples(components: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Add an example to the schema of each request body."""
    return {
        name: schema | {"examples": [BODY_EXAMPLES[name]]} if name in BODY_EXAMPLES else schema
        for name, schema in components.items()
    }


def choose_error_body(path: str) -> type[msgspec.Struct]:
    """Choose the form of a route's errors, by the clients that it has."""
    if path in MLFLOW_RESOURCES:
        return MlflowErrorBody
    if path.startswith(ANTHROPIC_PATH):
        return AnthropicErrorBody
    return openai.OpenAIErrorBody if path.startswith(OPENAI_PATHS) else registry.ErrorBody


def build_operation(route: Route, schemas: Mapping[str, Any]) -> dict[str, Any]:
    """Build the operation of a route."""
    error_response = {"content": {JSON: {"schema": schemas[repr(choose_error_body(route.path))]}}}
    error_statuses = ["400", "404", *(["412"] if route.uses_etag else [])]
    if route.function == GENERATE:
        error_statuses.append("503")
    elif route.verb != "GET":
        error_statuses.append("409")
    responses = {status: build_success_response(route, schemas) for status in (route.status, *route.other_statuses)}
    content: dict[str, Any] = {
        "operationId": build_operation_id(route),
        "summary": route.summary,
        "tags": [get_tag(route.path)],
        "x-scope": route.scope,
        "responses": responses
        | {status: {"description": STATUS_DESCRIPTIONS[status], **error_response} for status in error_statuses},
    }
    content["security"] = [{"key": []}, {"header": []}]
    if route.scope == "infer":
        content["security"].append({})  # with Auth=open, and on the machine of a developer
    if route.body is not None:
        other_schemas = {kind: {"type": "object" if kind == MULTIPART else "string"} for kind in route.other_bodies}
        content["requestBody"] = {"content": build_content(route.body, schemas, {"type": "object"})}
        content["requestBody"]["content"] |= {kind: {"schema": schema} for kind, schema in other_schemas.items()}
    if route.uses_etag:
        content["parameters"] = [
            {"name": "If-Match", "in": "header", "description": "The ETag that was seen.", "schema": {"type": "string"}}
        ]
    return content


def build_success_response(route: Route, schemas: Mapping[str, Any]) -> dict[str, Any]:
    """Build the response of a request that succeeds."""
    response: dict[str, Any] = {
        "description": "As asked.",
        "content": build_content(route.response, schemas, {"type": "string"}),
    }
    if "stream" in getattr(SCHEMAS.get(route.body or ""), "__struct_fields__", ()):  # if the body asks for it
        response["content"][EVENT_STREAM] = {"schema": {"type": "string"}}
    if route.response == "AliasDocument":
        response["headers"] = {"ETag": {"description": "The document's number.", "schema": {"type": "string"}}}
    return response


def build_content(name: str, schemas: Mapping[str, Any], other: dict[str, str]) -> dict[str, Any]:
    """Build the content of a body: JSON of a named schema, or a media type with the schema `other`."""
    if name in SCHEMAS:
        return {JSON: {"schema": schemas[repr(SCHEMAS[name])]}}
    return {name: {"schema": other}}


def build_path_parameters(path: str) -> list[dict[str, Any]]:
    """List the parameters of a path."""
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


def build_operation_id(route: Route) -> str:
    """Build an identifier for generated clients: `post_registry_models_model_aliases_alias_promote`."""
    return f"{route.verb.lower()}{re.sub(r'[^A-Za-z0-9]+', '_', route.path)}".rstrip("_")


def get_tag(path: str) -> str:
    """Return the part of the surface that a path belongs to."""
    heads = {
        "/v2": "V2",
        "/registry": "Registry",
        "/v1/trainings": "Trainings",
        **dict.fromkeys(("/v1/files", "/v1/uploads", "/v1/batches"), "Batches"),
        "/v1": "Generation",
        "/tokenize": "Generation",
        "/detokenize": "Generation",
        "/openapi.json": "About",
        "/docs": "About",
    }
    return next((tag for head, tag in heads.items() if path.startswith(head)), "MLflow")


def encode_openapi_document() -> bytes:
    """Encode the document as it is committed."""
    return msgspec.json.format(msgspec.json.encode(build_openapi_document()), indent=1) + b"\n"
