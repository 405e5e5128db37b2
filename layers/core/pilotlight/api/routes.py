"""What a caller must be allowed to do, by route: the one table of it.

`infer` asks models, `batch` leaves files and work for them, `admin` decides which of them answer, `train` makes them.
Where the API asks for tokens, its authorizer allows those of a token's scopes; else what is not `infer` asks for the
stack's API key. A test holds the template to this table.
"""

from collections.abc import Mapping
from typing import Literal

Scope = Literal["infer", "batch", "admin", "train"]

V2_MODEL_PATH, V2_VERSION_PATH = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
REGISTRY_MODEL_PATH, REGISTRY_VERSION_PATH = "/registry/models/{model}", "/registry/models/{model}/versions/{version}"
REGISTRY_ALIAS_PATH = "/registry/models/{model}/aliases/{alias}"

INFER_PATHS = (
    *("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models", "/v2/models/stats", "/v2/repository/index"),
    *(
        f"{of}{what}"
        for of in (V2_MODEL_PATH, V2_VERSION_PATH)
        for what in ("", "/ready", "/infer", "/config", "/stats")
    ),
    *("/invocations", "/ping", "/health", "/version"),
    *("/openapi.json", "/docs"),
)
ADMIN_PATHS = (
    *(f"/v2/repository/models/{{model}}/{verb}" for verb in ("load", "unload")),
    *(
        "/registry/models",
        REGISTRY_MODEL_PATH,
        f"{REGISTRY_MODEL_PATH}/prune",
        f"{REGISTRY_MODEL_PATH}/aliases",
        f"{REGISTRY_MODEL_PATH}/promotions/{{promotion}}",
    ),
    *(f"{REGISTRY_VERSION_PATH}{what}" for what in ("", "/manifest", "/report", "/verdict", "/files", "/approval")),
    *(
        f"{REGISTRY_ALIAS_PATH}{what}"
        for what in ("", "/history", "/promote", "/rollback", "/canary", "/split", "/shadow")
    ),
)
BATCH_PATHS = (
    *("/v1/files", "/v1/files/{file}", "/v1/files/{file}/content", "/v1/uploads"),
    *(f"/v1/uploads/{{upload}}/{verb}" for verb in ("parts", "complete", "cancel")),
    *("/v1/batches", "/v1/batches/{batch}", "/v1/batches/{batch}/cancel"),
)
TRAIN_PATHS = tuple(f"/v1/trainings{what}" for what in ("", "/{run}", "/{run}/log", "/{run}/cancel"))

SCOPES: dict[str, Scope] = {
    **dict.fromkeys(INFER_PATHS, "infer"),
    **dict.fromkeys(BATCH_PATHS, "batch"),
    **dict.fromkeys(ADMIN_PATHS, "admin"),
    **dict.fromkeys(TRAIN_PATHS, "train"),
}

VERBS: Mapping[Scope, tuple[str, ...]] = {  # that routes of a scope take
    "infer": ("GET", "HEAD", "POST"),
    "batch": ("DELETE", "GET", "HEAD", "POST"),
    "admin": ("DELETE", "GET", "HEAD", "POST", "PUT"),
    "train": ("DELETE", "GET", "HEAD", "POST"),
}
