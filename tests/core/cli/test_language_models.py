"""The verbs on language models: each does for them what it does for other models."""

import json

from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store
from tests.core.cli.conftest import Run
from tests.language_model_versions import publish_scripted


def publish(store: str, *, versions: int = 1) -> Registry:
    registry = Registry(open_store(store))
    for _ in range(versions):
        publish_scripted(registry)
    return registry


def test_fit_speaks_of_tokens(run: Run, store: str) -> None:
    publish(store)
    code, out, _ = run("fit", "chat")
    assert code == 0
    assert "keys and values" in out
    assert "$ a million" in out
    code, out, _ = run("fit", "chat", "--json", "--measure")
    assert code == 0
    assert json.loads(out)["source"] == "measured"


def test_models_lists_their_perplexity(run: Run, store: str) -> None:
    publish(store)
    code, out, _ = run("models", "chat", "--json")
    assert code == 0
    assert '"metric":"perplexity"' in out
    assert run("models")[0] == run("models", "chat")[0] == 0


def test_a_version_is_promoted_and_rolled_back(run: Run, store: str) -> None:
    registry = publish(store, versions=2)
    code, out, _ = run("promote", "chat:2", "--check")
    assert code == 0
    assert "Its golden prompts are answered as recorded." in " ".join(out.replace("│", " ").split())
    assert run("promote", "chat:2")[0] == 0
    assert registry.load_alias("chat", "champion").version == 2
    assert run("rollback", "chat")[0] == 0
    assert registry.load_alias("chat", "champion").version == 1
    assert run("history", "chat")[0] == 0


def test_the_doctor_finds_them_healthy(run: Run, store: str) -> None:
    publish(store)
    code, out, err = run("doctor")
    assert "chat:1" in out + err
    assert code == 0, out


def test_a_canary_is_started_and_a_version_deleted(run: Run, store: str) -> None:
    registry = publish(store, versions=4)
    assert run("canary", "chat:2", "--percent", "10", "--bake", "1h")[0] == 0
    canary = registry.load_alias("chat", "champion").canary
    assert canary is not None
    assert canary.version == 2
    assert run("rollback", "chat")[0] == 0
    assert run("promote", "chat:3", "--force")[0] == 0
    assert run("delete", "chat:2")[0] == 0
    assert registry.list_versions("chat") == [1, 3, 4]
