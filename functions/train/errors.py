"""The reasons why a run ends without a version.

    PilotlightError
    ├── PausedError           it was stopped before its end, and resumes when it is started again
    ├── CancelledError        its job was cancelled
    ├── LostProcessError      of several processes that train together, another one has ended
    │   └── DeviceFaultError  a GPU failed, as at a memory error that it could not correct
    ├── DeviceMemoryError     the model and a batch do not fit in a GPU
    ├── QuantizationError     a graph cannot be written in fewer bits in one way; another, or fp32, may serve
    ├── UnusableCheckpointError   a checkpoint is half-written or corrupt; an older one may be usable
    └── NotPublishableError   the model must not be served
        ├── DivergedError     a loss is not finite
        ├── ExportError       the exporter cannot write the model as a graph
        ├── ParityError       the exported graph does not compute what the model computes
        └── GoldenError       the exported file does not repeat its own recorded answers

A wrong recipe is a `pilotlight.errors.InvalidInputError`, not one of these.
"""

from pilotlight.errors import PilotlightError


class PausedError(PilotlightError):
    """The run has saved its state and ends here; started again under its name, it resumes."""


class CancelledError(PilotlightError):
    """The job that this process is an attempt of was cancelled."""


class LostProcessError(PilotlightError):
    """Another process of the same training ended before its time."""


class DeviceFaultError(LostProcessError):
    """A GPU failed; another one may go on."""


class DeviceMemoryError(PilotlightError):
    """A GPU has too little memory for this recipe; the same happens again."""


class QuantizationError(PilotlightError):
    """A graph cannot be quantized in one way; the text is a clause without its full stop."""


class UnusableCheckpointError(PilotlightError):
    """The run cannot be resumed from this checkpoint."""


class NotPublishableError(PilotlightError):
    """The run ended with a model that must not be served; the registry is as it was."""


class DivergedError(NotPublishableError):
    """A loss is not a finite number."""


class ExportError(NotPublishableError):
    """The exporter cannot translate a part of the model."""


class ParityError(NotPublishableError):
    """The exported graph's answers are further from the model's than the recipe tolerates."""


class GoldenError(NotPublishableError):
    """A replayed golden request got another answer than the recorded one."""
