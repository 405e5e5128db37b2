"""Every function under `sam local invoke`, by a recorded event of the kind that reaches it on AWS."""

import base64
import gzip
import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow
from pyarrow import parquet

from pilotlight.capture.record import CaptureRecord, capture_path
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.e2e.conftest import JUDGED, ROOT, sam

IMAGES, LABELS = fakes.digits()


def invoked(function: str, event: str, environment: Path) -> dict[str, Any]:
    command = sam("invoke", function, "-e", event, environment=environment)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[0])
    return answer


def test_invoke_answers_the_recorded_event(environment_file: Path) -> None:
    answer = invoked("PredictFunction", "tests/events/predict-digits.json", environment_file)
    assert answer["statusCode"] == 200, answer
    body = json.loads(answer["body"])
    assert (body["model_name"], body["model_version"], body["id"]) == ("digits", "1", "one")
    assert np.argmax(body["outputs"][0]["data"]) == 7


def told(event: dict[str, Any], environment: Path, folder: Path) -> dict[str, Any]:
    """What the batch function, which is nested, answers to an event."""
    file = folder / "event.json"
    file.write_text(json.dumps(event))
    return invoked("BatchFunction", str(file), environment)


def recorded(name: str) -> dict[str, Any]:
    return dict(json.loads((ROOT / "tests" / "events" / f"batch-{name}.json").read_text()))


def test_invoke_answers_the_recorded_messages_of_a_queue(environment_file: Path, tmp_path: Path) -> None:
    event = recorded("queue")
    *right, poison = event["Records"]  # the last one's body is cut off
    said = told(event, environment_file, tmp_path)
    assert said == {"batchItemFailures": [{"itemIdentifier": poison["messageId"]}]}
    for record in right:
        named = record["messageAttributes"].get("deduplication_id", {}).get("stringValue")
        path = f"outbox/messages/{named or record['messageId']}.json"
        answer = json.loads(open_store("s3://models").get(path).data)
        assert answer["model_name"] == "digits"
        assert np.argmax(answer["outputs"][0]["data"]) == LABELS[0]


def test_invoke_answers_the_recorded_event_of_the_bus(environment_file: Path, tmp_path: Path) -> None:
    event = recorded("asked")
    (path,) = told(event, environment_file, tmp_path)["done"]
    assert path == f"outbox/messages/{event['id']}.json"
    said = json.loads(open_store("s3://models").get(path).data)
    assert np.argmax(said["outputs"][0]["data"]) == LABELS[0]


def test_invoke_answers_the_recorded_upload(environment_file: Path, tmp_path: Path) -> None:
    event, store = recorded("created"), open_store("s3://models")
    event["detail"]["bucket"]["name"], event["detail"]["object"]["key"] = "models", "inbox/digits/monday.jsonl"
    given = {"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32"}
    asked = [json.dumps({"inputs": [given | {"data": image.ravel().tolist()}]}) for image in IMAGES[:20]]
    store.put("inbox/digits/monday.jsonl", "\n".join(asked).encode())
    said = told(event, environment_file, tmp_path)
    assert said == {"done": ["inbox/digits/monday.jsonl is answered: outbox/digits/monday.jsonl."]}
    answers = [json.loads(line) for line in store.get("outbox/digits/monday.jsonl").data.splitlines()]
    assert np.mean([np.argmax(a["outputs"][0]["data"]) == b for a, b in zip(answers, LABELS, strict=False)]) >= 0.95
    assert json.loads(store.get("outbox/digits/monday/manifest.json").data)["answered"] == 20


def test_invoke_answers_an_uploaded_table(environment_file: Path, tmp_path: Path) -> None:
    event, store = recorded("created"), open_store("s3://models")
    event["detail"]["bucket"]["name"], event["detail"]["object"]["key"] = "models", "inbox/digits/tuesday.parquet"
    parquet.write_table(pyarrow.table({"image": IMAGES[:20].tolist()}), tmp_path / "tuesday")
    store.put("inbox/digits/tuesday.parquet", tmp_path / "tuesday")
    said = told(event, environment_file, tmp_path)
    assert said["done"][0].endswith("is answered: outbox/digits/tuesday.parquet.jsonl.")
    answers = [json.loads(line) for line in store.get("outbox/digits/tuesday.parquet.jsonl").data.splitlines()]
    assert [answer["line"] for answer in answers] == list(range(1, 21))
    assert np.mean([np.argmax(a["outputs"][0]["data"]) == b for a, b in zip(answers, LABELS, strict=False)]) >= 0.95


def test_invoke_of_a_stack_that_does_not_train_says_so_and_shows_what_was_trained(
    environment_file: Path, tmp_path: Path
) -> None:
    event = json.loads((ROOT / "tests/events/trainings-start.json").read_text())
    answer = invoked("StartTrainingFunction", "tests/events/trainings-start.json", environment_file)
    assert answer["statusCode"] == 501, answer
    assert "deployed without TrainingSubnets" in json.loads(answer["body"])["error"]["message"]
    body = b'{"recipe": "digits", "set": ["epochs=0"]}'
    wrong, asked = tmp_path / "wrong.json", tmp_path / "list.json"
    wrong.write_text(json.dumps(event | {"body": base64.b64encode(body).decode()}))
    answer = invoked("StartTrainingFunction", str(wrong), environment_file)
    assert answer["statusCode"] == 400, answer
    assert "epochs is 0; it must be greater than or equal to 1" in json.loads(answer["body"])["error"]["message"]
    asked.write_text(json.dumps(event | {"httpMethod": "GET", "body": None, "isBase64Encoded": False}))
    answer = invoked("StartTrainingFunction", str(asked), environment_file)
    assert json.loads(answer["body"]) == {"trainings": [], "total": 0, "next": None}


def test_invoke_hears_of_the_end_of_a_job(environment_file: Path) -> None:
    answer = invoked("StartTrainingFunction", "tests/events/batch-job-failed.json", environment_file)
    assert answer["done"][0].endswith("of 'monday' was not started here.")


def test_invoke_lists_models(environment_file: Path) -> None:
    answer = invoked("ModelsFunction", "tests/events/models-list.json", environment_file)
    assert answer["statusCode"] == 200, answer
    assert "digits" in {model["name"] for model in json.loads(answer["body"])["models"]}


def test_invoke_lists_batches(environment_file: Path) -> None:
    answer = invoked("BatchesFunction", "tests/events/batches-list.json", environment_file)
    assert answer["statusCode"] == 200, answer
    assert json.loads(answer["body"])["object"] == "list"


def test_invoke_judges_the_published_version(environment_file: Path) -> None:
    """The same weights again pass the gate; the policy is off, so that a person would promote it."""
    registry = Registry(open_store(JUDGED))
    for _ in range(2):
        fakes.publish_digits(registry)
    answer = invoked("PromoteFunction", "tests/events/promote-published.json", environment_file)
    assert answer == {"done": ["digits:2 passed the gate."]}
    verdict = registry.store.get("verdicts/digits/2.json")
    assert json.loads(verdict.data)["passed"] is True


def test_invoke_looks_for_drift_at_night(environment_file: Path) -> None:
    store, at = open_store("s3://models"), datetime.now(UTC) - timedelta(hours=3)
    line = msgspec.json.encode(CaptureRecord(at=at.isoformat(), features={"image": [1.0]}, answers={}))
    store.put(capture_path("digits", 1, at, "one", 1), gzip.compress(line + b"\n"))
    answer = invoked("DriftFunction", "tests/events/drift-night.json", environment_file)
    assert len(answer["done"]) == 1
    assert answer["done"][0].startswith("digits:1 has no profile")


def test_invoke_believes_no_key_that_nobody_created(environment_file: Path) -> None:
    answer = invoked("AuthorizeFunction", "tests/events/authorize-key.json", environment_file)
    assert (answer["errorType"], answer["errorMessage"]) == ("UnauthorizedError", "Unauthorized")
