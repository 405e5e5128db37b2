"""Functions tell each other by the bus: the same boto3 call as on AWS, to functions of nested templates as well."""

import json
import os
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from pilotlight.aws.eventbridge import EventBus
from pilotlight.errors import UnavailableError
from pilotlight.local import template
from pilotlight.local.eventbridge_api import matches_pattern
from pilotlight.local.gateway import Gateway
from pilotlight.local.template import EventRule
from tests.core.local.http_client import ask
from tests.core.local.test_triggers import ALONE
from tests.fakes import eventually

OUTER = (
    """
Parameters:
  Greeting: {Type: String, Default: hello}
"""
    + ALONE
    + """
  Nested:
    Type: AWS::Serverless::Application
    Properties:
      Location: inner/events.yaml
      Parameters: {Word: !Ref Greeting, Bucket: !Ref SomeBucket}
  Elsewhere:
    Type: AWS::Serverless::Application
    Properties: {Location: "https://example.com/t.yaml"}
"""
)
INNER = """
Parameters:
  Word: {Type: String, Default: none}
  Bucket: {Type: String}
Resources:
  Listener:
    Type: AWS::Serverless::Function
    Properties:
      Handler: listener.handle
      MemorySize: 256
      Timeout: 10
      Layers: [!Ref Layer]
      Environment: {Variables: {WORD: !Ref Word, WHERE: !Ref Bucket}}
      Events:
        Asked:
          Type: EventBridgeRule
          Properties:
            Pattern: {detail-type: [Pilotlight Inference], resources: [!Sub "arn:aws:s3:::${Bucket}"]}
        Put:
          Type: EventBridgeRule
          Properties: {Pattern: {source: [aws.s3], detail: {bucket: {name: [!Ref Bucket]}}}}
  Queue: {Type: AWS::SQS::Queue}
  Layer:
    Type: AWS::Serverless::LayerVersion
    Properties: {ContentUri: ../layers/core}
"""
SPEAKER = 'def handle(event, context):\n    return {"statusCode": 200, "body": "said"}\n'
LISTENER = """
import json, os
from pathlib import Path
def handle(event, context):
    heard = Path("heard")
    count = len(heard.read_text().splitlines()) if heard.exists() else 0
    with heard.open("a") as file:
        file.write(json.dumps([os.environ["WORD"], event]) + "\\n")
    if event["detail"].get("s3_uri") == "once more" and count == 0:
        raise ValueError("not yet")
"""


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    (tmp_path / "inner").mkdir()
    (tmp_path / "template.yaml").write_text(OUTER)
    (tmp_path / "inner" / "events.yaml").write_text(INNER)
    (tmp_path / "speaker.py").write_text(SPEAKER)
    (tmp_path / "listener.py").write_text(LISTENER)
    return tmp_path


def heard(folder: Path) -> list[Any]:
    path = folder / "heard"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def client(url: str) -> Any:  # noqa: ANN401 - boto3 ships no types
    return boto3.client(
        "events", endpoint_url=url, region_name="eu-central-1", aws_access_key_id="a", aws_secret_access_key="b"
    )


def test_a_nested_template_gives_functions_with_the_parameters_that_it_is_given(stack: Path) -> None:
    found = template.load_stack(stack / "template.yaml")
    listener = found.functions["Listener"]
    assert listener.environment == {"WORD": "hello"}
    assert listener.python_path == (stack, stack / "inner" / "../layers/core")
    assert [rule.function for rule in found.rules] == ["Listener", "Listener"]
    assert found.rules[0] == EventRule("Listener", {"detail-type": ["Pilotlight Inference"]})
    assert [route.function for route in found.routes] == ["Speaker"]


def test_words_reach_who_has_subscribed_and_are_repeated_to_who_fails(
    stack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Gateway(stack / "template.yaml", port=0, workers=1).serve_in_background() as url:
        EventBus(client(url)).publish("pilotlight.batches", "once more")
        eventually(lambda: len(heard(stack)) == 2)
        EventBus(client(url)).publish("pilotlight.batches", "batch_1")
        eventually(lambda: len(heard(stack)) == 3)
        unheard = {"Source": "x", "DetailType": "Something", "Detail": "{}"}
        assert client(url).put_events(Entries=[unheard])["FailedEntryCount"] == 0
    word, event = heard(stack)[-1]
    assert (word, event["detail"], event["source"]) == ("hello", {"batch": "batch_1"}, "pilotlight.batches")
    assert [each[1]["detail"] for each in heard(stack)] == [{"s3_uri": "once more"}] * 2 + [{"batch": "batch_1"}]
    assert os.environ.get("AWS_ENDPOINT_URL_EVENTBRIDGE") is None


def test_nobody_else_is_listened_to(stack: Path) -> None:
    with Gateway(stack / "template.yaml", port=0, workers=1).serve_in_background() as url:
        headers = {"x-amz-target": "AWSEvents.PutEvents"}
        assert ask(url, "POST", "/", b"{}", headers).status == 403
        wrong = {"Source": "x", "DetailType": "Pilotlight Inference", "Detail": "no JSON"}
        with pytest.raises(ClientError):
            client(url).put_events(Entries=[wrong])
        with pytest.raises(UnavailableError, match="did not take the word"):
            EventBus(client(url + "/elsewhere")).publish("x", "batch_1")
    assert heard(stack) == []


@pytest.mark.parametrize(
    ("pattern", "is_told"),
    [
        ({}, True),
        ({"source": ["aws.s3", "x"]}, True),
        ({"source": ["x"]}, False),
        ({"source": [{"prefix": "aws."}]}, True),
        ({"source": [{"prefix": "x."}]}, False),
        ({"detail": {"object": {"key": [{"wildcard": "models/*/manifest.json"}]}}}, True),
        ({"detail": {"object": {"key": [{"wildcard": "inbox/*"}]}}}, False),
        ({"detail": {"object": {"size": [{"prefix": "1"}]}}}, False),
        ({"detail": {"object": {"size": [7]}}}, True),
        ({"detail": {"nothing": ["x"]}}, False),
        ({"detail": {"object": {"key": {"deeper": ["x"]}}}}, False),
        ({"source": [{"anything-but": "x"}]}, False),
        ({"resources": ["arn:aws:s3:::ours"]}, True),
        ({"resources": ["arn:aws:s3:::theirs"]}, False),
    ],
)
def test_patterns(pattern: dict[str, Any], is_told: bool) -> None:
    resources = ["arn:aws:s3:::other", "arn:aws:s3:::ours"]
    event = {
        "source": "aws.s3",
        "resources": resources,
        "detail": {"object": {"key": "models/a/manifest.json", "size": 7}},
    }
    assert matches_pattern(pattern, event) == is_told
