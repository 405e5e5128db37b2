"""What infra/events.yaml promises, checked without deploying it."""

import importlib
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cfnlint.decode import cfn_yaml

from functions.batch_api import batches
from functions.batch_worker.envelopes import OBJECT_CREATED
from functions.batch_worker.events import FileEvent, parse_bus_event
from functions.batch_worker.outbound_messages import SOURCE
from pilotlight.aws.eventbridge import INFERENCE_DETAIL_TYPE

ROOT = Path(__file__).parents[2]
STACK: dict[str, Any] = cfn_yaml.load(str(ROOT / "infra" / "events.yaml"))
RESOURCES: dict[str, Any] = STACK["Resources"]
FUNCTION = RESOURCES["BatchFunction"]["Properties"]
OBJECTS = "arn:${AWS::Partition}:s3:::${ModelBucket}"


def statements() -> list[dict[str, Any]]:
    policies = [one for policy in FUNCTION["Policies"] for one in policy["Statement"]]
    return [one["Fn::If"][1] if "Fn::If" in one else one for one in policies]


def always() -> list[dict[str, Any]]:
    """Those that do not hang on captures, whose rights rights.py is about."""
    policies = [one for policy in FUNCTION["Policies"] for one in policy["Statement"]]
    wanted = [one for one in policies if one.get("Fn::If", [""])[0] != "CaptureEnabled"]
    return [one["Fn::If"][1] if "Fn::If" in one else one for one in wanted]


def resources(action: str) -> list[Any]:
    found = [one["Resource"] for one in always() if action in one["Action"]]
    return [each for one in found for each in (one if isinstance(one, list) else [one])]


def test_the_handler_imports_from_the_checkout() -> None:
    module, function = FUNCTION["Handler"].rsplit(".", 1)
    assert callable(getattr(importlib.import_module(module), function))
    assert (ROOT / "infra" / FUNCTION["CodeUri"] / "handler.py").exists()
    assert RESOURCES["BatchFunction"]["Metadata"]["BuildMethod"] == "makefile"
    command = ["make", "--dry-run", "build-BatchFunction", "ARTIFACTS_DIR=built"]
    said = subprocess.check_output(command, cwd=ROOT / "functions" / "batch_worker", text=True)
    assert "pip install" in said
    assert f'cp *.py "built/{module.rpartition(".")[0].replace(".", "/")}"' in said


def test_the_function_may_do_only_what_it_must() -> None:
    actions = [one["Action"] for one in statements()]
    flat = {name for action in actions for name in ([action] if isinstance(action, str) else action)}
    assert flat == {
        "s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket", "events:PutEvents", "sqs:ReceiveMessage",
        "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:GetQueueUrl", "sqs:SendMessage",
        "kms:Decrypt", "kms:GenerateDataKey", "states:StartExecution",
    }  # fmt: skip
    assert "*" not in [one["Resource"] for one in statements()]
    assert resources("s3:PutObject") == [{"Fn::Sub": f"{OBJECTS}/outbox/*"}]
    assert resources("s3:DeleteObject") == [
        {"Fn::Sub": f"{OBJECTS}/outbox/*/{name}"} for name in ("parts/*", "manifest.json")
    ]
    assert resources("s3:GetObject") == [
        {"Fn::Sub": f"{OBJECTS}/{folder}/*"}
        for folder in ("models", "signatures", "inbox", "outbox", "uploads", "batches")
    ]
    assert resources("sqs:SendMessage") == [{"Ref": "ReplyQueues"}]


def test_it_may_tell_itself_to_go_on_and_nobody_anything_else() -> None:
    (statement,) = [one for one in statements() if one["Action"] == "events:PutEvents"]
    assert statement["Condition"] == {
        "StringEquals": {"events:source": SOURCE, "events:detail-type": INFERENCE_DETAIL_TYPE}
    }


def test_the_machine_and_the_function_name_each_other() -> None:
    (statement,) = [one for one in statements() if one["Action"] == "states:StartExecution"]
    machine = RESOURCES["Spread"]["Properties"]
    assert FUNCTION["Environment"]["Variables"]["PILOTLIGHT_SPREADER"] == statement["Resource"]
    assert statement["Resource"]["Fn::Sub"].endswith(f":stateMachine:{machine['StateMachineName']['Fn::Sub']}")


def test_no_number_of_the_machine_comes_by_a_parameter_which_would_make_it_a_text() -> None:
    states = RESOURCES["Spread"]["Properties"]["Definition"]["States"]
    assert "MaxConcurrency" not in states["Answer"]
    assert states["Split"]["ResultSelector"]["at_once.$"] == "$.Payload.at_once"


def test_no_template_holds_a_null_which_cloudformation_refuses() -> None:
    def nulls(node: Any) -> bool:  # noqa: ANN401 - JSON
        inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        return node is None or any(map(nulls, inner))

    assert not nulls(STACK)


def test_what_fails_for_good_is_told_as_an_event_that_the_function_understands() -> None:
    told = RESOURCES["Spread"]["Properties"]["Definition"]["States"]["Bury"]["Parameters"]["MessageBody"]
    event = {"id": "e", "detail-type": told["detail-type"], "source": told["source"], "detail": {"job": "batch_1"}}
    assert parse_bus_event(event) == FileEvent("batch_1", "pilotlight.batch", "e")
    assert set(told["detail"]) == {"job.$"}


def test_the_queue_waits_for_the_function_and_gives_up() -> None:
    queue = RESOURCES["Queue"]["Properties"]
    assert queue["VisibilityTimeout"] >= 6 * FUNCTION["Timeout"]
    assert queue["RedrivePolicy"] == {
        "deadLetterTargetArn": {"Fn::GetAtt": ["DeadLetters", "Arn"]},
        "maxReceiveCount": 5,
    }
    mapping = RESOURCES["QueueToFunction"]["Properties"]
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert mapping["EventSourceArn"] == {"Fn::GetAtt": ["Queue", "Arn"]}


def test_queues_are_encrypted_and_dead_letters_are_kept() -> None:
    assert RESOURCES["Queue"]["Properties"]["SqsManagedSseEnabled"]
    assert RESOURCES["DeadLetters"]["Properties"]["SqsManagedSseEnabled"]
    assert RESOURCES["DeadLetters"]["DeletionPolicy"] == RESOURCES["DeadLetters"]["UpdateReplacePolicy"] == "Retain"
    assert RESOURCES["DeadLetters"]["Properties"]["MessageRetentionPeriod"] == 14 * 86400
    assert FUNCTION["DeadLetterQueue"] == {"Type": "SQS", "TargetArn": {"Fn::GetAtt": ["DeadLetters", "Arn"]}}


def test_events_of_the_inbox_and_of_the_bus_come_and_no_others() -> None:
    uploaded, asked = (FUNCTION["Events"][name]["Properties"]["Pattern"] for name in ("Uploaded", "Asked"))
    assert uploaded["detail-type"] == [OBJECT_CREATED]
    assert uploaded["detail"]["object"] == {"key": [{"prefix": "inbox/"}]}
    assert uploaded["detail"]["bucket"] == {"name": [{"Ref": "ModelBucket"}]}
    assert asked == {"detail-type": [INFERENCE_DETAIL_TYPE], "resources": [{"Fn::Sub": OBJECTS}]}
    assert FUNCTION["Environment"]["Variables"]["PILOTLIGHT_EVENT_RESOURCE"] == {"Fn::Sub": OBJECTS}


def test_the_stack_nests_it_with_parameters_that_it_has() -> None:
    template: dict[str, Any] = cfn_yaml.load(str(ROOT / "template.yaml"))
    nested = template["Resources"]["Events"]["Properties"]
    assert nested["Location"] == "infra/events.yaml"
    required = {name for name, parameter in STACK["Parameters"].items() if "Default" not in parameter}
    assert required <= set(nested["Parameters"]) <= set(STACK["Parameters"])


def test_telemetry_is_off_and_logs_forget() -> None:
    assert FUNCTION["Environment"]["Variables"]["ORT_DISABLE_TELEMETRY"] == "1"
    assert RESOURCES["BatchLogs"]["Properties"]["RetentionInDays"] == {"Ref": "LogDays"}


@pytest.mark.parametrize(("template", "source"), [("template.yaml", batches.SOURCE), ("infra/events.yaml", SOURCE)])
def test_a_role_may_send_events_from_the_source_that_its_function_names(template: str, source: str) -> None:
    """IAM compares the event's source with the role's condition; another word would deny each event."""
    assert re.findall(r'"events:source": ([\w.]+)', (ROOT / template).read_text()) == [source]
