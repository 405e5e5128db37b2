"""How the emulator of AWS makes jobs of Batch, and by what it retries them: the template's own table, line by line.

What Docker does with them is in tests/e2e/deploy/test_training.py.
"""

from pathlib import Path
from typing import Any

import pytest
from cfnlint.decode import cfn_yaml

from tests.emulator import batch_jobs
from tests.emulator.batch_jobs import TASK_EXITED, TASK_NOT_STARTED, AttemptEnd
from tests.emulator.batch_requests import to_request

ROOT = Path(__file__).parents[2]
TABLE = cfn_yaml.load(str(ROOT / "infra/training.yaml"))["Resources"]["Job"]["Properties"]["RetryStrategy"]
STRATEGY: dict[str, Any] = {
    "attempts": TABLE["Attempts"],
    "evaluateOnExit": [
        {name[0].lower() + name[1:]: value for name, value in one.items()} for one in TABLE["EvaluateOnExit"]
    ],
}
CONTAINER: dict[str, Any] = {
    "image": "trainer",
    "command": ["--run", "Ref::run", "Ref::recipe"],
    "environment": [{"name": "AWS_DEFAULT_REGION", "value": "eu-central-1"}],
    "resourceRequirements": [{"type": "GPU", "value": "1"}, {"type": "MEMORY", "value": "13000"}],
}
DEFINITION: dict[str, Any] = {
    "jobDefinitionArn": "arn:aws:batch:eu-central-1:1:job-definition/Job:1",
    "type": "container",
    "parameters": {"run": "unnamed", "recipe": "digits"},
    "containerProperties": CONTAINER,
}
NODES: dict[str, Any] = {
    "jobDefinitionArn": "arn:aws:batch:eu-central-1:1:job-definition/Nodes:1",
    "type": "multinode",
    "parameters": {"run": "unnamed", "recipe": "digits"},
    "nodeProperties": {
        "numNodes": 2,
        "mainNode": 0,
        "nodeRangeProperties": [{"targetNodes": "0:", "container": CONTAINER}],
    },
}
ARN = "arn:aws:batch:eu-central-1:1:job/4f0e"


@pytest.mark.parametrize(
    ("end", "decision"),
    [
        (AttemptEnd("Host EC2 (instance i-0a1b) terminated."), "RETRY"),
        (AttemptEnd(TASK_EXITED, exit_code=75), "RETRY"),
        (AttemptEnd(TASK_NOT_STARTED, "CannotPullContainerError: manifest unknown"), "RETRY"),
        (AttemptEnd(TASK_EXITED, exit_code=1), "EXIT"),
        (AttemptEnd(TASK_EXITED, exit_code=2), "EXIT"),
        (AttemptEnd(TASK_EXITED, batch_jobs.OUT_OF_MEMORY, 137), "EXIT"),
        (AttemptEnd("Cancelled: by hand", exit_code=75, is_final=True), "EXIT"),
        (AttemptEnd(batch_jobs.TIMED_OUT, exit_code=75, is_final=True), "EXIT"),
    ],
)
def test_the_templates_table_retries_what_another_attempt_may_mend(end: AttemptEnd, decision: str) -> None:
    assert batch_jobs.decide_retry(STRATEGY, 1, end) == decision
    assert batch_jobs.decide_retry(STRATEGY, STRATEGY["attempts"], end) == "EXIT"


def test_what_no_condition_names_is_retried() -> None:
    strategy = {"attempts": 2, "evaluateOnExit": [{"onExitCode": "3", "onReason": "Out*", "action": "EXIT"}]}
    assert batch_jobs.decide_retry(strategy, 1, AttemptEnd(TASK_EXITED, exit_code=3)) == "RETRY"
    assert batch_jobs.decide_retry(strategy, 1, AttemptEnd(TASK_EXITED, "OutOfMemoryError", 3)) == "EXIT"


def test_the_first_match_decides() -> None:
    conditions = [{"onExitCode": "7*", "action": "exit"}, {"onExitCode": "75", "action": "retry"}]
    strategy = {"attempts": 2, "evaluateOnExit": conditions}
    assert batch_jobs.decide_retry(strategy, 1, AttemptEnd(TASK_EXITED, exit_code=75)) == "EXIT"


def test_a_job_has_the_submissions_parameters_over_the_definitions() -> None:
    job = batch_jobs.build_job(ARN, "q", DEFINITION, {"jobName": "monday", "parameters": {"run": "monday"}}, 1)
    assert job["container"]["command"] == ["--run", "monday", "digits"]
    assert (job["jobId"], job["status"], job["tags"]) == ("4f0e", "SUBMITTED", {"resourceArn": ARN})
    assert CONTAINER["command"] == ["--run", "Ref::run", "Ref::recipe"]


def test_words_without_a_parameter_stay() -> None:
    words = ["Ref::run", "xRef::run", "Ref::other"]
    assert batch_jobs.substitute_parameters(words, {"run": "monday"}) == ["monday", "xRef::run", "Ref::other"]


def test_overrides_replace_what_they_name() -> None:
    overrides = {
        "command": ["--help"],
        "environment": [{"name": "DEBUG", "value": "1"}],
        "resourceRequirements": [{"type": "MEMORY", "value": "300"}],
    }
    request = {"jobName": "j", "containerOverrides": overrides}
    container = batch_jobs.build_job(ARN, "q", DEFINITION, request, 1)["container"]
    assert container["command"] == ["--help"]
    assert {one["name"]: one["value"] for one in container["environment"]} == {
        "AWS_DEFAULT_REGION": "eu-central-1",
        "DEBUG": "1",
    }
    assert batch_jobs.find_resource(container, "MEMORY", 0) == 300
    assert batch_jobs.find_resource(container, "GPU", 0) == 1


def test_each_node_is_a_job_of_its_own() -> None:
    request = {"jobName": "j", "parameters": {"run": "r"}, "nodeOverrides": {"numNodes": 3}}
    job = batch_jobs.build_job(ARN, "q", NODES, request, 1)
    nodes = [batch_jobs.build_node_job(job, node) for node in range(job["nodeProperties"]["numNodes"])]
    assert [one["jobId"] for one in nodes] == ["4f0e#0", "4f0e#1", "4f0e#2"]
    assert [one["nodeDetails"]["isMainNode"] for one in nodes] == [True, False, False]
    assert nodes[2]["container"]["command"] == ["--run", "r", "digits"]


@pytest.mark.parametrize(("target", "nodes"), [("0:", [0, 1, 2]), ("1:", [1, 2]), ("0:1", [0, 1]), ("2", [2])])
def test_ranges_name_nodes(target: str, nodes: list[int]) -> None:
    assert [node for node in range(3) if batch_jobs.find_node_range([{"targetNodes": target}], node, 3)] == nodes


def test_only_the_other_nodes_are_told_where_the_main_one_is() -> None:
    name = "AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS"
    assert name not in batch_jobs.build_node_environment(0, 2, 0, "172.17.0.2")
    assert batch_jobs.build_node_environment(1, 2, 0, "172.17.0.2")[name] == "172.17.0.2"


def test_a_stream_is_named_by_its_task() -> None:
    options = {"awslogs-group": "g", "awslogs-stream-prefix": "train"}
    assert batch_jobs.name_log_stream({"logConfiguration": {"options": options}}, "Job", "t") == "train/default/t"
    assert batch_jobs.name_log_stream({}, "Job", "t") == "Job/default/t"


def test_lines_are_whole() -> None:
    chunks = [b"one\ntw", b"o\n", b"\nthree", b"\xff"]
    assert list(batch_jobs.split_lines(chunks)) == [["one"], ["two"], [""], ["three�"]]


@pytest.mark.parametrize(
    ("definition", "request_of", "problem"),
    [
        (DEFINITION, {"jobName": "a b"}, "Job name"),
        (DEFINITION, {"jobName": "a", "nodeOverrides": {}}, "nodeOverrides is not for"),
        (NODES, {"jobName": "a", "containerOverrides": {}}, "containerOverrides is not for"),
        (DEFINITION, {"jobName": "a", "dependsOn": [{"jobId": "b"}]}, "depend"),
        (DEFINITION, {"jobName": "a"}, ""),
    ],
)
def test_submissions_are_checked(definition: dict[str, Any], request_of: dict[str, Any], problem: str) -> None:
    found = batch_jobs.check_submission(request_of, definition)
    assert problem in found if problem else found == ""


def test_the_templates_definition_is_a_request() -> None:
    """Parameters of templates are text; the API wants numbers, and its own names."""
    properties = cfn_yaml.load(str(ROOT / "infra/training.yaml"))["Resources"]["Job"]["Properties"]
    given = {**properties, "Timeout": {"AttemptDurationSeconds": "86400"}}
    request = to_request("RegisterJobDefinition", given)
    assert request["timeout"] == {"attemptDurationSeconds": 86400}
    assert request["retryStrategy"] == STRATEGY
    assert request["parameters"] == {"run": "unnamed", "recipe": "digits"}
    container = request["containerProperties"]
    assert container["logConfiguration"]["options"]["awslogs-stream-prefix"] == "train"
    assert container["linuxParameters"] == {"initProcessEnabled": True, "sharedMemorySize": 8192}


def test_keys_of_maps_stay_as_they_are() -> None:
    request = to_request("RegisterJobDefinition", {"Parameters": {"Run": "A"}, "Unheard": 1})
    assert request == {"parameters": {"Run": "A"}}
