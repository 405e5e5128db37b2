"""The state of a training as it runs: documents that the job writes, and that people and the API read.

Structs alone, so that a client over HTTP can read them too; `pilotlight.training_runs` knows where they are stored.
Unknown fields of a newer job are ignored.
"""

from typing import Literal

from msgspec import Struct

RunState = Literal["running", "paused", "interrupted", "finished", "failed", "unknown"]


class RunStatus(Struct, frozen=True, kw_only=True):
    """How a run is, as it said itself when it last changed; one that was killed outright could say nothing."""

    state: RunState
    started: str  # its first life; RFC 3339, UTC
    at: str  # when it said this
    lives: int = 1  # how often it was started
    seconds: float = 0.0  # that the lives before `at` took, without those that were killed
    reason: str = ""  # the sentence that it stopped with


class EpochRecord(Struct, frozen=True, kw_only=True):
    """An epoch, as far as the command shows it. Null stands for what is not finite."""

    number: int  # from 1
    train_loss: float | None
    validation_loss: float | None
    validation_accuracy: float | None  # what `metric` names
    metric: str = "accuracy"
    learning_rate: float = 0.0  # of the last step
    seconds: float = 0.0
    examples_per_s: float = 0.0
    remaining_s: float | None = None  # at most, as it seemed then: stopping early makes it less
    at: str = ""  # when it was over; RFC 3339, UTC


class PublishedVersion(Struct, frozen=True):
    """Which version came out, `name:version`."""

    reference: str
