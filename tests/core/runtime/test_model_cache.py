import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight.contracts.manifest import Manifest, ManifestFile
from pilotlight.errors import DoesNotFitError, LoadingError
from pilotlight.registry.registry import build_manifest
from pilotlight.runtime.model_cache import LoadedModel, ModelCache
from pilotlight.runtime.session import open_session
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
