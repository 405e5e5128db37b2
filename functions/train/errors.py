"""Why a run that was asked for rightly ends without a version.

    PilotlightError
    ├── PausedError           it was told to go before it was done, and goes on when it is started again
    ├── CancelledError        somebody does not want it to go on
    ├── LostProcessError      of several processes that train together, another one is gone
    ├── UnusableCheckpointError   a checkpoint is half-written or not what was written; an older one may do
    └── NotPublishableError   the model must not be served
        ├── DivergedError     training ran into numbers that are not finite
        ├── ExportError       the exporter cannot write the model as a graph
        ├── ParityError       the exported graph does not compute what the model computes
        └── GoldenError       the exported file does not repeat its own recorded answers

A wrong recipe is a `pilotlight.errors.InvalidInputError`, not one of these.
"""

from pilotlight.errors import PilotlightError


class PausedError(PilotlightError):
    """The run has saved what it has and ends here; started again under its name, it goes on."""


class CancelledError(PilotlightError):
    """Somebody has cancelled the job that this process is an attempt of."""


class LostProcessError(PilotlightError):
    """Another process of the same training ended before its time."""


class UnusableCheckpointError(PilotlightError):
    """There is no way to go on from this checkpoint."""


class NotPublishableError(PilotlightError):
    """The run ended with a model that must not be served; the registry is as it was."""


class DivergedError(NotPublishableError):
    """A loss is not a finite number."""


class ExportError(NotPublishableError):
    """The model has something that the exporter does not translate."""


class ParityError(NotPublishableError):
    """The exported graph's answers are further from the model's than the recipe tolerates."""


class GoldenError(NotPublishableError):
    """A replayed golden request got another answer than the recorded one."""
