"""What a caller must be allowed to do, by route: the one table of it.

`infer` asks models, `batch` leaves files and work for them, `admin` decides which of them answer, `train` makes them.
Where the API asks for tokens, its authorizer allows those of a token's scopes; else what is not `infer` asks for the
stack's API key. A test holds the template to this table.
"""

from collections.abc import Mapping
from typing import Literal

Scope = Literal["infer", "batch", "admin", "train"]

MODEL, VERSION = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
NAMED, OF_VERSION = "/registry/models/{model}", "/registry/models/{model}/versions/{version}"
OF_ALIAS = "/registry/models/{model}/aliases/{alias}"

INFER = (
    *("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models", "/v2/models/stats", "/v2/repository/index"),
    *(f"{of}{what}" for of in (MODEL, VERSION) for what in ("", "/ready", "/infer", "/config", "/stats")),
    *("/invocations", "/ping", "/health", "/version"),
    *("/openapi.json", "/docs"),
)
ADMIN = (
    *(f"/v2/repository/models/{{model}}/{verb}" for verb in ("load", "unload")),
    *("/registry/models", NAMED, f"{NAMED}/prune", f"{NAMED}/aliases", f"{NAMED}/promotions/{{promotion}}"),
    *(f"{OF_VERSION}{what}" for what in ("", "/manifest", "/report", "/verdict", "/files", "/approval")),
    *(f"{OF_ALIAS}{what}" for what in ("", "/history", "/promote", "/rollback", "/canary", "/split", "/shadow")),
)
BATCH = (
    *("/v1/files", "/v1/files/{file}", "/v1/files/{file}/content", "/v1/uploads"),
    *(f"/v1/uploads/{{upload}}/{verb}" for verb in ("parts", "complete", "cancel")),
    *("/v1/batches", "/v1/batches/{batch}", "/v1/batches/{batch}/cancel"),
)
TRAIN = tuple(f"/v1/trainings{what}" for what in ("", "/{run}", "/{run}/log", "/{run}/cancel"))

SCOPES: dict[str, Scope] = {
    **dict.fromkeys(INFER, "infer"),
    **dict.fromkeys(BATCH, "batch"),
    **dict.fromkeys(ADMIN, "admin"),
    **dict.fromkeys(TRAIN, "train"),
}

VERBS: Mapping[Scope, tuple[str, ...]] = {  # that routes of a scope take
    "infer": ("GET", "HEAD", "POST"),
    "batch": ("DELETE", "GET", "HEAD", "POST"),
    "admin": ("DELETE", "GET", "HEAD", "POST", "PUT"),
    "train": ("DELETE", "GET", "HEAD", "POST"),
}
