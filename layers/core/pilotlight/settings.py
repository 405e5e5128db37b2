"""The settings from environment variables, read once into a frozen object when a handler is imported.

No other module reads environment variables for Pilotlight; tests build `Settings` directly.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from pilotlight.errors import InvalidInputError

DEFAULT_STORE = ".pilotlight/store"  # in the working folder: the embedded default
VARIABLES = {
    "store": "PILOTLIGHT_STORE",
    "model": "PILOTLIGHT_MODEL",
    "alias_seconds": "PILOTLIGHT_ALIAS_SECONDS",
    "preload": "PILOTLIGHT_PRELOAD",
    "key_value_share": "PILOTLIGHT_KEY_VALUE_SHARE",
    "signing_key": "PILOTLIGHT_SIGNING_KEY",
    "sign_with": "PILOTLIGHT_SIGN_WITH",
    "promotion": "PILOTLIGHT_PROMOTION",
    "approval": "PILOTLIGHT_APPROVAL",
    "generate_memory_mb": "PILOTLIGHT_GENERATE_MEMORY",
    "promoter": "PILOTLIGHT_PROMOTER",
    "call_seconds": "PILOTLIGHT_CALL_SECONDS",
    "reply_queues": "PILOTLIGHT_REPLY_QUEUES",
    "capture_rate": "PILOTLIGHT_CAPTURE_RATE",
    "capture_seconds": "PILOTLIGHT_CAPTURE_SECONDS",
    "large_answers": "PILOTLIGHT_LARGE_ANSWERS",
    "event_resource": "PILOTLIGHT_EVENT_RESOURCE",
    "spreader": "PILOTLIGHT_SPREADER",
    "spread_bytes": "PILOTLIGHT_SPREAD_BYTES",
    "spread_at_once": "PILOTLIGHT_SPREAD_AT_ONCE",
    "training_queue": "PILOTLIGHT_TRAINING_QUEUE",
    "training_job": "PILOTLIGHT_TRAINING_JOB",
    "nodes_queue": "PILOTLIGHT_NODES_QUEUE",
    "nodes_job": "PILOTLIGHT_NODES_JOB",
    "training_logs": "PILOTLIGHT_TRAINING_LOGS",
    "training_stack": "PILOTLIGHT_TRAINING_STACK",
    "trainings": "PILOTLIGHT_TRAININGS",
    "upload_key": "PILOTLIGHT_UPLOAD_KEY",  # set by the local gateway
    "runtime_api": "AWS_LAMBDA_RUNTIME_API",  # set by Lambda, by SAM and by the local gateway
    "initialization": "AWS_LAMBDA_INITIALIZATION_TYPE",  # set by Lambda
    "memory_mb": "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",  # set by Lambda, by SAM and by the local gateway
}


class Settings(Struct, frozen=True):
    """A handler's settings. `memory_mb` determines the threads and the models' budget, which is half of it."""

    store: str = DEFAULT_STORE  # URL for `open_store`
    alias_seconds: Annotated[float, Meta(ge=0)] = 10.0  # s after which an alias is read again
    memory_mb: Annotated[int, Meta(ge=128, le=10240)] = 1769
    model: str = ""  # the reference that MLflow's /invocations answers with; empty for the store's only model
    preload: str = ""  # references of the models that are fetched before the first request, separated by spaces
    key_value_share: Annotated[float, Meta(ge=0, le=0.4)] = 0.2  # of the memory, for a language model's keys and values
    signing_key: str = ""  # RSA public key, base64 of DER: only versions signed with it are served; empty for all
    sign_with: str = ""  # KMS key that signs what passes the gate; empty if versions are not signed
    promotion: str = "off"  # what happens to a version that passes: off, champion, or a canary such as canary:10:1h
    approval: Literal["off", "required"] = "off"  # whether a person must approve a version before it may serve
    generate_memory_mb: Annotated[int, Meta(ge=0, le=10240)] = 0  # of functions that generate text; 0: as `memory_mb`
    promoter: str = ""  # name of the function that executes promotion requests of the registry's routes
    call_seconds: Annotated[float, Meta(ge=-1, le=10)] = 0.1  # s of calls that may share a log line; -1: no lines
    reply_queues: str = ""  # ARNs of the queues that messages may name for their answers, separated by commas
    capture_rate: Annotated[float, Meta(ge=0, le=1)] = 0.0  # share of the requests that are captured
    capture_seconds: Annotated[float, Meta(gt=0)] = 60.0  # between two writes of captured requests, in each environment
    large_answers: Literal["off", "on"] = "off"  # whether answers too large to send are put into the store
    event_resource: str = ""  # ARN of the stack's bucket, which its events name; empty where there is one stack alone
    spreader: str = ""  # ARN of the state machine that splits large files; empty to process each in one piece
    spread_bytes: Annotated[int, Meta(ge=1)] = 64_000_000  # size from which a file is split
    spread_at_once: Annotated[int, Meta(ge=1)] = 10  # concurrent invocations for one split file, at most
    training_queue: str = ""  # ARN in AWS Batch; "none" if the stack does not train, empty to train on this machine
    training_job: str = ""  # ARN of the job definition, with its revision
    nodes_queue: str = ""  # the same two for jobs on several machines
    nodes_job: str = ""
    training_logs: str = ""  # the log group of both
    training_stack: str = ""  # tag of the stack's jobs, so that it can end only its own
    trainings: str = ".pilotlight/trainings"  # folder for the logs of trainings on this machine
    upload_key: str = ""  # signs the uploads that the local gateway takes for a store on disk; empty elsewhere
    runtime_api: str = ""  # address of Lambda's Runtime API; empty outside an execution environment
    initialization: str = "on-demand"  # or snap-start, provisioned-concurrency

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Read the variables that are set; `InvalidInputError` names a wrong one."""
        values = {field: environment[name] for field, name in VARIABLES.items() if environment.get(name)}
        try:
            return msgspec.convert(values, cls, strict=False)
        except msgspec.ValidationError as exc:
            names = ", ".join(f"{VARIABLES[field]}={value!r}" for field, value in values.items())
            raise InvalidInputError(f"Wrong setting among {names}: {exc}.") from exc

    @property
    def model_memory_budget(self) -> int:
        """The bytes of models that may stay in memory: half, since opening one needs about its size again."""
        return self.memory_mb * 1_000_000 // 2

    @property
    def key_value_memory_budget(self) -> int:
        """The bytes of keys and values that a language model may keep between requests; beside those of models."""
        return int(self.memory_mb * 1_000_000 * self.key_value_share)

    @property
    def tensor_memory_budget(self) -> int:
        """The bytes of tensors that a request may read from the store: a fourth, since its answer needs some too."""
        return self.memory_mb * 1_000_000 // 4
