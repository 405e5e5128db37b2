"""Errors of a key, a token or the token's issuer.

PilotlightError
├── RefusedError                  the key or token is refused
└── UnavailableError
    ├── IssuerError               the issuer's keys are unavailable, so no token can be verified
    └── KeysUnavailableError      the store is unavailable, so no key can be verified

The texts are ours: no byte of a token or of a key's secret is in them.
"""

from pilotlight.errors import PilotlightError, UnavailableError


class RefusedError(PilotlightError):
    """The key or token is refused; the text has the reason, for the log and not for the caller.

    It is empty where anybody may cause it at no cost, so that a flood does not fill the log.
    """


class IssuerError(UnavailableError):
    """There are no keys to check a token with."""


class KeysUnavailableError(UnavailableError):
    """The store does not answer, and the key is not known from before."""
