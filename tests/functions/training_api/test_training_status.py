"""What is shown of a training, from the queue's word and from what the trainer left in the store."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from msgspec import structs

from pilotlight.api.openai_errors import to_openai_error
from pilotlight.contracts.codec import encode_document
from pilotlight.contracts.manifest import Manifest
from pilotlight.errors import BrokenDocumentError, InvalidInputError
from pilotlight.gate.verdict import verdict_path
from pilotlight.recipes.schema import dump_recipe, load_recipe
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store
from pilotlight.training_runs import run_store
from pilotlight.training_runs.jobs import StopRequest, open_job_document
from tests import fakes
from tests.functions.training_api.conftest import ANN, Api, now

EPOCH = {"train_loss": 0.5, "validation_loss": 0.4, "validation_accuracy": 0.9, "seconds": 2.0}


def to_error(status: int, said: str) -> object:
    return json.loads(to_openai_error(status, said).body)


def lines(count: int) -> bytes:
    return b"".join(json.dumps(EPOCH | {"number": number}).encode() + b"\n" for number in range(1, count + 1))


def publish_from(api: Api, run: str) -> Manifest:
    """A version, as a run's trainer publishes it."""
    draft = structs.replace(fakes.draft(), by=f"runs/{run}")
    return Registry(api.store).publish_version(draft, {"model.onnx": fakes.graph("double")})


def test_a_training_from_queue_to_version(api: Api) -> None:
    api.start(set=["epochs=5"])
    api.queue.move("job-1", "running")
    api.say("monday", "running")
    api.store.put(run_store.run_path("monday", "metrics.jsonl"), lines(3))
    shown = api.show()
    assert (shown["state"], shown["epochs"], shown["of"], shown["last"]["number"]) == ("running", 3, 5, 3)
    assert (shown["job"]["state"], shown["job"]["log"], shown["seconds"]) == ("RUNNING", "train/job-1", 6.0)
    assert shown["status"]["state"] == "running"
    assert [line["validation_loss"] for line in shown["lines"]] == [0.4, 0.4, 0.4]
    manifest = publish_from(api, "monday")
    api.publish("monday", f"{manifest.name}:{manifest.version}")
    api.queue.move("job-1", "over", "SUCCEEDED")
    shown = api.show()
    assert (shown["state"], shown["version"], shown["verdict"]) == ("finished", "double:1", None)
    assert shown["metrics"] == manifest.variants[manifest.serve].metrics


@pytest.mark.parametrize("passed", [True, False])
def test_the_verdict_of_the_gate_is_shown(api: Api, passed: bool) -> None:
    api.start()
    publish_from(api, "monday")
    api.publish("monday", "double:1")
    said = {
        "name": "double", "version": 1, "champion": None, "alias": "champion", "passed": passed, "checks": [],
        "limits": {}, "memory_mb": 1769, "machine": "", "at": now(), "by": "gate", "seconds": 1.0,
    }  # fmt: skip
    api.store.put(verdict_path("double", 1), json.dumps(said).encode())
    assert api.show()["verdict"] == ("passed" if passed else "refused")


def test_a_run_does_not_adorn_itself_with_the_version_of_another(api: Api) -> None:
    api.start()
    publish_from(api, "tuesday")
    api.publish("monday", "double:1")
    assert (api.show()["metrics"], api.show()["verdict"]) == ({}, None)


def test_a_job_of_another_run_is_not_this_ones(api: Api) -> None:
    api.start()
    api.store.put(run_store.run_path("tuesday", "recipe.yaml"), b"name: double")
    api.store.put("runs/tuesday/job.json", api.store.get("runs/monday/job.json").data)
    with pytest.raises(BrokenDocumentError, match=r"runs/tuesday/job.json is not of this place: its run is 'monday'"):
        open_job_document(api.store, "tuesday").read()


def test_a_version_that_was_deleted_is_still_what_came_out(api: Api) -> None:
    api.start()
    api.publish("monday", "digits:7")
    shown = api.show()
    assert (shown["state"], shown["version"], shown["metrics"]) == ("finished", "digits:7", {})


def test_a_finished_run_needs_no_reason(api: Api) -> None:
    """Batch says of every job that its container has exited, which explains nothing once there is a version."""
    api.start()
    api.publish("monday", "digits:7")
    api.queue.move("job-1", "over", "SUCCEEDED", "Essential container in task exited; exit code 0")
    assert (api.show()["state"], api.show()["reason"]) == ("finished", "")


@pytest.mark.parametrize(
    ("said", "reason", "state", "why"),
    [
        (None, "", "failed", "It ended without a word; its log says why."),
        (None, "Host EC2 terminated", "failed", "Host EC2 terminated"),
        ("running", "OutOfMemoryError", "failed", "OutOfMemoryError"),
        ("failed", "exit code 1", "failed", "A loss is not finite."),
        ("paused", "", "paused", "A loss is not finite."),
    ],
)
def test_how_a_job_ended(api: Api, said: str | None, reason: str, state: str, why: str) -> None:
    api.start()
    if said:
        api.say("monday", said, "A loss is not finite." if said != "running" else "")
    api.queue.move("job-1", "over", reason=reason)
    assert (api.show()["state"], api.show()["reason"]) == (state, why)


def test_a_job_that_is_forgotten_without_a_word(api: Api) -> None:
    api.start()
    api.queue.looks.clear()
    assert (api.show()["state"], api.show()["job"]["state"]) == ("unknown", "UNKNOWN")


def test_a_run_that_nobody_asked_for_over_http_is_shown_as_it_says(api: Api) -> None:
    api.store.put(run_store.run_path("mine", "recipe.yaml"), dump_recipe(load_recipe("digits")).encode())
    api.say("mine", "failed", "No space left.")
    shown = api.show("mine")
    assert (shown["state"], shown["reason"], shown["job"]) == ("failed", "No space left.", None)
    status, body = api("GET", "/v1/trainings/mine/log")
    assert status == 404
    assert "was not started over HTTP" in body["error"]["message"]


def test_what_an_earlier_job_said_is_not_told_of_the_next(api: Api) -> None:
    long_ago = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    api.store.put(run_store.run_path("monday", "recipe.yaml"), dump_recipe(load_recipe("digits")).encode())
    api.say("monday", "paused", "Stopped by SIGTERM.", at=long_ago)
    api.start(resume=True)
    assert (api.show()["state"], api.show()["reason"]) == ("queued", "")


def test_cancelling_saves_first_and_says_who(api: Api) -> None:
    api.start()
    api.queue.move("job-1", "running")
    status, body = api("POST", "/v1/trainings/monday/cancel", {"why": "wrong data"}, by="bob")
    assert (status, body["state"]) == (202, "stopping")
    assert body["reason"] == "Cancelled by bob: wrong data. Start it with resume, and it goes on."
    assert api.queue.stopped == [("job-1", "wrong data")]
    api.say("monday", "paused", "Stopped by SIGTERM and saved after step 12.")
    api.queue.move("job-1", "over")
    assert api.show()["state"] == "cancelled"
    status, body = api("POST", "/v1/trainings/monday/cancel")
    assert status == 409
    assert "not under way: cancelled" in body["error"]["message"]
    assert api.start(resume=True)[1]["state"] == "queued"


def test_an_order_to_cancel_of_another_form_is_named_in_words(api: Api) -> None:
    api.start()
    said = "The body is not an order to cancel: $.why: Input should be a valid string, not 1."
    assert api("POST", "/v1/trainings/monday/cancel", {"why": 1}) == (400, to_error(400, said))


def test_a_job_that_does_not_read_is_named_by_its_place(api: Api) -> None:
    api.start()
    api.store.put("runs/monday/job.json", b'{"launcher": 1}')
    status, body = api("GET", "/v1/trainings/monday")
    said = "runs/monday/job.json is not a TrainingJob: Expected `str`, got `int` - at `$.launcher`."
    assert (status, body["error"], body["state"], body["model"]) == (200, said, "unknown", "digits")
    (row,) = api("GET", "/v1/trainings")[1]["trainings"]
    assert (row["run"], row["error"]) == ("monday", said)
    assert api("POST", "/v1/trainings/monday/cancel", {})[:2] == (503, to_error(503, said))


def test_cancelling_twice_is_one_stop(api: Api) -> None:
    api.start()
    for by in ("bob", "ann"):
        assert api("POST", "/v1/trainings/monday/cancel", {}, by=by)[0] == 202
    stop = api.job().stop
    assert isinstance(stop, StopRequest)
    assert stop.by == "bob"


def test_a_training_of_another_launcher_is_not_touched(api: Api) -> None:
    api.start()
    api.queue.name = "local"
    for method, what in (("POST", "cancel"), ("GET", "log")):
        status, body = api(method, f"/v1/trainings/monday/{what}")
        assert status == 501
        assert "of the launcher batch" in body["error"]["message"]


def test_the_log_goes_on_where_an_answer_ended(api: Api) -> None:
    api.start()
    assert api("GET", "/v1/trainings/monday/log")[1] == {"lines": [], "next": "0", "ended": False}
    api.queue.logs["job-1"] = ["run monday", "data 0.1 s"]
    page = api("GET", "/v1/trainings/monday/log?token=0")[1]
    assert page == {"lines": ["run monday", "data 0.1 s"], "next": "2", "ended": False}
    api.queue.logs["job-1"].append("published")
    api.queue.move("job-1", "over", "SUCCEEDED")
    page = api("GET", f"/v1/trainings/monday/log?token={page['next']}")[1]
    assert page == {"lines": ["published"], "next": "3", "ended": False}
    assert api("GET", "/v1/trainings/monday/log?token=3")[1]["ended"] is True


def test_the_list_begins_with_what_changed_last() -> None:
    api = Api(open_store("memory://"))  # S3 counts whole seconds
    for name in ("first", "second", "third"):
        api.start(name)
    api.store.put(run_store.run_path("first", "metrics.jsonl"), lines(1))
    status, body = api("GET", "/v1/trainings?limit=2")
    assert status == 200
    assert [row["run"] for row in body["trainings"]] == ["first", "third"]
    assert (body["total"], body["next"]) == (3, 2)
    assert "lines" not in body["trainings"][0]
    body = api("GET", "/v1/trainings?limit=2&skip=2")[1]
    assert [row["run"] for row in body["trainings"]] == ["second"]
    assert body["next"] is None
    assert api("GET", "/v1/trainings?limit=x")[0] == 400


def test_half_a_run_is_not_listed(api: Api) -> None:
    api.store.put(run_store.run_path("broken", "metrics.jsonl"), lines(1))
    assert api("GET", "/v1/trainings")[1] == {"trainings": [], "total": 0, "next": None}


@pytest.mark.parametrize("path", ["/v1/trainings/nothing", "/v1/trainings/nothing/log"])
def test_a_run_that_is_not_there(api: Api, path: str) -> None:
    status, body = api("GET", path)
    assert status == 404
    assert "There is no run 'nothing'" in body["error"]["message"]
    assert api("POST", "/v1/trainings/nothing/cancel")[0] == 404
    assert api("GET", "/v1/trainings/..")[0] == 400
    assert api("DELETE", "/v1/trainings/nothing")[0] == 405


# --- the end of a job, as an event tells of it


def test_the_end_of_a_job_is_kept_and_a_failure_counted(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    api.start()
    capsys.readouterr()
    assert api.tell(jobId="job-1").startswith("monday: FAILED. Essential container in task exited; exit code 1")
    line = json.loads(capsys.readouterr().out)
    assert (line["TrainingFailed"], line["model"], line["run"]) == (1, "digits", "monday")
    api.queue.looks.clear()  # Batch forgets it
    shown = api.show()
    assert (shown["state"], shown["reason"]) == ("failed", "Essential container in task exited; exit code 1")
    assert shown["job"]["state"] == "FAILED"
    assert (shown["job"]["attempts"], shown["job"]["log"]) == (2, "train/default/second")


def test_a_job_that_somebody_cancelled_is_no_failure(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    api.start()
    api("POST", "/v1/trainings/monday/cancel")
    capsys.readouterr()
    api.tell(jobId="job-1")
    assert capsys.readouterr().out == ""
    assert api.show()["state"] == "cancelled"


def test_a_good_end_is_kept_and_counts_nothing(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    api.start()
    capsys.readouterr()
    api.tell(jobId="job-1", status="SUCCEEDED", statusReason="", container={})
    assert capsys.readouterr().out == ""
    assert (api.show()["job"]["state"], api.job().end is not None) == ("SUCCEEDED", True)


def test_the_end_of_a_node_or_of_another_job_changes_nothing(api: Api) -> None:
    api.start()
    before = encode_document(api.job())
    assert "one node of a job" in api.tell(jobId="job-1#0")
    assert "another job by now, job-1" in api.tell(jobId="job-0")
    assert "was not started here" in api.tell(jobId="job-0", parameters={"run": "nothing"})
    assert "is of no run" in api.tell(jobId="job-0", parameters={})
    assert "is of no run" in api.tell(jobId="job-0", parameters={"run": "../../models"})
    assert encode_document(api.job()) == before


def test_an_end_may_be_told_before_the_start_is_through(api: Api) -> None:
    api.queue.deaf = True
    with pytest.raises(KeyboardInterrupt):
        api.start()
    assert "another job by now" in api.tell(jobId="job-9")  # created before this one was asked for
    api.tell(jobId="job-1", createdAt=int(datetime.now(UTC).timestamp() * 1000))
    assert (api.job().id, api.show()["state"], api.show()["job"]["by"]) == ("job-1", "failed", ANN)


def test_an_event_that_nobody_subscribed_to_is_refused(api: Api) -> None:
    with pytest.raises(InvalidInputError, match="no end of a Batch job"):
        api.tell(status="RUNNING")
