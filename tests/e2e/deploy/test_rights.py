"""Each right of each role is used by what these tests do, or is there for a reason; this runs after all others."""

from pathlib import Path

import pytest

from tests.e2e.deploy.conftest import USAGE
from tests.e2e.deploy.rights import Report, Right, compare

# Rights that nothing here can use, and why a stack has them all the same.
UNUSED: dict[Right, str] = {}
# Calls that a test makes in order to see them refused.
REFUSED_ON_PURPOSE: dict[tuple[str, str, str], str] = {
    ("ModelsFunctionRole", "s3:PutObject", "s3:ModelBucket/models/moved/versions/1/approval.json"):
        "by a URL that was signed for a file of the version (test_publish_over_http.py)",
    ("ModelsFunctionRole", "s3:PutObject", "s3:ModelBucket/models/replaced/versions/1/model.onnx"):
        "by a URL without the header that keeps it from replacing (test_publish_over_http.py)",
}  # fmt: skip


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
    assert report.denied.keys() - REFUSED_ON_PURPOSE.keys() == set()
