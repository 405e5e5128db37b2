"""Every verb does what its help says, and says what is wrong in one sentence."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.markup import render
from typer.main import get_command

import pilotlight
from pilotlight import cli
from pilotlight.cli import demo
from pilotlight.cli.console import find_checkout
from pilotlight.cli.models import build_version_summary, format_measured_metric, list_verdicts
from pilotlight.cli.serve import build_gateway, format_exposure_warning, resolve_store
from pilotlight.contracts.manifest import Variant
from pilotlight.contracts.report_summary import ReportSummary
from pilotlight.local.gateway import Gateway
from pilotlight.registry.approval import record_decision
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.core.cli.conftest import Run
from tests.core.gate.test_graph_probe import HUGE

ROOT = Path(__file__).parents[3]
ANY_JSON = str(ROOT / "infra" / "local.json")
VERBS = (*(verb.__name__ for verb in cli.VERBS), "runs")


@pytest.fixture
def url(store: str) -> Iterator[str]:
    fakes.publish(Registry(open_store(store)))
    gateway = Gateway(ROOT / "template.yaml", port=0, workers=1, environment={"PILOTLIGHT_STORE": store})
    with gateway.serve_in_background() as address:
        yield address


def test_help_names_every_verb(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert all(re.search(rf"\b{verb}\b", out) for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_speaks_json(run: Run, verb: str) -> None:
    code, out, _ = run(verb, "--help")
    assert code == 0
    assert "--json" in out


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_its_own_words(run: Run, verb: str) -> None:
    """rich takes what stands in brackets for a style."""
    verbs: Any = get_command(cli.commands)
    for words in filter(None, (parameter.help for parameter in verbs.commands[verb].params)):
        assert render(words).plain == words.replace("\\[", "[")


def test_it_tells_its_version(run: Run) -> None:
    assert run("--version") == (0, f"pilotlight {pilotlight.__version__}\n", "")


def test_an_empty_store_says_how_to_fill_it(run: Run, store: str) -> None:
    code, out, _ = run("models")
    assert (code, out) == (0, f"No models in {store} yet; `pilotlight train digits` makes one.\n")
    assert run("models", "--json")[:2] == (0, "[]\n")


def test_publish_then_list(run: Run, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\ndog\nbird\n")
    model = str(fakes.MODELS / "double.onnx")
    assert run("publish", model, "--name", "double", "--labels", str(tmp_path / "labels.txt"))[:2] == (0, "double:1\n")
    code, out, _ = run("publish", model, "--name", "double", "--precision", "int8", "--json")
    assert (code, json.loads(out)["reference"]) == (0, "double:2")
    _, out, _ = run("models", "double", "--json")
    described = json.loads(out)
    assert [(version["version"], version["serve"]) for version in described["versions"]] == [
        ("2", "int8"),
        ("1", "fp32"),
    ]
    assert described["aliases"]["champion"]["version"] == 1
    code, out, _ = run("models", "double")
    assert (code, "champion" in out, "candidate" in out) == (0, True, True)


@pytest.mark.parametrize(
    ("metric", "metrics", "text"),
    [
        (None, {"accuracy": 0.9876}, "accuracy 98.76%"),
        ("balanced_accuracy", {"accuracy": 1.0, "balanced_accuracy": 0.5}, "balanced_accuracy 50.00%"),
        ("r2", {"r2": 0.48123, "rmse": 53.0}, "r2 0.4812"),
        (None, {}, ""),
    ],
)
def test_version_is_shown_by_the_metric_that_it_is_judged_by(
    metric: str | None, metrics: dict[str, float], text: str
) -> None:
    published = fakes.publish(Registry(open_store("memory://")))
    manifest = msgspec.structs.replace(published, metric=metric, variants={"fp32": Variant("model.onnx", metrics)})
    assert format_measured_metric(build_version_summary(manifest)) == text


@pytest.mark.parametrize("words", [["rollback", "double"], ["split", "double", "1=20"], ["canary", "double:1"]])
def test_what_people_have_rejected_serves_nobody(run: Run, store: str, words: list[str]) -> None:
    found = Registry(open_store(store))
    for _ in range(2):
        fakes.publish(found)
    found.move_alias("double", "champion", 2, actor="test", reason="test")
    record_decision(found, "double", 1, "rejected", actor="ann", reason="leaks")
    code, out, said = run(*words)
    assert (code, out, said) == (1, "", "double:1 was rejected by ann: leaks. Approve it first.\n")
    assert found.load_alias("double", "champion").number == 2
    record_decision(found, "double", 1, "approved", actor="ann", reason="it does not")
    assert run(*words)[0] == 0


def test_a_graph_that_would_take_all_memory_is_not_published(run: Run, tmp_path: Path) -> None:
    """181 bytes of a constant of 40 GB; opening it took 100 s and 6 GB of this process."""
    (tmp_path / "model.onnx").write_bytes(HUGE["ConstantOfShape"])
    code, _, said = run("publish", str(tmp_path / "model.onnx"), "--name", "huge")
    assert code == 2
    assert "found no memory for it" in said
    assert "ConstantOfShape node. Name:'the_huge_one'" in said
    assert run("models", "--json")[1] == "[]\n"


def test_published_labels_are_kept(run: Run, store: str, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\ndog\nbird\n")
    run("publish", str(fakes.MODELS / "double.onnx"), "--name", "pets", "--labels", str(tmp_path / "labels.txt"))
    assert Registry(open_store(store)).load_manifest("pets", 1).labels == ("cat", "dog", "bird")


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (["publish", "nowhere.onnx", "--name", "x"], 2, "Cannot read nowhere.onnx: No such file or directory."),
        (["publish", __file__, "--name", "x"], 2, "test_verbs.py is not an ONNX file: it is Python code"),
        (["publish", str(fakes.MODELS / "double.onnx"), "--name", "a b"], 2, "'a b' is not a model name"),
        (["publish", str(fakes.MODELS / "double.onnx"), "--name", "x", "--precision", "fp8"], 2, "fp8"),
        (["models", "nothing"], 1, "There is no model 'nothing'"),
        (["prune", "nothing"], 1, "There is no model 'nothing'"),
        (["models", "--store", "gs://bucket"], 2, "'gs://bucket' is not a store; use s3://bucket/prefix"),
        (["predict", "double:", "--input", __file__], 2, "write name, name:3 or name@alias"),
        (["predict", "double", "--input", ANY_JSON, "--url", "http://127.0.0.1:9"], 1, "Nothing answers at http"),
        (["predict", "double", "--input", ANY_JSON, "--url", "somewhere"], 2, "'somewhere' is not a URL"),
        (["serve", "--port", "99999"], 2, "65535"),
        (["serve", "--parameter", "Auth"], 2, "write --parameter Name=value"),
        (["serve", "--parameter", "Oauth=jwt"], 2, "has no parameter Oauth"),
        (["paint"], 2, "paint"),
    ],
)
def test_what_is_wrong_is_one_sentence(run: Run, words: list[str], code: int, hint: str) -> None:
    found, out, err = run(*words)
    assert (found, out) == (code, "")
    assert hint in err
    assert "Traceback" not in err


def test_an_unknown_recipe_ends_as_the_job_ends(run: Run) -> None:
    code, out, err = run("train", "nothing.yaml")
    assert (code, out) == (2, "")
    assert "nothing.yaml" in err


def test_a_runs_name_reaches_the_job(run: Run) -> None:
    code, out, err = run("train", "digits", "--run", "a/b", "--time-budget", "60")
    assert (code, out) == (2, "")
    assert "a/b" in err


def test_training_without_torch_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pilotlight.cli.train.find_spec", lambda _: None)
    code, out, err = run("train", "digits")
    assert (code, out) == (1, "")
    assert "pip install -e '.[train]'" in err


@pytest.mark.parametrize(
    ("content", "shape", "data"),
    [
        ("[1, 2, 3]", [1, 3], [2, 4, 6]),
        ("[[1, 2, 3], [4, 5, 6]]", [2, 3], [2, 4, 6, 8, 10, 12]),
        ('{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[0.5,0,1]}]}', [1, 3], [1, 0, 2]),
    ],
)
def test_predict(run: Run, url: str, tmp_path: Path, content: str, shape: list[int], data: list[float]) -> None:
    (tmp_path / "input.json").write_text(content)
    words = ["predict", "double:1", "--input", str(tmp_path / "input.json"), "--url", url]
    code, out, err = run(*words, "--json")
    assert code == 0, err
    (output,) = json.loads(out)["outputs"]
    assert (output["shape"], output["data"]) == (shape, data)
    code, out, _ = run(*words)
    assert out == f"double:1\ny FP32 {shape}: {', '.join(f'{value:g}' for value in data)}\n"


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ("[1, 2]", "has shape [1, 2], expected [batch, 3]"),
        ("{", "is not JSON"),
        ('{"x": 1}', "must be a V2 infer request: {'inputs': [...]} with ['x']"),
    ],
)
def test_predict_refuses(run: Run, url: str, tmp_path: Path, content: str, hint: str) -> None:
    (tmp_path / "input.json").write_text(content)
    code, out, err = run("predict", "double", "--input", str(tmp_path / "input.json"), "--url", url)
    assert (code, out, hint in err) == (2, "", True)


def test_predict_takes_no_file_for_json_that_does_not_begin_as_json(run: Run, url: str, tmp_path: Path) -> None:
    for name, content in (("a.heic", b"\0\0\0\x18ftypheic"), ("a.gif", b"GIF89a"), ("a.opus", b"OggS")):
        (tmp_path / name).write_bytes(content)
        code, _, err = run("predict", "double", "--input", str(tmp_path / name), "--url", url)
        assert (code, "double takes neither files nor texts" in err) == (2, True)


def test_serve_prints_its_url_and_ends_on_ctrl_c(store: str) -> None:
    command = [sys.executable, "-c", "from pilotlight.cli import app; app()", "serve", "--port", "0", "--workers", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "layers/core")}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert re.fullmatch(rf"Serving {re.escape(store)} at http://127\.0\.0\.1:\d+\n", process.stdout.readline())
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0


def test_serve_warns_where_others_can_reach_it() -> None:
    gateway = build_gateway("s", host="0.0.0.0", port=0, workers=1)  # noqa: S104  # it is not started
    warning = format_exposure_warning(gateway, "http://0.0.0.0:8080")
    assert warning.startswith(
        "Warning: http://0.0.0.0:8080 is open to every machine that reaches this one, without TLS"
    )
    assert re.search(r"\d+ of \d+ routes answer to anybody", warning)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--allow-host", "https://a"], "is no name of a host"),
        (["--allow-origin", "a.example.com"], "is no origin"),
    ],
)
def test_serve_refuses_what_names_no_site(run: Run, words: list[str], why: str) -> None:
    code, out, err = run("serve", "--port", "0", *words)
    assert (code, out, why in err) == (2, "", True)


def test_operators_secret_is_taken_and_checked(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setenv("PILOTLIGHT_CONTROL_SECRET", "x" * 20)
    assert build_gateway("s", host="127.0.0.1", port=0, workers=1).secret == "x" * 20
    monkeypatch.setenv("PILOTLIGHT_CONTROL_SECRET", "short")
    code, _, err = run("serve", "--port", "0")
    assert (code, "has 5 characters" in err) == (2, True)


def test_relative_stores_mean_the_same_in_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_store(".pilotlight/store") == str(tmp_path / ".pilotlight/store")
    assert resolve_store("s3://bucket/x") == "s3://bucket/x"


def test_the_checkout_is_found_from_below(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "tests" / "core")
    assert find_checkout() == ROOT


def publish_kept(store: str) -> str:
    return f"digits:{fakes.publish_digits(Registry(open_store(store))).version}"


def test_the_demo_after_training(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "train_and_publish", publish_kept)
    code, out, err = run("demo")
    assert code == 0, err
    assert re.search(r"int8 over HTTP │\s+9[789]\.\d\d%", out)
    assert "█" in out
    assert re.search(r"curl -s localhost:8080/v2/models/digits/versions/1/infer -d '{.*}'\n", out)


def test_the_demo_in_json(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "train_and_publish", publish_kept)
    code, out, _ = run("demo", "--json")
    said = json.loads(out)
    assert (code, said["reference"], said["served"], said["examples"]) == (0, "digits:1", "int8", 450)
    assert said["accuracy"] >= 0.97


def test_the_demo_fails_when_the_server_answers_otherwise(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "train_and_publish", publish_kept)
    images, labels = fakes.digits()
    monkeypatch.setattr(demo, "load_test_set", lambda *_: (images[::-1][:20], labels[:20]))
    code, _, err = run("demo", "--json")
    assert code == 1
    assert re.search(r"Served \d+\.\d+% of the test set right, but 9\d\.\d+% were measured", err)


@pytest.mark.parametrize(
    "report",
    [
        {"serve": "fp32", "verdict": "fp32 is served: no gain.", "bytes": {"fp32": 9}, "cosine": 0.9, "requests": 2},
        {"serve": "int8", "verdict": "int8 is served.", "latency_ratio": 0.5, "rungs": [], "variants": {}},
    ],
    ids=["former", "present"],
)
def test_reports_of_any_form_are_summarized(report: dict[str, Any]) -> None:
    found = msgspec.json.decode(msgspec.json.encode(report), type=ReportSummary)
    version = {"version": "3", "quantization": msgspec.to_builtins(found)}
    assert list_verdicts({"name": "m", "versions": [version, {"version": "2"}]}) == [f"m:3 {report['verdict']}"]
