import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pilotlight.contracts.manifest import (
    CostPoint,
    GenerationCost,
    GenerationSpeed,
    Manifest,
    ManifestFile,
    RequestCost,
)
from pilotlight.contracts.names import ModelReference
from pilotlight.errors import DoesNotFitError, LoadingError
from pilotlight.registry.registry import Registry, build_manifest
from pilotlight.runtime import malloc
from pilotlight.runtime.model_cache import SESSION_OVERHEAD_BYTES, LoadedModel, ModelCache
from pilotlight.runtime.model_manager import ModelManager
from pilotlight.runtime.session import open_session
from pilotlight.storage.object_store import open_store
from tests import fakes

SESSION = open_session(str(fakes.MODELS / "double.onnx"))


def of_size(name: str, size: int) -> Manifest:
    return build_manifest(fakes.draft(name), (ManifestFile("model.onnx", size, "0" * 64),))


def keep(warm: ModelCache, name: str, size: int) -> None:
    manifest = of_size(name, size)
    warm.reserve_room(manifest)
    warm.put(LoadedModel(manifest, SESSION, size))


def test_the_least_recently_used_goes_first() -> None:
    warm = ModelCache(100)
    keep(warm, "a", 40)
    keep(warm, "b", 40)
    assert warm.get(("a", 1)) is not None
    keep(warm, "c", 40)
    assert warm.keys() == [("a", 1), ("c", 1)]
    assert warm.get(("b", 1)) is None


def test_a_model_that_can_never_fit_closes_none() -> None:
    warm = ModelCache(100)
    keep(warm, "a", 100)
    with pytest.raises(DoesNotFitError, match="big:1 takes 101 bytes and models may take 100, half of"):
        keep(warm, "big", 101)
    assert warm.keys() == [("a", 1)]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 100))))
def test_the_budget_holds_whatever_comes(models: list[tuple[str, int]]) -> None:
    warm = ModelCache(100)
    for name, size in models:
        if warm.get((name, 1)) is None:
            keep(warm, name, size)
        assert warm.used_bytes <= warm.budget_bytes
        assert warm.keys()[-1] == (name, 1)


def test_a_language_model_counts_for_what_was_measured_when_it_was_published() -> None:
    speeds = (GenerationSpeed(1, 100.0, 10.0),)
    cost = GenerationCost(prompt_tokens=8, first_token_ms=1.0, session_bytes=70, working_bytes=9, speeds=speeds)
    manifest = replace(of_size("chat", 30), generation_cost=cost)
    assert ModelCache(100).estimate_size(manifest) == 70
    assert ModelCache(60).estimate_size(manifest) == 60  # it may be open alone


def test_room_is_held_while_a_model_is_opened() -> None:
    warm = ModelCache(100)
    coming = of_size("a", 60)
    warm.reserve_room(coming)
    assert warm.used_bytes == 60
    with pytest.raises(
        LoadingError, match="b:1 takes 60 bytes, and 60 of 100 are held for models that are being opened"
    ):
        warm.reserve_room(of_size("b", 60))
    warm.release_room(("a", 1))
    warm.reserve_room(of_size("b", 60))


def test_two_fit_beside_each_other_or_not() -> None:
    warm = ModelCache(100)
    keep(warm, "a", 60)
    keep(warm, "other", 40)
    assert warm.can_fit_beside(of_size("a", 40), ("a", 1))  # the other one goes
    assert not warm.can_fit_beside(of_size("a", 41), ("a", 1))


def test_a_refusal_says_how_much_memory_it_takes() -> None:
    warm = ModelCache(884_500_000)
    with pytest.raises(
        DoesNotFitError, match=r"half of the function's 1,769 MB; raise MemorySize .* to 2,000 MB or more"
    ):
        warm.reserve_room(of_size("big", 1_000_000_000))


def test_a_small_model_counts_for_its_session() -> None:
    warm = ModelCache(1_000_000, overhead_bytes=100_000)
    for name in "abcdefghijkl":
        manifest = of_size(name, 80)
        warm.reserve_room(manifest)
        warm.put(LoadedModel(manifest, SESSION, warm.compute_size(manifest, 120_000)))
    assert warm.keys() == [(name, 1) for name in "efghijkl"]
    assert warm.used_bytes == 960_000


def test_what_was_measured_counts_if_it_is_plausible() -> None:
    warm, small = ModelCache(10_000_000, overhead_bytes=100_000), of_size("a", 80)
    assert warm.compute_size(small, 0) == 100_080
    assert warm.compute_size(small, 500_000) == 500_000
    assert warm.compute_size(small, 900_000_000) == 100_080  # a request has allocated meanwhile
    measured = replace(small, request_cost=RequestCost((CostPoint(1, 4, 1.0, 4, 4),), 700_000))
    assert warm.estimate_size(measured) == 700_000
    larger = replace(small, request_cost=RequestCost((CostPoint(1, 4, 1.0, 4, 4),), 10**9))
    assert warm.estimate_size(larger) == 10**7  # its file fits, so it may be open alone


def test_many_small_models_stay_within_the_budget() -> None:
    store = open_store("memory://")
    registry = Registry(store)
    for number in range(150):
        fakes.publish(registry, f"small-{number}")
    budget = 6_000_000
    warm = ModelCache(budget, SESSION_OVERHEAD_BYTES)
    manager = ModelManager(registry, warm, memory_mb=1769, alias_seconds=10)
    before = malloc.count_allocated_bytes()
    for number in range(150):
        manager.get_model(ModelReference(f"small-{number}", 1))
    assert budget / SESSION_OVERHEAD_BYTES * 0.8 < len(warm.keys()) <= budget / SESSION_OVERHEAD_BYTES
    assert malloc.count_allocated_bytes() - before < budget
