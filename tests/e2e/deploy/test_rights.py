"""Each right of each role is used by what these tests do, or is there for a reason; this runs after all others."""

from pathlib import Path

import pytest

from tests.e2e.deploy.conftest import USAGE
from tests.e2e.deploy.rights import Report, Right, compare, covers

OF_MAPS = "Step Functions itself does it for a map; the emulator runs a map's steps without executions of their own."
# Rights that nothing here can use, and why a stack has them all the same.
UNUSED = {
    Right("BatchFunctionRole", "events:PutEvents", "events:event-bus/default"): (
        "To go on with a file that takes longer than an invocation of two minutes."
    ),
    Right("BatchFunctionRole", "s3:GetObject", "s3:ModelBucket/secrets/capture-key"): (
        "For capture policies that hash columns, which no model here has."
    ),
    Right("BatchFunctionRole", "s3:GetObject", "s3:ModelBucket/signatures/*"): (
        "With SigningPublicKey, as the predict function has it, which is asked for signed versions here."
    ),
    Right("BatchesFunctionRole", "s3:DeleteObject", "s3:ModelBucket/batches/*/order.json"): (
        "To take back the order of a batch of which EventBridge could not be told."
    ),
    Right("BatchesFunctionRole", "s3:GetObject", "s3:ModelBucket/answers/*"): (
        "For large answers by their `file_id`; here they are read from the bucket, by their `s3_uri`."
    ),
    Right("DriftFunctionRole", "s3:GetObject", "s3:ModelBucket/drift/*"): "For the second night's report.",
    Right("PredictFunctionRole", "s3:GetObject", "s3:ModelBucket/secrets/capture-key"): (
        "For capture policies that hash columns, which no model here has."
    ),
    Right("SpreadRole", "sqs:SendMessage", "sqs:DeadLetters"): "For a file whose steps fail six times, in minutes.",
    Right("SpreadRole", "states:DescribeExecution", "states:execution:Spread/*"): OF_MAPS,
    Right("SpreadRole", "states:DescribeExecution", "states:execution:Spread:*"): OF_MAPS,
    Right("SpreadRole", "states:StopExecution", "states:execution:Spread/*"): OF_MAPS,
    Right("SpreadRole", "states:StopExecution", "states:execution:Spread:*"): OF_MAPS,
    Right("StartTrainingFunctionRole", "batch:ListJobs", "*"): (
        "To find the job of a start whose answer was lost on its way."
    ),
    Right("StartTrainingFunctionRole", "kms:Decrypt", "kms:key/KEY"): "The stack that trains here has no DataKey.",
    Right("StartTrainingFunctionRole", "kms:GenerateDataKey", "kms:key/KEY"): "Likewise.",
}
# Calls that are refused as they should be, and who makes them.
REFUSED_ON_PURPOSE = {
    Right("PredictFunctionRole", "s3:GetObject", "s3:ModelBucket/approvals/*"): "test_two_stacks.py, in its name",
    Right("PredictFunctionRole", "s3:GetObject", "s3:ModelBucket/models/double/versions/1/manifest.json"): (
        "test_two_stacks.py, of the other stack's bucket"
    ),
    Right("ModelsFunctionRole", "s3:PutObject", "s3:ModelBucket/models/*/versions/*"): (
        "test_publish_over_http.py: a URL for another place, and one without its condition"
    ),
    Right("TrainerRole", "s3:PutObject", "s3:ModelBucket/models/*/aliases/*"): (
        "A trainer that publishes where it has the rights points `candidate` to the version too."
    ),
    Right("TrainerRole", "s3:PutObject", "s3:ModelBucket/models/*/history/*"): "Likewise.",
}


@pytest.fixture(scope="module")
def report(emulator: str, request: pytest.FixtureRequest) -> Report:
    """What all stacks of the session did with their rights."""
    here = {path.name for path in Path(__file__).parent.glob("test_*.py")}
    if missing := here - {item.path.name for item in request.session.items}:
        pytest.skip(f"it reports on all modules, and this run leaves out {sorted(missing)}")
    notes, roles = request.config.stash[USAGE]
    if not notes.exists():
        pytest.skip("calls are not judged with PILOTLIGHT_EMULATOR_IAM=off")
    return compare(roles.rights, roles.read_calls(notes))


def test_every_right_is_used_or_has_a_reason(report: Report) -> None:
    assert report.unused - UNUSED.keys() == set()
    assert UNUSED.keys() - report.unused == set(), "they are used by now"


def test_no_function_asks_for_what_its_role_may_not(report: Report) -> None:
    asked = [call for call in report.denied if not any(covers(right, call) for right in REFUSED_ON_PURPOSE)]
    assert asked == []
