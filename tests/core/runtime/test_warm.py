import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight.contracts import File, Manifest
from pilotlight.errors import DoesNotFitError
from pilotlight.registry import complete
from pilotlight.runtime.session import open_session
from pilotlight.runtime.warm import WarmModel, WarmModels
from tests import fakes

SESSION = open_session(str(fakes.MODELS / "double.onnx"))


def of_size(name: str, size: int) -> Manifest:
    return complete(fakes.draft(name), (File("model.onnx", size, "0" * 64),))


def keep(warm: WarmModels, name: str, size: int) -> None:
    manifest = of_size(name, size)
    warm.make_room(manifest)
    warm.put(WarmModel(manifest, SESSION, size))


def test_the_least_recently_used_goes_first() -> None:
    warm = WarmModels(100)
    keep(warm, "a", 40)
    keep(warm, "b", 40)
    assert warm.get(("a", 1)) is not None
    keep(warm, "c", 40)
    assert warm.keys() == [("a", 1), ("c", 1)]
    assert warm.get(("b", 1)) is None


def test_a_model_that_can_never_fit_closes_none() -> None:
    warm = WarmModels(100)
    keep(warm, "a", 100)
    with pytest.raises(DoesNotFitError, match="big:1 takes 101 bytes and models may take 100, half of"):
        keep(warm, "big", 101)
    assert warm.keys() == [("a", 1)]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 100))))
def test_the_budget_holds_whatever_comes(models: list[tuple[str, int]]) -> None:
    warm = WarmModels(100)
    for name, size in models:
        if warm.get((name, 1)) is None:
            keep(warm, name, size)
        assert warm.bytes <= warm.budget
        assert warm.keys()[-1] == (name, 1)
