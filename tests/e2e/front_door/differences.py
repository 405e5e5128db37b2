"""Where the servers answer otherwise, and why: the list, which infra/docs/deploy.md has too.

A test that is named here must fail on that server, by an assertion or by an error of the client: once it passes there,
the difference is gone, and the test fails until its line is removed.
"""

from collections.abc import Iterable
from typing import NamedTuple

import pytest
from openai import OpenAIError
from tritonclient.utils import InferenceServerException

from pilotlight.errors import PilotlightError
from tests.e2e.front_door.server import Kind

# How a test fails where a server answers otherwise; anything else is a fault of the test.
WRONG_ANSWERS = (
    AssertionError,
    ValueError,  # of a body that the client cannot read
    OpenAIError,
    InferenceServerException,
    PilotlightError,
    pytest.fail.Exception,
)
Cases = tuple[tuple[str, str], ...]  # tests, each with a part of the ids of its cases; an empty one is in all of them


class Difference(NamedTuple):
    """What a server does otherwise, why, and the tests that show it."""

    server: Kind
    what: str
    reason: str
    tests: Cases

    def is_about(self, server: Kind, test: str, case: str) -> bool:
        """Return whether it is about a case of a test on a server."""
        return self.server == server and any(test == other and part in case for other, part in self.tests)


ROUTES_WITH_EVENTS = (
    "POST /v1/batches",
    "GET /v1/batches/{batch}",
    "POST /v1/batches/{batch}/cancel",
    "POST /registry/models/{model}/aliases/{alias}/promote",
    "GET /registry/models/{model}/promotions/{promotion}",
)
TRAINING_ROUTES = (
    "POST /v1/trainings",
    "GET /v1/trainings/{run}",
    "GET /v1/trainings/{run}/log",
    "POST /v1/trainings/{run}/cancel",
)


def name_tests(*names: str) -> Cases:
    """Name all cases of these tests."""
    return tuple((name, "") for name in names)


def name_routes(routes: Iterable[str]) -> Cases:
    """Name the cases of these routes in the test that asks each of them."""
    return tuple(("test_a_route_answers", f"{route}]") for route in routes)


DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        "sam",
        "It asks nobody for a key, whatever `Auth` is.",
        "The SAM CLI does not resolve the conditions in `infra/api.yaml`, and calls no authorizer.",
        name_tests(
            "test_a_route_wants_a_key_with_its_scope",
            "test_a_wrong_key_is_told",
            "test_a_key_without_the_scope_is_told",
            "test_our_client_is_told_that_it_lacks_a_key",
            "test_a_key_that_is_created_and_revoked_by_the_command",
            "test_the_doctor_says_what_it_lacks_without_a_key",
        ),
    ),
    Difference(
        "sam",
        "A path that is no route gets 403 and `Missing Authentication Token`.",
        "The SAM CLI writes the gateway's own errors itself, and reads no `GatewayResponses`; the doctor's check "
        "`gateway's errors` says so.",
        (
            ("test_what_is_no_route_is_said_by_the_gateway", ""),
            ("test_openai_shows_the_sentence_of_each_route", "/nowhere"),
            ("test_what_cannot_be_done_is_said", "no such route"),
        ),
    ),
    Difference(
        "sam",
        "A body that is too large gets 502.",
        "The SAM CLI has no limit, and what Lambda's emulator in the container says is no answer of a handler.",
        name_tests(
            "test_what_is_too_large_is_said_by_the_gateway",
            "test_errors_of_the_gateway_are_shown_too",
            "test_a_body_larger_than_the_gateway_takes_is_told",
        ),
    ),
    Difference(
        "sam",
        "`%2F` in a name separates two parts of the path.",
        "The SAM CLI's web server decodes a path before it looks for the route.",
        (("test_an_odd_name_stays_one_name", "%2F"),),
    ),
    Difference(
        "sam",
        "A binary answer is base64 unless the request's `Accept` has its type, which neither tritonclient's nor "
        "openai's has.",
        "The SAM CLI compares the two, where a gateway with `*/*` as its binary types decodes every answer.",
        name_tests("test_a_binary_answer_needs_no_accept", "test_files_come_and_go"),
    ),
    Difference(
        "sam",
        "No batch is taken, no version is promoted, and no training is started.",
        "The SAM CLI has no EventBridge, no Lambda that functions may invoke, and no Batch.",
        (
            *name_routes((*ROUTES_WITH_EVENTS, *TRAINING_ROUTES)),
            *name_tests(
                "test_a_batch_from_its_file_to_its_answers",
                "test_a_file_in_parts_is_one_file",
                "test_a_batch_that_is_wrong_fails_as_a_whole",
                "test_a_batch_that_is_cancelled_stops_and_keeps_what_it_has",
                "test_the_command_promotes_and_rolls_back",
            ),
        ),
    ),
    Difference(
        "deployed",
        "No training is started.",
        "A stack without `TrainingSubnets`, which is the default, has no queue, and says so.",
        name_routes(TRAINING_ROUTES),
    ),
    Difference(
        "deployed",
        "A streamed answer comes whole, once it is written.",
        "AWS's Runtime Interface Emulator, in which the emulator of AWS runs functions, collects what they stream.",
        name_tests("test_frames_are_sent_while_the_text_is_written"),
    ),
    Difference(
        "sam",
        "A streamed answer comes whole, once it is written.",
        "The SAM CLI knows no streaming, and its Runtime Interface Emulator collects what a function streams.",
        name_tests("test_frames_are_sent_while_the_text_is_written"),
    ),
    Difference(
        "serve",
        "A large file goes in parts both ways, and has no presigned URLs.",
        "Its store is a folder, and a folder signs nothing; with a bucket as its store it has them.",
        name_tests("test_a_large_file_is_put_and_fetched_by_presigned_urls"),
    ),
    Difference(
        "serve",
        "MLflow's own scoring client is refused with 401.",
        "It sends no header of its caller's, and so no key; with `--auth open` it is answered.",
        name_tests("test_mlflows_scoring_client"),
    ),
    Difference(
        "deployed",
        "MLflow's own scoring client is refused with 401.",
        "It sends no header of its caller's, and so no key; with `Auth=open` it is answered.",
        name_tests("test_mlflows_scoring_client"),
    ),
)


def expect_difference(request: pytest.FixtureRequest, server: Kind) -> None:
    """Mark the test that is about to run as one that must fail, if it is named for this server."""
    for one in DIFFERENCES:
        if one.is_about(server, request.node.originalname, request.node.name):
            mark = pytest.mark.xfail(reason=one.what, raises=WRONG_ANSWERS, strict=True)
            request.applymarker(mark)
