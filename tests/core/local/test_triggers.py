"""The clock and the log start functions, in the forms that AWS gives them."""

import asyncio
import base64
import gzip
import json
from pathlib import Path

import pytest

from pilotlight.errors import UnsupportedError
from pilotlight.local import template
from pilotlight.local.gateway import Gateway
from pilotlight.local.gateway_errors import FAILED, GatewayError
from pilotlight.local.template import LogSubscription, Schedule
from pilotlight.local.triggers import Triggers, seconds_until_next
from tests.core.local.http_client import get
from tests.fakes import eventually

ALONE = """
Resources:
  Speaker:
    Type: AWS::Serverless::Function
    Properties:
      Handler: speaker.handle
      MemorySize: 256
      Timeout: 10
      Events:
        Say: {Type: Api, Properties: {Method: GET, Path: /say}}
"""
HEAD = (
    ALONE
    + """
  SpeakerLogs:
    Type: AWS::Logs::LogGroup
    Properties: {LogGroupName: !Sub "/aws/lambda/${Speaker}"}
  Listener:
    Type: AWS::Serverless::Function
    Properties:
      Handler: listener.handle
      MemorySize: 256
      Timeout: 10
      Events:
        Queue: {Type: SQS, Properties: {Queue: somewhere}}
"""
)
LOG = """\
        Log:
          Type: CloudWatchLogs
          Properties: {LogGroupName: !Ref SpeakerLogs, FilterPattern: "{ $.Word = * }"}
"""
SPEAKER = """
def handle(event, context):
    print('{"Word": "hello"}')
    return {"statusCode": 200, "body": "said"}
"""
CLOCK = "        Clock: {Type: Schedule, Properties: {Schedule: 'rate(1 second)'}}\n"


def written(folder: Path, *events: str) -> Path:
    path = folder / "template.yaml"
    path.write_text(HEAD + "".join(events))
    return path


def test_schedules_and_subscriptions_are_read(tmp_path: Path) -> None:
    stack = template.load_stack(written(tmp_path, LOG, CLOCK.replace("1 second", "5 minutes")))
    assert stack.schedules == (Schedule("Listener", 300),)
    assert stack.subscriptions == (LogSubscription("Listener", "Speaker", "Word"),)
    assert set(stack.functions) == {"Speaker", "Listener"}


def test_a_function_that_only_a_queue_starts_is_left_out(tmp_path: Path) -> None:
    assert set(template.load_stack(written(tmp_path)).functions) == {"Speaker"}


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (CLOCK.replace("rate(1 second)", "cron(0 3 ? * MON *)"), r"'cron\(0 3 \? \* MON \*\)' is not run here"),
        (LOG.replace("$.Word = *", "$.Word = 3 && $.x"), "FilterPattern such as"),
        (LOG.replace("!Ref SpeakerLogs", "/var/log/syslog"), "the log group of a function of this template"),
    ],
)
def test_what_is_not_run_here_is_said_and_not_left_out(tmp_path: Path, event: str, why: str) -> None:
    with pytest.raises(UnsupportedError, match=why):
        template.load_stack(written(tmp_path, event))


def test_only_lines_with_the_field_are_told_and_failures_do_not_end_it() -> None:
    told: list[tuple[str, dict[str, str]]] = []

    async def invoke(function: str, event: bytes) -> bytes:
        batch = json.loads(gzip.decompress(base64.b64decode(json.loads(event)["awslogs"]["data"])))
        told.extend((function, json.loads(line["message"])) for line in batch["logEvents"])
        raise GatewayError(FAILED, "it failed")

    async def hear() -> None:
        triggers = Triggers((), (LogSubscription("Listener", "Speaker", "Word"),), invoke)
        for line in (b'{"Word": "a"}\n', b"Word\n", b'["Word"]\n', b'{"Other": "Word"}', b'{"Word": "b"}\n'):
            triggers.on_log_line("Speaker", line)
        triggers.on_log_line("Somebody", b'{"Word": "c"}\n')
        await asyncio.sleep(0.05)
        await triggers.stop()

    asyncio.run(hear())
    assert told == [("Listener", {"Word": "a"}), ("Listener", {"Word": "b"})]


def test_a_line_of_one_function_and_the_clock_start_another(tmp_path: Path) -> None:
    (tmp_path / "speaker.py").write_text(SPEAKER)
    heard = tmp_path / "heard"
    (tmp_path / "listener.py").write_text(
        f"import json\ndef handle(event, context):\n    open({str(heard)!r}, 'a').write(json.dumps(event) + '\\n')\n"
    )
    with Gateway(written(tmp_path, LOG, CLOCK), port=0, workers=1).serve_in_background() as url:
        assert get(url, "/say").status == 200
        eventually(
            lambda: heard.exists() and {"awslogs", "detail-type"} <= set(" ".join(heard.read_text().split('"')).split())
        )


def test_a_daily_time_is_waited_for(tmp_path: Path) -> None:
    daily = CLOCK.replace("rate(1 second)", "cron(15 2 * * ? *)")
    (schedule,) = template.load_stack(written(tmp_path, daily)).schedules
    assert schedule == Schedule("Listener", 86_400, 2 * 3600 + 15 * 60)
    midnight = 20_000 * 86_400.0
    assert seconds_until_next(schedule, midnight) == 8100
    assert seconds_until_next(schedule, midnight + 8100) == 86_400
    assert seconds_until_next(schedule, midnight + 8101) == 86_399
    assert seconds_until_next(Schedule("Listener", 5.0), midnight) == 5
