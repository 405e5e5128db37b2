"""Where the servers answer otherwise, and why: the list, which infra/docs/deploy.md has too.

A test that is named here must fail on that server, by an assertion or by an error of the client: once it passes there,
the difference is gone, and the test fails until its line is removed.
"""

from typing import NamedTuple

import pytest
from openai import OpenAIError
from tritonclient.utils import InferenceServerException

from pilotlight.errors import PilotlightError
from tests.e2e.front_door.server import Kind


class Difference(NamedTuple):
    """On a server, a test, or one case of it, that does not hold."""

    server: Kind
    test: str
    case: str  # a part of the test's id; empty for all cases
    what: str
    reason: str


SAM_HAS_NO_AUTHORIZER = "The SAM CLI does not resolve the conditions in `infra/api.yaml`, and calls no authorizer."
DIFFERENCES: tuple[Difference, ...] = ()


def expect_difference(request: pytest.FixtureRequest, server: Kind) -> None:
    """Mark the test that is about to run as one that must fail, if it is named for this server."""
    test, case = request.node.originalname, request.node.name
    for one in DIFFERENCES:
        if (one.server, one.test) == (server, test) and one.case in case:
            wrong = (AssertionError, KeyError, ValueError, OpenAIError, InferenceServerException, PilotlightError)
            request.applymarker(pytest.mark.xfail(reason=one.reason, raises=wrong, strict=True))
