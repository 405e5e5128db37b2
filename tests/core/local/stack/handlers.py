"""Handlers for the tests of the local gateway; they run in environments, which import from this folder only."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from base64 import b64decode
from pathlib import Path
from typing import Any, Protocol

Event = dict[str, Any]
seen: list[str] = []  # what this environment has been asked to do


def answer(document: object) -> Event:
    return {"statusCode": 200, "headers": {"content-type": "application/json"}, "body": json.dumps(document)}


class Context(Protocol):
    """What handlers are told of their invocation."""

    aws_request_id: str
    invoked_function_arn: str
    function_name: str
    function_version: str
    memory_limit_in_mb: str
    log_group_name: str
    log_stream_name: str

    def get_remaining_time_in_millis(self) -> int: ...


def echo(event: Event, context: Context) -> Event:
    """The event, the context and the variables, as they arrived."""
    told: Event = {name: getattr(context, name) for name in Context.__annotations__}
    told["remaining_ms"] = context.get_remaining_time_in_millis()
    return answer(
        {"event": event, "context": told, "environ": dict(os.environ), "cwd": str(Path.cwd()), "pid": os.getpid()}
    )


def reply(event: Event, context: Context) -> object:
    """Whatever JSON the request's body holds, as the handler's answer."""
    document: object = json.loads(b64decode(event["body"]))
    return document


def hog(event: Event, context: Context) -> Event:
    """Take more memory than the function has, for which a busy machine may need seconds."""
    hoard = bytearray(400 * 1024 * 1024)
    time.sleep(600)
    return answer(len(hoard))


def nap(event: Event, context: Context) -> Event:
    """Sleep for longer than a gateway waits for it at its end."""
    time.sleep(600)
    raise AssertionError


def act(event: Event, context: Context) -> object:
    """Do what the path says."""
    what = event["pathParameters"]["what"]
    seen.append(what)
    result: object = globals()["act_" + what.partition("-")[0]](event)
    return result


def act_pid(event: Event) -> Event:
    return answer({"pid": os.getpid(), "seen": seen})


def act_sleep(event: Event) -> Event:
    begun = time.time()
    time.sleep(float((event["queryStringParameters"] or {}).get("s", "0.5")))
    return answer({"pid": os.getpid(), "begun": begun, "ended": time.time()})


def act_crash(event: Event) -> Event:
    os._exit(3)


def act_exit(event: Event) -> Event:
    sys.exit(4)


def act_hog(event: Event) -> Event:
    hoard = bytearray(400 * 1024 * 1024)
    time.sleep(600)
    return answer(len(hoard))


def act_segfault(event: Event) -> Event:
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(60)
    raise AssertionError


def act_raise(event: Event) -> Event:
    raise ValueError("the tensor is flat " + "x" * int((event["queryStringParameters"] or {}).get("x", "0")))


def act_hang(event: Event) -> Event:
    time.sleep(600)
    raise AssertionError


def act_unserialisable(event: Event) -> object:
    return {"statusCode": 200, "body": {1, 2}}


def act_oversize(event: Event) -> Event:
    return answer("x" * 7_000_000)


def act_large(event: Event) -> Event:
    return answer("x" * 6_000_000)


def act_print(event: Event) -> Event:
    print("said by the handler")  # noqa: T201  # stdout is the function's log
    return answer({})


def act_late(event: Event) -> Event:
    """Answer, and die a moment later."""
    threading.Timer(0.2, os._exit, [5]).start()
    return answer({"pid": os.getpid()})


def act_spawn(event: Event) -> Event:
    """Leave a child behind."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    return answer({"pid": os.getpid(), "child": child.pid})
