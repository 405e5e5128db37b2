"""SnapStart and provisioned concurrency, with the hooks that AWS's runtime client would call."""

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from functions.predict.snapstart import SnapStartHooks
from functions.predict.v2_endpoints import V2Endpoints
from pilotlight.api.model_statistics import ModelStatistics
from pilotlight.api.router import Router
from pilotlight.contracts.names import ModelReference
from pilotlight.errors import ModelRefusedError
from pilotlight.inference import InferenceService
from pilotlight.registry.registry import Registry
from pilotlight.runtime.inference_deadline import DeadlineRunner
from pilotlight.runtime.model_manager import ModelManager
from pilotlight.runtime.snapshot_hooks import PROVISIONED, SNAP_START
from pilotlight.settings import Settings
from pilotlight.storage.object_store import open_store
from tests import fakes

hooks = pytest.importorskip("snapshot_restore_py", reason="Lambda's python has it, and awslambdaric brings it")
DIGITS = ModelReference("digits")


class Environment:
    """A handler over a store on disk, as it is before the snapshot."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = open_store(str(folder))
        self.registry = Registry(self.store)
        fakes.publish_digits(self.registry)
        self.catalog = ModelManager.from_settings(Settings(store=str(folder)), self.store)
        self.asked: list[str] = []
        self.router = Router(V2Endpoints(InferenceService(self.catalog, ModelStatistics(), DeadlineRunner())).routes())

    def handle(self, event: Mapping[str, Any], context: object) -> dict[str, Any]:
        answer = self.router(event, context)
        self.asked.append(str(answer["statusCode"]))
        return answer

    def snapshot(self, *references: ModelReference) -> SnapStartHooks:
        return SnapStartHooks(self.handle, self.catalog, references, lambda: open_store(str(self.folder)))


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    for registry in ("_before_snapshot_registry", "_after_restore_registry"):
        monkeypatch.setattr(hooks, registry, [])
    return Environment(tmp_path / "store")


def run(registered: list[tuple[Callable[..., object], tuple[object, ...], dict[str, object]]]) -> None:
    """As awslambdaric's hook runner does it."""
    for hook, arguments, options in registered:
        hook(*arguments, **options)


def test_an_ordinary_start_opens_nothing(environment: Environment) -> None:
    environment.snapshot(DIGITS).install("on-demand")
    assert hooks.get_before_snapshot() == hooks.get_after_restore() == []
    assert environment.catalog.model_cache.keys() == []


def test_provisioned_concurrency_opens_and_primes_at_once(environment: Environment) -> None:
    environment.snapshot(DIGITS).install(PROVISIONED)
    assert environment.catalog.model_cache.keys() == [("digits", 1)]
    assert environment.asked == ["200"]


def test_before_the_snapshot_the_golden_request_is_answered(environment: Environment) -> None:
    environment.snapshot(DIGITS).install(SNAP_START)
    assert environment.catalog.model_cache.keys() == []
    run(hooks.get_before_snapshot())
    assert environment.catalog.model_cache.keys() == [("digits", 1)]
    assert environment.asked == ["200"]


def test_after_the_restore_aliases_are_read_anew(environment: Environment) -> None:
    environment.snapshot(DIGITS).install(SNAP_START)
    run(hooks.get_before_snapshot())
    fakes.publish_digits(environment.registry)
    environment.registry.move_alias("digits", "champion", 2, actor="test", reason="test")
    store = environment.catalog.registry.store
    run(hooks.get_after_restore())
    assert environment.catalog.registry.store is not store
    assert environment.catalog.get_model(DIGITS).manifest.version == 2


def test_restored_environments_draw_other_random_numbers(environment: Environment) -> None:
    snapshot = environment.snapshot()
    state, drawn = random.getstate(), set()
    for _ in range(3):
        random.setstate(state)
        snapshot.restore_environment()
        drawn.add(random.random())  # noqa: S311 - what a library might use for jitter
    assert len(drawn) == 3


def test_a_model_that_is_refused_does_not_stop_the_start(
    environment: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    environment.store.put("models/digits/versions/1/model.int8.onnx", b"rot")
    environment.snapshot(ModelReference("nothing"), DIGITS).install(PROVISIONED)
    assert "nothing@champion is not primed: There is no model 'nothing'" in caplog.text
    assert "digits@champion is not primed: digits:1 is refused" in caplog.text
    with pytest.raises(ModelRefusedError):
        environment.catalog.get_model(DIGITS)


def test_a_model_without_golden_requests_is_opened_all_the_same(environment: Environment) -> None:
    fakes.publish(environment.registry)
    environment.snapshot(ModelReference("double")).prime_models()
    assert environment.catalog.model_cache.keys() == [("double", 1)]
    assert environment.asked == []
