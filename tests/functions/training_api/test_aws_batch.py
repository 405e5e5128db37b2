"""Batch and CloudWatch as moto plays them, and what it does not play: attempts that follow each other, and nodes."""

import json
import time
from pathlib import Path
from typing import Any

import boto3
import pytest
from cfnlint.decode import cfn_yaml

from functions.training_api.aws_batch import (
    CANCELLED_PREFIX,
    AwsBatchLauncher,
    decode_token,
    encode_token,
    find_log_stream,
    format_job_name,
    format_reason,
    parse_job_status,
)
from functions.training_api.handler import build_launcher
from functions.training_api.launcher import NoLauncher
from functions.training_api.local_launcher import LocalLauncher
from pilotlight.errors import InvalidInputError, UnavailableError, UnsupportedError
from pilotlight.settings import Settings
from tests import fakes

ROOT = Path(__file__).parents[3]


def test_a_job_names_the_run_and_the_key_of_its_recipe(queue: Settings) -> None:
    batch = AwsBatchLauncher(queue)
    job = batch.start_job("digits.1", 1)
    (known,) = boto3.client("batch").describe_jobs(jobs=[job])["jobs"]
    assert known["parameters"] == {"run": "digits.1", "recipe": "store:runs/digits.1/recipe.yaml"}
    assert (known["jobName"], known["jobQueue"]) == ("digits-1", queue.training_queue)
    look = batch.poll([job, "nothing"])
    assert list(look) == [job]
    assert (look[job].phase, look[job].launcher_state) == ("over", "SUCCEEDED")
    assert batch.start_job("digits.1", 3) != job
    assert boto3.client("batch").list_jobs(jobQueue=queue.nodes_queue, jobStatus="SUCCEEDED")["jobSummaryList"]


def test_stopping_what_has_ended_is_fine(queue: Settings) -> None:
    batch = AwsBatchLauncher(queue)
    batch.stop_job(batch.start_job("monday", 1), "cancelled by hand")


def test_a_log_is_read_in_pages(queue: Settings) -> None:
    logs = boto3.client("logs")
    logs.create_log_stream(logGroupName=queue.training_logs, logStreamName="train/1")
    batch = AwsBatchLauncher(queue)

    def write(*lines: str) -> None:
        logs.put_log_events(
            logGroupName=queue.training_logs,
            logStreamName="train/1",
            logEvents=[{"timestamp": int(time.time() * 1000) + at, "message": line} for at, line in enumerate(lines)],
        )

    page = batch.read_log("job", "train/1", "")
    assert page.lines == []
    write("run monday", "data 0.1 s")
    page = batch.read_log("job", "train/1", page.token)
    assert page.lines == ["run monday", "data 0.1 s"]
    assert batch.read_log("job", "train/1", page.token).lines == []
    assert batch.read_log("job", "train/2", "").lines == []  # of a container that has not written yet


class Clients(AwsBatchLauncher):
    """Batch as it answers where moto cannot: a list of jobs, and logs by stream."""

    def __init__(self, jobs: list[dict[str, Any]], streams: dict[str, list[str]]) -> None:
        super().__init__(Settings(training_queue="q", training_job="d", nodes_queue="n", nodes_job="m"))
        self.jobs, self.streams, self.calls = jobs, streams, list[tuple[str, dict[str, Any]]]()

    def _call_aws(self, service: str, action: str, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401 - as boto3
        self.calls.append((action, arguments))
        if action == "describe_jobs":
            return {"jobs": [job for job in self.jobs if job["jobId"] in arguments["jobs"]]}
        if action == "list_jobs":
            return {"jobSummaryList": self.jobs}
        if action == "get_log_events":
            lines, begin = self.streams[arguments["logStreamName"]], int(arguments.get("nextToken", 0))
            return {"events": [{"message": line} for line in lines[begin:]], "nextForwardToken": str(len(lines))}
        return {"jobId": "new"}


def test_a_log_goes_on_in_the_next_attempt() -> None:
    clients = Clients([], {"train/1": ["a", "b"], "train/2": ["c"]})
    first = clients.read_log("job", "train/1", "")
    assert first.lines == ["a", "b"]
    clients.streams["train/1"].append("saved after step 12")
    rest = clients.read_log("job", "train/2", first.token)
    assert rest.lines == ["saved after step 12"]  # the end of the old one is not lost
    assert clients.read_log("job", "train/2", rest.token).lines == ["c"]


def test_the_log_of_several_nodes_is_the_main_ones() -> None:
    main = {"jobId": "job#0", "status": "RUNNING", "container": {"logStreamName": "train/main"}}
    clients = Clients([{"jobId": "job", "status": "RUNNING"}, main], {"train/main": ["a"]})
    assert clients.read_log("job", "", "").lines == ["a"]
    assert Clients([{"jobId": "job", "status": "RUNNABLE"}], {}).read_log("job", "", "").lines == []


def test_who_cancels_needs_no_alarm() -> None:
    clients = Clients([], {})
    clients.stop_job("job", "wrong data")
    assert clients.calls == [("terminate_job", {"jobId": "job", "reason": "Cancelled: wrong data"})]
    rule = cfn_yaml.load(str(ROOT / "infra/training.yaml"))["Resources"]["Failed"]["Properties"]
    assert rule["EventPattern"]["detail"]["statusReason"][0] == {"anything-but": {"prefix": CANCELLED_PREFIX}}


def test_several_nodes_are_said_to_batch() -> None:
    clients = Clients([], {})
    clients.start_job("monday", 4)
    ((_, said),) = clients.calls
    assert (said["jobQueue"], said["jobDefinition"], said["nodeOverrides"]) == ("n", "m", {"numNodes": 4})
    assert said["tags"] == {"pilotlight-stack": "", "pilotlight-run": "monday"}


def test_a_job_that_nobody_noted_is_found_by_its_name_and_time() -> None:
    since, before = "2026-11-25T15:00:00+00:00", 1795618700000
    jobs = [
        {"jobId": "old", "jobName": "mon-day", "createdAt": before},
        {"jobId": "other", "jobName": "mon-day-2", "createdAt": before + 9_000_000},
        {"jobId": "new", "jobName": "mon-day", "createdAt": before + 9_000_000},
    ]
    assert Clients(jobs, {}).find_job("mon.day", since) == "new"
    assert Clients(jobs[:2], {}).find_job("mon.day", since) is None


def test_a_job_over_several_nodes_has_its_exit_code_in_its_last_attempt() -> None:
    """It has no container of its own."""
    attempts = [{"container": {"exitCode": 75}}, {"container": {"exitCode": 2}}]
    job = {"status": "FAILED", "statusReason": "Essential container in task exited", "attempts": attempts}
    assert format_reason(job) == "Essential container in task exited; exit code 2"


def test_what_a_job_says() -> None:
    detail = json.loads((fakes.EVENTS / "batch-job-failed.json").read_text())["detail"]
    look = parse_job_status(detail)
    assert (look.phase, look.launcher_state, look.attempts, look.log) == ("over", "FAILED", 2, "train/default/second")
    assert format_reason(detail) == "Essential container in task exited; exit code 1"
    assert format_reason({"status": "RUNNABLE"}) == ""
    assert find_log_stream({"attempts": [{"container": {"logStreamName": "a"}}], "container": {"reason": "x"}}) == "a"
    assert parse_job_status({"status": "RUNNING", "attempts": [{}]}).attempts == 2
    assert parse_job_status({"status": "STARTING"}).phase == "waiting"
    assert format_job_name("a.b_c-d") == "a-b_c-d"


@pytest.mark.parametrize("token", ["x", "bm90IGpzb24=", "WzFd", "é"])
def test_a_token_of_ones_own_making_is_refused(token: str) -> None:
    with pytest.raises(InvalidInputError, match="which is not one that a log's `next` gave"):
        decode_token(token)
    assert decode_token(encode_token("train/1", "f/3")) == ("train/1", "f/3")


def test_a_queue_that_is_not_there_is_told(queue: Settings) -> None:
    with pytest.raises(UnavailableError, match="batch did not submit_job") as caught:
        AwsBatchLauncher(Settings(training_queue="nothing", training_job="nothing")).start_job("monday", 1)
    assert caught.value.retry_after == 5


def test_the_settings_choose_the_launcher() -> None:
    assert isinstance(build_launcher(Settings()), LocalLauncher)
    assert isinstance(build_launcher(Settings(training_queue="arn:aws:batch:queue")), AwsBatchLauncher)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("functions.training_api.handler.find_spec", lambda name: None)
        assert isinstance(build_launcher(Settings()), NoLauncher)
    nowhere = build_launcher(Settings(training_queue="none"))
    assert isinstance(nowhere, NoLauncher)
    assert (nowhere.find_job("monday", ""), nowhere.poll(["job"])) == (None, {})
    for act in (
        lambda: nowhere.check_nodes(1),
        lambda: nowhere.start_job("monday", 1),
        lambda: nowhere.stop_job("job", ""),
        lambda: nowhere.read_log("job", "", ""),
    ):
        with pytest.raises(UnsupportedError, match="deployed without TrainingSubnets"):
            act()
