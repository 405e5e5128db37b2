"""One job for a run, whoever asks for it and however often, on stores of each kind."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from pilotlight.recipes.schema import dump_recipe, load_recipe
from pilotlight.training_runs import jobs, run_store
from pilotlight.training_runs.jobs import TrainingJob
from tests.functions.training_api.conftest import ANN, Api, Queue


def test_a_training_is_started_with_its_recipe_in_the_store(api: Api) -> None:
    status, body = api.start(set=["epochs=3"])
    assert status == 202
    assert (body["run"], body["model"], body["state"], body["of"]) == ("monday", "digits", "queued", 3)
    assert body["job"] | {"asked": ""} == {
        "launcher": "batch", "id": "job-1", "state": "RUNNABLE", "nodes": 1, "attempts": 1, "log": "train/job-1",
        "by": ANN, "asked": "",
    }  # fmt: skip
    assert body["links"]["log"] == "/v1/trainings/monday/log"
    assert api.queue.started == [("monday", 1)]
    assert api.store.get("runs/monday/recipe.yaml").data.decode() == dump_recipe(load_recipe("digits", ["epochs=3"]))


def test_the_same_again_starts_nothing(api: Api) -> None:
    first, second = api.start(), api.start()
    assert first[0] == second[0] == 202
    assert first[1]["job"] == second[1]["job"]
    assert len(api.queue.started) == 1


def test_another_recipe_under_the_same_name_is_a_conflict(api: Api) -> None:
    api.start()
    status, body = api.start(set=["epochs=3", "seed=7"])
    assert status == 409
    assert "seed, epochs differ" in body["error"]["message"]
    status, body = api.start(nodes=2)
    assert status == 409
    assert "under way on 1 nodes" in body["error"]["message"]
    assert len(api.queue.started) == 1


def test_several_nodes(api: Api) -> None:
    assert api.start(nodes=4)[1]["job"]["nodes"] == 4
    assert api.queue.started == [("monday", 4)]


def test_what_can_never_be_started_leaves_nothing_behind(api: Api) -> None:
    status, body = api.start(nodes=9)
    assert (status, body["error"]["message"]) == (501, "No queue has so many machines.")
    assert list(api.store.list_paths("runs")) == []


def test_of_many_at_the_same_time_one_starts_the_job(api: Api) -> None:
    environments = [Api(api.store, api.queue) for _ in range(16)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(Api.start, environments))
    assert len(api.queue.started) == 1
    assert {status for status, _ in answers} <= {202, 503}  # 503: the one that starts it is not through yet
    assert all("ask again" in body["error"]["message"] for status, body in answers if status == 503)
    assert api.job().id == "job-1"


@pytest.mark.parametrize("state", ["failed", "paused"])
def test_a_run_that_ended_is_started_again_if_that_is_asked_for(api: Api, state: str) -> None:
    api.start()
    api.say("monday", state, "No space left.")
    api.queue.move("job-1", "over")
    status, body = api.start()
    assert (status, body["state"], body["reason"]) == (200, state, "No space left.")
    assert len(api.queue.started) == 1
    status, body = api.start(resume=True)
    assert (status, body["state"], body["reason"], body["job"]["id"]) == (202, "queued", "", "job-2")
    assert api.job().number == 2
    assert api.start(resume=True)[1]["job"]["id"] == "job-2"


def test_a_run_that_published_is_never_started_again(api: Api) -> None:
    api.start()
    api.queue.move("job-1", "over", "SUCCEEDED")
    api.publish("monday", "digits:1")
    status, body = api.start(resume=True)
    assert (status, body["state"], body["version"]) == (200, "finished", "digits:1")
    assert body["links"]["version"] == "/registry/models/digits/versions/1"
    assert len(api.queue.started) == 1


def test_a_start_that_is_refused_may_be_asked_for_again(api: Api) -> None:
    api.queue.refusal = "batch did not submit_job: throttled."
    status, body = api.start()
    assert (status, body["error"]["message"]) == (503, "batch did not submit_job: throttled.")
    shown = api.show()
    assert (shown["state"], shown["reason"], shown["job"]["state"]) == ("failed", api.queue.refusal, "UNSTARTED")
    api.queue.refusal = ""
    status, body = api.start()
    assert (status, body["job"]["id"], api.job().number) == (202, "job-1", 1)


def test_a_job_that_is_forgotten_may_be_followed_by_another(api: Api) -> None:
    api.start()
    api.queue.looks.clear()
    assert api.start(resume=True)[1]["job"]["id"] == "job-1"  # too young to be forgotten
    age(api)
    status, body = api.start()
    assert (status, body["state"]) == (200, "unknown")
    assert api.start(resume=True)[1]["job"]["id"] == "job-2"


def test_a_job_from_the_future_is_not_young_until_then(api: Api) -> None:
    api.start()
    api.queue.looks.clear()
    age(api, seconds=-86_400)  # asked for while the clock was a day ahead
    assert api.start(resume=True)[1]["job"]["id"] == "job-2"


def age(api: Api, seconds: float = 61) -> None:
    """Make the job one that was asked for a minute ago."""
    before = (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()
    jobs.open_job_document(api.store, "monday").update(lambda job: msgspec.structs.replace(job, asked=before))


def test_a_start_whose_answer_was_lost_is_found_and_not_made_again(api: Api) -> None:
    api.queue.refusal = "batch did not submit_job: timed out."
    assert api.start()[0] == 503
    api.queue.refusal = ""
    api.queue.start_job("monday", 1)  # the queue had taken it nevertheless
    status, body = api.start()
    assert (status, body["state"], body["job"]["id"]) == (202, "queued", "job-1")
    assert len(api.queue.started) == 1


def test_a_training_that_is_cancelled_while_it_is_started_is_stopped(api: Api) -> None:
    api.queue.meanwhile = lambda: api("POST", "/v1/trainings/monday/cancel", {"why": "typo"})
    status, body = api.start()
    assert (status, body["state"]) == (202, "stopping")
    assert api.queue.stopped == [("job-1", "typo")]


@pytest.fixture
def half(api: Api) -> Api:
    """A start of a minute ago whose function was killed after the queue had taken the job."""
    api.queue.deaf = True
    with pytest.raises(KeyboardInterrupt):
        api.start()
    api.queue.deaf = False
    assert api.start()[0] == 503  # somebody may be at it still
    age(api)
    return api


def test_the_job_of_a_start_that_was_killed_is_found(half: Api) -> None:
    status, body = half.start()
    assert (status, body["job"]["id"]) == (202, "job-1")
    assert len(half.queue.started) == 1


def test_a_start_that_was_killed_before_the_job_is_made_again(half: Api) -> None:
    half.queue.started.clear()
    status, body = half.start()
    assert (status, body["job"]["id"], len(half.queue.started)) == (202, "job-1", 1)


def test_a_run_that_is_trained_elsewhere_is_left_alone(api: Api) -> None:
    api.store.put(run_store.run_path("monday", "recipe.yaml"), dump_recipe(load_recipe("digits")).encode())
    api.say("monday", "paused")
    status, body = api.start()
    assert (status, body["state"], body["job"]) == (200, "paused", None)
    assert api.queue.started == []
    assert api.start(resume=True)[0] == 202
    assert api.queue.started == [("monday", 1)]


def test_a_recipe_of_another_release_is_a_conflict(api: Api) -> None:
    api.store.put(run_store.run_path("monday", "recipe.yaml"), b"name: digits\nnovelty: 3\n")
    status, body = api.start()
    assert status == 409
    assert "another release" in body["error"]["message"]


def test_a_swap_of_the_job_is_tried_again(api: Api) -> None:
    api.start()
    seen = list[TrainingJob]()

    def interfered(job: TrainingJob) -> TrainingJob:
        if not seen:
            jobs.open_job_document(api.store, "monday").update(lambda old: msgspec.structs.replace(old, by="bob"))
        seen.append(job)
        return msgspec.structs.replace(job, nodes=2)

    assert jobs.open_job_document(api.store, "monday").update(interfered).by == "bob"
    assert [job.by for job in seen] == [ANN, "bob"]


def test_the_fake_queue_keeps_the_contract() -> None:
    queue = Queue()
    assert queue.find_job("monday", "") is None
    assert queue.poll(["job-1"]) == {}
