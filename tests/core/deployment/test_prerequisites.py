"""The checks of a deploy, each by what the account answers; tests/core/cli/test_deploy.py has them together."""

from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from pilotlight.deployment import prerequisites
from pilotlight.deployment.prerequisites import SPOT_GPU_QUOTA, DeployChecks, DeployRequest
from pilotlight.doctor.finding import CheckResult, run_check

ROOT = Path(__file__).parents[3]
OURS = {"Auth": "keys", "ModelMemory": "1769", "Promotion": "off"}


class FakeAccount:
    """The answers of an account; what it denies is refused as AWS does."""

    def __init__(self, **answers: Any) -> None:  # noqa: ANN401 - boto3's
        self.answers = {
            "get_caller_identity": {"Arn": "arn:aws:iam::1:user/me", "Account": "1"},
            "get_account_settings": {"AccountLimit": {"ConcurrentExecutions": 1000}},
            "get_account": {"cloudwatchRoleArn": "arn:aws:iam::1:role/logs"},
            "get_service_quota": {"Quota": {"Value": 8.0}},
            "describe_stacks": None,
            **answers,
        }
        self.asked: dict[str, dict[str, Any]] = {}

    def __call__(self, service: str) -> "FakeAccount":
        return self

    def __getattr__(self, operation: str) -> Any:  # noqa: ANN401
        def answer(**asked: Any) -> Any:  # noqa: ANN401
            self.asked[operation] = asked
            found = self.answers[operation]
            if operation == "describe_stacks" and found is None:
                raise make_error("ValidationError", "Stack with id models does not exist")
            if found == "denied":
                raise make_error("AccessDeniedException", f"You may not {operation}.")
            return found

        return answer


def make_error(code: str, message: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "Operation")


def describe_stack(status: str, **parameters: str) -> dict[str, Any]:
    pairs = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
    stack = {"StackName": "models", "StackId": "arn:models", "StackStatus": status, "Parameters": pairs}
    return {"Stacks": [stack]}


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setattr(prerequisites, "is_tool_working", lambda *command: True)


def check(account: FakeAccount, **parameters: str) -> tuple[dict[str, CheckResult], DeployChecks]:
    checks = DeployChecks(DeployRequest(ROOT, "models", parameters), account)
    return {one.name: run_check(one) for one in checks.list_checks()}, checks


def test_a_new_stack_in_an_account_with_all_it_needs() -> None:
    results, checks = check(FakeAccount())
    assert {one.state for name, one in results.items() if name != "sam"} == {"passes"}
    assert results["AWS credentials"].said == "arn:aws:iam::1:user/me, account 1."
    assert results["stack"].said == "models will be created."
    assert checks.choose_parameters() == {}


def test_a_new_account_is_told_what_it_may_start() -> None:
    results, checks = check(
        FakeAccount(get_account_settings={"AccountLimit": {"ConcurrentExecutions": 10}}, get_account={})
    )
    assert results["Lambda's limits"].said.startswith("10 environments at once; ask for more in Service Quotas")
    assert "--parameter AccessLogs=create makes one" in results["access logs"].said
    assert checks.choose_parameters() == {"AccessLogs": "off"}


def test_more_environments_than_lambda_starts_are_refused() -> None:
    account = FakeAccount(get_account_settings={"AccountLimit": {"ConcurrentExecutions": 10}})
    results, _ = check(account, ProvisionedConcurrency="20")
    assert results["Lambda's limits"] == CheckResult(
        "Lambda's limits", "fails", "ProvisionedConcurrency=20, and Lambda starts 10 environments here."
    )


def test_a_full_store_of_code_is_told() -> None:
    full = {
        "AccountLimit": {"ConcurrentExecutions": 1000, "TotalCodeSize": 80e9},
        "AccountUsage": {"TotalCodeSize": 79e9},
    }
    results, _ = check(FakeAccount(get_account_settings=full))
    assert results["Lambda's limits"].said == "Lambda's store has room for 1.0 GB of code; delete old versions first."


def test_what_may_not_be_asked_is_not_checked_and_stops_nothing() -> None:
    denied = dict.fromkeys(("get_account_settings", "get_account", "get_service_quota"), "denied")
    results, checks = check(FakeAccount(**denied), TrainingSubnets="subnet-a", TrainingVpc="vpc-a")
    names = {name for name, one in results.items() if one.state == "not checked"}
    assert names == {"Lambda's limits", "access logs", "GPU machines"}
    assert "You may not get_account" in results["access logs"].said
    assert "AccessLogs" not in checks.choose_parameters()


def test_a_quota_of_no_gpu_machine_is_told_to_who_trains() -> None:
    account = FakeAccount(get_service_quota={"Quota": {"Value": 0.0}})
    results, _ = check(account, TrainingSubnets="subnet-a,subnet-b")
    assert (results["GPU machines"].state, "so that trainings would wait" in results["GPU machines"].said) == (
        "not checked",
        True,
    )
    assert account.asked["get_service_quota"] == {"ServiceCode": "ec2", "QuotaCode": SPOT_GPU_QUOTA}
    assert "GPU machines" not in check(FakeAccount())[0]


@pytest.mark.parametrize(
    ("described", "state", "said"),
    [
        (describe_stack("UPDATE_COMPLETE", **OURS), "passes", "parameters that are not given keep their values"),
        (describe_stack("UPDATE_IN_PROGRESS", **OURS), "fails", "changed by somebody else"),
        (describe_stack("ROLLBACK_COMPLETE", **OURS), "passes", "that is deleted, and it is made anew"),
        (describe_stack("REVIEW_IN_PROGRESS"), "passes", "models will be created."),
        (describe_stack("CREATE_COMPLETE", Table="x"), "fails", "is not Pilotlight's"),
    ],
)
def test_the_state_of_the_stack_decides(described: dict[str, Any], state: str, said: str) -> None:
    results, _ = check(FakeAccount(describe_stacks=described))
    assert (results["stack"].state, said in results["stack"].said) == (state, True), results["stack"]


def test_an_update_keeps_what_is_not_given_and_builds_for_its_machines() -> None:
    there = describe_stack("UPDATE_COMPLETE", **OURS, AccessLogs="account", Architecture="arm64")
    results, checks = check(FakeAccount(describe_stacks=there, get_account={}), RateLimit="5")
    assert results["parameters"].said == "RateLimit=5; the others are the stack's."
    assert results["access logs"].said == "AccessLogs=account."
    assert (checks.architecture, checks.choose_parameters()) == ("arm64", {"RateLimit": "5"})


def test_refused_credentials_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    account = FakeAccount()
    account.answers["get_caller_identity"] = "denied"
    results, _ = check(account)
    assert results["AWS credentials"].state == "fails"
    assert results["stack"] == CheckResult("stack", "not checked", "It takes a region and credentials to ask.")


def test_docker_builds_where_lambdas_python_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prerequisites, "is_tool_working", lambda *command: command[0] == "docker")
    results, checks = check(FakeAccount())
    assert (checks.python, "Docker builds in SAM's image" in results["build"].said) == (None, True)


def test_a_shim_for_a_python_that_is_not_selected_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    shim = tmp_path / "python3.13"
    shim.write_text("#!/bin/sh\necho 'pyenv: python3.13: command not found' >&2\nexit 127\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert not prerequisites.is_tool_working("python3.13", "--version")
    assert not prerequisites.is_tool_working("no-such-tool")
    assert prerequisites.is_tool_working("true")
