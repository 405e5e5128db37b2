"""`pilotlight deploy`, `logs`, `open` and `destroy` over moto, with a SAM CLI of ours that creates stacks there.

tests/e2e/deploy/test_command.py has the same with the real one.
"""

import json
import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.cloudformation.models import cloudformation_backends
from moto.core.models import DEFAULT_ACCOUNT_ID

from pilotlight.api_keys.key_store import KeyStore
from pilotlight.cli import deploy
from pilotlight.contracts.api_key import parse_key_id
from pilotlight.deployment import removal, sam_deploy
from pilotlight.deployment.prerequisites import DeployChecks
from pilotlight.deployment.remembered_stacks import RememberedStacks
from pilotlight.storage.object_store import open_store
from tests.core.cli.conftest import Run
from tests.core.deployment.small_stack import TEMPLATE

ROOT = Path(__file__).parents[3]
NOBODY = "http://127.0.0.1:9/prod"  # where the doctor finds nothing
# It notes its words. A build writes a package; a deploy creates or updates the small stack on moto.
SAM = """#!{python}
import json, os, pathlib, re, sys
words, calls = sys.argv[1:], pathlib.Path({calls!r})
calls.write_text((calls.read_text() if calls.exists() else "") + json.dumps(words) + "\\n")
if words[0] == "build":
    folder = pathlib.Path(".aws-sam/build")
    folder.mkdir(parents=True, exist_ok=True)
    architecture = words[-1].partition("=")[2]
    text = "Parameters:\\n  Architecture:\\n    Default: " + architecture + "\\n  Auth:\\n    Default: keys\\n"
    text += "Resources:\\n  Api: {{Location: ../../infra/api.yaml}}\\n"
    (folder / "template.yaml").write_text(text)
if words[0] == "deploy":
    if said := os.environ.get("SAM_SAYS"):
        sys.exit(said.replace("|", "\\n"))
    name = words[words.index("--stack-name") + 1]
    import boto3  # here, since it takes a second
    given = words[words.index("--parameter-overrides") + 1:] if "--parameter-overrides" in words else []
    values = dict(re.fullmatch('(.*?)="(.*)"', each).groups() for each in given)
    cloudformation = boto3.client("cloudformation")
    try:
        (stack,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
    except cloudformation.exceptions.ClientError:
        change = cloudformation.create_stack
    else:
        change = cloudformation.update_stack
        values = {{one["ParameterKey"]: one["ParameterValue"] for one in stack["Parameters"]}} | values
    pairs = [{{"ParameterKey": key, "ParameterValue": value}} for key, value in values.items()]
    change(StackName=name, TemplateBody={template!r}, Parameters=pairs)
"""
Calls = Callable[[], list[list[str]]]


@pytest.fixture
def stack_name() -> str:
    return f"models-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def checkout(tmp_path: Path, aws_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a SAM CLI and a python3.13 of ours, in which the command runs."""
    folder = tmp_path / "checkout"
    (folder / "functions").mkdir(parents=True)
    (folder / "infra").mkdir()
    for name in ("template.yaml", "infra/api.yaml"):
        shutil.copy(ROOT / name, folder / name)
    programs = folder / ".venv-sam" / "bin"
    programs.mkdir(parents=True)
    calls = str(tmp_path / "calls.jsonl")
    write_program(programs / "sam", SAM.format(python=sys.executable, calls=calls, template=TEMPLATE))
    write_program(tmp_path / "bin" / "python3.13", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(deploy, "LIVE_S", 0)
    for module in (sam_deploy, removal):
        monkeypatch.setattr(module, "POLL_S", 0.05)
    monkeypatch.chdir(folder)
    return folder


def write_program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def calls(tmp_path: Path) -> Calls:
    """The words of each call of SAM, the last deploy's last."""

    def read_calls() -> list[list[str]]:
        file = tmp_path / "calls.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    return read_calls


@pytest.fixture
def deployed(run: Run, checkout: Path, stack_name: str) -> dict[str, Any]:
    """What a first deploy says of itself, of a package that is there."""
    (checkout / ".aws-sam" / "build").mkdir(parents=True)
    (checkout / ".aws-sam" / "build" / "template.yaml").write_text(
        "Parameters:\n  Architecture:\n    Default: x86_64\n"
    )
    _, out, _ = run("deploy", "--no-build", "--stack-name", stack_name, "--url", NOBODY, "--json")
    told: dict[str, Any] = json.loads(out)
    return told


# --- deploy -----------------------------------------------------------------------------------------------------------


def test_a_first_deploy_builds_deploys_and_creates_a_key(
    run: Run, checkout: Path, calls: Calls, config_folder: Path, stack_name: str
) -> None:
    _, out, _ = run("deploy", "--stack-name", stack_name, "--url", NOBODY, "--json")
    deployed = json.loads(out)
    build, validate, ran = calls()
    assert (build[0], validate) == ("build", ["validate", "--lint"])
    assert ran[-1] == 'AccessLogs="off"', "an account without a role for logs"
    assert ran[ran.index("--s3-prefix") + 1] == ran[ran.index("--stack-name") + 1] == stack_name
    (key,) = KeyStore(open_store(f"s3://{deployed['bucket']}")).list_keys()[0]
    assert (key.id, key.scopes) == (parse_key_id(deployed["key"]), ("infer", "batch", "admin", "train"))
    remembered = RememberedStacks(config_folder).find()
    assert remembered is not None
    assert (remembered.name, remembered.url, remembered.key) == (stack_name, NOBODY, deployed["key"])
    assert (remembered.bucket, remembered.region) == (deployed["bucket"], "us-east-1")


def test_the_doctor_decides_how_it_ends(run: Run, checkout: Path, stack_name: str) -> None:
    code, out, err = run("deploy", "--stack-name", stack_name, "--url", NOBODY)
    assert code == 1
    assert f"Nothing answers at {NOBODY}" in err
    assert "doctor   0 pass, 2 fail, " in out
    assert "key      plk_" in out
    assert f"pilotlight predict digits --input FILE --url {stack_name}" in out


def test_another_one_is_an_update_without_a_second_key(
    run: Run, deployed: dict[str, Any], calls: Calls, stack_name: str, config_folder: Path
) -> None:
    code, out, err = run("deploy", "--no-build", "--parameter", "Auth=open", "--json")
    again = json.loads(out)
    assert (code, again["stack"], again["key"], again["url"]) == (1, stack_name, None, NOBODY), err
    assert calls()[-1][-1] == 'Auth="open"'
    assert [words[0] for words in calls()] == ["deploy", "deploy"]
    (stack,) = boto3.client("cloudformation").describe_stacks(StackName=stack_name)["Stacks"]
    values = {one["ParameterKey"]: one["ParameterValue"] for one in stack["Parameters"]}
    assert (values["Auth"], values["AccessLogs"]) == ("open", "off")
    remembered = RememberedStacks(config_folder).find()
    assert remembered is not None
    assert remembered.key == deployed["key"]
    code, out, _ = run("deploy", "--no-build", "--parameter", "Auth=iam")
    assert "Auth     iam: set PILOTLIGHT_AUTH=iam to call it." in out


def test_everything_that_is_missing_is_told_at_once(
    run: Run, checkout: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (checkout / ".venv-sam" / "bin" / "sam").unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    code, out, err = run("deploy", "--parameter", "RateLmit=5", "--parameter", "Auth=none")
    assert (code, out) == (1, "")
    for said in (
        "'RateLmit' is no parameter; did you mean RateLimit? Auth is 'none', and takes",
        "Neither python3.13, Lambda's, nor Docker is here to build with",
        "The SAM CLI is not here; `make .venv-sam/ready` installs it",
        "No region is named; give --region",
        "There are none here; `aws configure`",
        "Nothing was built or deployed: see parameters, build, sam, region, AWS credentials.",
    ):
        assert said in err
    assert calls() == []


def test_a_stack_of_somebody_else_is_left_alone(run: Run, checkout: Path, calls: Calls, stack_name: str) -> None:
    other = json.dumps({"Resources": {"Q": {"Type": "AWS::SQS::Queue"}}, "Outputs": {"Url": {"Value": "x"}}})
    boto3.client("cloudformation").create_stack(StackName=stack_name, TemplateBody=other)
    code, _, err = run("deploy", "--stack-name", stack_name)
    assert (code, "is there that is not Pilotlight's; take another --stack-name" in err) == (1, True), err
    code, _, err = run("destroy", "--stack-name", stack_name, "--yes")
    assert (code, "is not a stack of Pilotlight" in err) == (2, True), err
    assert calls() == []


def test_a_package_for_another_machine_is_not_deployed(run: Run, deployed: dict[str, Any], calls: Calls) -> None:
    before = len(calls())
    code, _, err = run("deploy", "--no-build", "--parameter", "Architecture=arm64")
    assert (code, "The package is for x86_64, the stack for arm64" in err) == (1, True), err
    assert len(calls()) == before


def test_what_sam_says_of_a_failure_is_one_sentence(
    run: Run, checkout: Path, stack_name: str, monkeypatch: pytest.MonkeyPatch, config_folder: Path
) -> None:
    said = "Uploading||Error: Failed to create changeset for the stack: x, ex: Waiter ChangeSetCreateComplete failed: "
    monkeypatch.setenv(
        "SAM_SAYS", f"{said}Waiter encountered a terminal failure state. Reason: Parameters: [A] wrong||more"
    )
    code, _, err = run("deploy", "--stack-name", stack_name)
    last = err.splitlines()[-1]
    log = checkout / ".aws-sam" / "deploy.log"
    assert (code, last) == (
        1,
        f"The deploy of {stack_name} failed. Parameters: [A] wrong. All that SAM wrote: {log}",
    )
    assert "Uploading" in log.read_text()
    assert not config_folder.exists()


def test_what_a_failed_first_deploy_left_is_deleted_first(
    run: Run, deployed: dict[str, Any], stack_name: str, calls: Calls
) -> None:
    cloudformation = boto3.client("cloudformation")
    (before,) = cloudformation.describe_stacks(StackName=stack_name)["Stacks"]
    cloudformation_backends[DEFAULT_ACCOUNT_ID]["us-east-1"].stacks[before["StackId"]].status = "ROLLBACK_COMPLETE"
    _, out, err = run("deploy", "--no-build", "--json")
    assert f"Deleting what a failed deploy left of {stack_name}" in err
    (after,) = cloudformation.describe_stacks(StackName=stack_name)["Stacks"]
    assert after["StackId"] != before["StackId"]
    assert json.loads(out)["key"] not in (None, deployed["key"]), "a new stack with a new bucket has had no key"
    assert calls()[-1][-1] == 'AccessLogs="off"'


def test_a_log_role_is_used_where_the_account_has_one(
    run: Run, checkout: Path, stack_name: str, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DeployChecks, "_log_role", "arn:aws:iam::1:role/logs")
    _, _, err = run("deploy", "--stack-name", stack_name, "--url", NOBODY)
    assert "(AccessLogs=account)" in err
    assert "--parameter-overrides" not in calls()[-1]


def test_a_given_profile_goes_before_the_keys_of_the_environment(
    run: Run, checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stack_name: str
) -> None:
    config = tmp_path / "aws"
    config.write_text("[profile work]\naws_access_key_id = other\naws_secret_access_key = s\nregion = eu-west-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    code, _, err = run("deploy", "--stack-name", stack_name, "--profile", "work", "--parameter", "No=1")
    assert code == 1
    assert os.environ["AWS_PROFILE"] == "work"
    assert "AWS_ACCESS_KEY_ID" not in os.environ
    assert "passes       AWS credentials" in err
    code, _, err = run("deploy", "--stack-name", stack_name, "--profile", "nobody")
    assert "The config profile (nobody) could not be found" in err


# --- open -------------------------------------------------------------------------------------------------------------


CONSOLE = "https://us-east-1.console.aws.amazon.com"
PAGES = {
    (): f"{CONSOLE}/cloudwatch/home?region=us-east-1#dashboards/dashboard/models-dashboard",
    ("docs",): f"{NOBODY}/docs",
    ("stack",): f"{CONSOLE}/cloudformation/home?region=us-east-1#/stacks/stackinfo?stackId=arn%3A",
    ("bucket",): f"{CONSOLE}/s3/buckets/models-",
    ("logs",): f"{CONSOLE}/cloudwatch/home?region=us-east-1#logsV2:log-groups$3FlogGroupNameFilter$3Dmodels-",
}


def test_a_stack_without_a_dashboard_shows_its_logs(
    run: Run, deployed: dict[str, Any], stack_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = json.loads(TEMPLATE)
    del without["Outputs"]["Dashboard"]
    change = {"StackName": stack_name, "TemplateBody": json.dumps(without)}
    boto3.client("cloudformation").update_stack(**change, Parameters=[])
    monkeypatch.setattr("webbrowser.open", lambda _: False)
    code, out, _ = run("open")
    assert (code, out.startswith(PAGES["logs",])) == (0, True), out
    code, _, err = run("open", "dashboard")
    assert (code, "--parameter MonitoringLevel=full` makes one" in err) == (2, True), err


def test_a_page_is_opened_and_its_url_printed(
    run: Run, deployed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    for words, shown in PAGES.items():
        code, out, err = run("open", *words)
        assert (code, out.startswith(shown)) == (0, True), out
        assert opened.pop() == out.strip()
        assert ("A browser sends no key" in err) == (words == ("docs",))


# --- logs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def logged(deployed: dict[str, Any], stack_name: str) -> dict[str, Any]:
    """A stack whose functions have written lines, in turn."""
    logs, now = boto3.client("logs"), int(time.time() * 1000)
    pages = boto3.client("cloudformation").list_stack_resources(StackName=stack_name)["StackResourceSummaries"]
    groups = {one["LogicalResourceId"]: one["PhysicalResourceId"] for one in pages}
    lines = [
        ("PredictLogs", 5000, {"level": "INFO", "message": "digits:1 is served", "correlation_id": "c-1"}),
        ("PromoteLogs", 4000, {"level": "WARN", "message": "digits:2 is refused"}),
        ("PredictLogs", 3000, {"level": "ERROR", "message": "no memory"}),
        ("PredictLogs", 7_200_000, {"level": "INFO", "message": "two hours ago"}),
    ]
    for place, (group, ago_ms, fields) in enumerate(lines):
        where = {"logGroupName": groups[group], "logStreamName": f"s{place}"}
        logs.create_log_stream(**where)
        logs.put_log_events(**where, logEvents=[{"timestamp": now - ago_ms, "message": json.dumps(fields)}])
    return deployed


def test_logs_of_all_functions_are_merged_by_time(run: Run, logged: dict[str, Any]) -> None:
    code, out, _ = run("logs")
    assert code == 0
    assert [line.split("  ", 1)[1] for line in out.splitlines()] == [
        "Predict  INFO   digits:1 is served  [c-1]",
        "Promote  WARN   digits:2 is refused",
        "Predict  ERROR  no memory",
    ]


def test_logs_of_one_function_since_a_time_with_a_text(run: Run, logged: dict[str, Any]) -> None:
    _, out, _ = run("logs", "predict", "--since", "3h", "--grep", "ago")
    assert out.endswith("  Predict  INFO   two hours ago\n")
    assert out.count("\n") == 1
    _, out, _ = run("logs", "PromoteFunction", "--json")
    line = json.loads(out)
    assert (line["source"], json.loads(line["message"])["level"]) == ("Promote", "WARN")
    code, out, err = run("logs", "gateway")
    assert (code, out, "Gateway wrote nothing like that in the last 10m" in err) == (0, "", True)


def test_what_is_wrong_about_logs_is_said(run: Run, logged: dict[str, Any]) -> None:
    for words, code, said in (
        (["p"], 2, "'p' may be Predict or Promote; write more of the name."),
        (["train"], 1, "Nothing called 'train' writes a log in this stack; these do: Gateway, Predict, Promote."),
        (["--since", "soon"], 2, "'soon' is not a duration"),
        (["--stack-name", "no-such-stack"], 1, "There is no stack 'no-such-stack'"),
    ):
        found, out, err = run("logs", *words)
        assert (found, out, said in err) == (code, "", True), err


# --- destroy ----------------------------------------------------------------------------------------------------------


def test_a_stack_goes_and_what_stays_is_told_with_commands(
    run: Run, deployed: dict[str, Any], stack_name: str, config_folder: Path
) -> None:
    code, out, err = run("destroy", "--yes")
    assert code == 0, err
    assert f"ModelBucket     {deployed['bucket']}  (1 objects with their older versions, 0.0 MB)" in err
    assert f"{stack_name} is deleted." in out
    assert f"b = boto3.resource('s3').Bucket('{deployed['bucket']}')" in out
    assert f"aws ecr delete-repository --force --repository-name {stack_name}" in out
    assert RememberedStacks(config_folder).find() is None
    code, _, err = run("destroy", "--stack-name", stack_name)
    assert (code, f"There is no stack '{stack_name}'" in err) == (1, True)


def test_nothing_goes_without_a_word(
    run: Run, deployed: dict[str, Any], stack_name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for words, typed in (
        (["destroy"], "n\n"),
        (["destroy"], ""),
        (["destroy", "--everything", "--yes"], "pilotlight\n"),
    ):
        (tmp_path / "typed").write_text(typed)
        with (tmp_path / "typed").open() as file:
            monkeypatch.setattr("sys.stdin", file)
            code, _, _ = run(*words)
        assert code != 0
    assert boto3.client("cloudformation").describe_stacks(StackName=stack_name)["Stacks"]


def test_everything_goes_once_the_name_is_typed(
    run: Run, deployed: dict[str, Any], stack_name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "typed").write_text(f"{stack_name}\n")
    with (tmp_path / "typed").open() as file:
        monkeypatch.setattr("sys.stdin", file)
        code, out, err = run("destroy", "--everything", "--json")
    assert (code, json.loads(out)) == (0, {"deleted": stack_name, "left": []}), err
    assert deployed["bucket"] not in [one["Name"] for one in boto3.client("s3").list_buckets()["Buckets"]]
