"""A training by HTTP through the local gateway: from the order to the version that answers, stopped and resumed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx2
import pytest
from cfnlint.decode import cfn_yaml

from functions.train.__main__ import main
from functions.training_api.aws_batch import AwsBatchLauncher
from functions.training_api.handler import TrainingApi
from pilotlight.cli import app
from pilotlight.client.client import Client, Tensor
from pilotlight.errors import ConflictError, InvalidInputError
from pilotlight.local.gateway import Gateway
from pilotlight.recipes.schema import dump_recipe, load_recipe
from pilotlight.settings import Settings
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.captured import count_captured, read_captured

ROOT = Path(__file__).parents[2]
TINY = ("name=tiny", "epochs=2", "model.channels=[4, 8]", "model.hidden=16", "data.calibration=32")
ENDLESS = (*TINY, "name=endless", "epochs=100000", "early_stopping.patience=100000")
WAIT_S = 120  # an upper bound for what takes seconds


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    variables = {"PILOTLIGHT_STORE": str(folder / "store"), "PILOTLIGHT_TRAININGS": str(folder / "trainings")}
    gateway = Gateway(ROOT / "template.yaml", port=0, workers=1, environment={**variables, "OMP_NUM_THREADS": "1"})
    with gateway.serve_in_background() as address:
        yield address
        with Client(address) as client:
            for one in client.trainings.list().trainings:
                if one.state == "running":
                    client.trainings.cancel(one.run)


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as connected:
        yield connected


def test_curl_trains_and_the_version_answers(url: str, client: Client) -> None:
    command = ["curl", "-sS", "--fail-with-body", "-X", "POST", f"{url}/v1/trainings?run=first", "--data-binary", "@-"]
    asked = subprocess.run(
        command, input=dump_recipe(load_recipe("digits", TINY)), capture_output=True, text=True, check=True
    ).stdout
    assert '"run":"first"' in asked
    assert client.trainings.get("first").state in ("queued", "running")
    lines = list(client.trainings.follow_log("first", poll_interval_s=0.1))
    assert lines[0] == "run first"
    assert any(line.startswith("publish") for line in lines)
    assert lines[-1] == "tiny:1"
    course = client.trainings.get("first")
    assert (course.state, course.epochs, course.version) == ("finished", 2, "tiny:1")
    assert course.metrics.keys() >= {"accuracy", "loss"}
    answer = client.infer("tiny", [Tensor("image", "FP32", [1, 1, 8, 8], fakes.digits()[0][0].ravel().tolist())])
    assert (answer.model_version, answer.get_output("logits").shape) == ("1", [1, 10])


def test_what_is_wrong_is_told_before_anything_starts(client: Client) -> None:
    with pytest.raises(InvalidInputError, match="learning_rate is -1; it must be greater than 0"):
        client.trainings.start("digits", changes=["optimiser.learning_rate=-1"], run="wrong")
    with pytest.raises(InvalidInputError, match="this one machine"):
        client.trainings.start("digits", run="wrong", nodes=2)


@pytest.mark.slow
def test_a_training_is_stopped_and_goes_on(client: Client) -> None:
    started = client.trainings.start("digits", changes=ENDLESS, run="endless")
    again = client.trainings.start("digits", changes=ENDLESS, run="endless")
    assert started.job is not None
    assert again.job is not None
    assert again.job.id == started.job.id
    with pytest.raises(ConflictError, match="epochs, early_stopping differ"):
        client.trainings.start("digits", changes=[*TINY, "name=endless"], run="endless")
    fakes.eventually(lambda: client.trainings.get("endless").epochs > 1)
    stopping = client.trainings.cancel("endless", "seen enough")
    assert (stopping.state, "seen enough" in stopping.reason) == ("stopping", True)
    lines = list(client.trainings.follow_log("endless", poll_interval_s=0.1))
    assert "Stopped by SIGTERM and saved after step" in " ".join(lines[-3:])
    assert client.trainings.get("endless").state == "cancelled"
    assert client.trainings.start("digits", changes=ENDLESS, run="endless").state == "cancelled"
    resumed = client.trainings.start("digits", changes=ENDLESS, run="endless", resume=True)
    assert resumed.state in ("queued", "running")
    fakes.eventually(lambda: "goes on after step" in " ".join(client.trainings.get_log("endless").lines))
    client.trainings.cancel("endless")
    fakes.eventually(lambda: client.trainings.get("endless").state == "cancelled")


@pytest.mark.slow
def test_a_training_outlives_the_gateway(tmp_path: Path) -> None:
    variables = {"PILOTLIGHT_STORE": str(tmp_path / "store"), "PILOTLIGHT_TRAININGS": str(tmp_path / "trainings")}
    gateway = Gateway(ROOT / "template.yaml", port=0, workers=1, environment=variables)
    with gateway.serve_in_background() as address, Client(address) as client:
        started = client.trainings.start("digits", changes=ENDLESS, run="long")
        fakes.eventually(lambda: client.trainings.get("long").epochs > 0)
    with gateway.serve_in_background() as address, Client(address) as client:
        course = client.trainings.get("long")
        assert course.job is not None
        assert started.job is not None
        assert (course.state, course.job.id) == ("running", started.job.id)
        client.trainings.cancel("long")
        fakes.eventually(lambda: client.trainings.get("long").state == "cancelled")


@pytest.mark.slow
def test_a_training_that_fails_says_why(client: Client) -> None:
    client.trainings.start("digits", changes=[*TINY, "name=diverging", "optimiser.learning_rate=1e30"], run="diverging")
    fakes.eventually(lambda: client.trainings.get("diverging").state == "failed")
    assert "diverged in epoch 1" in client.trainings.get("diverging").reason


def test_a_job_of_batch_trains_what_was_sent(
    queue: Settings, bucket_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Moto takes the job and runs nothing; here its command line is run, as the template's definition says it."""
    store = open_store(bucket_url)
    handle = TrainingApi(store, AwsBatchLauncher(queue))

    def ask(method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - JSON
        sent = None if body is None else json.dumps(body).encode()
        return json.loads(handle(fakes.event(handle._routes, method, path, sent), None)["body"])

    recipe = load_recipe("digits", TINY).model_dump(mode="json")
    asked = ask("POST", "/v1/trainings", {"recipe": recipe, "run": "monday"})
    (job,) = boto3.client("batch").describe_jobs(jobs=[asked["job"]["id"]])["jobs"]
    monkeypatch.setenv("AWS_BATCH_JOB_ID", job["jobId"])
    assert main(command(job["parameters"], bucket_url)) == 0
    assert capsys.readouterr().out == "tiny:1\n"
    event = json.loads((fakes.EVENTS / "batch-job-failed.json").read_text())
    event["detail"] |= {"jobId": job["jobId"], "status": "SUCCEEDED", "statusReason": "", "container": {"exitCode": 0}}
    assert handle(event, None) == {"done": ["monday: SUCCEEDED. exit code 0"]}
    shown = ask("GET", "/v1/trainings/monday")
    assert (shown["state"], shown["version"], shown["job"]["state"]) == ("finished", "tiny:1", "SUCCEEDED")
    assert (shown["job"]["attempts"], shown["epochs"], shown["recipe"]) == (
        2,
        2,
        dump_recipe(load_recipe("digits", TINY)),
    )


def command(parameters: dict[str, str], store: str) -> list[str]:
    """The words that Batch puts together from the job definition and a job's parameters."""
    definition = cfn_yaml.load(str(ROOT / "infra/training.yaml"))["Resources"]["Job"]["Properties"]
    words = [store if "Fn::Sub" in str(word) else word for word in definition["ContainerProperties"]["Command"]]
    words = ["82800" if word == {"Ref": "TimeBudget"} else word for word in words]
    return [parameters[word[5:]] if word.startswith("Ref::") else word for word in words]


# --- the command


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], url: str) -> Run:
    """Run `pilotlight WORDS --url ...`."""

    def command(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["pilotlight", *words, "--url", url])
        starts = count_captured()
        with pytest.raises(SystemExit) as ended:
            app()
        return int(ended.value.code or 0), *read_captured(starts)

    return command


def settings(changes: tuple[str, ...]) -> list[str]:
    return [word for change in changes for word in ("--set", change)]


@pytest.mark.slow
def test_the_command_trains_elsewhere_and_tells_as_if_it_were_here(run: Run) -> None:
    code, out, err = run("train", "digits", *settings((*TINY, "name=remote")), "--run", "remote", "--remote")
    assert (code, out) == (0, "remote:1\n")
    assert err.startswith("run remote\n")
    assert "* validation loss" in err
    assert "published remote:1: accuracy" in err
    code, out, _ = run("runs", "show", "remote", "--remote")
    assert code == 0
    assert "remote  finished" in out
    assert "epoch 1 to 2" in out
    code, out, _ = run("runs")
    assert code == 0
    assert "remote:1" in out
    code, out, _ = run("runs", "show", "remote", "--json")
    assert code == 0
    assert '"version":"remote:1"' in out
    code, out, _ = run("train", "digits", *settings((*TINY, "name=remote")), "--run", "remote", "--json")
    assert (code, '"state":"finished"' in out) == (0, True)


def test_the_command_says_what_is_wrong(run: Run, tmp_path: Path) -> None:
    for words, code, said in (
        (["train", "digits", "--set", "epochs=0"], 2, "epochs is 0"),
        (["train", "nothing"], 2, "There is no recipe 'nothing'"),
        (["train", "digits", "--time-budget", "3"], 2, "parameter TimeBudget"),
        (["runs", "show", "nothing"], 1, "There is no run 'nothing'"),
        (["runs", "cancel", "nothing"], 1, "There is no run 'nothing'"),
    ):
        ended, out, err = run(*words)
        assert (ended, out, said in err) == (code, "", True), err
    mine = tmp_path / "mine.yaml"
    mine.write_text(dump_recipe(load_recipe("iris")).replace("iris.csv", "mine.csv"))
    code, _, err = run("train", str(mine))
    assert (code, "data.path is 'mine.csv', which the trainer cannot see" in err) == (2, True)


@pytest.mark.slow
def test_ctrl_c_leaves_the_training_going(url: str, client: Client, run: Run) -> None:
    # A shell has what it starts in the background ignore this signal, and so everything below that, these tests too.
    listening = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program = f"{listening}; import sys; sys.argv[0] = 'pilotlight'; from pilotlight.cli import app; app()"
    words = ["train", "digits", *settings((*ENDLESS, "name=left")), "--run", "left", "--url", url]
    command = [sys.executable, "-c", program, *words]
    path = os.pathsep.join([str(ROOT / "layers/core"), str(ROOT)])
    with subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "run left\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=WAIT_S)
    assert (process.returncode, out) == (130, "")
    assert f"left goes on. Follow it again: pilotlight runs show left --follow --remote --url {url}" in err
    assert client.trainings.get("left").state == "running"
    code, out, _ = run("runs", "cancel", "left", "--why", "enough")
    assert (code, "left is stopping" in out) == (0, True)
    code, out, err = run("runs", "show", "left", "--follow")
    assert (code, out) == (75, "")
    assert "enough" in err


def test_the_page_of_the_api_shows_trainings(url: str) -> None:
    assert "/v1/trainings/{run}/cancel" in httpx2.get(f"{url}/docs").text
