"""`pilotlight chat` on the local gateway, with a model that says what the tests want."""

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pilotlight.cli import chat, packaged_model
from pilotlight.client.chat_stream import ChatAnswer, stream_chat
from pilotlight.client.client import Client
from pilotlight.errors import UnavailableError
from pilotlight.local.gateway import Gateway
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store
from tests.core.cli.conftest import Run
from tests.language_model_versions import build_scripted, describe_scripted, publish_scripted
from tests.scripted_model import CHAT_TEMPLATE

ROOT = Path(__file__).parents[3]


def publish_broken(registry: Registry) -> None:
    """Publish a model whose graph fails at its second token."""
    scripted = build_scripted(fail_after=1)
    files = {
        "model.onnx": scripted.graph,
        "tokenizer.json": scripted.tokenizer_json.encode(),
        "chat_template.jinja": CHAT_TEMPLATE.encode(),
    }
    registry.publish_version(describe_scripted(scripted, "broken"), files)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    store = str(tmp_path_factory.mktemp("chat") / "store")
    registry = Registry(open_store(store))
    publish_scripted(registry)
    publish_broken(registry)
    variables = {"PILOTLIGHT_STORE": store, "PILOTLIGHT_CALL_SECONDS": "-1"}
    gateway = Gateway(ROOT / "template.yaml", port=0, workers=1, environment=variables)
    with gateway.serve_in_background() as address:
        yield address


class Terminal(io.StringIO):
    """Standard input that is a terminal; what is typed comes by `input`."""

    def isatty(self) -> bool:
        return True


def pipe(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def type_lines(monkeypatch: pytest.MonkeyPatch, *lines: str | type[BaseException]) -> None:
    """Type these lines, or the keys that raise such an error; then the end of the input."""
    coming = iter(lines)

    def read(prompt: str) -> str:
        line = next(coming, EOFError)
        if isinstance(line, str):
            return line
        raise line

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("builtins.input", read)


def test_a_piped_question_has_one_answer(run: Run, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe(monkeypatch, "What is the capital of France?\n")
    code, out, err = run("chat", "chat", "--url", url)
    assert (code, out) == (0, "Paris is the capital.\n")
    assert "6 tokens" in err
    assert "tokens/s, first token" in err
    assert "on Lambda" in err


def test_without_a_question_the_demo_asks_its_own(run: Run, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe(monkeypatch, "")
    code, out, err = run("chat", "chat", "--url", url)
    assert (code, out) == (0, "Paris is the capital.\n")
    assert chat.QUESTION in err


def test_json_has_the_numbers(run: Run, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe(monkeypatch, "Hi")
    code, out, _ = run("chat", "chat:1", "--url", url, "--json", "--max-tokens", "2", "--temperature", "0")
    answer = json.loads(out)
    assert code == 0
    assert (answer["text"], answer["finish_reason"], answer["completion_tokens"]) == ("Paris is", "length", 2)
    assert (answer["model"], answer["version"]) == ("chat:1", "1")
    assert answer["tokens_per_second"] > 0
    assert 0 < answer["usd"] < 1


def test_a_chat_remembers_what_was_said(run: Run, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[Any]] = []

    def stream(client: Client, model: str, messages: Any, answer: ChatAnswer, **options: Any) -> Any:  # noqa: ANN401
        asked.append(list(messages))
        return stream_chat(client, model, messages, answer, **options)

    monkeypatch.setattr(chat, "stream_chat", stream)
    type_lines(monkeypatch, "One", "", KeyboardInterrupt, "Two", "/clear", "Three", "/exit", "never asked")
    code, out, _ = run("chat", "chat", "--url", url, "--system", "Be brief.")
    assert code == 0
    assert out.count("Paris is the capital.\n") == 3
    system, first = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "One"}
    answer = {"role": "assistant", "content": "Paris is the capital."}
    assert asked == [
        [system, first],
        [system, first, answer, {"role": "user", "content": "Two"}],
        [system, {"role": "user", "content": "Three"}],
    ]


def test_ctrl_c_stops_the_answer_and_not_the_chat(run: Run, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stops = iter([True, False])

    def stream(client: Client, model: str, messages: Any, answer: ChatAnswer, **options: Any) -> Any:  # noqa: ANN401
        stop = next(stops)
        for piece in stream_chat(client, model, messages, answer, **options):
            yield piece
            if stop:
                raise KeyboardInterrupt

    monkeypatch.setattr(chat, "stream_chat", stream)
    type_lines(monkeypatch, "One", "Two")
    code, out, err = run("chat", "chat", "--url", url)
    assert code == 0
    assert "Paris\nParis is the capital.\n" in out
    assert "Stopped." in err


def test_a_question_that_is_refused_is_forgotten(run: Run, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    type_lines(monkeypatch, "x" * 600, "Two")
    code, out, err = run("chat", "chat", "--url", url)
    assert code == 0
    assert "Paris is the capital.\n" in out
    assert "context is 512 tokens" in err


def test_an_answer_that_breaks_off_is_no_answer(url: str) -> None:
    answer = ChatAnswer()
    with Client(url) as client, pytest.raises(UnavailableError, match="broke off"):
        list(stream_chat(client, "broken", [{"role": "user", "content": "Hi"}], answer))
    assert answer.text == "Paris"


def test_a_model_that_is_not_there_is_told(run: Run, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe(monkeypatch, "Hi")
    code, _, err = run("chat", "nothing", "--url", url)
    assert code == 1
    assert "There is no model 'nothing'" in err


def test_a_store_is_served_where_no_server_is_known(run: Run, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "is_answering", lambda url: False)
    publish_scripted(Registry(open_store(store)))
    pipe(monkeypatch, "Hi")
    code, out, err = run("chat", "chat")
    assert (code, out) == (0, "Paris is the capital.\n")
    assert f"Serving {store} for this chat" in err.replace("\n", "")


def test_a_server_and_a_store_are_one_too_many(run: Run, url: str) -> None:
    code, _, err = run("chat", "chat", "--url", url, "--store", "memory://")
    assert code == 2
    assert "leave one out" in err


def test_the_demo_publishes_once(run: Run, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of that name is not fetched again."""
    publish_scripted(Registry(open_store(store)))
    monkeypatch.setattr(packaged_model, "run_step", lambda *_, **__: pytest.fail("a step was run"))
    pipe(monkeypatch, "Hi")
    code, out, _ = run("chat")
    assert (code, out) == (0, "Paris is the capital.\n")


def test_what_a_step_prints_is_no_part_of_the_answer(capfd: pytest.CaptureFixture[str]) -> None:
    """`pilotlight chat --json` is read by scripts, also where it publishes the model first."""
    packaged_model.run_step([sys.executable, "-c", "print('published')"])
    out, err = capfd.readouterr()
    assert (out, err.strip()) == ("", "published")
    assert packaged_model.run_step([sys.executable, "-c", "print('a file')"], captured=True) == "a file\n"
