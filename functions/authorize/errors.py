"""What can go wrong with a token or its issuer.

PilotlightError
├── RefusedError         the token is not believed
└── UnavailableError
    └── IssuerError      the issuer's keys cannot be had, so that nobody can be believed

The texts are ours: no byte of a token is in them.
"""

from pilotlight.errors import PilotlightError, UnavailableError


class RefusedError(PilotlightError):
    """The token is not believed; the text says why, for the log and not for the caller."""


class IssuerError(UnavailableError):
    """There are no keys to check a token with."""
