"""What a training leaves for later: a profile within its policy, of the training set and of answers to the others."""

from pathlib import Path

import pytest

from functions.train import feature_profile
from functions.train.data.load import load_splits
from functions.train.data.split import Splits
from functions.train.pipeline import run_recipe
from pilotlight.contracts.capture_policy import CapturePolicy
from pilotlight.contracts.codec import decode_document
from pilotlight.contracts.feature_profile import FeatureProfile, NumericHistogram
from pilotlight.drift.histograms import build_histogram
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.schema import load_recipe
from pilotlight.registry.registry import Registry, version_path
from pilotlight.storage.object_store import ObjectStore, open_store
from tests.functions.train.conftest import Finished, silence

SHORT = ("epochs=20", "folds=null")


def profile(store: ObjectStore, name: str, version: int = 1) -> FeatureProfile:
    return decode_document(store.get(version_path(name, version, "profile.json")).data, FeatureProfile, name)


def trained(*changes: str) -> ObjectStore:
    store = open_store("memory://")
    run_recipe(load_recipe("wine", [*SHORT, *changes]), store, silence())
    return store


@pytest.fixture(scope="module")
def wine() -> ObjectStore:
    return trained()


@pytest.fixture(scope="module")
def parts() -> Splits:
    return load_splits(load_recipe("wine").data)


def test_a_tables_profile_is_of_its_training_set(wine: ObjectStore, parts: Splits) -> None:
    found = profile(wine, "wine")
    assert Registry(wine).load_manifest("wine", 1).profile == "profile.json"
    assert (found.examples, found.answered) == (len(parts.train), len(parts.validation) + len(parts.test))
    assert tuple(found.features) == parts.train.features
    for place, name in enumerate(parts.train.features):
        assert found.features[name] == build_histogram(parts.train.inputs[:, place])
    assert set(found.answers) == {"class", "probability"}


def test_it_is_small(wine: ObjectStore) -> None:
    assert len(wine.get(version_path("wine", 1, "profile.json")).data) < 16_000


def test_what_is_masked_is_not_in_the_profile_either() -> None:
    store = trained("capture={mask: {alcohol: drop, hue: hash, probability: drop}}")
    found = profile(store, "wine")
    assert {"alcohol", "hue"} & set(found.features) == set()
    assert Registry(store).load_manifest("wine", 1).capture == CapturePolicy(
        mask={"alcohol": "drop", "hue": "hash", "probability": "drop"}
    )
    assert set(found.answers) == set()  # who drops the probability drops the answer, of which the class is a part


def test_a_mask_of_no_column_is_refused_before_anything_is_trained() -> None:
    with pytest.raises(
        InvalidInputError, match=r"capture masks \['alcool'\], but its fields are \['alcalinity_of_ash'"
    ):
        trained("capture.mask.alcool=drop")


def test_a_recipes_words_are_checked() -> None:
    with pytest.raises(InvalidInputError, match=r"capture\.mask is \"burn\"; it must be 'keep', 'hash' or 'drop'"):
        load_recipe("wine", ["capture.mask.alcohol=burn"])
    with pytest.raises(InvalidInputError, match="capture takes keep, mask, others"):
        load_recipe("wine", ["capture.kep=off"])


def test_an_images_profile_is_a_summary(tiny: Finished) -> None:
    found = profile(tiny.store, "tiny")
    assert set(found.features) == {f"image {word}" for word in ("mean", "spread", "least", "most", "roughness")}
    assert set(found.answers) == {"class", "score"}


def test_a_regressions_profile_has_its_numbers() -> None:
    store = open_store("memory://")
    run_recipe(load_recipe("diabetes", SHORT), store, silence())
    assert isinstance(profile(store, "diabetes").answers["prediction"], NumericHistogram)


def test_a_large_set_is_told_by_some_of_it(
    tiny: Finished, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = tmp_path / "model.onnx"
    graph.write_bytes(tiny.file("model.fp32.onnx"))
    monkeypatch.setattr(feature_profile, "EXAMPLES", 100)
    monkeypatch.setattr(feature_profile, "ANSWERED", 50)
    found = feature_profile.profile_splits(tiny.outcome.manifest, splits, graph)
    assert (found.examples, found.answered) == (100, 50)
