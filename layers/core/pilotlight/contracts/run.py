"""The state of a training as it runs: documents that the job writes, and that people and the API read.

Structs alone, so that a client over HTTP can read them too; `pilotlight.training_runs` knows where they are stored.
Unknown fields of a newer job are ignored.
"""

from typing import Literal

from msgspec import Struct

from pilotlight.contracts.codec import check_timestamps
from pilotlight.contracts.names import ModelReference
from pilotlight.errors import InvalidInputError

RunState = Literal["running", "paused", "interrupted", "finished", "failed", "unknown"]


class RunStatus(Struct, frozen=True, kw_only=True):
    """How a run is, as it said itself when it last changed; one that was killed outright could say nothing."""

    state: RunState
    started: str  # at its first start; RFC 3339, UTC
    at: str  # when it reported this
    lives: int = 1  # how many times it was started
    seconds: float = 0.0  # of the lives before `at`, without those that were killed
    reason: str = ""  # the sentence that it ended with

    def __post_init__(self) -> None:
        """Refuse texts that are no times."""
        check_timestamps(self, "started", "at")


class EpochRecord(Struct, frozen=True, kw_only=True):
    """An epoch, as far as the command shows it. Null stands for what is not finite."""

    number: int  # from 1
    train_loss: float | None
    validation_loss: float | None
    validation_accuracy: float | None  # what `metric` names
    metric: str = "accuracy"
    monitored: str = "loss"  # what early stopping goes by: the validation loss, or a metric
    monitored_value: float | None = None  # of that metric
    learning_rate: float = 0.0  # of the last step
    seconds: float = 0.0
    examples_per_s: float = 0.0
    remaining_s: float | None = None  # at most, as estimated then: early stopping shortens it
    at: str = ""  # when it ended; RFC 3339, UTC

    def __post_init__(self) -> None:
        """Refuse a text that is no time."""
        check_timestamps(self, "at")


class PublishedVersion(Struct, frozen=True):
    """The published version, `name:version`."""

    reference: str

    def __post_init__(self) -> None:
        """Refuse a text that is no reference to a version."""
        try:
            is_version = self.model_reference.version is not None
        except InvalidInputError as exc:
            raise ValueError(str(exc)) from exc
        if not is_version:
            raise ValueError(f"{self.reference!r} names no version")

    @property
    def model_reference(self) -> ModelReference:
        """The reference, parsed."""
        return ModelReference.parse(self.reference)
