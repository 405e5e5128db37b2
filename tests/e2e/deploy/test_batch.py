"""The emulator's Batch by itself: states, retries, timeouts, SIGKILL and rights, with jobs of a second each.

What jobs of the product do there is in test_training.py.
"""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from tests import fakes
from tests.e2e.deploy.conftest import needs_iam
from tests.e2e.training_image import SYSTEM, docker

IMAGE = "pilotlight-batch:e2e"
STOP_S = 1  # between SIGTERM and SIGKILL
WITHIN_S = 200.0
LOGS = "/batch/test"
USER_DATA = f"#!/bin/bash\necho ECS_CONTAINER_STOP_TIMEOUT={STOP_S}s >> /etc/ecs/ecs.config\n"
SAYS = "import os, sys; print(sys.argv[1], os.environ['AWS_BATCH_JQ_NAME'], os.environ.get('AWS_DEFAULT_REGION'))"
TRIES = "import os, sys; sys.exit(75 * (os.environ['AWS_BATCH_JOB_ATTEMPT'] == '1'))"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
STATES = ["SUBMITTED", "RUNNABLE", "STARTING", "RUNNING"]


@dataclass(frozen=True)
class BatchQueue:
    """A queue of jobs, and a queue that gets the events of their states."""

    client: Any  # boto3's
    events: str  # the queue's URL

    def submit(self, program: str, *words: str, **more: Any) -> str:  # noqa: ANN401 - of SubmitJob
        """Submit a program in Python."""
        override = {"command": ["python3", "-c", program, *words]}
        asked = {"jobName": "test", "jobQueue": "jobs", "jobDefinition": "job", "containerOverrides": override}
        job: str = self.client.submit_job(**asked, **more)["jobId"]
        return job

    def describe(self, job: str) -> dict[str, Any]:
        """What Batch says of a job."""
        (found,) = self.client.describe_jobs(jobs=[job])["jobs"]
        return dict(found)

    def wait(self, job: str, *states: str) -> dict[str, Any]:
        """Wait until a job is in one of these states."""
        fakes.eventually(lambda: self.describe(job)["status"] in states, WITHIN_S)
        return self.describe(job)

    def wait_for_output(self, job: str) -> str:
        """Wait until a job has printed something, and return it."""

        def read() -> str:
            stream = self.describe(job)["container"].get("logStreamName")
            found = boto3.client("logs").filter_log_events(logGroupName=LOGS)["events"]
            return "\n".join(one["message"] for one in found if one["logStreamName"] == stream)

        fakes.eventually(lambda: bool(read()), WITHIN_S)
        return read()

    def wait_for_states(self, job: str, *states: str) -> None:
        """Wait until events have told these states of a job, in order; one more, or another order, never ends it."""
        told, sqs = list[str](), boto3.client("sqs")

        def are_told() -> bool:
            for one in sqs.receive_message(QueueUrl=self.events, MaxNumberOfMessages=10).get("Messages", []):
                detail = json.loads(one["Body"])["detail"]
                told.extend([detail["status"]] if detail["jobId"] == job else [])
                sqs.delete_message(QueueUrl=self.events, ReceiptHandle=one["ReceiptHandle"])
            return told == list(states)

        fakes.eventually(are_told, 30)


@pytest.fixture(scope="module")
def batch(emulator: str) -> Iterator[BatchQueue]:
    """A queue whose machines have a stop timeout of a second, and one definition."""
    docker("build", "--quiet", "--tag", IMAGE, "-", given=f"FROM {SYSTEM}\nENTRYPOINT []\n")
    data = {"UserData": base64.b64encode(USER_DATA.encode()).decode()}
    made = boto3.client("ec2").create_launch_template(LaunchTemplateName="machines", LaunchTemplateData=data)
    machines = {"type": "EC2", "maxvCpus": 4, "subnets": ["subnet-00000001"], "instanceTypes": ["m6i"]}
    machines["launchTemplate"] = {"launchTemplateId": made["LaunchTemplate"]["LaunchTemplateId"]}
    client = boto3.client("batch")
    client.create_compute_environment(computeEnvironmentName="machines", type="MANAGED", computeResources=machines)
    order = [{"order": 1, "computeEnvironment": "machines"}]
    client.create_job_queue(jobQueueName="jobs", priority=1, computeEnvironmentOrder=order)
    register(client)
    yield BatchQueue(client, send_events_to_queue())
    docker("rmi", IMAGE, check=False)


def register(client: Any) -> None:  # noqa: ANN401 - boto3's
    boto3.client("logs").create_log_group(logGroupName=LOGS)
    container = {
        "image": IMAGE,
        "command": ["true"],
        "resourceRequirements": [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "128"}],
        "linuxParameters": {"initProcessEnabled": True},
        "logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-group": LOGS}},
    }
    role = boto3.client("iam").create_role(RoleName="starts-tasks", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    rights = {"Effect": "Allow", "Action": ["logs:CreateLogStream", "logs:PutLogEvents"], "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [rights]})
    boto3.client("iam").put_role_policy(RoleName="starts-tasks", PolicyName="logs", PolicyDocument=policy)
    client.register_job_definition(
        jobDefinitionName="job",
        type="container",
        parameters={"word": "default"},
        retryStrategy={"attempts": 3, "evaluateOnExit": [{"onExitCode": "75", "action": "RETRY"}]},
        containerProperties={**container, "executionRoleArn": role},
    )


def send_events_to_queue() -> str:
    """Make a queue that gets the events of all jobs."""
    sqs, events, arn = boto3.client("sqs"), boto3.client("events"), "arn:aws:sqs:us-east-1:000000000000:job-states"
    allowed = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage"}
    policy = {"Version": "2012-10-17", "Statement": [{**allowed, "Resource": arn}]}
    url: str = sqs.create_queue(QueueName="job-states", Attributes={"Policy": json.dumps(policy)})["QueueUrl"]
    pattern = {"source": ["aws.batch"], "detail-type": ["Batch Job State Change"]}
    events.put_rule(Name="job-states", EventPattern=json.dumps(pattern))
    events.put_targets(Rule="job-states", Targets=[{"Id": "queue", "Arn": arn}])
    return url


def test_each_state_is_an_event(batch: BatchQueue) -> None:
    job = batch.submit(SAYS, "Ref::word", parameters={"word": "given"})
    done = batch.wait(job, "SUCCEEDED", "FAILED")
    assert (done["status"], done["container"]["exitCode"]) == ("SUCCEEDED", 0)
    assert batch.wait_for_output(job) == "given jobs None"  # ECS tells no container on EC2 its region
    assert done["container"]["logStreamName"].startswith("job/default/")
    batch.wait_for_states(job, *STATES, "SUCCEEDED")


def test_the_retry_table_decides(batch: BatchQueue) -> None:
    job = batch.submit(TRIES)
    done = batch.wait(job, "SUCCEEDED", "FAILED")
    assert [one["container"]["exitCode"] for one in done["attempts"]] == [75, 0]
    batch.wait_for_states(job, *STATES, *STATES[1:], "SUCCEEDED")


def test_an_attempt_that_takes_too_long_is_killed_and_not_retried(batch: BatchQueue) -> None:
    job = batch.submit(DEAF, timeout={"attemptDurationSeconds": 5})  # AWS takes 60 at least
    done = batch.wait(job, "FAILED")
    assert (done["statusReason"], len(done["attempts"])) == ("Job attempt duration exceeded timeout", 1)
    assert done["container"]["exitCode"] in (137, 143)  # SIGKILL, or SIGTERM where python was not even deaf yet


def test_a_terminated_job_is_killed_after_the_stop_timeout(batch: BatchQueue) -> None:
    job = batch.submit(DEAF)
    batch.wait_for_output(job)
    batch.client.cancel_job(jobId=job, reason="too late for that")  # it runs
    assert batch.describe(job)["status"] == "RUNNING"
    batch.client.terminate_job(jobId=job, reason="enough")
    done = batch.wait(job, "FAILED")
    assert (done["statusReason"], done["container"]["exitCode"], done["isTerminated"]) == ("enough", 137, True)


@needs_iam
def test_rights_are_to_the_queue_and_to_the_definition(batch: BatchQueue) -> None:
    """A user who may use the queue alone may not submit; one who may both may, but without tags."""
    arns = [f"arn:aws:batch:us-east-1:000000000000:{name}" for name in ("job-queue/jobs", "job-definition/job*")]
    for rights, tags, allowed in ((arns[:1], {}, False), (arns, {"a": "b"}, False), (arns, {}, True)):
        client = open_client_of_user(rights)
        asked = {"jobName": "test", "jobQueue": "jobs", "jobDefinition": "job", "tags": tags}
        if allowed:
            assert batch.wait(client.submit_job(**asked)["jobId"], "SUCCEEDED")["attempts"]
        else:
            with pytest.raises(ClientError, match="not authorized"):
                client.submit_job(**asked)


def open_client_of_user(resources: list[str]) -> Any:  # noqa: ANN401 - boto3 ships no types
    """Open a client for Batch with the keys of a new user, who may submit jobs to these resources."""
    iam, name = boto3.client("iam"), f"user-{len(boto3.client('iam').list_users()['Users'])}"
    iam.create_user(UserName=name)
    rights = {"Effect": "Allow", "Action": "batch:SubmitJob", "Resource": resources}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [rights]})
    iam.put_user_policy(UserName=name, PolicyName="submit", PolicyDocument=policy)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    keys = {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
    return boto3.client("batch", **keys)
