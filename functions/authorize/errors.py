"""Errors of a token or its issuer.

PilotlightError
├── RefusedError         the token is refused
└── UnavailableError
    └── IssuerError      the issuer's keys are unavailable, so no token can be verified

The texts are ours: no byte of a token is in them.
"""

from pilotlight.errors import PilotlightError, UnavailableError


class RefusedError(PilotlightError):
    """The token is refused; the text has the reason, for the log and not for the caller."""


class IssuerError(UnavailableError):
    """There are no keys to check a token with."""
