"""What answers when stores fail, files rot and aliases move."""

from collections.abc import Callable
from contextlib import suppress

import msgspec
import numpy as np
import pytest

from pilotlight.contracts.alias import AliasDocument
from pilotlight.contracts.codec import encode_document, format_utc_now
from pilotlight.contracts.manifest import TensorSpec
from pilotlight.contracts.names import ModelReference
from pilotlight.contracts.processing import TextPreprocessing
from pilotlight.errors import (
    BrokenDocumentError,
    DoesNotFitError,
    ModelRefusedError,
    NotFoundError,
    StoreError,
    SuspendedError,
)
from pilotlight.registry import retention
from pilotlight.registry.registry import Registry, alias_path
from pilotlight.runtime.model_cache import LoadedModel, ModelCache
from pilotlight.runtime.model_loader import REFUSED_SECONDS
from pilotlight.runtime.model_manager import ModelManager
from tests import fakes

CHAMPION = ModelReference("double")


class Rig:
    """A catalog over a store that can be made to fail, and a clock that can be moved."""

    def __init__(self, budget: int = 10_000) -> None:
        self.store, self.clock = fakes.FaultyStore(), fakes.Clock()
        self.registry = Registry(self.store)
        self.warm = ModelCache(budget)
        self.catalog = self.environment()

    def environment(self) -> ModelManager:
        return ModelManager(self.registry, self.warm, memory_mb=1769, alias_seconds=10, clock=self.clock)

    def promote(self, version: int) -> None:
        self.registry.move_alias("double", "champion", version, actor="test", reason="test")
        self.clock.tick(10)

    def settled(self) -> LoadedModel:
        """What answers once the look that this request sets off has ended."""
        self.catalog.get_model(CHAMPION)
        self.catalog.wait_for_background()
        return self.catalog.get_model(CHAMPION)


@pytest.fixture
def rig() -> Rig:
    rig = Rig()
    fakes.publish(rig.registry, of="double")
    return rig


def answer(model: LoadedModel) -> float:
    (result,) = model.session.run({"x": np.full((1, 3), 3, np.float32)}).values()
    return float(result[0, 0])


def truncate(data: bytes) -> bytes:
    return data[:-1]


def flip(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def lengthen(data: bytes) -> bytes:
    return data + b"\0"


@pytest.mark.parametrize("way", ["get_model", "resolve_manifest"])
def test_a_version_that_is_deleted_is_gone_as_soon_as_a_move_would_be_seen(rig: Rig, way: str) -> None:
    fakes.publish(rig.registry, of="square")
    named, ask = ModelReference("double", 2), getattr(rig.catalog, way)
    ask(named)
    rig.store.delete("models/double/aliases/candidate.json")  # which needs it
    retention.delete_version(rig.registry, "double", 2)
    rig.clock.tick(9)
    ask(named)
    rig.catalog.wait_for_background()
    ask(named)  # nobody has looked yet
    rig.clock.tick(1)
    with suppress(NotFoundError):  # it sets off the look, which may be faster
        ask(named)
    rig.catalog.wait_for_background()
    with pytest.raises(NotFoundError, match="has no version 2"):
        ask(named)
    assert rig.warm.get(("double", 2)) is None
    assert answer(rig.catalog.get_model(CHAMPION)) == 6


def test_a_store_that_is_away_takes_no_version_from_its_callers(rig: Rig) -> None:
    named = ModelReference("double", 1)
    rig.catalog.get_model(named)
    rig.store.fail("manifest.json")
    for _ in range(3):
        rig.clock.tick(10)
        assert answer(rig.catalog.get_model(named)) == 6
        rig.catalog.wait_for_background()


def test_a_model_is_fetched_once(rig: Rig) -> None:
    assert answer(rig.catalog.get_model(CHAMPION)) == 6
    reads = len(rig.store.reads)
    assert answer(rig.catalog.get_model(CHAMPION)) == 6
    assert len(rig.store.reads) == reads


def test_an_alias_is_read_again_after_its_time(rig: Rig) -> None:
    fakes.publish(rig.registry, of="square")
    rig.catalog.get_model(CHAMPION)
    rig.registry.move_alias("double", "champion", 2, actor="test", reason="test")
    rig.clock.tick(9.9)
    assert answer(rig.settled()) == 6
    rig.clock.tick(0.1)
    assert answer(rig.settled()) == 9


@pytest.mark.parametrize("rot", [truncate, flip, lengthen, lambda _: b""])
def test_a_rotten_file_is_refused_and_the_old_version_answers(rig: Rig, rot: Callable[[bytes], bytes]) -> None:
    fakes.publish(rig.registry, of="square")
    rig.catalog.get_model(CHAMPION)
    rig.store.bend("versions/2/model.onnx", rot)
    rig.promote(2)
    model = rig.settled()
    assert (model.manifest.version, answer(model)) == (1, 6)
    with pytest.raises(ModelRefusedError, match=r"double:2 is refused: model\.onnx holds .* not the manifest's"):
        rig.catalog.get_model(ModelReference("double", 2))


def test_a_cold_environment_falls_back_to_the_previous_version(rig: Rig) -> None:
    fakes.publish(rig.registry, of="square")
    rig.promote(2)
    rig.store.bend("versions/2/model.onnx", flip)
    assert answer(rig.environment().get_model(CHAMPION)) == 6


def test_a_refused_version_is_not_fetched_again_at_once(rig: Rig) -> None:
    rig.store.bend("model.onnx", flip)
    for _ in range(3):
        with pytest.raises(ModelRefusedError):
            rig.catalog.get_model(CHAMPION)
    assert sum("model.onnx" in path for path in rig.store.reads) == 1
    rig.store.heal()
    rig.clock.tick(REFUSED_SECONDS)
    assert answer(rig.catalog.get_model(CHAMPION)) == 6


def test_refusals_are_counted(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    rig.store.bend("model.onnx", flip)
    with pytest.raises(ModelRefusedError):
        rig.catalog.get_model(CHAMPION)
    printed = capsys.readouterr().out
    assert '"ModelRefused"' in printed
    assert '"model":"double"' in printed


def test_a_missing_file_is_a_refusal(rig: Rig) -> None:
    def gone(_: bytes) -> bytes:
        raise NotFoundError("nothing there")

    rig.store.bend("model.onnx", gone)
    with pytest.raises(ModelRefusedError, match=r"model\.onnx is missing from the store"):
        rig.catalog.get_model(CHAMPION)


def test_a_store_that_is_away_does_not_stop_what_is_warm(rig: Rig) -> None:
    rig.catalog.get_model(CHAMPION)
    rig.store.fail("models/")
    rig.clock.tick(1000)
    assert answer(rig.catalog.get_model(CHAMPION)) == 6


def test_a_store_that_is_away_at_the_start_is_said(rig: Rig) -> None:
    rig.store.fail("models/")
    with pytest.raises(StoreError, match="connection refused"):
        rig.catalog.get_model(CHAMPION)


def test_a_store_that_fails_at_a_new_version_keeps_the_old(rig: Rig) -> None:
    fakes.publish(rig.registry, of="square")
    rig.catalog.get_model(CHAMPION)
    rig.promote(2)
    rig.store.fail("versions/2/")
    assert answer(rig.settled()) == 6
    rig.store.heal()
    assert answer(rig.settled()) == 6
    rig.clock.tick(10)
    assert answer(rig.settled()) == 9


def test_an_alias_that_points_to_nothing_keeps_the_old(rig: Rig) -> None:
    rig.catalog.get_model(CHAMPION)
    rig.store.put(
        alias_path("double", "champion"), encode_document(AliasDocument(9, None, "vandal", format_utc_now(), "by hand"))
    )
    rig.clock.tick(10)
    assert answer(rig.settled()) == 6


def test_garbage_for_an_alias_keeps_the_old(rig: Rig) -> None:
    rig.catalog.get_model(CHAMPION)
    rig.store.put(alias_path("double", "champion"), b"{")
    rig.clock.tick(10)
    assert answer(rig.settled()) == 6


def test_garbage_for_an_alias_is_not_the_callers_fault(rig: Rig) -> None:
    rig.store.put(alias_path("double", "champion"), b"{")
    with pytest.raises(BrokenDocumentError, match=r"champion\.json is not a AliasDocument"):
        rig.catalog.get_model(CHAMPION)


def test_a_graph_that_breaks_its_promise_is_refused(rig: Rig) -> None:
    rig.registry.publish_version(fakes.draft("liar"), {"model.onnx": fakes.graph("pair")})
    with pytest.raises(ModelRefusedError, match=r"liar:1 is refused: the graph's inputs are .*'left'.* promises"):
        rig.catalog.get_model(ModelReference("liar"))


def test_a_file_that_is_no_graph_is_refused(rig: Rig) -> None:
    rig.registry.publish_version(fakes.draft("garbage"), {"model.onnx": b"not a graph"})
    with pytest.raises(ModelRefusedError, match="cannot open the graph"):
        rig.catalog.get_model(ModelReference("garbage"))


def test_a_model_that_does_not_fit_is_not_fetched() -> None:
    rig = Rig(budget=10)
    fakes.publish(rig.registry)
    with pytest.raises(DoesNotFitError, match="takes 86 bytes and models may take 10"):
        rig.catalog.get_model(CHAMPION)
    assert not [path for path in rig.store.reads if path.endswith(".onnx")]


def test_metadata_opens_no_model(rig: Rig) -> None:
    assert rig.catalog.resolve_manifest(CHAMPION).version == 1
    assert rig.catalog.resolve_manifest(ModelReference("double", 1)).version == 1
    assert rig.warm.keys() == []
    assert not [path for path in rig.store.reads if path.endswith(".onnx")]


def test_unknown_references_are_not_found(rig: Rig) -> None:
    for reference in (
        ModelReference("nothing"),
        ModelReference("double", 7),
        ModelReference("double", None, "staging"),
    ):
        with pytest.raises(NotFoundError):
            rig.catalog.get_model(reference)


def test_a_suspended_alias_is_noticed_after_its_time_and_its_version_still_answers_by_number(rig: Rig) -> None:
    rig.catalog.get_model(CHAMPION)
    rig.registry.suspend_alias("double", "champion", actor="ann", reason="drifts")
    rig.catalog.get_model(CHAMPION)
    rig.clock.tick(10)
    rig.catalog.resolve_manifest(CHAMPION)  # looks again, beside the request
    rig.catalog.wait_for_background()
    with pytest.raises(SuspendedError, match=r"double@champion is unloaded since .*Z: drifts"):
        rig.catalog.get_model(CHAMPION)
    assert answer(rig.catalog.get_model(ModelReference("double", 1))) == 6
    assert rig.catalog.resolve_manifest(CHAMPION).version == 1
    rig.registry.resume_alias("double", "champion", actor="ann", reason="mended")
    rig.clock.tick(10)
    rig.catalog.resolve_manifest(CHAMPION)
    rig.catalog.wait_for_background()
    assert answer(rig.catalog.get_model(CHAMPION)) == 6


@pytest.mark.parametrize("change", [truncate, flip, lengthen])
def test_a_tokenizer_that_rots_is_refused_as_a_graph_is(rig: Rig, change: Callable[[bytes], bytes]) -> None:
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = tuple(TensorSpec(name, "INT64", ("batch", "tokens")) for name in names)
    state = TensorSpec("last_hidden_state", "FP32", ("batch", "tokens", 2))
    draft = msgspec.structs.replace(
        fakes.draft("texts", inputs, (state, TensorSpec("mask", "INT64", ("batch", "tokens")))),
        task="text",
        preprocess=TextPreprocessing(),
    )
    files = {"model.onnx": fakes.graph("tokens"), "tokenizer.json": b"{}"}
    rig.registry.publish_version(draft, files)
    rig.store.bend("tokenizer.json", change)
    with pytest.raises(ModelRefusedError, match=r"texts:1 is refused: tokenizer.json holds"):
        rig.catalog.get_model(ModelReference("texts"))
    rig.store.heal()
    rig.clock.tick(REFUSED_SECONDS)
    model = rig.catalog.get_model(ModelReference("texts"))
    assert model.assets.get_or_parse("tokenizer.json", bytes.decode) == "{}"
