"""Messages through the real handler over moto server's SQS, with all that goes wrong there; a poller plays Lambda.

Of the messages, 1 % are poison: half are no JSON, half are for a model that is published only before the redrive. 3 %
are sent twice. One batch in fifty is delivered twice, and one in twenty-five dies in its middle: half of them before an
answer is written and half right behind it, with everything that the handler had in memory.
"""

import json
import os
import random
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import boto3

from functions.batch_worker.handler import BatchWorker, build_batch_worker
from pilotlight.aws.sqs_redrive import move_messages
from pilotlight.registry.registry import Registry
from pilotlight.settings import Settings
from pilotlight.storage.object_store import ObjectStore, open_store
from tests import fakes
from tests.conftest import Serial, aws_variables, moto_server
from tests.load.fuzz import resident

POISON, TWICE = 0.01, 0.03
WAVE = 20  # messages are sent at once: moto looks at all that a queue holds, again for each that it gives out
FOLDER = "outbox/messages/"


@dataclass(frozen=True)
class Weather:
    """What goes wrong, and how patient the queue is."""

    deadly: int = 25  # of so many batches, one dies
    again: int = 40  # of so many, one is delivered twice, unless it dies
    hidden_s: int = 720  # that a received message is hidden, as in infra/events.yaml; `Poller` cuts it short
    receives: int = 5  # before a message is dead, as there


class Killed(BaseException):
    """The environment is gone, with all that it had in memory."""


class Deadly(ObjectStore):
    """A store whose writer dies when it is told to, before a write or behind it."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner.url, inner._store)
        self.writes: Counter[str] = Counter()
        self.dies_in: int | None = None  # so many answers from now
        self.late = False

    def create(self, path: str, data: bytes) -> None:
        dies = self.dies_in == 0
        self.dies_in = None if self.dies_in is None or dies else self.dies_in - 1
        if dies and not self.late:
            raise Killed
        super().create(path, data)
        self.writes[path] += 1
        if dies:
            raise Killed


class Poller:
    """What Lambda's event source mapping does for a queue."""

    def __init__(self, sqs: Any, url: str, store: Deadly, weather: Weather, chance: random.Random) -> None:  # noqa: ANN401
        self._sqs = sqs
        self._url = url
        self._store = store
        self._weather = weather
        self._chance = chance
        self._handle = self._environment()
        self.counts: Counter[str] = Counter(crashes=0)

    def _environment(self) -> BatchWorker:
        return build_batch_worker(Settings(alias_seconds=3600), self._store)

    def drain(self) -> None:
        """Until nothing lies in the queue, hidden or not."""
        self.work()
        while any(size(self._sqs, self._url)):
            time.sleep(0.1)
            self.work()

    def work(self) -> None:
        """Until there is nothing to receive for now."""
        while found := self._sqs.receive_message(
            QueueUrl=self._url, MaxNumberOfMessages=10, AttributeNames=["All"], MessageAttributeNames=["All"]
        ).get("Messages", []):
            self._batch(found)

    def _batch(self, messages: list[dict[str, Any]]) -> None:
        event = {"Records": [record(message) for message in messages]}
        self.counts["batches"] += 1
        self.counts["deliveries"] += len(messages)
        self.counts["redeliveries"] += sum(each["Attributes"]["ApproximateReceiveCount"] != "1" for each in messages)
        if not self.counts["batches"] % self._weather.deadly:
            self._store.dies_in, self._store.late = (
                self._chance.randrange(-(-len(messages) // 2)),
                self._chance.random() < 0.5,
            )
        try:
            answer = self._handle(event, None)
            if not self.counts["batches"] % self._weather.again:
                self.counts["batches delivered twice"] += 1
                answer = self._handle(event, None)
        except Killed:
            self.counts["crashes"] += 1
            self._handle = self._environment()
            self._show(messages)
            return
        finally:
            self._store.dies_in = None
        failed = {item["itemIdentifier"] for item in answer["batchItemFailures"]}
        self.counts["failures"] += len(failed)
        self._show([message for message in messages if message["MessageId"] in failed])
        done = entries([message for message in messages if message["MessageId"] not in failed])
        if done:
            self._sqs.delete_message_batch(QueueUrl=self._url, Entries=done)

    def _show(self, messages: list[dict[str, Any]]) -> None:
        """Let them be received again, as if the time for which they are hidden were over."""
        if messages:
            shown = [entry | {"VisibilityTimeout": 0} for entry in entries(messages)]
            self._sqs.change_message_visibility_batch(QueueUrl=self._url, Entries=shown)


def entries(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """These messages in a call of SQS's for many."""
    return [{"Id": str(place), "ReceiptHandle": each["ReceiptHandle"]} for place, each in enumerate(messages)]


def record(message: dict[str, Any]) -> dict[str, Any]:
    """A received message as Lambda puts it into the event."""
    attributes = message.get("MessageAttributes", {})
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message["Attributes"],
        "messageAttributes": {
            name: {"stringValue": value.get("StringValue"), "dataType": value["DataType"]}
            for name, value in attributes.items()
        },
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:asked",
        "awsRegion": "us-east-1",
    }


def size(sqs: Any, url: str) -> tuple[int, int]:  # noqa: ANN401
    """How many messages lie there, and how many are hidden."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return int(found[names[0]]), int(found[names[1]])


def queues(sqs: Any, weather: Weather) -> tuple[str, str]:  # noqa: ANN401
    """A queue and its dead letters."""
    name = uuid.uuid4().hex
    dlq = sqs.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dlq, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = {"deadLetterTargetArn": arn, "maxReceiveCount": weather.receives}
    attributes = {"VisibilityTimeout": str(weather.hidden_s), "RedrivePolicy": json.dumps(policy)}
    return sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"], dlq


def body(number: int, kind: str) -> str:
    """The request of that number, in the form of its kind."""
    given = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [number, 0, 1]}
    asked = {"id": str(number), "inputs": [given], "model_name": "late" if kind == "late" else "double"}
    return json.dumps(asked)[: -1 if kind == "broken" else None]


def send(sqs: Any, url: str, kinds: list[str], numbers: list[int]) -> None:  # noqa: ANN401
    """The messages of these numbers."""
    for start in range(0, len(numbers), 10):
        entries = [
            {
                "Id": str(place),
                "MessageBody": body(number, kinds[number]),
                "MessageAttributes": {"deduplication_id": {"DataType": "String", "StringValue": f"n{number}"}},
            }
            for place, number in enumerate(numbers[start : start + 10])
        ]
        sqs.send_message_batch(QueueUrl=url, Entries=entries)


def wrong(store: Deadly, kinds: list[str], answered: set[str]) -> list[str]:
    """What is not as it must be: answers that lack, are too many, are of another request or were written twice."""
    names = {f"{FOLDER}n{number}.json": number for number, kind in enumerate(kinds) if kind in answered}
    found = set(store.list_paths("outbox"))
    failures = [f"{path}: no answer" for path in names.keys() - found]
    failures += [f"{path}: nobody asked" for path in found - names.keys()]
    failures += [f"{path}: written {times} times" for path, times in store.writes.items() if times != 1]
    for path in found & names.keys():
        said = json.loads(store.get(path).data)
        if said["id"] != str(names[path]) or said["outputs"][0]["data"] != [2.0 * names[path], 0, 2]:
            failures.append(f"{path}: {said}")
    return failures


def run(count: int, seed: int, weather: Weather = Weather()) -> dict[str, Any]:
    """Send so many, let them be answered, redrive the dead; what was seen, and the failures."""
    once = {"AWS_MAX_ATTEMPTS": "1"}  # moto lacks an action, and words that as an error that is worth a retry
    with moto_server(Serial) as url, patch.dict(os.environ, aws_variables(url) | once):
        bucket = f"models-{uuid.uuid4().hex}"
        boto3.client("s3").create_bucket(Bucket=bucket)
        store, chance = Deadly(open_store(f"s3://{bucket}")), random.Random(seed)  # noqa: S311 - no secret
        return driven(store, boto3.client("sqs"), count, weather, chance)


def asked(count: int, chance: random.Random) -> tuple[list[str], list[int]]:
    """What each message is, by its number, and the numbers in the order in which they are sent, some of them twice."""
    kinds = ["good"] * count
    for place, number in enumerate(chance.sample(range(count), max(2, round(count * POISON)))):
        kinds[number] = "late" if place % 2 else "broken"
    numbers = [number for number in range(count) for _ in range(1 + (chance.random() < TWICE))]
    chance.shuffle(numbers)
    return kinds, numbers


def driven(store: Deadly, sqs: Any, count: int, weather: Weather, chance: random.Random) -> dict[str, Any]:  # noqa: ANN401
    """The load itself."""
    fakes.publish(Registry(store))
    store.writes.clear()
    (kinds, numbers), (queue, dlq) = asked(count, chance), queues(sqs, weather)
    sent, began, memory = Counter(kinds[number] for number in numbers), time.monotonic(), [resident()]
    poller = Poller(sqs, queue, store, weather, chance)
    for start in range(0, len(numbers), WAVE):
        send(sqs, queue, kinds, numbers[start : start + WAVE])
        poller.work()
    poller.drain()
    seconds, dead = time.monotonic() - began, size(sqs, dlq)[0]
    failures = wrong(store, kinds, {"good"})
    if dead != sent["broken"] + sent["late"]:
        failures.append(f"{dead} dead letters of {sent['broken'] + sent['late']}")
    fakes.publish(Registry(store), "late")
    store.writes = Counter({path: times for path, times in store.writes.items() if path.startswith(FOLDER)})
    moved = list(move_messages(sqs, dlq, queue))[-1]
    poller.drain()
    failures += wrong(store, kinds, {"good", "late"})
    again = size(sqs, dlq)[0]
    if again != sent["broken"]:
        failures.append(f"{again} dead letters behind the redrive, of {sent['broken']}")
    return {
        "messages": dict(sent),
        "distinct": dict(Counter(kinds)),
        "seconds": round(seconds, 1),
        "answers": sum(path.startswith(FOLDER) for path in store.writes),
        "dead": dead,
        "redriven": moved,
        "dead again": again,
        **poller.counts,
        "failures": failures,
        "resident_mb": [round(each, 1) for each in (*memory, resident())],
    }
